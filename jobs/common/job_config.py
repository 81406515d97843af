"""The config of a job: the base of its class, and how one is made of a TOML file and of options.

An option wins over the file, and the file over the default. Each value that is wrong is named in one line.
"""

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from cluster.runtime import StorageConfig, hide_secrets, log
from jobs.common.options import Others, Parser, add_options, default_of, elsewhere, nearest, table_kind
from jobs.common.streams import refuse
from schemas.settings import Settings


class JobConfig(Settings):
    """Base of every job's config: frozen, unknown keys refused, defaults validated too."""

    model_config = ConfigDict(validate_default=True, allow_inf_nan=False)

    default_file: ClassVar[Path | None] = None
    """TOML file that is read when --config names none."""

    storage: StorageConfig = StorageConfig()


def _check_local(folder: str) -> str:
    if "://" in folder:
        raise ValueError("must be a local folder; copy it to where it belongs")
    return folder


LocalFolder = Annotated[str, AfterValidator(_check_local)]
"""A folder that is written, or read, by libraries without object stores."""


@dataclass(frozen=True)
class Shared:
    """What every job takes beside its own settings."""

    log_format: log.LogFormat = "text"
    metrics: Path | None = None


def parse_config(
    config_class: type[JobConfig],
    doc: str,
    argv: list[str],
    command: str | None = None,
    others: Others | None = None,
) -> JobConfig:
    """Build the config from `--config` and options. Exits 2 with one line for each wrong value."""
    return parse(config_class, doc, argv, command, others)[0]


def parse(
    config_class: type[JobConfig],
    doc: str,
    argv: list[str],
    command: str | None = None,
    others: Others | None = None,
) -> tuple[JobConfig, Shared]:
    """The same, with what every job takes."""
    given = vars(_parser(config_class, doc, command, others).parse_args(argv))
    values = _read(path) if (path := given.pop("config")) else {}
    shared = _shared(given.pop("log_format"), given.pop("metrics"), values)
    for name, value in given.items():
        _override(values, name, value, config_class)
    try:
        return config_class.model_validate(values), shared
    except ValidationError as error:
        explained = [_explain(config_class, item, others) for item in error.errors()]
        one = len(explained) == 1
        refuse(explained[0] if one else "\n  ".join(["wrong settings:", *explained]))


def _parser(config_class: type[JobConfig], doc: str, command: str | None, others: Others | None) -> Parser:
    prog = f"python -m {command or module_name(config_class)}"
    parser = Parser(prog=prog, usage=f"{prog} [OPTIONS]", description=doc, epilog=ENDING)
    parser.others = others
    default_file = config_class.default_file
    shown = f" (default: {default_file.relative_to(Path(__file__).parents[2])})" if default_file else ""
    help = f"read settings from a TOML file; options win over it{shown}"
    parser.add_argument("--config", metavar="FILE.toml", default=default_file, help=help)
    add_options(parser, config_class)
    told = parser.add_argument_group("what it tells")
    help = "lines on stderr: text for people, or json, one object a line (default: text)"
    told.add_argument("--log-format", choices=log.FORMATS, help=help)
    help = "when the job ends, write metrics for Prometheus into this file ([metrics] prometheus_file)"
    told.add_argument("--metrics", metavar="FILE", help=help)
    return parser


ENDING = """A switch that the file turns on is turned off by --no-NAME.
Exit codes: 0 done; 1 failed, interrupted, nothing found or unhealthy; 2 wrong usage.
            3 another job writes where this one would.
Last line of stdout: the summary as JSON, {"status": "done", ...}; none after wrong usage."""


def _read(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        refuse(f"--config {path}: {error}; it must be a readable TOML file")


def _shared(log_format: str | None, path: str | None, values: dict[str, Any]) -> Shared:
    """What every job takes, of options and file; taken out of the file's settings."""
    in_file, table = values.pop("log_format", "text"), values.pop("metrics", {})
    log_format = log_format or in_file
    if log_format not in log.FORMATS:
        refuse(f"log_format={log_format!r}: must be one of {', '.join(log.FORMATS)}")
    if not isinstance(table, dict) or table.keys() - {"prometheus_file"}:
        refuse(f"[metrics]: {table!r}: has one setting, prometheus_file; leave others out")
    path = path or table.get("prometheus_file")
    if path is None:
        return Shared(log_format)
    if not isinstance(path, str) or not path or "://" in path or not Path(path).absolute().parent.is_dir():
        refuse(f"--metrics {path}: must be a file in a local folder that is there; make the folder")
    return Shared(log_format, Path(path).absolute())


def _override(values: dict, name: str, value: object, kind: type[BaseModel], default: Any = None) -> None:
    """Set one setting. Of its table everything else stays as the file has it, or, where the file has no such
    table, as the default has it."""
    first, _, rest = name.partition(".")
    if not rest:
        values[first] = value
        return
    default = None if first in values else default_of(kind, first, default)
    unset = default.model_dump(exclude_unset=True) if isinstance(default, BaseModel) else {}
    if isinstance(table := values.setdefault(first, unset), dict):  # else the file is refused
        _override(table, rest, value, table_kind(kind, first), default)


def _explain(config_class: type[BaseModel], item: ErrorDetails, others: Others | None) -> str:
    name = ".".join(str(part) for part in item["loc"])
    said = item["msg"].removeprefix("Value error, ")
    if not name:
        return said
    if item["type"] == "missing":
        ways = [f"pass --{name.replace('_', '-')}", "set it in the config file"]
        return f"{name}: not given; {' or '.join(ways if '.' not in name else ways[::-1])}"
    if item["type"] == "extra_forbidden":
        if len(item["loc"]) == 1 and (hint := elsewhere(name, others)):
            return f"{name}={_shown(name, item)}: no setting of this command{hint}"
        for part in item["loc"][:-1]:
            config_class = table_kind(config_class, str(part))
        known = config_class.model_fields
        hint = nearest(str(item["loc"][-1]), known)
        return f"{name}={_shown(name, item)}: no such setting; known settings: {', '.join(known)}{hint}"
    return f"{name}={_shown(name, item)}: {said}"


_SECRET_SETTING = re.compile(
    r"env_vars|storage\.credentials|(?:^|[._])[A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|KEY)$|(?:api_key|_token|_secret|password)$"
)


def _shown(name: str, item: ErrorDetails) -> str:
    """The value that was given, unless it is a secret or may be one."""
    return "**********" if _SECRET_SETTING.search(name) else hide_secrets(repr(item["input"]))


def module_name(config_class: type) -> str:
    """`jobs.JOB` of the job that runs."""
    # The config of a job that is a folder may stand in another module than the one that runs.
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    running = spec.name if spec is not None else ""
    name = running if running.startswith("jobs.") else config_class.__module__
    return name.removesuffix(".__main__")
