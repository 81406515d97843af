"""`lychee`: the sessions of a LycheeMem server: `sessions.db`, or answers to `/memory/session/ID`.

    {"session_id": "s1", "turn_count": 1,
     "turns": [{"role": "user", "content": "Hello", "created_at": "2024-05-01 09:00:00"}]}

jobs.common.lychee reads the database. Turns keep their numbers, which the server's memories name: one without
text stands as [empty]. What the server put into a summary, and marks as deleted, was said and is kept; its
summaries are left out.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, archive_role, archive_turns, named
from jobs.ingest.format import Format, Origin, holds
from schemas.archive import EMPTY


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The session of one item. Raises InvalidSession."""
    session_id = archive_id(item.get("session_id"))
    session = {"user_id": origin.user_id, "conversation_id": None, "session_id": session_id}
    yield item, session | {"turns": archive_turns(item.get("turns"), _archive_turn)}


def _archive_turn(index: int, turn: dict) -> dict:
    kept = {"role": archive_role(turn.get("role")), "time": named(turn, ("created_at",))}
    if "content" not in turn:
        return kept
    content = turn["content"]
    is_empty = content is None or (isinstance(content, str) and not content.strip())
    return kept | {"content": EMPTY if is_empty else content}


FORMAT = Format(
    name="lychee",
    what="a session of a LycheeMem server",
    fields=("session_id", "turns", "turn_count"),
    matches=lambda item: {"session_id", "turn_count"} <= item.keys() and holds(item.get("turns"), "role"),
    read=read_sessions,
)
