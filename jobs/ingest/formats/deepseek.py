"""`deepseek`: conversations.json of DeepSeek's data export, one conversation an item.

    {"id": "c1", "title": "Tea", "inserted_at": "...", "updated_at": "...", "mapping": {"root": {"id": "root",
     "parent": null, "message": null}, "1": {"id": "1", "parent": "root", "message": {"inserted_at": "...",
     "fragments": [{"type": "REQUEST", "content": "Hello"}]}}}}

No node is named as the last one: of branches the newest counts. What the model thought is left out, what it
searched is a `tool` turn.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, named
from jobs.ingest.format import Format, Origin
from jobs.ingest.mending import part_text
from jobs.ingest.trees import Names, branch, nodes_of, one_session
from schemas.archive import InvalidSession, Note

TREE = Names("mapping", current="", parent="parent")

ROLES = {"REQUEST": "user", "RESPONSE": "assistant", "SEARCH": "tool", "THINK": None}


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The session of one conversation. Raises InvalidSession."""
    mapping = item.get("mapping")
    if not isinstance(mapping, dict):
        kind = type(mapping).__name__
        raise InvalidSession(f"mapping: must be an object of nodes, not {kind}; check --format")
    nodes = nodes_of(mapping)
    conversation_id, notes = archive_id(item.get("id")), list[Note]()
    messages = [node.get("message") for _, node in branch(nodes, None, TREE, _time_of, notes)]
    turns = [turn for message in messages if isinstance(message, dict) for turn in _turns(message)]
    if notes and not turns:
        raise InvalidSession(notes[0].reason)
    yield (
        item,
        one_session(
            origin.user_id,
            conversation_id,
            session_time=named(item, ("inserted_at",)),
            updated=named(item, ("updated_at",)),
            turns=turns,
            notes=notes,
        ),
    )


def _time_of(node: dict) -> object:
    message = node.get("message")
    return message.get("inserted_at") if isinstance(message, dict) else None


def _turns(message: dict) -> Iterator[dict]:
    fragments, time = message.get("fragments"), named(message, ("inserted_at",))
    for fragment in fragments if isinstance(fragments, list) else ():
        kind = fragment.get("type") if isinstance(fragment, dict) else None
        # A kind that is not known is nobody's word.
        role = ROLES.get(kind, "tool") if isinstance(kind, str) else "tool"
        text = part_text(fragment.get("content") if isinstance(fragment, dict) else fragment)
        if role and text.strip():
            yield {"role": role, "content": text, "time": time}


FORMAT = Format(
    name="deepseek",
    what="a conversation of a DeepSeek export",
    fields=("mapping", "inserted_at"),
    matches=lambda item: "mapping" in item and "inserted_at" in item,
    read=read_sessions,
    files="conversations*.json*",
)
