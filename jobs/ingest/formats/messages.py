"""`messages`: one session an item, in the chat format that OpenAI and Hugging Face datasets share.

    {"user_id": "u1", "session_id": "s1", "session_time": "2024-05-01T09:00:00Z",
     "messages": [{"role": "user", "content": "Hello"}]}

Optional: conversation_id; in messages `name` or `speaker`, and `time`. Times may stand under the names and
in the shapes of jobs.ingest.times. Content is text or OpenAI's list of parts. Items of OpenAI's Responses and
of LangChain stand for messages too; reasoning and calls of tools say nothing.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, archive_role, archive_turns, named
from jobs.ingest.format import Format, Origin
from jobs.ingest.mending import part_text, part_texts
from jobs.ingest.times import SESSION_TIMES, TURN_TIMES

UPDATE_TIMES = ("updated_at", "update_time", "updatedAt", "last_updated")


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The session of one item. Raises InvalidSession."""
    turns = item.get("messages")
    yield (
        item,
        {
            "user_id": archive_id(origin.user_id if item.get("user_id") is None else item["user_id"]),
            "conversation_id": archive_id(item.get("conversation_id")),
            "session_id": archive_id(item.get("session_id")),
            "session_time": named(item, SESSION_TIMES),
            "updated": named(item, UPDATE_TIMES),
            "turns": [] if "messages" in item and turns is None else archive_turns(turns, _archive_turn),
        },
    )


def _archive_turn(index: int, message: dict) -> dict:
    # LangChain keeps the message in `data` and its role in `type`.
    data = message["data"] if isinstance(message.get("data"), dict) and "role" not in message else message
    role, kind = message.get("role", data.get("role")), message.get("type")
    turn = {
        "role": archive_role(kind if role is None else role),
        "speaker": data.get("speaker") or data.get("name"),
        "time": named(data, TURN_TIMES),
    }
    if role is None and kind == "function_call_output":
        turn |= {"role": "tool", "content": _text(message.get("output"))}
    elif role is None and isinstance(kind, str) and "content" not in data:
        turn["content"] = None  # reasoning, a call, an item of another kind: no words
    # Messages that only call a tool leave content out; elsewhere a missing content is an error to report.
    elif "content" in data or "tool_calls" in data or "function_call" in data:
        turn["content"] = _text(data.get("content"))
    return turn


def _text(content: object) -> object:
    if isinstance(content, dict):
        return part_text(content)
    return part_texts(content) if isinstance(content, list) else content


def _matches(item: dict) -> bool:
    return isinstance(item.get("messages"), list) and "session_id" in item


FORMAT = Format(
    name="messages",
    what="a session of chat messages",
    fields=("session_id", "messages"),
    matches=_matches,
    read=read_sessions,
    names_users=True,
)
