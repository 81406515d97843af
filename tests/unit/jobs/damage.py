"""Items with something odd in every place of theirs."""

import copy

from hypothesis import strategies as st

from schemas.archive import MAX_TURN_CHARS
from tests.unit.jobs.exported import JSON


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Where in a value damage can be done."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, one in inner for place in places(one, (*path, key))]


ODD = JSON | st.sampled_from(
    [None, "", " ", 0, -1, 1e300, "9999-12-31", "\ud83d", [], {}, [[]], "x" * (MAX_TURN_CHARS + 1), "null"]
)


def damaged(item: dict, draw) -> dict:
    item = copy.deepcopy(item)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(item)))
        holder = item
        for key in path[:-1]:
            holder = holder[key]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "repeat"]))
        if kind == "replace":
            # A copy: what is damaged next would change the strategy's own lists.
            holder[path[-1]] = copy.deepcopy(draw(ODD))
        elif kind == "remove":
            del holder[path[-1]]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[path[-1]]))
        if not item:
            break
    return item
