"""`sharegpt`: one conversation an item, as fine-tuning sets have them.

    {"id": "c1", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]}

They name no user, and mostly no time. Where id is missing, the session is named after its content.
"""

import hashlib
import json
from collections.abc import Iterator

from jobs.ingest.fields import archive_id, archive_role, archive_turns, named
from jobs.ingest.times import SESSION_TIMES, TURN_TIMES
from schemas.archive import InvalidSession


def read_sessions(item: dict, user_id: str | None) -> Iterator[tuple[object, dict]]:
    """The session of one item. Raises InvalidSession."""
    turns = item.get("conversations")
    session_id = item.get("id")
    if session_id is None:
        session_id = _content_id(turns)
    yield (
        item,
        {
            "user_id": archive_id(user_id if item.get("user_id") is None else item["user_id"]),
            "session_id": archive_id(session_id),
            "session_time": named(item, SESSION_TIMES),
            "turns": archive_turns(turns, _archive_turn),
        },
    )


def _content_id(turns: object) -> str:
    try:
        return f"sharegpt-{hashlib.sha256(json.dumps(turns).encode()).hexdigest()[:16]}"
    except RecursionError:
        raise InvalidSession("conversations: nested too deeply; must be a list of {from, value}") from None


def _archive_turn(index: int, turn: dict) -> dict:
    result = {"role": archive_role(turn.get("from")), "time": named(turn, TURN_TIMES)}
    if "value" in turn:
        result["content"] = turn["value"]
    return result
