"""`finetune`: chats without ids, a line each, as OpenAI's fine-tuning and Hugging Face's chat data have them.

    {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}

A session is named by the item's `id` or `prompt_id`, else after its content. Calls of tools are `tool` turns.
"""

from collections.abc import Iterator

from jobs.ingest.fields import all_chat_turns, archive_id, content_id, named
from jobs.ingest.format import Format, Origin, holds, skips
from jobs.ingest.times import SESSION_TIMES


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The session of one chat. Raises InvalidSession."""
    messages = item.get("messages")
    ids = [item[name] for name in ("id", "prompt_id") if item.get(name) is not None]
    yield (
        item,
        {
            "user_id": archive_id(origin.user_id if item.get("user_id") is None else item["user_id"]),
            "session_id": archive_id(ids[0]) if ids else content_id("finetune", messages),
            "session_time": named(item, SESSION_TIMES),
            "turns": [] if "messages" in item and messages is None else all_chat_turns(messages),
        },
    )


def _matches(item: dict) -> bool:
    return holds(item.get("messages"), "role") and skips(item, "session_id", "thread_id", "chat", "type")


FORMAT = Format(
    name="finetune",
    what="a chat without a session, as training data has it",
    fields=("messages",),
    matches=_matches,
    read=read_sessions,
)
