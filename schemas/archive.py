"""The conversation archive: Parquet files, one row per session.

`jobs.ingest` and `jobs.sample` write it, `jobs.backfill` reads it. Row groups are the unit of work of
every later stage, because Parquet row groups are never split: keep them at ROW_GROUP_SESSIONS sessions.
"""

import datetime as dt
from dataclasses import dataclass

import pyarrow as pa

ROW_GROUP_SESSIONS = 64
"""Sessions per row group. One worker holds one row group in memory."""

TURN_TYPE = pa.struct(
    [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
        pa.field("speaker", pa.string()),
        pa.field("time", pa.timestamp("us", tz="UTC")),
    ]
)

ARCHIVE_SCHEMA = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("conversation_id", pa.string()),
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("session_time", pa.timestamp("us", tz="UTC")),
        pa.field("turns", pa.list_(pa.field("item", TURN_TYPE, nullable=False)), nullable=False),
    ]
)

ROLES = ("user", "assistant", "system", "tool")
"""Turn roles. What other systems call `human`, `gpt` and the like is mapped to these at ingest."""

MAX_SESSION_TURNS = 50_000
"""A session of more turns is refused: it is a whole history that nobody has split."""

MAX_TURN_CHARS = 1_000_000
"""A longer turn is a pasted file: it is cut to this length, mark included."""

EARLIEST = dt.datetime(1990, 1, 1, tzinfo=dt.UTC)
MAX_AHEAD = dt.timedelta(days=1)
"""A time before EARLIEST or further ahead than this is a broken clock's, and counts as unknown."""

EMPTY = "[empty]"
"""Stands for a turn without text, so that the turns behind it keep their numbers."""

UNKNOWN_TIME, UNKNOWN_ROLE, EMPTY_TURN = "unknown_time", "unknown_role", "empty_turn"
CUT_TURN, BROKEN_TEXT, ODD_SPEAKER = "cut_turn", "broken_text", "odd_speaker"
ODD_TREE, EMPTY_CHAT = "odd_tree", "empty_chat"


class InvalidSession(ValueError):
    """A session that cannot become memory. The message names the field, the value and the remedy."""


@dataclass(frozen=True)
class Note:
    """One odd part of a session that was mended; the session is kept."""

    kind: str
    """One of the names above."""
    reason: str
    """Field, value, and what became of it."""


def is_plausible(time: dt.datetime, now: dt.datetime) -> bool:
    """Whether somebody can have chatted at that time."""
    return EARLIEST <= time <= now + MAX_AHEAD


def check_session(row: dict, now: dt.datetime | None = None) -> dict:
    """`mend_session`, without its notes."""
    return mend_session(row, now)[0]


def mend_session(row: dict, now: dt.datetime | None = None) -> tuple[dict, list[Note]]:
    """Return `row` as an archive row, and what had to be mended in it. Raises InvalidSession.

    Accepts what a Parquet or JSON reader yields for ARCHIVE_SCHEMA: missing nullable fields are filled with
    None, naive times are taken as UTC. A session without a time takes that of its first turn that has one;
    times that are not plausible count as unknown. One odd turn does not cost the session: it is mended and
    keeps its place, because every evidence reference relies on the turn indexes. A session of which no turn
    can be used as it is, is refused: more than one part is wrong with it.
    """
    now = now or dt.datetime.now(dt.UTC)
    for name in ("user_id", "session_id"):
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            raise InvalidSession(f"{name}={_short(value)}: must be a non-empty string; {_remedy(name)}")
        _check_encodes(name, value)
    conversation_id = row.get("conversation_id")
    if conversation_id is not None and not isinstance(conversation_id, str):
        raise InvalidSession(f"conversation_id={_short(conversation_id)}: must be a string or null")
    _check_encodes("conversation_id", conversation_id)
    given = row.get("turns")
    if not isinstance(given, list) or not given:
        raise InvalidSession(f"turns={_short(given)}: must be a non-empty list of turns")
    if len(given) > MAX_SESSION_TURNS:
        raise InvalidSession(
            f"turns: {len(given)}, more than {MAX_SESSION_TURNS}; split the session at ingest"
        )
    notes: list[Note] = []
    session_time = _time("session_time", row.get("session_time"), now, notes)
    turns, problems = [], []
    for index, turn in enumerate(given):
        problem = _turn_problem(f"turns[{index}]", turn)
        problems += [problem.reason] if problem else []
        notes += [problem] if problem else []
        turns.append(_turn(f"turns[{index}]", turn, now, notes))
    if len(problems) == len(turns):
        raise InvalidSession(problems[0])
    return {
        "user_id": row["user_id"],
        "conversation_id": conversation_id,
        "session_id": row["session_id"],
        "session_time": session_time or next((turn["time"] for turn in turns if turn["time"]), None),
        "turns": turns,
    }, notes


