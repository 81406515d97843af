"""`langchain`: messages as LangChain serializes them, and threads of LangGraph.

    [{"type": "human", "data": {"content": "Hello"}}, {"type": "ai", "data": {"content": "Hi"}}]
    {"thread_id": "t1", "created_at": "...", "values": {"messages": [{"type": "human", "content": "Hello"}]}}
    {"lc": 1, "type": "constructor", "id": [..., "HumanMessage"], "kwargs": {"content": "Hello"}}

A file of messages (`messages_to_dict`, histories in files) is one session, named after the file. A thread is
named by `thread_id` or `session_id`, also of its `config.configurable`, `checkpoint` or `metadata`, else
after its content. Calls of tools, and what they gave back, are `tool` turns.
"""

from collections.abc import Iterator
from typing import TypeGuard

from jobs.ingest.fields import archive_id, archive_role, chat_turns, content_id, named
from jobs.ingest.format import Format, Origin, Row, skips
from jobs.ingest.times import SESSION_TIMES
from schemas.archive import InvalidSession

KINDS = ("human", "ai", "system", "tool", "function", "HumanMessageChunk", "AIMessageChunk")

CLASSES = {
    "HumanMessage": "human",
    "AIMessage": "ai",
    "SystemMessage": "system",
    "ToolMessage": "tool",
    "FunctionMessage": "function",
    "HumanMessageChunk": "human",
    "AIMessageChunk": "ai",
}


def read(item: dict, origin: Origin) -> Iterator[tuple[object, dict] | Row]:
    """The turns of one message, or the session of a thread. Raises InvalidSession for anything else."""
    if _is_message(item):
        yield Row(origin.user_id, None, origin.place, _turns(item))
        return
    messages = _messages(item)
    if not isinstance(messages, list):
        kind = type(messages).__name__
        raise InvalidSession(f"messages: must be a list, not {kind}; give a thread or a list of messages")
    places = [item, *_inner(item, "metadata", "checkpoint", "config", "configurable")]
    ids = [
        place[name] for place in places for name in ("thread_id", "session_id") if place.get(name) is not None
    ]
    users = [place["user_id"] for place in places if place.get("user_id") is not None]
    session_id = archive_id(ids[0]) if ids else content_id("langchain", messages)
    yield (
        item,
        {
            "user_id": archive_id(users[0]) if users else origin.user_id,
            "conversation_id": session_id,
            "session_id": session_id,
            "session_time": named(item, SESSION_TIMES),
            "updated": named(item, ("updated_at",)),
            "turns": [turn for message in messages for turn in _turns(message)],
        },
    )


def _inner(item: dict, *names: str) -> Iterator[dict]:
    for name in names:
        inner = item.get(name)
        if isinstance(inner, dict):
            yield inner
            yield from _inner(inner, *names)


def _messages(item: dict) -> object:
    values = item.get("values")
    return values.get("messages") if isinstance(values, dict) else item.get("messages")


def _is_message(item: object) -> TypeGuard[dict]:
    if not isinstance(item, dict):
        return False
    if item.get("lc") is not None:
        return isinstance(item.get("kwargs"), dict)
    has_content = isinstance(item.get("data"), dict) or "content" in item
    return item.get("type") in KINDS and has_content and skips(item, "role", "sessionId")


def _turns(message: object) -> list:
    if not _is_message(message):
        return chat_turns(message)
    kind, data = message.get("type"), message
    if "lc" in message:
        path = message.get("id")
        kind, data = CLASSES.get(str(path[-1]) if isinstance(path, list) and path else ""), message["kwargs"]
    elif isinstance(message.get("data"), dict):
        data = message["data"]
    role = archive_role(CLASSES.get(f"{kind}", kind))
    return chat_turns({**data, "role": role})


def _matches(item: dict) -> bool:
    if _is_message(item):
        return True
    messages = _messages(item)
    return (
        isinstance(messages, list)
        and bool(messages)
        and _is_message(messages[0])
        and "session_id" not in item
    )


FORMAT = Format(
    name="langchain",
    what="a message or a thread of LangChain",
    fields=("type", "data", "values", "messages"),
    matches=_matches,
    read=read,
    is_rows=True,
)
