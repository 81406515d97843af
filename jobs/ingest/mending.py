"""A session as a format's reader gives it becomes an archive row; what is odd is mended and noted.

A reader gives a dict like an archive row, but `session_time` and the turns' `time` are the fields that may
hold it (see jobs.ingest.fields.named). Optional: `updated`, fields that say when the session was last written
to, and `notes`, what the reader itself had to mend.
"""

import datetime as dt
from dataclasses import dataclass

from jobs.ingest.times import first_time
from schemas.archive import (
    EMPTY_TURN,
    MAX_SESSION_TURNS,
    UNKNOWN_TIME,
    Note,
    mend_session,
)

PART_NAMES = {"image_url": "image", "input_image": "image", "input_audio": "audio", "video_url": "video"}
"""What other systems call the kinds of a message's parts."""

NOT_SAID = (
    "thinking",
    "redacted_thinking",
    "reasoning",
    "token_budget",
    "tool_use",
    "tool_call",
    "function_call",
)
"""Parts that carry the model's notes and calls, or the program's, instead of words."""


class EmptyChat(Exception):
    """Nothing was said in this session: it is left out, and is no error."""


@dataclass(frozen=True)
class Mended:
    """A good session of the input."""

    row: dict
    """Of ARCHIVE_SCHEMA."""
    notes: list[tuple[Note, object]]
    """What was mended, and the part that it is about."""
    updated_s: float | None
    """When it was last written to by its own times, in seconds since 1970."""


def mended(session: dict, now: dt.datetime) -> Mended:
    """The archive row and more. Raises InvalidSession, and EmptyChat where nothing was said.

    Turns without text are dropped: no turn index is in use before the archive exists.
    """
    notes: list[tuple[Note, object]] = [(note, "") for note in session.get("notes", ())]
    turns = session.get("turns")
    if turns == []:
        raise EmptyChat
    time = _time("", session.get("session_time"), now, notes)
    if isinstance(turns, list) and len(turns) <= MAX_SESSION_TURNS:
        kept = [(index, turn) for index, turn in enumerate(turns) if not _is_empty(turn)]
        if not kept:
            raise EmptyChat
        notes += [
            (Note(EMPTY_TURN, f"turns[{index}]: empty turn dropped"), turn)
            for index, turn in enumerate(turns)
            if _is_empty(turn)
        ]
        turns = [
            turn | {"time": _time(f"turns[{index}].", turn.get("time"), now, notes)}
            if isinstance(turn, dict)
            else turn
            for index, turn in kept
        ]
    row, mends = mend_session(session | {"session_time": time, "turns": turns}, now)
    updated, _ = first_time(session.get("updated") or {}, tuple(session.get("updated") or ()), now)
    times = [updated, row["session_time"], *(turn["time"] for turn in row["turns"])]
    updated_s = max((time.timestamp() for time in times if time), default=None)
    return Mended(row, [*notes, *((note, "") for note in mends)], updated_s)


def part_texts(parts: list) -> str:
    """The texts of a message's parts, a line each."""
    return "\n".join(text for text in map(part_text, parts) if text.strip())


def part_text(part: object) -> str:
    """The text of a part, or its kind in brackets: [image], [system_error]. Nothing for null."""
    if part is None or isinstance(part, str):
        return part or ""
    if not isinstance(part, dict):
        return str(part) if isinstance(part, int | float) else "[attachment]"
    for name in ("text", "refusal", "transcript"):
        text = part.get(name)
        text = text.get("value") if isinstance(text, dict) else text
        if isinstance(text, str):
            return text
    kind = part.get("type") or part.get("content_type")
    kind = kind if isinstance(kind, str) else "attachment"
    if kind in NOT_SAID or kind.endswith("text"):
        return ""
    return f"[{PART_NAMES.get(kind, kind).removesuffix('_asset_pointer')}]"


def _time(where: str, fields: dict | None, now: dt.datetime, notes: list) -> dt.datetime | None:
    fields = fields or {}
    time, problem = first_time(fields, tuple(fields), now)
    if problem:
        notes.append((Note(UNKNOWN_TIME, where + problem), fields))
    return time


def _is_empty(turn: object) -> bool:
    """Whether nothing was said in a turn. One that has no content field at all stays, to be judged: if all
    are like that, their text stands under another name."""
    if turn is None:
        return True
    if not isinstance(turn, dict) or "content" not in turn:
        return False
    content = turn["content"]
    return content is None or (isinstance(content, str) and not content.strip())
