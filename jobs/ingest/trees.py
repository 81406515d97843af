"""Conversations that branch, because messages were edited or answers asked for anew: the branch that counts.

Where a tree is damaged, what can be reached of it is read.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from jobs.ingest.times import read_time
from schemas.archive import ODD_TREE, InvalidSession, Note


@dataclass(frozen=True)
class Names:
    """What an export calls the parts of its trees, for notes."""

    nodes: str
    current: str
    """Field of the last node that the user saw; "" for exports that have none, of which the newest counts."""
    parent: str
    roots: Collection[object] = (None,)
    """Parents of a first message."""


def nodes_of(mapping: dict) -> dict[str, dict]:
    """The nodes of an export's `mapping` that are objects. InvalidSession where it has some, and none is."""
    nodes = {node_id: node for node_id, node in mapping.items() if isinstance(node, dict)}
    if mapping and not nodes:
        raise InvalidSession(f"mapping: none of its {len(mapping)} nodes is an object; export it anew")
    return nodes


def one_session(
    user_id: object,
    conversation_id: object,
    *,
    session_time: object,
    updated: object,
    turns: object,
    notes: list[Note],
) -> dict:
    """A conversation that is one session, as a format's reader gives it; its values are judged later."""
    return {
        "user_id": user_id,
        "conversation_id": conversation_id,
        "session_id": conversation_id,
        "session_time": session_time,
        "updated": updated,
        "notes": notes,
        "turns": turns,
    }


def branch(
    nodes: dict[str, dict],
    current: object,
    names: Names,
    time_of: Callable[[dict], object],
    notes: list[Note],
) -> list[tuple[str, dict]]:
    """(id, node) from the root to the current node; where none is named that is there, to the newest leaf."""
    found, seen = [], set()
    node_id = _last(nodes, current, names, time_of, notes)
    while node_id is not None:
        seen.add(node_id)
        found.append((node_id, nodes[node_id]))
        parent = nodes[node_id].get(names.parent)
        problem = ""
        if isinstance(parent, str | None) and parent in names.roots and parent not in nodes:
            parent = None
        elif not (isinstance(parent, str) and parent in nodes):
            shown = repr(parent)[:80] if isinstance(parent, str) else type(parent).__name__
            problem = f"parent {shown} is no node"
        elif parent in seen:
            problem = f"node {parent[:80]!r} is its own ancestor"
        if problem:
            notes.append(Note(ODD_TREE, f"{names.nodes}: {problem}; what stands below it is read"))
        node_id = None if problem else parent
    return found[::-1]


def _last(
    nodes: dict[str, dict],
    current: object,
    names: Names,
    time_of: Callable[[dict], object],
    notes: list[Note],
) -> str | None:
    if isinstance(current, str) and current in nodes:
        return current
    parents = {parent for node in nodes.values() if isinstance(parent := node.get(names.parent), str)}
    leaves = [node_id for node_id in nodes if node_id not in parents] or list(nodes)
    if names.current and (len(leaves) > 1 or (current is not None and nodes)):
        shown = repr(current)[:80] if isinstance(current, str | None) else type(current).__name__
        reason = f"{names.current}={shown}: names none of {len(leaves)} branches; the newest is taken"
        notes.append(Note(ODD_TREE, reason))
    # Of equals the last one in the file: exports write nodes in the order in which they came to be.
    order = {node_id: (seconds(time_of(nodes[node_id])), number) for number, node_id in enumerate(leaves)}
    return max(order, key=lambda node_id: order[node_id], default=None)


def seconds(value: object) -> float:
    """Since 1970, for an order; 0 for what is no time."""
    try:
        time = read_time(value)
    except (ValueError, OverflowError, OSError, RecursionError):
        return 0.0
    return time.timestamp() if time else 0.0
