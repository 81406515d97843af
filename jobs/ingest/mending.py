"""A session as a format's reader gives it becomes an archive row; what is odd is mended and noted."""

import datetime as dt

from jobs.ingest.times import first_time
from schemas.archive import EMPTY_TURN, UNKNOWN_TIME, InvalidSession, Note, mend_session


def mended(session: dict, now: dt.datetime) -> tuple[dict, list[tuple[Note, object]]]:
    """The archive row, and notes with the part that each is about. Raises InvalidSession.

    `session_time` and the turns' `time` are the fields that may hold it (see jobs.ingest.fields.named). Turns
    without text are dropped: no turn index is in use before the archive exists.
    """
    notes: list[tuple[Note, object]] = []
    time = _time("", session.get("session_time"), now, notes)
    turns = session.get("turns")
    if isinstance(turns, list):
        kept = [(index, turn) for index, turn in enumerate(turns) if not _is_empty(turn)]
        if turns and not kept:
            raise InvalidSession("turns: none of them has text; drop the session at the source")
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
    return row, notes + [(note, "") for note in mends]


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
