"""What every `python -m jobs.NAME` shares: options from a config class, progress, summary, exit codes.

A job is a frozen pydantic config, a `run(config) -> dict` and two lines of main:

    if __name__ == "__main__":
        main(IngestConfig, run, __doc__)

Every plain field of the config becomes an option (`num_sessions` -> `--num-sessions`); fields that are
tables of their own are set in the TOML file that `--config` names. An option given wins over the file.
stderr carries progress, the last line of stdout is the summary as JSON, also where the job fails or is ended
by Ctrl-C or SIGTERM.
Exit codes: 0 done; 1 failed, ended by Ctrl-C or SIGTERM, or nothing found; 2 wrong usage. A process that was
killed has the code that its killer gives it (137 after kill -9); see jobs.common.ending for its last line.
"""

import argparse
import datetime as dt
import json
import os
import re
import sys
import time
import tomllib
import traceback
import types
import typing
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.runtime import hide_secrets, hide_variables
from jobs.common.ending import AGAIN, Interrupted, raise_on_sigterm, watcher
from jobs.common.terminal import harmless


class JobConfig(BaseModel):
    """Base of every job's config: frozen, unknown keys refused, defaults validated too."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    default_file: typing.ClassVar[Path | None] = None
    """TOML file that is read when --config names none."""


class JobError(Exception):
    """A failure the user can act on. The message names the field, the value and the remedy."""


class UsageError(JobError):
    """Wrong usage: an option or a config value that cannot work. Exit code 2."""


def main(
    config_class: type[JobConfig],
    run: Callable[..., dict],
    doc: str,
    argv: list[str] | None = None,
    command: str | None = None,
) -> None:
    """Parse, run, print the summary as the last line of stdout, exit. `command` is for jobs with several."""
    config = parse_config(config_class, doc, sys.argv[1:] if argv is None else argv, command)
    reserve_stdout()
    raise_on_sigterm()
    watcher.run_id = None
    if _own_stdout:
        watcher.speak_on(_own_stdout.fileno())
    try:
        try:
            summary = _run(run, config, doc)
        finally:
            watcher.done()
        show(json.dumps(summary, default=str))
    except UsageError as error:
        say(f"error: {error}")
        sys.exit(2)
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; Python must not complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _answers().fileno())
        sys.exit(1)
    sys.exit(1 if summary.get("status") in FAILURES else 0)


FAILURES = ("failed", "nothing_found")
"""Statuses of a summary after which the exit code is 1."""


def _run(run: Callable[..., dict], config: JobConfig, doc: str) -> dict:
    """The summary, also of a job that fails."""
    try:
        return run(config)
    except (UsageError, BrokenPipeError):
        raise
    except KeyboardInterrupt as caught:
        by = " by SIGTERM" if isinstance(caught, Interrupted) else ""
        error = JobError(f"interrupted{by}; {AGAIN}")
    except Exception as caught:
        error = caught
        if not isinstance(error, JobError):
            say(traceback.format_exc().rstrip())
            job = doc.strip().split("\n")[0]
            say(f"error: unexpected failure in: {job}")
    say(f"error: {error}")
    return {"status": "failed", "error": hide_secrets(str(error))} | (
        {"run_id": watcher.run_id} if watcher.run_id else {}
    )


def reserve_stdout() -> None:
    """From now on only `show` writes to stdout. What others print there (Ray, native code, daemons that
    outlive the job) goes to stderr: the summary must be the last line, and a pipe must end with the job."""
    global _own_stdout
    sys.stdout.flush()
    _own_stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)
    os.dup2(2, 1)


_own_stdout: typing.TextIO | None = None


def _answers() -> typing.TextIO:
    return _own_stdout or sys.stdout


def show(text: str) -> None:
    """One or more lines of what the user asked for, on stdout."""
    # What somebody said in a chat, with its URLs, was redacted when it was stored.
    print(harmless(hide_variables(text)), file=_answers(), flush=True)


def parse_config(
    config_class: type[JobConfig], doc: str, argv: list[str], command: str | None = None
) -> JobConfig:
    """Build the config from `--config` and options. Exits 2 with one line for each wrong value."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {command or _module_name(config_class)}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    default_file = config_class.default_file
    shown = f" (default: {default_file.relative_to(Path(__file__).parents[2])})" if default_file else ""
    parser.add_argument(
        "--config",
        metavar="FILE.toml",
        default=default_file,
        help=f"read settings from a TOML file; options win over it{shown}",
    )
    for name, field in config_class.model_fields.items():
        kind = _option_kind(field.annotation)
        if kind is None:
            continue
        default = (
            "required" if field.is_required() else f"default: {field.get_default(call_default_factory=True)}"
        )
        options = {
            "dest": name,
            "default": argparse.SUPPRESS,
            "help": _oneline(f"{field.description or ''} ({default})"),
        }
        flags = [f"--{name.replace('_', '-')}"]
        if field.json_schema_extra and "short" in field.json_schema_extra:
            flags.insert(0, field.json_schema_extra["short"])
        if kind == "flag":
            parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **options)
        elif kind == "list":
            parser.add_argument(*flags, nargs="+", metavar=name.upper(), **options)
        else:
            metavar = "{" + ",".join(kind) + "}" if isinstance(kind, tuple) else name.upper()
            parser.add_argument(*flags, metavar=metavar, **options)
    given = vars(parser.parse_args(argv))
    values = {}
    if path := given.pop("config", None):
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            parser.error(f"--config {path}: {error}; it must be a readable TOML file")
    try:
        return config_class.model_validate(values | given)
    except ValidationError as error:
        parser.error(
            "\n".join(["wrong settings:"] + [_explain(config_class, item) for item in error.errors()])
        )


