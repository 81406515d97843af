"""`openai-responses`: items of OpenAI's Responses, as a conversation lists them or a response holds them.

    {"object": "list", "data": [{"type": "message", "role": "user", "content": [{"type": "input_text",
     "text": "Hello"}]}, {"type": "function_call", "name": "search", "arguments": "{}"}]}
    {"id": "resp_1", "object": "response", "created_at": 1714554000, "input": "Hello", "output": [...]}

A file of items is one session, named after the file. A response is a session of its own, or a part of that
of its `conversation`; those that follow each other by `previous_response_id` alone are not joined. Reasoning
is left out; calls, and what they gave back, are `tool` turns.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, archive_role, call_turn, message_turns, named, result_turns
from jobs.ingest.format import Format, Origin, Row, skips
from schemas.archive import InvalidSession

TIMES = ("created_at", "timestamp")

SESSIONS = ("session_id", "conversation_id", "thread_id", "chat_id", "sessionId", "messages")
"""Who has one of these is an item of another format."""


def read_rows(item: dict, origin: Origin) -> Iterator[Row]:
    """The turns of one item, or of one response. Raises InvalidSession for what is neither."""
    if not isinstance(item.get("output"), list) or item.get("type") is not None:
        yield Row(origin.user_id, None, origin.place, _turns(item, named(item, TIMES)))
        return
    conversation = item.get("conversation")
    conversation = conversation.get("id") if isinstance(conversation, dict) else conversation
    given, time = item.get("input"), named(item, TIMES)
    asked = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
    turns = []
    for one in [*(asked if isinstance(asked, list) else []), *item["output"]]:
        if not isinstance(one, dict):
            raise InvalidSession(f"output: must hold objects, not {type(one).__name__}; check --format")
        turns += _turns(one, time)
    session_id = archive_id(conversation or item.get("id"))
    yield Row(origin.user_id, None, session_id, turns)


def _turns(item: dict, time: dict) -> list[dict]:
    kind, role = item.get("type"), item.get("role")
    if role is not None:
        return message_turns(archive_role(role), item.get("content"), time)
    if kind == "reasoning":
        return []
    if isinstance(kind, str) and kind.endswith("_output"):
        return result_turns(item.get("output"), time)
    if isinstance(kind, str) and kind.endswith("_call"):
        asked = item.get("arguments", item.get("action", item.get("input", item.get("queries", {}))))
        return [call_turn(item.get("name") or kind.removesuffix("_call"), asked, time)]
    shown = repr(kind)[:80] if isinstance(kind, str | None) else type(kind).__name__
    raise InvalidSession(f"type={shown}: must be a message, a call, an output or reasoning; check --format")


def _matches(item: dict) -> bool:
    kind = item.get("type")
    if not skips(item, *SESSIONS):
        return False
    if item.get("object") == "response" or (isinstance(item.get("output"), list) and "input" in item):
        return True
    is_message = kind == "message" and "role" in item and "content" in item
    is_step = (
        isinstance(kind, str) and kind.endswith(("_call", "_call_output")) and {"id", "call_id"} & item.keys()
    )
    return is_message or bool(is_step) or (kind == "reasoning" and "summary" in item)


FORMAT = Format(
    name="openai-responses",
    what="an item of OpenAI's Responses",
    fields=("type", "role", "content", "output"),
    matches=_matches,
    read=read_rows,
    is_rows=True,
)
