"""`messages`: one session an item, in the chat format that OpenAI and Hugging Face datasets share.

    {"user_id": "u1", "session_id": "s1", "session_time": "2024-05-01T09:00:00Z",
     "messages": [{"role": "user", "content": "Hello"}]}

Optional: conversation_id; in messages `name` or `speaker`, and `time`. Times may stand under the names and
in the shapes of jobs.ingest.times. Content is text or OpenAI's list of parts. Items of OpenAI's Responses and
of LangChain stand for messages too; reasoning says nothing. Calls of tools are `tool` turns.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, archive_role, call_turn, calls_of, message_turns, named
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
            "turns": [] if "messages" in item and turns is None else _all_turns(turns),
        },
    )


def _all_turns(messages: object) -> object:
    """What is no list, and no object in it, stays as it is, for mend_session to judge."""
    if not isinstance(messages, list):
        return messages
    return [turn for one in messages for turn in (_turns(one) if isinstance(one, dict) else [one])]


def _turns(message: dict) -> list[dict]:
    # LangChain keeps the message in `data` and its role in `type`.
    data = message["data"] if isinstance(message.get("data"), dict) and "role" not in message else message
    role, kind = message.get("role", data.get("role")), message.get("type")
    time, content = named(data, TURN_TIMES), data.get("content")
    turn = {
        "role": archive_role(kind if role is None else role),
        "speaker": data.get("speaker") or data.get("name"),
        "time": time,
    }
    if role is None and kind == "function_call_output":
        return [turn | {"role": "tool", "content": _text(message.get("output"))}]
    if role is None and kind == "function_call":
        return [call_turn(message.get("name"), message.get("arguments"), time)]
    if role is None and isinstance(kind, str) and "content" not in data:
        return [turn | {"content": None}]  # reasoning, an item of another kind: no words
    told = message_turns(turn["role"], content, time, turn["speaker"]) if isinstance(content, list) else []
    if any(one["role"] == "tool" for one in told):
        return told
    # A call without a name says nothing.
    calls = [call_turn(*call, time) for call in calls_of(data) if isinstance(call[0], str)]
    if calls and not content:
        return calls
    # Messages that only call a tool leave content out; elsewhere a missing content is an error to report.
    if "content" in data or "tool_calls" in data or "function_call" in data:
        turn["content"] = _text(content)
    return [turn, *calls]


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
