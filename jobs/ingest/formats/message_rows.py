"""`message-rows`: one message an item, as tables of messages and logs have them.

    {"user_id": "u1", "session_id": "s1", "role": "user", "content": "Hello",
     "timestamp": "2024-05-01T09:00:00Z"}

The session may stand under `conversation_id`, `thread_id` or `chat_id`. Its rows may stand anywhere in the
input, and are put in order by their times where all have one.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, chat_turns
from jobs.ingest.format import Format, Origin, Row
from schemas.archive import InvalidSession

SESSIONS = ("session_id", "conversation_id", "thread_id", "chat_id")


def read_rows(item: dict, origin: Origin) -> Iterator[Row]:
    """The turns of one message. Raises InvalidSession for what is no message."""
    if "role" not in item or "content" not in item:
        missing = "role" if "role" not in item else "content"
        raise InvalidSession(
            f"{missing}: is missing; name the field that has it with --columns {missing}=NAME"
        )
    sessions = [archive_id(item[name]) for name in SESSIONS if item.get(name) is not None]
    conversation_id = archive_id(item.get("conversation_id"))
    yield Row(
        user_id=archive_id(origin.user_id if item.get("user_id") is None else item["user_id"]),
        conversation_id=conversation_id if isinstance(conversation_id, str) else None,
        session_id=sessions[0] if sessions else None,
        turns=chat_turns(item),
    )


def _matches(item: dict) -> bool:
    return "role" in item and "content" in item and bool(item.keys() & set(SESSIONS))


FORMAT = Format(
    name="message-rows",
    what="one message, and not a session of them",
    fields=("session_id", "role", "content"),
    matches=_matches,
    read=read_rows,
    names_users=True,
    is_rows=True,
)
