"""What every `python -m jobs.NAME` shares: options from a config class, progress, summary, exit codes.

A job is a frozen pydantic config, a `run(config) -> dict` and two lines of main:

    if __name__ == "__main__":
        main(IngestConfig, run, __doc__)

Every plain field of the config becomes an option (`num_sessions` -> `--num-sessions`), and of a table in it
too (`pool.max_size` -> `--pool.max-size`). `--config` names a TOML file; an option given wins over it. Fields
without a fixed shape, such as variables of the environment, are set in the file alone.
stderr carries progress, the last line of stdout is the summary as JSON, also where the job fails or is ended
by Ctrl-C or SIGTERM.
Exit codes: 0 done; 1 failed, ended by Ctrl-C or SIGTERM, nothing found, or not well; 2 wrong usage; 3 another
job writes where this one would. A process that was killed has the code that its killer gives it (137 after
kill -9); see jobs.common.ending for its last line.
"""

import argparse
import atexit
import datetime as dt
import difflib
import inspect
import json
import os
import re
import sys
import time
import tomllib
import traceback
import types
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from cluster.runtime import StorageConfig, hide_secrets, hide_variables, live, log
from cluster.runtime.entry_points import EntryPointError
from cluster.runtime.shown import harmless
from jobs.common.ending import AGAIN, Interrupted, raise_on_sigterm, watcher
from jobs.common.metrics import metrics
from schemas.manifest import RunStatus
from schemas.settings import Settings


class JobConfig(Settings):
    """Base of every job's config: frozen, unknown keys refused, defaults validated too."""

    model_config = ConfigDict(validate_default=True, allow_inf_nan=False)

    default_file: typing.ClassVar[Path | None] = None
    """TOML file that is read when --config names none."""

    storage: StorageConfig = StorageConfig()


def _check_local(folder: str) -> str:
    if "://" in folder:
        raise ValueError("must be a local folder; copy it to where it belongs")
    return folder


LocalFolder = Annotated[str, AfterValidator(_check_local)]
"""A folder that is written, or read, by libraries which know no object stores."""


class JobError(Exception):
    """A failure the user can act on. The message names the field, the value and the remedy."""


class HeldError(JobError):
    """Another job writes where this one would, and did not end in time. Exit code 3."""


class UsageError(JobError):
    """Wrong usage: an option or a config value that cannot work. Exit code 2."""


def main(
    config_class: type[JobConfig],
    run: Callable[..., dict],
    doc: str,
    argv: list[str] | None = None,
    command: str | None = None,
    others: "Others | None" = None,
) -> None:
    """Parse, run, print the summary as the last line of stdout, exit. `command` and `others` are for jobs
    with several commands, see jobs.common.commands."""
    started_s = time.monotonic()
    config, shared = _parse(config_class, doc, sys.argv[1:] if argv is None else argv, command, others)
    job = _job_name(config_class, command)
    log.configure(log.LogSettings(shared.log_format, job))
    metrics.begin(shared.metrics)
    reserve_stdout()
    raise_on_sigterm()
    if shared.log_format == "text":
        live.begin()
    watcher.run_id = None
    if _own_stdout:
        watcher.speak_on(_own_stdout.fileno())
    try:
        try:
            summary = _run(run, config, doc)
        finally:
            watcher.done()
        metrics.end(job, summary.get("status", RunStatus.DONE), since(started_s))
        show(json.dumps(summary, default=str))
    except (UsageError, EntryPointError) as error:
        metrics.end(job, RunStatus.FAILED, since(started_s))
        _refuse(str(error))
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; Python must not complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _answers().fileno())
        sys.exit(1)
    failed = 3 if summary.get("is_held") else 1
    sys.exit(failed if summary.get("status") in FAILURES else 0)


def since(started_s: float) -> float:
    """Seconds since then."""
    return round(time.monotonic() - started_s, 2)


Others = Callable[[], dict[str, type[JobConfig]]]
"""`jobs.JOB COMMAND` -> config class, of the job's other commands."""

