"""`chatgpt-export`: conversations.json of OpenAI's data export, one conversation an item.

A conversation is a tree, because edited and regenerated messages branch off. What the user saw last is the
branch from `current_node` up to the root.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, archive_role, named
from schemas.archive import InvalidSession

NOT_SAID = ("thoughts", "reasoning_recap", "user_editable_context", "model_editable_context")
"""Content types that carry the model's notes and the user's settings instead of a message."""


def read_sessions(item: dict, user_id: str | None) -> Iterator[tuple[object, dict]]:
    """The session of one conversation. Raises InvalidSession."""
    conversation_id = archive_id(item.get("conversation_id") or item.get("id"))
    mapping = item.get("mapping")
    if not isinstance(mapping, dict):
        raise InvalidSession("mapping: must be an object of nodes; is this OpenAI's conversations.json?")
    turns = [_archive_turn(message) for message in _messages(mapping, _last_node(item, mapping))]
    yield (
        item,
        {
            "user_id": user_id,
            "conversation_id": conversation_id,
            "session_id": conversation_id,
            "session_time": named(item, ("create_time",)),
            # Blank nodes are everywhere in these exports (placeholders before tool calls): nothing was said.
            "turns": [turn for turn in turns if turn["content"].strip()],
        },
    )


def _last_node(item: dict, mapping: dict) -> object:
    if item.get("current_node") is not None:
        return item["current_node"]
    parents = {node["parent"] for node in mapping.values() if _has_parent(node)}
    leaves = [node_id for node_id in mapping if node_id not in parents]
    if len(leaves) != 1:
        raise InvalidSession(f"current_node=None: must name one of {len(leaves)} leaves")
    return leaves[0]


def _has_parent(node: object) -> bool:
    return isinstance(node, dict) and isinstance(node.get("parent"), str)


def _messages(mapping: dict, node_id: object) -> list[dict]:
    """The visible messages from the root to `node_id`, in order."""
    messages, seen = [], set()
    while node_id is not None:
        node = mapping.get(node_id) if isinstance(node_id, str) else None
        if not isinstance(node, dict):
            shown = repr(node_id)[:80] if isinstance(node_id, str) else type(node_id).__name__
            raise InvalidSession(f"mapping: parent or current_node {shown} is no node of it; export it anew")
        if node_id in seen:
            raise InvalidSession(f"mapping: node {node_id[:80]!r} is its own ancestor; export it anew")
        seen.add(node_id)
        message = node.get("message")
        if message is not None and not isinstance(message, dict):
            raise InvalidSession(f"mapping: the message of node {node_id[:80]!r} must be an object or null")
        if message is not None and not _is_hidden(message):
            messages.append(message)
        node_id = node.get("parent")
    return messages[::-1]


def _is_hidden(message: dict) -> bool:
    metadata, content = message.get("metadata"), message.get("content")
    if isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation") is True:
        return True
    return content is None or (isinstance(content, dict) and content.get("content_type") in NOT_SAID)


def _archive_turn(message: dict) -> dict:
    author = message.get("author")
    if not isinstance(author, dict):
        raise InvalidSession("author: must be an object with a role; export the conversation anew")
    return {
        "role": archive_role(author.get("role")),
        "content": _text(message["content"]),
        "speaker": author.get("name"),
        "time": named(message, ("create_time",)),
    }


def _text(content: object) -> str:
    if not isinstance(content, dict):
        raise InvalidSession(f"content: must be an object with parts, not {type(content).__name__}")
    kind = content.get("content_type")
    if "parts" not in content:
        # Code, tool output and quotes have one text field; what has none is at least named.
        texts = [content[name] for name in ("text", "result") if isinstance(content.get(name), str)]
        return texts[0] if texts else _named(kind)
    if not isinstance(content["parts"], list):
        raise InvalidSession(f"content.parts: must be a list, not {type(content['parts']).__name__}")
    return "\n".join(text for text in map(_part_text, content["parts"]) if text.strip())


def _part_text(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise InvalidSession(f"content.parts: must hold texts and objects, not {type(part).__name__}")
    if isinstance(part.get("text"), str):
        return part["text"]
    return _named(part.get("content_type"))


def _named(kind: object) -> str:
    """What has no text, in brackets: [image], [system_error]."""
    return f"[{kind.removesuffix('_asset_pointer')}]" if isinstance(kind, str) and kind else "[attachment]"