def _explain(config_class: type[BaseModel], item: dict) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if not name:
        return f"  {item['msg']}"
    if item["type"] == "missing":
        option = "" if len(item["loc"]) > 1 else f"pass --{name.replace('_', '-')} or "
        return f"  {name}: not given; {option}set it in the config file"
    if item["type"] == "extra_forbidden":
        for part in item["loc"][:-1]:
            config_class = config_class.model_fields[part].annotation
        known = ", ".join(config_class.model_fields)
        return f"  {name}={_shown(name, item)}: no such setting; known settings: {known}"
    return f"  {name}={_shown(name, item)}: {item['msg']}"


_SECRET_SETTING = re.compile(
    r"env_vars|(?:^|[._])[A-Z0-9_]*(?:TOKEN|SECRET|PASSWORD|KEY)$|(?:api_key|_token|_secret|password)$"
)


def _shown(name: str, item: dict) -> str:
    """The value that was given, unless it is a secret or may be one."""
    return "**********" if _SECRET_SETTING.search(name) else hide_secrets(repr(item["input"]))


def _option_kind(annotation) -> str | tuple | None:
    """ "flag", "list", "value", a tuple of choices, or None when the field has no option."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [_option_kind(part) for part in typing.get_args(annotation) if part is not type(None)]
        return kinds[0] if kinds else None
    if typing.get_origin(annotation) is typing.Literal:
        return tuple(str(choice) for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) in (list, tuple):
        return "list"
    if annotation is bool:
        return "flag"
    if isinstance(annotation, type) and issubclass(annotation, str | int | float | Path | dt.date):
        return "value"
    return None


def _oneline(text: str) -> str:
    return " ".join(text.split()).replace("%", "%%")


def _module_name(config_class: type) -> str:
    # The config of a job that is a folder may stand in another module than the one that runs.
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    is_job = spec is not None and spec.name.startswith("jobs.")
    return (spec.name if is_job else config_class.__module__).removesuffix(".__main__")


class Progress:
    """Counts on stderr, at most once every `every_s` seconds; with a total, also the time left."""

    def __init__(self, label: str, unit: str, total: int | None = None, every_s: float = 2.0):
        self.label, self.unit, self.total, self.every_s = label, unit, total, every_s
        self.started_s = self.printed_s = time.monotonic()
        self.done = 0

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` more units done; `note` is shown behind the counts."""
        self.done += count
        now_s = time.monotonic()
        if now_s - self.printed_s >= self.every_s or self.done == self.total:
            self.printed_s = now_s
            print(self._line(now_s - self.started_s, note), file=sys.stderr, flush=True)

    def _line(self, elapsed_s: float, note: str) -> str:
        rate = self.done / elapsed_s if elapsed_s > 0 else 0.0
        of_total = f" of {self.total:,}" if self.total is not None else ""
        left = (
            f", {duration((self.total - self.done) / rate)} left"
            if self.total and rate and self.done < self.total
            else ""
        )
        note = f", {note}" if note else ""
        return f"[{self.label}] {self.done:,}{of_total} {self.unit}, {rate:.1f}/s{left}{note}"


def duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 07 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"


def say(message: str) -> None:
    """One line of progress on stderr."""
    print(harmless(hide_secrets(message)), file=sys.stderr, flush=True)
