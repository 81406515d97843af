"""`claude-export`: conversations.json of the data export of Claude.ai, one conversation an item.

    {"uuid": "c1", "name": "Trip", "created_at": "...", "chat_messages": [{"uuid": "m1", "sender": "human",
     "text": "", "content": [{"type": "text", "text": "Hello"}], "parent_message_uuid": "...",
     "attachments": [{"file_name": "list.txt", "extracted_content": "..."}], "files": []}]}

Edited and regenerated messages branch off by `parent_message_uuid`; the branch whose last message is the
newest counts. The text of an attachment stands behind the words that it was sent with.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, archive_role, message_turns, named
from jobs.ingest.format import Format, Origin
from jobs.ingest.trees import Names, branch, one_session
from schemas.archive import InvalidSession, Note

ROOT = "00000000-0000-4000-8000-000000000000"
"""Parent of a first message."""

TREE = Names("chat_messages", current="", parent="parent_message_uuid", roots=(None, ROOT))


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The session of one conversation. Raises InvalidSession."""
    messages = item.get("chat_messages")
    if not isinstance(messages, list):
        kind = type(messages).__name__
        raise InvalidSession(f"chat_messages: must be a list, not {kind}; is this conversations.json?")
    conversation_id, notes = archive_id(item.get("uuid")), list[Note]()
    yield (
        item,
        one_session(
            origin.user_id,
            conversation_id,
            session_time=named(item, ("created_at",)),
            updated=named(item, ("updated_at",)),
            turns=[turn for message in _seen(messages, notes) for turn in _turns(message)],
            notes=notes,
        ),
    )


def _seen(messages: list, notes: list[Note]) -> list:
    """The messages of the newest branch; all of an export that tells no parents."""
    nodes = {
        message["uuid"]: message
        for message in messages
        if isinstance(message, dict) and isinstance(message.get("uuid"), str)
    }
    if len(nodes) < len(messages) or not any(TREE.parent in message for message in messages):
        return messages
    return [message for _, message in branch(nodes, None, TREE, lambda node: node.get("created_at"), notes)]


def _turns(message: object) -> list:
    if not isinstance(message, dict):
        return [message]
    role, time = archive_role(message.get("sender")), named(message, ("created_at",))
    text, content = message.get("text"), message.get("content")
    if not isinstance(content, list) or not content:
        content = [text]
    turns = message_turns(role, content, time)
    sent = "\n".join(_attached(message))
    if sent and turns and turns[-1]["role"] == role:
        turns[-1]["content"] += f"\n{sent}"
    elif sent:
        turns.append({"role": role, "content": sent, "time": time})
    return turns


def _attached(message: dict) -> Iterator[str]:
    for field in ("attachments", "files"):
        attached = message.get(field)
        for one in attached if isinstance(attached, list) else ():
            if isinstance(one, dict):
                name, text = one.get("file_name"), one.get("extracted_content")
                yield f"[{name if isinstance(name, str) and name else 'attachment'}]"
                if isinstance(text, str) and text.strip():
                    yield text


FORMAT = Format(
    name="claude-export",
    what="a conversation of a Claude.ai export",
    fields=("uuid", "chat_messages"),
    matches=lambda item: "chat_messages" in item,
    read=read_sessions,
    files="conversations*.json*",
)