def who(turn: dict) -> str:
    """Who said a turn, for people to read."""
    return turn["speaker"] or turn["role"]


def spoken(turn: dict) -> str:
    """A turn as embedders read it: behind its speaker's name, where it has one. In a dialogue of two people
    questions ask by name, and hardly any turn names who speaks."""
    return f"{turn['speaker']}: {turn['content']}" if turn.get("speaker") else turn["content"]


def _turn_problem(where: str, turn: object) -> Note | None:
    """What keeps a turn from being used as what somebody said."""
    if not isinstance(turn, dict):
        kind = UNKNOWN_ROLE if isinstance(turn, str) else EMPTY_TURN
        return Note(kind, f"{where}={_short(turn)}: must be an object with role and content")
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        return Note(UNKNOWN_ROLE, f"{where}.role={_short(role)}: must be one of {', '.join(ROLES)}")
    if not isinstance(content, str) or not content.strip():
        return Note(
            EMPTY_TURN, f"{where}.content={_short(content)}: must be text; drop empty turns at the source"
        )
    return None


def _turn(where: str, turn: object, now: dt.datetime, notes: list[Note]) -> dict:
    """A turn of the archive, whatever is odd about it. An unknown role is nobody's word: `tool`."""
    given = turn if isinstance(turn, dict) else {"content": turn}
    role, speaker = given.get("role"), given.get("speaker")
    if speaker is not None and not isinstance(speaker, str):
        notes.append(Note(ODD_SPEAKER, f"{where}.speaker={_short(speaker)}: must be a string or null"))
        speaker = None
    if role not in ROLES:
        speaker = speaker or (role if isinstance(role, str) and role.strip() else None)
        role = "tool"
    return {
        "role": role,
        "content": _content(where, given.get("content"), notes),
        "speaker": None if speaker is None else _encodable(f"{where}.speaker", speaker, notes),
        "time": _time(f"{where}.time", given.get("time"), now, notes),
    }


def _content(where: str, content: object, notes: list[Note]) -> str:
    if not isinstance(content, str) or not content.strip():
        return EMPTY
    content = _encodable(f"{where}.content", content, notes)
    if len(content) <= MAX_TURN_CHARS:
        return content
    reason = f"{where}.content: {len(content)} characters, more than {MAX_TURN_CHARS}; cut there"
    notes.append(Note(CUT_TURN, reason))
    mark = f"\n[cut: the first part of {len(content)} characters]"
    kept = content[: MAX_TURN_CHARS - len(mark)]
    # At white space where there is some: half a secret would pass every later redaction.
    head, _, tail = kept.rpartition("\n") if "\n" in kept[-1000:] else kept.rpartition(" ")
    return (head if head and len(tail) < 1000 else kept) + mark


def _time(where: str, value: object, now: dt.datetime, notes: list[Note]) -> dt.datetime | None:
    if value is None:
        return None
    if not isinstance(value, dt.datetime):
        raise InvalidSession(f"{where}={_short(value)}: must be a timestamp or null")
    try:
        time = value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
    except OverflowError:
        time = None
    if time is None or not is_plausible(time, now):
        reason = f"{where}={value}: before 1990 or more than a day ahead of now; it counts as unknown"
        notes.append(Note(UNKNOWN_TIME, reason))
        return None
    return time


def _encodable(where: str, text: str, notes: list[Note]) -> str:
    """The text with a mark for what no UTF-8 has: half of a surrogate pair, of a text that was cut."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        reason = f"{where}: lone surrogate at {error.start}; U+FFFD stands in its place"
        notes.append(Note(BROKEN_TEXT, reason))
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _remedy(name: str) -> str:
    return (
        "name the user with --user-id of jobs.ingest"
        if name == "user_id"
        else "name the session in the input"
    )


def _check_encodes(where: str, text: str | None) -> None:
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise InvalidSession(f"{where}: lone surrogate at {error.start}; re-encode as UTF-8") from None


def _short(value: object) -> str:
    if isinstance(value, str | bytes | list | dict) and len(value) > 80:
        unit = "characters" if isinstance(value, str) else "items"
        return f"({type(value).__name__} of {len(value)} {unit})"
    try:
        text = repr(value)
    except RecursionError:
        text = f"({type(value).__name__}, nested too deeply to show)"
    # A long value is named, not quoted: the half of a secret would pass every later redaction.
    return text if len(text) <= 80 else f"({type(value).__name__} of {len(text)} characters)"
