"""A memory on its way between stores: what every export writes and every import reads, whatever the format.

Field names and types are those of the table `records`, so that what a format can hold comes back as it was.
What belongs to one store alone (runs, fingerprints, vectors) does not travel.
"""

import dataclasses
import datetime as dt
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import pyarrow as pa

from schemas.record import MAX_EXTRA_FIELDS, MAX_VALUE_CHARS, SOURCE_ROLES, cleaned, extra_of, is_type_name
from schemas.store import EVIDENCE, EXTRA, TEMPORAL, TIME

Change = Literal["added", "changed", "closed"]
CHANGES: tuple[Change, ...] = get_args(Change)

DATES = ("t_ref", "t_valid_from", "t_valid_to")

MAX_TEXT_CHARS = 4000
"""Characters of a memory's text: the most that an encoder may be allowed, see RecordLimits."""

MAX_ID_CHARS = 200

EXCHANGE_SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("user_id", pa.string()),
        ("memory_type", pa.string()),
        ("semantic_text", pa.string()),
        ("entities", pa.list_(pa.string())),
        ("temporal", TEMPORAL),
        ("tags", pa.list_(pa.string())),
        ("evidence", pa.list_(EVIDENCE)),
        ("source_role", pa.string()),
        ("conversation_id", pa.string()),
        ("session_id", pa.string()),
        ("session_time", TIME),
        ("created_at", TIME),
        ("updated_at", TIME),
        ("revision", pa.int32()),
        ("change", pa.string()),
        ("closed_reason", pa.string()),
        ("extra", EXTRA),
    ]
)
"""One row of the formats `jsonl` and `parquet`. `change` is null but in an incremental export: added |
changed | closed; `closed_reason` is that of a closed row."""


@dataclass(frozen=True)
class Memory:
    """A memory of a user. Empty strings and tuples, and None, are what nobody knows."""

    user_id: str
    semantic_text: str
    record_id: str | None = None
    """Identity; None where it comes from a format that has none."""
    memory_type: str = "fact"
    entities: tuple[str, ...] = ()
    t_ref: str = ""
    t_valid_from: str = ""
    t_valid_to: str = ""
    """Days, as YYYY-MM-DD."""
    tags: tuple[str, ...] = ()
    evidence: tuple[tuple[str, int], ...] = ()
    """(session_id, turn_index) of the turns that it rests on."""
    source_role: str = ""
    conversation_id: str | None = None
    session_id: str | None = None
    session_time: dt.datetime | None = None
    """When it was said (UTC)."""
    created_at: dt.datetime | None = None
    updated_at: dt.datetime | None = None
    """When the store that it comes from wrote its first row and this one (UTC)."""
    revision: int = 1
    active: bool = True
    change: Change | None = None
    closed_reason: str | None = None
    extra: tuple[tuple[str, str], ...] = ()
    """Values of the extra fields that its encoder's profile names, by name."""

    @property
    def identity(self) -> str:
        """`record_id` of a memory of a store, which always has one."""
        assert self.record_id is not None
        return self.record_id

    @property
    def time(self) -> dt.datetime | None:
        """When it was said, or else written: for formats with one time."""
        return self.session_time or self.created_at


class BadMemory(ValueError):
    """What is no memory. The message names the field, the value and the remedy."""


def memory_of(row: dict, *, user_id: str | None = None) -> Memory:
    """A row with columns of EXCHANGE_SCHEMA as a memory; those that are missing are unknown.

    `user_id` is whose it is where the row does not say. A type that is no name of one, a role that records do
    not have, and what can be no value of an extra field, is unknown.
    BadMemory for a row without a user or a text, and for values of a wrong kind.
    """
    user = _text(row, "user_id") or user_id or ""
    if not user.strip():
        raise BadMemory(f"user_id={user!r}: says not whose it is; give --user-id for rows that name nobody")
    text = row.get("semantic_text")
    text = cleaned(text) if isinstance(text, str) else ""
    if not text:
        raise BadMemory("semantic_text: empty; a memory needs a text")
    if len(text) > MAX_TEXT_CHARS:
        raise BadMemory(f"semantic_text: {len(text)} characters; a memory has at most {MAX_TEXT_CHARS}")
    temporal = row.get("temporal") or {}
    if not isinstance(temporal, dict):
        raise BadMemory(f"temporal={temporal!r}: must be an object with {DATES}")
    revision, record_id = row.get("revision") or 1, _text(row, "record_id")
    kind = row.get("memory_type")
    if record_id and not (len(record_id) <= MAX_ID_CHARS and record_id.isprintable()):
        raise BadMemory(f"record_id={record_id[:60]!r}: must be at most {MAX_ID_CHARS} printable characters")
    return Memory(
        user_id=user,
        semantic_text=text,
        record_id=record_id,
        memory_type=kind if is_type_name(kind) else "fact",
        entities=_texts(row, "entities"),
        t_ref=day_of(temporal.get("t_ref")),
        t_valid_from=day_of(temporal.get("t_valid_from")),
        t_valid_to=day_of(temporal.get("t_valid_to")),
        tags=_texts(row, "tags"),
        evidence=_evidence(row),
        source_role=_one_of(row, "source_role", SOURCE_ROLES, ""),
        conversation_id=_text(row, "conversation_id"),
        session_id=_text(row, "session_id"),
        session_time=_time(row, "session_time"),
        created_at=_time(row, "created_at"),
        updated_at=_time(row, "updated_at"),
        revision=revision if isinstance(revision, int) and 0 < revision < 2**31 else 1,
        change=_one_of(row, "change", CHANGES, None),
        closed_reason=_text(row, "closed_reason"),
        extra=_values(row),
    )