FAILURES = (RunStatus.FAILED, RunStatus.NOTHING_FOUND, "unhealthy")
"""Statuses of a summary after which the exit code is 1, or 3 where it says `is_held`."""


def _run(run: Callable[..., dict], config: JobConfig, doc: str) -> dict:
    """The summary, also of a job that fails."""
    # Here, before anything is read: processes that the job starts, such as its watcher, inherit it.
    os.environ.update(config.storage.environment())
    try:
        try:
            return run(config)
        finally:
            # Here, so that what is said of its end stands below.
            live.end()
    except (UsageError, EntryPointError, BrokenPipeError):
        raise
    except KeyboardInterrupt as caught:
        by = " by SIGTERM" if isinstance(caught, Interrupted) else ""
        error: Exception = JobError(f"interrupted{by}; {AGAIN}")
    except Exception as caught:
        error = caught
        if not isinstance(error, JobError):
            say(traceback.format_exc().rstrip())
            job = doc.strip().split("\n")[0]
            say(f"error: unexpected failure in: {job}")
    say(f"error: {error}")
    return {
        "status": "failed",
        "error": hide_secrets(str(error)),
        **held(error),
        **({"run_id": watcher.run_id} if watcher.run_id else {}),
    }


def held(error: Exception) -> dict[str, bool]:
    """What a summary says, beside the error, of a job that met another one."""
    return {"is_held": True} if isinstance(error, HeldError) else {}


def reserve_stdout() -> None:
    """From now on only `show` writes to stdout. What others print there (Ray, native code, daemons that
    outlive the job) goes to stderr: the summary must be the last line, and a pipe must end with the job."""
    global _own_stdout
    sys.stdout.flush()
    _own_stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)
    os.dup2(2, 1)
    # Registered first, so it comes last.
    atexit.register(_say_no_more)


def _say_no_more() -> None:
    """Where vLLM was loaded in this process, triton tells of hundreds of objects that it leaves behind when
    Python is gone: nothing that whoever reads the end of a job could use."""
    if "triton" in sys.modules:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


_own_stdout: typing.TextIO | None = None


def _answers() -> typing.TextIO:
    return _own_stdout or sys.stdout


def show(text: str) -> None:
    """One or more lines of what the user asked for, on stdout."""
    live.pause()
    # What somebody said in a chat, with its URLs, was redacted when it was stored.
    print(harmless(hide_variables(text)), file=_answers(), flush=True)


def parse_config(
    config_class: type[JobConfig],
    doc: str,
    argv: list[str],
    command: str | None = None,
    others: Others | None = None,
) -> JobConfig:
    """Build the config from `--config` and options. Exits 2 with one line for each wrong value."""
    return _parse(config_class, doc, argv, command, others)[0]


@dataclass(frozen=True)
class Shared:
    """What every job takes beside its own settings."""

    log_format: log.LogFormat = "text"
    metrics: Path | None = None


def _parse(
    config_class: type[JobConfig],
    doc: str,
    argv: list[str],
    command: str | None = None,
    others: Others | None = None,
) -> tuple[JobConfig, Shared]:
    prog = f"python -m {command or _module_name(config_class)}"
    parser = Parser(prog=prog, usage=f"{prog} [OPTIONS]", description=doc, epilog=ENDING)
    parser.others = others
    default_file = config_class.default_file
    shown = f" (default: {default_file.relative_to(Path(__file__).parents[2])})" if default_file else ""
    help = f"read settings from a TOML file; options win over it{shown}"
    parser.add_argument("--config", metavar="FILE.toml", default=default_file, help=help)
    _add_options(parser, parser, config_class)
    told = parser.add_argument_group("what it tells")
    help = "lines on stderr: text for people, or json, one object a line (default: text)"
    told.add_argument("--log-format", choices=log.FORMATS, help=help)
    help = "when the job ends, write metrics for Prometheus into this file ([metrics] prometheus_file)"
    told.add_argument("--metrics", metavar="FILE", help=help)
    given = vars(parser.parse_args(argv))
    options = {name: given.pop(name, None) for name in ("log_format", "metrics")}
    values = {}
    if path := given.pop("config", None):
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            _refuse(f"--config {path}: {error}; it must be a readable TOML file")
    shared = _shared(options, values)
    for name, value in given.items():
        _override(values, name, value, config_class)
    try:
        return config_class.model_validate(values), shared
    except ValidationError as error:
        explained = [_explain(config_class, item, others) for item in error.errors()]
        _refuse("\n".join(["wrong settings:", *explained]))


