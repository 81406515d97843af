"""`messages`: one session an item, in the chat format that OpenAI and Hugging Face datasets share.

    {"user_id": "u1", "session_id": "s1", "session_time": "2024-05-01T09:00:00Z",
     "messages": [{"role": "user", "content": "Hello"}]}

Optional: conversation_id; in messages `name` or `speaker`, and `time`. Times may stand under the names and
in the shapes of jobs.ingest.times. Content is text or OpenAI's list of parts.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, archive_role, archive_turns, named
from jobs.ingest.times import SESSION_TIMES, TURN_TIMES
from schemas.archive import InvalidSession

PART_NAMES = {"image_url": "image", "input_image": "image", "input_audio": "audio", "video_url": "video"}


def read_sessions(item: dict, user_id: str | None) -> Iterator[tuple[object, dict]]:
    """The session of one item. Raises InvalidSession."""
    yield (
        item,
        {
            "user_id": archive_id(user_id if item.get("user_id") is None else item["user_id"]),
            "conversation_id": archive_id(item.get("conversation_id")),
            "session_id": archive_id(item.get("session_id")),
            "session_time": named(item, SESSION_TIMES),
            "turns": archive_turns(item.get("messages"), _archive_turn),
        },
    )


def _archive_turn(index: int, message: dict) -> dict:
    turn = {
        "role": archive_role(message.get("role")),
        "speaker": message.get("speaker") or message.get("name"),
        "time": named(message, TURN_TIMES),
    }
    # Messages that only call a tool leave content out; elsewhere a missing content is an error to report.
    if "content" in message or "tool_calls" in message or "function_call" in message:
        turn["content"] = _text(index, message.get("content"))
    return turn


def _text(index: int, content: object) -> object:
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, dict) and isinstance(part.get("refusal"), str):
            texts.append(part["refusal"])
        elif isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] != "text":
            texts.append(f"[{PART_NAMES.get(part['type'], part['type'])}]")
        else:
            raise InvalidSession(f"messages[{index}].content: has a part without type or text; mend it")
    return "\n".join(text for text in texts if text.strip())
