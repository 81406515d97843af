"""`wildchat`: rows of WildChat (arXiv 2405.01470), one conversation with a hosted model each.

    {"conversation_hash": "9a", "hashed_ip": "22fa", "timestamp": "...", "model": "...",
     "conversation": [{"role": "user", "content": "Hello", "timestamp": null}]}

A user is a hashed address: who shares it is one user.
"""

from collections.abc import Iterator

from jobs.ingest.fields import all_chat_turns, archive_id, named
from jobs.ingest.format import Format, Origin
from jobs.ingest.times import SESSION_TIMES


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The session of one row."""
    user_id = item.get("hashed_ip") or _address(item.get("conversation")) or origin.user_id
    yield (
        item,
        {
            "user_id": archive_id(user_id),
            "session_id": archive_id(item.get("conversation_hash", item.get("conversation_id"))),
            "session_time": named(item, SESSION_TIMES),
            "turns": all_chat_turns(item.get("conversation")),
        },
    )


def _address(turns: object) -> object:
    """Older rows have it in their turns."""
    found = (
        [turn.get("hashed_ip") for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    )
    return next((address for address in found if address), None)


def _matches(item: dict) -> bool:
    has_mark = "conversation_hash" in item or "hashed_ip" in item
    return isinstance(item.get("conversation"), list) and has_mark


FORMAT = Format(
    name="wildchat",
    what="a row of WildChat",
    fields=("conversation_hash", "conversation", "hashed_ip"),
    matches=_matches,
    read=read_sessions,
    names_users=True,
)
