"""`sharegpt`: one conversation an item, as fine-tuning sets have them.

    {"id": "c1", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]}

The turns may stand under `conversation` or `items`, have `role` and `content` for `from` and `value`, or come
in pairs, `{"human": "Hello", "assistant": "Hi"}`; a `system` of the item is its first turn. They name no
user, and mostly no time. Where id is missing, the session is named after its content.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, archive_role, archive_turns, content_id, named
from jobs.ingest.format import Format, Origin, holds
from jobs.ingest.times import SESSION_TIMES, TURN_TIMES

PAIR = ("human", "assistant")
"""Fields of two turns that stand together."""


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The session of one item. Raises InvalidSession."""
    given = item.get(_field(item))
    session_id = item.get("id")
    if session_id is None:
        session_id = content_id("sharegpt", given)
    turns = [one for turn in given for one in _pair(turn)] if isinstance(given, list) else given
    turns = archive_turns(turns, _archive_turn)
    if isinstance(turns, list) and isinstance(item.get("system"), str) and item["system"].strip():
        turns = [{"role": "system", "content": item["system"]}, *turns]
    yield (
        item,
        {
            "user_id": archive_id(origin.user_id if item.get("user_id") is None else item["user_id"]),
            "session_id": archive_id(session_id),
            "session_time": named(item, SESSION_TIMES),
            "turns": turns,
        },
    )


def _field(item: dict) -> str:
    """Where the turns of an item stand."""
    names = ("conversation", "items")
    other = [name for name in names if holds(item.get(name), "from") or holds(item.get(name), *PAIR)]
    return other[0] if other and "conversations" not in item else "conversations"


def _pair(turn: object) -> list:
    """The turns of a pair; any other turn alone."""
    if isinstance(turn, dict) and turn.keys() >= set(PAIR):
        return [{"from": name, "value": turn[name]} for name in PAIR]
    return [turn]


def _archive_turn(index: int, turn: dict) -> dict:
    result = {"role": archive_role(turn.get("from", turn.get("role"))), "time": named(turn, TURN_TIMES)}
    content = [turn[name] for name in ("value", "content") if name in turn]
    return result | ({"content": content[0]} if content else {})


def _matches(item: dict) -> bool:
    turns = item.get(_field(item))
    return turns == [] or holds(turns, "from") or holds(turns, "role") or holds(turns, *PAIR)


FORMAT = Format(
    name="sharegpt",
    what="a ShareGPT conversation",
    fields=("conversations", "from", "value"),
    matches=_matches,
    read=read_sessions,
)