def row_of(memory: Memory) -> dict:
    """A memory as a row of EXCHANGE_SCHEMA."""
    row = {name: getattr(memory, name) for name in _PLAIN}
    return row | {
        "entities": list(memory.entities),
        "tags": list(memory.tags),
        "temporal": {name: getattr(memory, name) for name in DATES},
        "evidence": [{"session_id": session, "turn_index": turn} for session, turn in memory.evidence],
        "extra": dict(memory.extra) or None,
    }


_NESTED = ("entities", "tags", "temporal", "evidence", "extra")
_PLAIN = [name for name in EXCHANGE_SCHEMA.names if name not in _NESTED]


def json_row(memory: Memory) -> dict:
    """The same with times as ISO 8601, and without what is unknown."""
    row = {name: shown_time(value) for name, value in row_of(memory).items()}
    return {name: value for name, value in row.items() if value not in (None, [], "")}


def shown_time(value: object) -> object:
    """A time as ISO 8601; anything else as it is."""
    return value.isoformat() if isinstance(value, dt.datetime) else value


def time_of(value: object, name: str) -> dt.datetime | None:
    """A time, ISO 8601 or seconds (or milliseconds and so on) since 1970, in UTC; one without a zone is UTC.

    None for what is empty; BadMemory for what is no time.
    """
    if value is None or value == "":
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
            while abs(seconds) > 2e10:  # later than the year 2600: a finer unit
                seconds /= 1000
            return dt.datetime.fromtimestamp(seconds, dt.UTC)
        if isinstance(value, str | dt.date) and not isinstance(value, dt.datetime):
            value = dt.datetime.fromisoformat(str(value).strip())
        if isinstance(value, dt.datetime):
            return value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise BadMemory(f"{name}={str(value)[:60]!r}: is no time; give ISO 8601 or seconds since 1970")


def day_of(value: object) -> str:
    """A day as YYYY-MM-DD; empty if it is not a day, as records have it."""
    try:
        return dt.datetime.fromisoformat(str(value).strip()).date().isoformat() if value else ""
    except ValueError:
        return ""


def known_fields(memory: Memory) -> dict:
    """What of a memory has no field of its own in a format that has free metadata: flat, JSON, complete."""
    row = json_row(dataclasses.replace(memory, change=None, closed_reason=None))
    row |= row.pop("temporal")
    for name in ("user_id", "semantic_text", "created_at", "updated_at"):
        row.pop(name, None)
    # Explicit, because a receiver has one time, and takes another where this one is unknown.
    return {name: value for name, value in row.items() if value != ""} | {
        "session_time": shown_time(memory.session_time),
        "first_written_at": shown_time(memory.created_at),
    }


def with_known_fields(row: dict, metadata: object) -> dict:
    """A row of EXCHANGE_SCHEMA with what `known_fields` put into metadata; a foreign one's is left alone."""
    if not isinstance(metadata, dict) or not {"record_id", "session_time"} <= metadata.keys():
        return row
    fields = {name: metadata.get(name) for name in _OF_METADATA}
    temporal = {name: metadata.get(name) for name in DATES}
    return row | fields | {"temporal": temporal, "created_at": metadata.get("first_written_at")}


_OF_METADATA = [
    *("record_id", "memory_type", "entities", "tags", "evidence", "source_role"),
    *("conversation_id", "session_id", "session_time", "revision", "extra"),
]


def is_encodable(text: str) -> bool:
    """Whether a text is UTF-8, as all of a store is; half of a surrogate pair is not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(row: dict, name: str) -> str | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not is_encodable(value):
        raise BadMemory(f"{name}={str(value)[:60]!r}: must be a string")
    return value


_Known = TypeVar("_Known", bound=str)
_Default = TypeVar("_Default", bound=str | None)


def _one_of(row: dict, name: str, known: tuple[_Known, ...], default: _Default) -> _Known | _Default:
    return next((one for one in known if one == row.get(name)), default)


def _time(row: dict, name: str) -> dt.datetime | None:
    return time_of(row.get(name), name)


def _texts(row: dict, name: str) -> tuple[str, ...]:
    value = row.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadMemory(f"{name}={str(value)[:60]!r}: must be a list of strings")
    return tuple(dict.fromkeys(item for item in map(cleaned, value) if item))


def _values(row: dict) -> tuple[tuple[str, str], ...]:
    values = [one for one in extra_of(row.get("extra")).items() if len(one[1]) <= MAX_VALUE_CHARS]
    return tuple(values[:MAX_EXTRA_FIELDS])


def _evidence(row: dict) -> tuple[tuple[str, int], ...]:
    found = []
    for item in row.get("evidence") or []:
        turn = item.get("turn_index") if isinstance(item, dict) else None
        session = item.get("session_id") if isinstance(item, dict) else None
        if not (
            isinstance(session, str) and is_encodable(session) and type(turn) is int and 0 <= turn < 2**31
        ):
            raise BadMemory(f"evidence: {str(item)[:60]!r} must have session_id and turn_index")
        found.append((session, turn))
    return tuple(found)
