"""The one place that writes progress: lines on stderr, for people or, as `json`, for what collects logs.

A line may begin with its stage in brackets: `[encode] 3 of 10 segments`. As JSON that is a field of its own:

    {"time": "...", "level": "info", "job": "backfill", "stage": "encode", "done": 3, "total": 10, ...}
"""

import datetime as dt
import json
import re
import sys
from dataclasses import dataclass
from typing import Any, Literal, TextIO, get_args

LogFormat = Literal["text", "json"]
FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)

_STAGE = re.compile(r"\[([\w-]+)\] ")
_ERROR = "error: "


@dataclass(frozen=True)
class LogSettings:
    """How lines are written."""

    format: LogFormat = "text"
    job: str = ""
    """As in `jobs.JOB`, with the command where there are several."""


_settings = LogSettings()


def configure(settings: LogSettings) -> None:
    """From now on, in this process."""
    global _settings
    _settings = settings


def settings() -> LogSettings:
    """How this process writes."""
    return _settings


def write(message: str, **fields: Any) -> None:
    """One line on stderr. `fields` are what JSON says beside the message; text has them in its words."""
    _print(message, fields, sys.stderr)


def say(message: str) -> None:
    """One line on stdout, for who uses a store from Python. A job's stdout is its stderr, but for answers."""
    _print(message, {}, sys.stdout)


def _print(message: str, fields: dict[str, Any], stream: TextIO) -> None:
    text = message if _settings.format == "text" else as_json(message, fields)
    print(text, file=stream, flush=True)


def as_json(message: str, fields: dict[str, Any]) -> str:
    """The line as an object. What is not known is left out."""
    level = "error" if message.startswith(_ERROR) or message.startswith("Traceback") else "info"
    found = _STAGE.match(message)
    said = {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "job": _settings.job or None,
        "stage": found[1] if found else None,
        **fields,
        "message": message[found.end() if found else 0 :].removeprefix(_ERROR),
    }
    return json.dumps({name: value for name, value in said.items() if value is not None}, ensure_ascii=False)
