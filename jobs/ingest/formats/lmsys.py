"""`lmsys`: rows of LMSYS-Chat-1M (arXiv 2309.11998), one conversation with a hosted model each.

    {"conversation_id": "c1", "model": "vicuna-13b", "conversation": [{"role": "user", "content": "Hello"}]}

They name no user and have no time.
"""

from collections.abc import Iterator

from jobs.ingest.fields import all_chat_turns, archive_id, named
from jobs.ingest.format import Format, Origin, holds, skips
from jobs.ingest.times import SESSION_TIMES


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The session of one row."""
    yield (
        item,
        {
            "user_id": origin.user_id,
            "session_id": archive_id(item.get("conversation_id")),
            "session_time": named(item, SESSION_TIMES),
            "turns": all_chat_turns(item.get("conversation")),
        },
    )


def _matches(item: dict) -> bool:
    is_row = "conversation_id" in item and skips(item, "conversation_hash", "hashed_ip")
    return is_row and holds(item.get("conversation"), "role")


FORMAT = Format(
    name="lmsys",
    what="a row of LMSYS-Chat-1M",
    fields=("conversation_id", "conversation", "model"),
    matches=_matches,
    read=read_sessions,
)