def _shared(options: dict[str, Any], values: dict[str, Any]) -> Shared:
    """What of options and file is for every job; taken out of the file's settings."""
    log_format = options["log_format"] or values.get("log_format", "text")
    table = values.get("metrics", {})
    if log_format not in log.FORMATS:
        _refuse(f"log_format={log_format!r}: must be one of {', '.join(log.FORMATS)}")
    if not isinstance(table, dict) or table.keys() - {"prometheus_file"}:
        _refuse(f"[metrics]: {table!r}: has one setting, prometheus_file; leave others out")
    path = options["metrics"] or table.get("prometheus_file")
    values.pop("log_format", None)
    values.pop("metrics", None)
    if path is None:
        return Shared(log_format)
    if not isinstance(path, str) or not path or "://" in path or not Path(path).absolute().parent.is_dir():
        _refuse(f"--metrics {path}: must be a file in a local folder that is there; make the folder")
    return Shared(log_format, Path(path).absolute())


ENDING = """A switch that the file turns on is turned off by --no-NAME.
Exit codes: 0 done; 1 failed, interrupted or nothing found; 2 wrong usage.
            3 another job writes where this one would.
Last line of stdout: the summary as JSON, {"status": "done", ...}; none after wrong usage."""


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
            _elsewhere(word.lstrip("-").removeprefix("no-").replace("-", "_"), self.others)
            or _nearest(word, self._option_string_actions)
            for word in words
        )
        _refuse(message + (hints or "; see --help"))


def _refuse(message: str) -> typing.NoReturn:
    say(f"error: {message}")
    sys.exit(2)


def _nearest(name: str, known: Collection[str]) -> str:
    """The names that begin with this one, or end with it behind a table's; else those that resemble it."""
    found = [one for one in known if one.startswith(name) or one.endswith(f".{name.lstrip('-')}")]
    found = found or difflib.get_close_matches(name, known, cutoff=0.7)
    return f"; did you mean {' or '.join(found[:4])}?" if found else ""


def _elsewhere(setting: str, others: Others | None) -> str:
    """Which other commands of the job have a setting, given with or without its table's name; "" if none."""
    name = setting.partition(".")[0]
    found = [command for command, kind in (others() if others else {}).items() if name in kind.model_fields]
    return f"; {name} is for {' and '.join(found)}: leave it out, or run that" if found else ""


def _add_options(
    parser: Parser,
    section: argparse._ActionsContainer,
    kind: type[BaseModel],
    default: BaseModel | None = None,
    path: str = "",
) -> None:
    """Options for a class's plain settings, in a section of the help, then a section for each of its tables.
    `default`: the table where nobody sets it."""
    tables = {}
    for name, field in kind.model_fields.items():
        option, value = _option_kind(field.annotation), _default(kind, name, default)
        if option is None or isinstance(option, type):
            tables[path + name] = option, field, value
        else:
            _add_option(section, path + name, option, field, value)
    for name, (table, field, value) in tables.items():
        title = f"table [{name}]" + ("" if table else ", in the file alone")
        text = inspect.cleandoc(field.description or getattr(table, "__doc__", None) or "")
        section = parser.add_argument_group(title, text)
        if table:
            _add_options(parser, section, table, value, f"{name}.")


