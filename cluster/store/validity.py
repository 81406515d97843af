"""When memories held: from which day, to which, and what took their place. Pure: rows in, periods out.

A record holds from `t_valid_from`, or from the day of its session where nobody said since when. It ends with
its own `t_valid_to`, and where a decision closed it, with the beginning of the memory that replaced it.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

ENDED_BY_DECISION = ("delete", "update")
"""Values of `closed_reason` of what was true and is no longer, or was put into other words."""

SAME_MATTER = 0.05
"""How much less similar to a replaced memory than its replacement another memory may be, and still count as
the one that came between the two."""


@dataclass(frozen=True)
class Period:
    """Days on which a revision of a record held. `until` is the first day on which it no longer does."""

    since: dt.date | None = None
    until: dt.date | None = None
    replaced_by: str | None = None
    """Record that took its place; its own id where another revision did."""


def periods(rows: Iterable[dict], decisions: Iterable[dict]) -> dict[tuple[str, int], Period]:
    """(record id, revision) -> Period of each of `rows`, rows of the table `records` with their vectors.

    `decisions` are the decisions on them; the rows must include the records that these name as sources. If
    one run decided a chain of three values, its decisions say that the last value replaced both others; here
    each value ends where the next one begins.
    """
    rows = list(rows)
    known = _by_id(rows)
    applied = [row for row in decisions if row["outcome"] == "applied" and row["action"] in ENDED_BY_DECISION]
    by_target = {(row["target_id"], row["action"]): row for row in applied}
    by_id = {row["decision_id"]: row for row in applied}
    found = {}
    for row in rows:
        own = _day((row.get("temporal") or {}).get("t_valid_to"))
        since, until, replaced_by = _since(row, by_id, known), own, None
        decision = by_target.get((row["record_id"], row.get("closed_reason")))
        if not row["active"] and decision:
            newer = [known[name] for name in decision["source_ids"] if name in known]
            if row["closed_reason"] == "update":
                replaced_by, until = row["record_id"], max(map(_start, newer), default=None, key=_or_first)
            elif newer:
                replacement = max(newer, key=lambda other: _likeness(row, other))
                replaced_by, until = replacement["record_id"], _start(replacement)
            else:
                replaced_by = next(iter(decision["source_ids"]), row["record_id"])
        found[_key(row)] = Period(since, until, replaced_by)
    return _chained(rows, known, found)


def holds(period: Period, day: dt.date, *, is_event: bool) -> bool:
    """Whether a record with this period was true on a day. An event stays true after its day."""
    if period.since and period.since > day:
        return False
    is_over = bool(period.until and period.until <= day and period.since != day)
    return not is_over or (is_event and not period.replaced_by)


def _chained(rows: list[dict], known: dict[str, dict], found: dict) -> dict[tuple[str, int], Period]:
    """Shorter periods where one memory replaced several: each then ends where the next one about the same
    thing begins."""
    together: dict[str, list[dict]] = {}
    for row in rows:
        name = found[_key(row)].replaced_by
        if name in known and name != row["record_id"]:
            together.setdefault(name, []).append(row)
    chained = dict(found)
    for name, replaced in together.items():
        replaced.sort(key=lambda row: _or_first(found[_key(row)].since))
        for place, row in enumerate(replaced):
            period, enough = found[_key(row)], _likeness(row, known[name]) - SAME_MATTER
            for other in replaced[place + 1 :]:
                since = found[_key(other)].since
                is_between = bool(since and period.until and _or_first(period.since) < since < period.until)
                if is_between and other["record_id"] != row["record_id"] and _likeness(row, other) >= enough:
                    chained[_key(row)] = Period(period.since, since, other["record_id"])
                    break
    return chained


def _key(row: dict) -> tuple[str, int]:
    return row["record_id"], row["revision"]


def _by_id(rows: list[dict]) -> dict[str, dict]:
    """The newest row that there is of each record."""
    found: dict[str, dict] = {}
    for row in rows:
        if row["record_id"] not in found or found[row["record_id"]]["revision"] < row["revision"]:
            found[row["record_id"]] = row
    return found


def _since(row: dict, by_id: dict[str, dict], known: dict[str, dict]) -> dt.date | None:
    """First day of a record. A text that a decision wrote holds from the day of its newest source."""
    decision = by_id.get(row.get("decision_id") or "")
    if decision and decision["action"] == "update":
        starts = [_start(known[name]) for name in decision["source_ids"] if name in known]
        return max(starts, default=None, key=_or_first) or _start(row)
    return _start(row)


def _start(row: dict) -> dt.date | None:
    said = row["session_time"].date() if row.get("session_time") else None
    return _day((row.get("temporal") or {}).get("t_valid_from")) or said


def _day(text: str | None) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text) if text else None
    except ValueError:
        return None


def _or_first(day: dt.date | None) -> dt.date:
    return day or dt.date.min


def _likeness(row: dict, other: dict) -> float:
    if row.get("vector") is None or other.get("vector") is None:
        return 0.0
    return float(np.dot(row["vector"], other["vector"]))
