"""`chatgpt-export`: conversations.json of OpenAI's data export, one conversation an item.

A conversation is a tree, because edited and regenerated messages branch off. What the user saw last is the
branch from `current_node` up to the root. Where the tree is damaged, what can be reached of it is read.
Shells without a tree, and chats in which nothing was said yet, are normal in these exports. What the model
wrote to a tool, and not to all, is a call of it.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, archive_role, call_turn, named
from jobs.ingest.format import Format, Origin
from jobs.ingest.mending import part_text, part_texts
from jobs.ingest.trees import Names, branch, nodes_of, one_session
from schemas.archive import ODD_TREE, InvalidSession, Note

TREE = Names(nodes="mapping", current="current_node", parent="parent")

NOT_SAID = ("thoughts", "reasoning_recap", "user_editable_context", "model_editable_context")
"""Content types that carry the model's notes and the user's settings instead of a message."""

TRANSCRIPTION = "audio_transcription"


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The session of one conversation. Raises InvalidSession."""
    conversation_id = archive_id(item.get("conversation_id") or item.get("id"))
    mapping = item.get("mapping")
    if mapping is None and conversation_id is not None and ("mapping" in item or "title" in item):
        mapping = {}
    if not isinstance(mapping, dict):
        raise InvalidSession("mapping: must be an object of nodes; is this OpenAI's conversations.json?")
    nodes = nodes_of(mapping)
    notes: list[Note] = []
    messages = _messages(item, nodes, notes)
    # Blank nodes are everywhere in these exports (placeholders before tool calls): nothing was said.
    turns = [turn for turn in map(_archive_turn, messages) if turn["content"].strip()]
    if notes and not turns:
        raise InvalidSession(notes[0].reason)
    yield (
        item,
        one_session(
            origin.user_id,
            conversation_id,
            session_time=named(item, ("create_time",)),
            updated=named(item, ("update_time",)),
            turns=turns,
            notes=notes,
        ),
    )


def _messages(item: dict, nodes: dict, notes: list[Note]) -> list[dict]:
    """The visible messages of the branch that was seen last, in order."""
    messages = []
    for node_id, node in branch(nodes, item.get("current_node"), TREE, _time_of, notes):
        message = node.get("message")
        if message is not None and not isinstance(message, dict):
            reason = f"mapping: the message of node {node_id[:80]!r} is no object; it is left out"
            notes.append(Note(ODD_TREE, reason))
        elif message is not None and not _is_hidden(message):
            messages.append(message)
    return messages


def _time_of(node: dict) -> object:
    message = node.get("message")
    return message.get("create_time") if isinstance(message, dict) else None


def _is_hidden(message: dict) -> bool:
    metadata, content = message.get("metadata"), message.get("content")
    if isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation") is True:
        return True
    return content is None or (isinstance(content, dict) and content.get("content_type") in NOT_SAID)


def _archive_turn(message: dict) -> dict:
    author = message.get("author")
    author = author if isinstance(author, dict) else {"role": author}
    role, text, time = (
        archive_role(author.get("role")),
        _text(message["content"]),
        named(message, ("create_time",)),
    )
    recipient = message.get("recipient")
    if role == "assistant" and isinstance(recipient, str) and recipient != "all" and text.strip():
        return call_turn(recipient, text, time)
    return {"role": role, "content": text, "speaker": author.get("name"), "time": time}


def _text(content: object) -> str:
    parts = content.get("parts") if isinstance(content, dict) else content
    if isinstance(content, dict) and "parts" not in content:
        # Code, tool output and quotes have one text field; what has none is at least named.
        texts = [content[name] for name in ("text", "result") if isinstance(content.get(name), str)]
        return texts[0] if texts else part_text(content)
    parts = parts if isinstance(parts, list) else [parts]
    if any(isinstance(part, dict) and part.get("content_type") == TRANSCRIPTION for part in parts):
        # The recording beside its own words says nothing new.
        parts = [part for part in parts if not (isinstance(part, dict) and "text" not in part)]
    return part_texts(parts)


def _matches(item: dict) -> bool:
    return "mapping" in item and "inserted_at" not in item


FORMAT = Format(
    name="chatgpt-export",
    what="a conversation of a ChatGPT export",
    fields=("mapping", "current_node"),
    matches=_matches,
    read=read_sessions,
    files="conversations*.json*",
)