def _add_option(
    section: argparse._ActionsContainer,
    name: str,
    kind: str | tuple[str, ...],
    field: FieldInfo,
    default: object,
) -> None:
    flag = "--" + name.replace("_", "-")
    extra = field.json_schema_extra
    short = extra.get("short", flag) if isinstance(extra, dict) else flag
    flags = list(dict.fromkeys([str(short), flag]))
    shown = f" (default: {default})" if default or (default == 0 and default is not False) else ""
    shown = " (required)" if default is PydanticUndefined else shown
    help = " ".join(f"{field.description or ''}{shown}".split()).replace("%", "%%")
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


def _default(kind: type[BaseModel], name: str, table: BaseModel | None) -> Any:
    """A setting where nobody sets it: as the default of its table has it, else as its class has it."""
    if isinstance(table, BaseModel):
        return getattr(table, name)
    return kind.model_fields[name].get_default(call_default_factory=True)


def _override(values: dict, name: str, value: object, kind: type[BaseModel], default: Any = None) -> None:
    """Set one setting. Of its table everything else stays as the file has it, or, where the file has no such
    table, as the default has it."""
    first, _, rest = name.partition(".")
    if not rest:
        values[first] = value
        return
    default = None if first in values else _default(kind, first, default)
    unset = default.model_dump(exclude_unset=True) if isinstance(default, BaseModel) else {}
    if isinstance(table := values.setdefault(first, unset), dict):  # else the file is refused
        _override(table, rest, value, _table_kind(kind, first), default)


def _table_kind(kind: type[BaseModel], name: str) -> type[BaseModel]:
    """The class of a setting that is a table."""
    found = _option_kind(kind.model_fields[name].annotation)
    assert isinstance(found, type), f"{name} is no table"
    return found


def _explain(config_class: type[BaseModel], item: ErrorDetails, others: Others | None) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if not name:
        return f"  {item['msg']}"
    if item["type"] == "missing":
        ways = [f"pass --{name.replace('_', '-')}", "set it in the config file"]
        return f"  {name}: not given; {' or '.join(ways if '.' not in name else ways[::-1])}"
    if item["type"] == "extra_forbidden":
        if len(item["loc"]) == 1 and (hint := _elsewhere(name, others)):
            return f"  {name}={_shown(name, item)}: no setting of this command{hint}"
        for part in item["loc"][:-1]:
            config_class = _table_kind(config_class, str(part))
        known = config_class.model_fields
        nearest = _nearest(str(item["loc"][-1]), known)
        return f"  {name}={_shown(name, item)}: no such setting; known settings: {', '.join(known)}{nearest}"
    return f"  {name}={_shown(name, item)}: {item['msg']}"


_SECRET_SETTING = re.compile(
    r"env_vars|storage\.credentials|(?:^|[._])[A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|KEY)$|(?:api_key|_token|_secret|password)$"
)


def _shown(name: str, item: ErrorDetails) -> str:
    """The value that was given, unless it is a secret or may be one."""
    return "**********" if _SECRET_SETTING.search(name) else hide_secrets(repr(item["input"]))


_VALUES = {str: "TEXT", int: "INT", float: "FLOAT", Path: "PATH", dt.date: "DATE"}


def _option_kind(annotation: Any) -> str | tuple[str, ...] | type[BaseModel] | None:
    """ "flag", "list", what a value is, a tuple of choices; the class of a table, or None for one without."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    annotation = getattr(annotation, "__origin__", annotation) if annotation is LocalFolder else annotation
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


def _module_name(config_class: type) -> str:
    # The config of a job that is a folder may stand in another module than the one that runs.
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    running = spec.name if spec is not None else ""
    name = running if running.startswith("jobs.") else config_class.__module__
    return name.removesuffix(".__main__")


def _job_name(config_class: type, command: str | None) -> str:
    """As manifests name it: `backfill`, `distill encoder`."""
    return (command or _module_name(config_class)).removeprefix("jobs.")


def say(message: str) -> None:
    """One line of progress on stderr."""
    log.write(harmless(hide_secrets(message)))
