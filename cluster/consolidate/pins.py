"""Which memories are pinned: of each the last decision by hand that pins or unpins it says so."""

from collections.abc import Iterable

import pyarrow as pa

from cluster.store.sql import quote
from cluster.store.store import Store
from schemas.edit import PIN, UNPIN
from schemas.store import BY_HAND


def pinned(store: Store, as_of: str | None = None) -> pa.Array:
    """string: ids of the pinned memories of a view, of all users: people pin by hand, so there are few."""
    where = f"decider = {quote(BY_HAND)} AND action IN ({quote(PIN)}, {quote(UNPIN)})"
    rows = store.rows("decisions", ["decider", "action", "target_id", "target_revision"], where, as_of)
    found = pinned_by(rows.to_pylist())
    return pa.array(sorted(found), pa.string())


def pinned_by(decisions: Iterable[dict]) -> set[str]:
    """Memories that these rows of `decisions` leave pinned."""
    last: dict[str, tuple[int, bool]] = {}
    for row in decisions:
        if row["decider"] == BY_HAND and row["action"] in (PIN, UNPIN):
            # Each edit makes another revision.
            said = row["target_revision"], row["action"] == PIN
            last[row["target_id"]] = max(said, last.get(row["target_id"], said))
    return {record_id for record_id, (_, is_pinned) in last.items() if is_pinned}
