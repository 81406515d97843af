"""`longmemeval`: questions of LongMemEval (arXiv 2410.10813), each with the history it is asked of.

Each question's haystack is one user, named by question_id. The questions themselves are for evaluation and
do not enter the archive, nor does `has_answer`.
"""

import datetime as dt
from collections.abc import Iterable, Iterator

from jobs.ingest.fields import archive_id, archive_role, archive_turns
from jobs.ingest.format import Format, Origin
from jobs.ingest.times import first_time
from schemas.archive import InvalidSession

LISTS = ("haystack_session_ids", "haystack_dates", "haystack_sessions")


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict | InvalidSession]]:
    """The sessions of one question, oldest first. Raises InvalidSession if it cannot be read."""
    for name in LISTS:
        if not isinstance(item.get(name), list):
            kind = type(item.get(name)).__name__
            raise InvalidSession(f"{name}: must be a list, not {kind}; check --format")
    lengths = [len(item[name]) for name in LISTS]
    if len(set(lengths)) != 1:
        raise InvalidSession(f"{', '.join(LISTS)}: have {lengths} entries; they must have the same number")
    question_id, dated = item.get("question_id"), []
    for session_id, date, turns in zip(*(item[name] for name in LISTS), strict=True):
        source = {"question_id": question_id, "session_id": session_id, "date": date, "turns": turns}
        dated.append((_time(date), archive_id(session_id), source))
    dated.sort(key=lambda entry: entry[0])
    names = _Names(session_id for _, session_id, _ in dated)
    for _, session_id, source in dated:
        yield (
            source,
            {
                "user_id": archive_id(question_id),
                "session_id": names.unique(session_id),
                "session_time": {"haystack_dates": source["date"]},
                "turns": archive_turns(source["turns"], _archive_turn),
            },
        )


class _Names:
    """Gives a session id that is twice in a haystack the suffix #2, #3 and so on, by date."""

    def __init__(self, session_ids: Iterable[object]) -> None:
        self.taken = {session_id for session_id in session_ids if isinstance(session_id, str)}
        self.used: set[str] = set()

    def unique(self, session_id: object) -> object:
        if not isinstance(session_id, str):
            return session_id
        name, number = session_id, 1
        while name in self.used or (number > 1 and name in self.taken):
            number += 1
            name = f"{session_id}#{number}"
        self.used.add(name)
        return name


def _archive_turn(index: int, turn: dict) -> dict:
    result = {"role": archive_role(turn.get("role"))}
    if "content" in turn:
        result["content"] = turn["content"]
    return result


def _time(date: object) -> dt.datetime:
    """For the order; a session without a date comes last."""
    time, _ = first_time({"date": date}, ("date",), dt.datetime.now(dt.UTC))
    return time or dt.datetime.max.replace(tzinfo=dt.UTC)


FORMAT = Format(
    name="longmemeval",
    what="a question of LongMemEval",
    fields=("question_id", "haystack_sessions"),
    matches=lambda item: "haystack_sessions" in item,
    read=read_sessions,
    names_users=True,
)
