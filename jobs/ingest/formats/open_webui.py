"""`open-webui`: the chats that Open WebUI exports, one an item.

    [{"id": "c1", "user_id": "u1", "created_at": 1714554000, "chat": {"history": {"currentId": "1",
     "messages": {"1": {"id": "1", "parentId": null, "role": "user", "content": "Hello"}}}}}]

Answers that were asked for anew branch off; the branch of `currentId` counts. What the model thought
(`<details type="reasoning">`) is left out, what tools gave back stands in `tool` turns.
"""

import re
from collections.abc import Iterator

from jobs.ingest.fields import all_chat_turns, archive_id, chat_turns, named
from jobs.ingest.format import Format, Origin
from jobs.ingest.trees import Names, branch, one_session
from schemas.archive import InvalidSession, Note

TREE = Names("chat.history.messages", current="currentId", parent="parentId")

_DETAILS = re.compile(r'<details type="(\w+)".*?</details>', re.DOTALL)
"""What is folded away in an answer: thoughts, calls of tools and what they gave back."""


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The session of one chat. Raises InvalidSession."""
    chat, notes = item.get("chat"), list[Note]()
    if not isinstance(chat, dict):
        raise InvalidSession(f"chat: must be an object, not {type(chat).__name__}; check --format")
    history = chat.get("history")
    turns: object
    if isinstance(history, dict):
        nodes = history.get("messages")
        if not isinstance(nodes, dict):
            kind = type(nodes).__name__
            raise InvalidSession(f"chat.history.messages: must be an object, not {kind}; export it anew")
        nodes = {node_id: node for node_id, node in nodes.items() if isinstance(node, dict)}
        found = branch(nodes, history.get("currentId"), TREE, lambda node: node.get("timestamp"), notes)
        turns = [turn for _, message in found for turn in _turns(message)]
    else:
        turns = all_chat_turns(chat.get("messages"))
    conversation_id = archive_id(item.get("id"))
    yield (
        item,
        one_session(
            archive_id(item.get("user_id") or origin.user_id),
            conversation_id,
            session_time=named(item, ("created_at",)) | named(chat, ("timestamp",)),
            updated=named(item, ("updated_at",)),
            turns=turns,
            notes=notes,
        ),
    )


def _turns(message: dict) -> Iterator[dict]:
    for turn in chat_turns(message):
        content = turn.get("content")
        if turn["role"] != "assistant" or not isinstance(content, str):
            yield turn
            continue
        for match in _DETAILS.finditer(content):
            if match[1] in ("tool_calls", "code_interpreter"):
                yield turn | {"role": "tool", "content": match[0]}
        yield turn | {"content": _DETAILS.sub("", content).strip()}


FORMAT = Format(
    name="open-webui",
    what="a chat of Open WebUI",
    fields=("id", "user_id", "chat"),
    matches=lambda item: (
        isinstance(item.get("chat"), dict) and bool({"history", "messages"} & item["chat"].keys())
    ),
    read=read_sessions,
    names_users=True,
)
