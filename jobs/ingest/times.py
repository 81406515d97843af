"""Times as other systems write them: ISO 8601, RFC 2822, numbers since 1970, and what people type."""

import datetime as dt
import re

from dateutil import parser

from schemas.archive import is_plausible

SESSION_TIMES = (
    *("session_time", "created_at", "createdAt", "create_time", "created", "timestamp", "time", "date"),
    *("datetime", "started_at", "start_time", "inserted_at", "updated_at", "update_time"),
)
TURN_TIMES = (
    *("time", "timestamp", "created_at", "createdAt", "create_time", "created", "date", "datetime"),
    *("sent_at", "inserted_at", "ts", "time_stamp"),
)
"""Names of fields in the order in which they are asked; the first that has a usable time is taken."""

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE]\+?\d+)?", re.ASCII)
COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Digits that are a date and no count of seconds: 20230520."""

UNITS = ((1e11, 1), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))
"""Below each limit, a number counts these parts of a second since 1970: all times from 1973 to 5138 are told
apart by their size."""

LONGMEMEVAL = re.compile(
    r"(\d{4})/(\d{1,2})/(\d{1,2})(?: \(\w+\))?,? (\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII
)
"""2023/05/20 (Sat) 02:21. The day's name is not needed, and strptime would want it in the local language."""

MAX_CHARS = 80
"""A longer text is no time."""

_UTC = re.compile(r"\s*(?:UTC|GMT|\(UTC\)|\(Coordinated Universal Time\))$", re.IGNORECASE)
"""Left out, since a time without a zone is UTC."""
_ZONES = {"UTC": 0, "GMT": 0, "Z": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6}
_ZONES |= {"PST": -8, "PDT": -7, "CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2, "EET": 2, "EEST": 3, "JST": 9}
"""Names of zones that mean one offset; others are taken for UTC."""


def read_time(value: object) -> dt.datetime | None:
    """The time in UTC, None where none is given. ValueError for what cannot be read, or can be read two ways.

    A time without a zone is UTC.
    """
    if isinstance(value, dict) and len(value) == 1:
        ((name, inner),) = value.items()
        if name in ("$date", "$numberLong", "$numberDouble"):
            return read_time(inner)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _since_1970(float(value))
    if not isinstance(value, str) or len(value) > MAX_CHARS:
        raise ValueError(f"{type(value).__name__} is no time")
    text = value.strip()
    if not text:
        return None
    time = _number(text) if NUMBER.fullmatch(text) else _written(text)
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


def first_time(item: dict, names: tuple[str, ...], now: dt.datetime) -> tuple[dt.datetime | None, str]:
    """The first usable time of an item's fields, and "". If none is usable, None, and why the first of those
    that hold something is not."""
    problem = ""
    for name in names:
        value = item.get(name)
        try:
            time = read_time(value)
            if time is None:
                continue
            if is_plausible(time, now):
                return time, ""
            wrong = "before 1990 or more than a day ahead of now"
        except (ValueError, OverflowError, OSError, RecursionError):
            wrong = "not a time that can be read: write ISO 8601 or seconds since 1970"
        shown = repr(value)[:MAX_CHARS] if isinstance(value, str | int | float) else type(value).__name__
        problem = problem or f"{name}={shown}: {wrong}; it counts as unknown"
    return None, problem


def _since_1970(number: float) -> dt.datetime:
    for limit, parts in UNITS:
        if abs(number) < limit:
            return dt.datetime.fromtimestamp(number / parts, dt.UTC)
    raise ValueError("no time since 1970 in seconds or parts of them")


def _number(text: str) -> dt.datetime:
    try:
        time = _since_1970(float(text))
    except (ValueError, OverflowError, OSError):
        time = None
    if text.isdigit() and len(text) in COMPACT and not (time and 1990 <= time.year < 2100):
        return dt.datetime.strptime(text, COMPACT[len(text)])
    if time is None:
        raise ValueError("a number out of range")
    return time


def _written(text: str) -> dt.datetime:
    if match := LONGMEMEVAL.fullmatch(text):
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
        return dt.datetime(year, month, day, hour, minute, second)
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        pass
    if (plain := _UTC.sub("", text)) != text:
        return _written(plain)
    return _by_hand(text)


def _by_hand(text: str) -> dt.datetime:
    """What dateutil makes of it, if it names year, month and day, and in one order only."""
    readings = {
        parser.parse(text, default=default, dayfirst=day_first, tzinfos=_zone)
        for default, day_first in ((dt.datetime(2001, 1, 1), False), (dt.datetime(2004, 2, 2), True))
    }
    if len(readings) > 1:
        raise ValueError("names no day, or day and month may be confused")
    return readings.pop()


def _zone(name: str | None, offset_s: int | None) -> dt.timezone:
    hours = _ZONES.get((name or "").upper(), 0)
    return dt.timezone(dt.timedelta(seconds=hours * 3600 if offset_s is None else offset_s))
