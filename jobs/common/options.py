"""Options of a job, made from its config class, and their help.

Every plain field is an option (`num_sessions` -> `--num-sessions`), and of a table in it too (`pool.max_size`
-> `--pool.max-size`). Fields without a fixed shape, such as variables of the environment, are set in the file
alone.

argparse makes them, not pydantic-settings, which splits the words of a list at their commas, fills a table
that the file has in part from its default, and takes variables of the environment on the command line, where
everybody on the machine can read them. To undo that takes about as much code as this, at a slower start.
"""

import argparse
import datetime as dt
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Collection
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from jobs.common.streams import refuse

Others = Callable[[], typing.Mapping[str, type[BaseModel]]]
"""`jobs.JOB COMMAND` -> config class, of the job's other commands."""


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and says in one line what is wrong."""

    others: Others | None = None

    def __init__(self, **options: Any) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=layout, allow_abbrev=False, **options)

    def error(self, message: str) -> typing.NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        words = [word.partition("=")[0] for word in unknown if word.startswith("--")]
        hints = "".join(
            elsewhere(word.lstrip("-").removeprefix("no-").replace("-", "_"), self.others)
            or nearest(word, self._option_string_actions)
            for word in words
        )
        refuse(message + (hints or "; see --help"))


def nearest(name: str, known: Collection[str]) -> str:
    """The names that begin with this one, or end with it behind a table's; else those that resemble it."""
    found = [one for one in known if one.startswith(name) or one.endswith(f".{name.lstrip('-')}")]
    found = found or difflib.get_close_matches(name, known, cutoff=0.7)
    return f"; did you mean {' or '.join(found[:4])}?" if found else ""


def elsewhere(setting: str, others: Others | None) -> str:
    """Which other commands of the job have a setting, given with or without its table's name; "" if none."""
    name = setting.partition(".")[0]
    found = [command for command, kind in (others() if others else {}).items() if name in kind.model_fields]
    return f"; {name} is for {' and '.join(found)}: leave it out, or run that" if found else ""


def add_options(
    parser: Parser,
    kind: type[BaseModel],
    section: argparse._ActionsContainer | None = None,
    default: BaseModel | None = None,
    path: str = "",
) -> None:
    """Options for a class's plain settings, in a section of the help, then a section for each of its tables.
    Of a table also `default`, what it is where nobody sets it, and `path`, its name with a dot."""
    tables = {}
    for name, field in kind.model_fields.items():
        option, value = option_kind(field.annotation), default_of(kind, name, default)
        if option is None or isinstance(option, type):
            tables[path + name] = option, described(kind, name), value
        else:
            _add_option(section or parser, path + name, option, field, described(kind, name), value)
    for name, (table, said, value) in tables.items():
        title = f"table [{name}]" + ("" if table else ", in the file alone")
        text = inspect.cleandoc(said or getattr(table, "__doc__", None) or "")
        group = parser.add_argument_group(title, text)
        if table:
            add_options(parser, table, group, value, f"{name}.")


def _add_option(
    section: argparse._ActionsContainer,
    name: str,
    kind: str | tuple[str, ...],
    field: FieldInfo,
    text: str,
    default: object,
) -> None:
    flag = "--" + name.replace("_", "-")
    extra = field.json_schema_extra
    short = extra.get("short", flag) if isinstance(extra, dict) else flag
    flags = list(dict.fromkeys([str(short), flag]))
    shown = f" (default: {default})" if default or (default == 0 and default is not False) else ""
    shown = " (required)" if default is PydanticUndefined else shown
    help = " ".join(f"{text}{shown}".split()).replace("%", "%%")
    settings: dict[str, typing.Any] = {"dest": name, "default": argparse.SUPPRESS, "help": help}
    if kind == "list":
        settings |= {"nargs": "+", "metavar": "TEXT"}
    elif kind != "flag":
        settings["metavar"] = kind if isinstance(kind, str) else "{" + ",".join(kind) + "}"
    elif default is True:
        settings["action"] = argparse.BooleanOptionalAction
    else:
        # The help shows what changes the default, under one name; the others work.
        hidden = settings | {"help": argparse.SUPPRESS}
        off = [f"--no-{one[2:]}" for one in flags if one.startswith("--")]
        section.add_argument(*off, action="store_false", **hidden)
        for one in flags[1:]:
            section.add_argument(one, action="store_true", **hidden)
        flags, settings["action"] = flags[:1], "store_true"
    section.add_argument(*flags, **settings)


def described(kind: type[BaseModel], name: str) -> str:
    """What a setting means: as its class says, or else the class from which it has it."""
    fields = [one.model_fields.get(name) for one in kind.__mro__ if issubclass(one, BaseModel)]
    return next((field.description for field in fields if field and field.description), "")


def default_of(kind: type[BaseModel], name: str, table: BaseModel | None) -> Any:
    """A setting where nobody sets it: as the default of its table has it, else as its class has it."""
    if isinstance(table, BaseModel):
        return getattr(table, name)
    return kind.model_fields[name].get_default(call_default_factory=True)


def table_kind(kind: type[BaseModel], name: str) -> type[BaseModel]:
    """The class of a setting that is a table."""
    found = option_kind(kind.model_fields[name].annotation)
    assert isinstance(found, type), f"{name} is no table"
    return found


_VALUES = {str: "TEXT", int: "INT", float: "FLOAT", Path: "PATH", dt.date: "DATE"}


def option_kind(annotation: Any) -> str | tuple[str, ...] | type[BaseModel] | None:
    """ "flag", "list", what a value is, a tuple of choices; the class of a table, or None for one without."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = annotation.__origin__
    if typing.get_origin(annotation) is typing.Literal:
        return tuple(str(choice) for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) in (list, tuple):
        return "list"
    if annotation is bool:
        return "flag"
    if not isinstance(annotation, type) or issubclass(annotation, BaseModel):
        return annotation if isinstance(annotation, type) else None
    if issubclass(annotation, Enum):
        return tuple(str(member.value) for member in annotation)
    return next((value for kind, value in _VALUES.items() if issubclass(annotation, kind)), None)
