"""`grok`: prod-grok-backend.json of Grok's data export, one conversation an item.

    {"conversations": [{"conversation": {"id": "c1", "title": "Tea", "create_time": "..."}, "responses":
     [{"response": {"_id": "r1", "parent_response_id": null, "sender": "human", "message": "Hello",
                    "create_time": {"$date": {"$numberLong": "1714554000000"}}}}]}]}

Only `human` is the user: answers have a sender of many names. Answers that were asked for anew branch off;
the branch of `leaf_response_id` counts where that is there, else the newest. Cards that Grok renders in an
answer are left out.
"""

import re
from collections.abc import Iterator

from jobs.ingest.fields import archive_id, named
from jobs.ingest.format import Format, Origin, holds
from jobs.ingest.trees import Names, branch, one_session
from schemas.archive import InvalidSession, Note

# Its leaf is mostly missing in the export, so that to go without it is nothing to note.
TREE = Names("responses", current="", parent="parent_response_id", roots=(None, ""))

_CARD = re.compile(r"<grok:render\b.*?</grok:render>", re.DOTALL)


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict | InvalidSession]]:
    """The session of one conversation. Raises InvalidSession."""
    if holds(item.get("conversations"), "responses"):
        for one in item["conversations"]:
            if isinstance(one, dict):
                yield from _session(one, origin)
            else:
                kind = type(one).__name__
                yield one, InvalidSession(f"conversations: must hold objects, not {kind}; export it anew")
    else:
        yield from _session(item, origin)


def _session(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    about, responses = item.get("conversation"), item.get("responses")
    if not isinstance(about, dict) or not isinstance(responses, list):
        name = "responses" if isinstance(about, dict) else "conversation"
        raise InvalidSession(f"{name}: is missing or of another kind; is this prod-grok-backend.json?")
    conversation_id, notes = archive_id(about.get("id")), list[Note]()
    yield (
        item,
        one_session(
            origin.user_id,
            conversation_id,
            session_time=named(about, ("create_time",)),
            updated=named(about, ("modify_time",)),
            turns=[_turn(one) for one in _seen(responses, about.get("leaf_response_id"), notes)],
            notes=notes,
        ),
    )


def _seen(responses: list, leaf: object, notes: list[Note]) -> list:
    """The responses of the branch that counts; all of an export that does not tell what answers what."""
    found = [one.get("response", one) if isinstance(one, dict) else one for one in responses]
    nodes = {one["_id"]: one for one in found if isinstance(one, dict) and isinstance(one.get("_id"), str)}
    num_roots = sum(one.get(TREE.parent) in TREE.roots for one in nodes.values())
    if len(nodes) < len(found) or num_roots > 1:
        return found
    return [one for _, one in branch(nodes, leaf, TREE, lambda one: one.get("create_time"), notes)]


def _turn(response: object) -> object:
    if not isinstance(response, dict) or "message" not in response:
        return response
    sender, text = response.get("sender"), response["message"]
    is_user = isinstance(sender, str) and sender.lower() in ("human", "user")
    if not is_user and isinstance(text, str):
        text = _CARD.sub("", text)
    role = "user" if is_user else "assistant" if isinstance(sender, str) else None
    return {"role": role, "content": text, "time": named(response, ("create_time",))}


def _matches(item: dict) -> bool:
    is_one = isinstance(item.get("conversation"), dict) and isinstance(item.get("responses"), list)
    return is_one or holds(item.get("conversations"), "responses")


FORMAT = Format(
    name="grok",
    what="a conversation of a Grok export",
    fields=("conversation", "responses"),
    matches=_matches,
    read=read_sessions,
)
