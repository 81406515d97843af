"""What of a store is exported: the memories of a view, or what changed since another one, in a stable order.

Only the keys of all rows are held, as Arrow columns (about 150 bytes a memory); the rows are read some
thousand at a time, and given to a format one by one.
"""

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from cluster.store.search import DECISION_COLUMNS, REPLACED
from cluster.store.sql import in_lists, quote
from cluster.store.store import Store
from cluster.store.validity import holds, periods
from schemas.exchange import Change, Memory
from schemas.record import extra_of
from schemas.store import records_schema

if TYPE_CHECKING:
    from cluster.store.tables import Table

BATCH = 4096
"""Rows that are Python objects at one time."""

_KEYS = ["user_id", "session_time", "record_id", "revision", "run_id"]
_ORDER = [("user_id", "ascending"), ("session_time", "ascending"), ("record_id", "ascending")]
_HISTORY = [("user_id", "ascending"), ("record_id", "ascending"), ("revision", "ascending")]

COLUMNS = [
    *("record_id", "revision", "user_id", "memory_type", "semantic_text", "entities", "temporal", "tags"),
    *("evidence", "source_role", "conversation_id", "session_id", "session_time", "created_at"),
    *("updated_at", "active", "closed_reason", "extra"),
]
"""Columns of `records` that travel."""


Paired = tuple[Memory, list[float] | None]
"""A memory, and its vector where it was asked for."""


@dataclass(frozen=True)
class Selection:
    """Which memories."""

    users: tuple[str, ...] = ()
    """Only those of these users; of all, if empty."""
    as_of: str | None = None
    """As this run left the store; the newest, if None."""
    at: dt.date | None = None
    """What held on this day, as far as that view knows."""
    since: str | None = None
    """Only what changed since this run."""


@dataclass
class Export:
    """The selected memories of a store, for a format to write. Counts what it gives out."""

    store: Store
    """A snapshot, so that everything is of one state."""
    selection: Selection
    num_of_user: Counter[str] = field(default_factory=Counter)
    """Memories given out, by user; those that a format skipped are taken off."""
    num_of_change: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    """Memories that the format cannot hold, by reason."""

    def memories(self) -> Iterator[Memory]:
        """Active memories, user by user, oldest first; of an increment those that were added or changed."""
        for memory, _ in self._memories():
            self._count(memory)
            yield memory

    def _count(self, memory: Memory) -> None:
        self.num_of_user[memory.user_id] += 1
        if memory.change:
            self.num_of_change[memory.change] += 1

    def with_vectors(self) -> Iterator[tuple[Memory, list[float]]]:
        """The same memories, each with the vector of its text [dim]."""
        for memory, vector in self._memories(with_vectors=True):
            self._count(memory)
            assert vector is not None, "they were asked for"
            yield memory, vector

    def skip(self, memory: Memory, reason: str) -> None:
        """Note that the format could not hold a memory that it was given."""
        self.skipped[reason] += 1
        self.num_of_user[memory.user_id] -= 1

    def _memories(self, *, with_vectors: bool = False) -> Iterator[Paired]:
        if self.selection.at:
            yield from self._held(self.selection.at)
            return
        keys = self._keys("active", self.selection.as_of)
        if self.selection.since:
            keys = _changes(keys, self._keys("active", self.selection.since))
        yield from self._rows(keys.sort_by(_ORDER), self.selection.as_of, with_vectors=with_vectors)

    def closed(self) -> Iterator[Memory]:
        """Of an increment: memories that were active then, and are no longer, as they were then."""
        if not self.selection.since:
            return
        now, then = (self._keys("active", run) for run in (self.selection.as_of, self.selection.since))
        gone = then.filter(pc.invert(pc.is_in(then.column("record_id"), now.column("record_id"))))
        ended = self._keys("NOT active", self.selection.as_of, [*_KEYS, "closed_reason"])
        ended = ended.filter(pc.is_in(ended.column("record_id"), gone.column("record_id")))
        reasons = {row["record_id"]: row["closed_reason"] for row in ended.sort_by("revision").to_pylist()}
        for memory, _ in self._rows(gone.sort_by(_ORDER), self.selection.since):
            self.num_of_change["closed"] += 1
            yield dataclasses.replace(memory, change="closed", closed_reason=reasons.get(memory.record_id))

    def revisions(self) -> Iterator[list[Memory]]:
        """The revisions of each memory, first to last, closed ones included; of an increment those of the
        memories that it has. None with `at`: what came later is no history of that day."""
        if self.selection.at:
            return
        keys = self._keys(None, self.selection.as_of)
        if self.selection.since:
            now, then = (self._keys("active", run) for run in (self.selection.as_of, self.selection.since))
            gone = pc.invert(pc.is_in(then.column("record_id"), now.column("record_id")))
            ids = [_changes(now, then).column("record_id"), then.filter(gone).column("record_id")]
            wanted = pa.chunked_array([chunk for part in ids for chunk in part.chunks], pa.string())
            keys = keys.filter(pc.is_in(keys.column("record_id"), wanted))
        found: list[Memory] = []
        for memory, _ in self._rows(keys.sort_by(_HISTORY), self.selection.as_of):
            if found and found[0].record_id != memory.record_id:
                yield found
                found = []
            found.append(memory)
        if found:
            yield found

    def turns(self, user_id: str) -> dict[str, list[dict]]:
        """Session -> its turns in order, of one user."""
        columns = ["session_id", "turn_index", "role", "speaker", "content"]
        where = f"user_id = {quote(user_id)} AND active"
        found: dict[str, list[dict]] = {}
        for turn in self.store.rows("turns", columns, where, self.selection.as_of).to_pylist():
            found.setdefault(turn["session_id"], []).append(turn)
        return {name: sorted(said, key=lambda turn: turn["turn_index"]) for name, said in found.items()}

    # --- rows -----------------------------------------------------------------------------------------

    def _records(self, as_of: str | None) -> "Table":
        table = self.store.table("records", as_of)
        assert table is not None, "a store that exists has a run"
        return table

    def _keys(self, where: str | None, as_of: str | None, columns: list[str] = _KEYS) -> pa.Table:
        """Keys of all rows of a view for which the condition holds, with `_rowid`."""
        users = in_lists("user_id", list(self.selection.users))
        conditions = [*([where] if where else []), *([f"({' OR '.join(users)})"] if users else [])]
        dataset = self._records(as_of).to_lance()
        known = [name for name in columns if name in dataset.schema.names]
        scanner = dataset.scanner(columns=known, filter=" AND ".join(conditions) or None, with_row_id=True)
        keys = scanner.to_table()
        for name in set(columns) - set(known):  # a view of an earlier release
            keys = keys.append_column(name, pa.nulls(len(keys), pa.string()))
        return keys

    def _rows(self, keys: pa.Table, as_of: str | None, *, with_vectors: bool = False) -> Iterator[Paired]:
        """The rows of these keys, in their order; their vectors only where they are asked for."""
        table = self._records(as_of)
        wanted = [*COLUMNS, *(["vector"] if with_vectors else [])]
        columns = [name for name in wanted if name in table.schema.names]
        for start in range(0, len(keys), BATCH):
            part = keys.slice(start, BATCH).to_pylist()
            taken = table.take_row_ids([key["_rowid"] for key in part]).select(columns).to_arrow().to_pylist()
            found = {(row["record_id"], row["revision"]): row for row in taken}
            for key in part:
                row = found[key["record_id"], key["revision"]]
                yield memory_of_row(row, change=key.get("change")), row.get("vector")

    def _held(self, day: dt.date) -> Iterator[Paired]:
        """Memories that held on a day. A user's memories are in memory together, with their vectors."""
        as_of = self.selection.as_of
        users = self._keys(f"(active OR {REPLACED})", as_of, ["user_id"]).column("user_id").unique()
        for user in sorted(users.to_pylist()):
            of_user = f"user_id = {quote(user)}"
            rows = self.store.rows("records", records_schema(1).names, of_user, as_of).to_pylist()
            applied = f"{of_user} AND outcome = 'applied'"
            decisions = self.store.rows("decisions", DECISION_COLUMNS, applied, as_of).to_pylist()
            held = periods(rows, decisions)
            by_id: dict[str, dict] = {}
            for row in sorted(rows, key=lambda row: row["revision"]):
                period = held[row["record_id"], row["revision"]]
                is_known = row["active"] or period.replaced_by
                if is_known and holds(period, day, is_event=row["memory_type"] == "event"):
                    by_id[row["record_id"]] = row
            for row in sorted(by_id.values(), key=lambda row: (str(row["session_time"]), row["record_id"])):
                yield memory_of_row(row), row["vector"]


def _changes(now: pa.Table, then: pa.Table) -> pa.Table:
    """Keys of `now` that `then` has not, or has as another row, with the column `change`."""
    old = then.select(["record_id", "revision", "run_id"]).rename_columns(
        ["record_id", "old_revision", "old_run"]
    )
    both = now.join(old, "record_id")
    is_added = pc.is_null(both.column("old_revision"))
    is_other = pc.or_(
        pc.not_equal(both.column("revision"), both.column("old_revision")),
        pc.not_equal(both.column("run_id"), both.column("old_run")),
    )
    both = both.append_column("change", pc.if_else(is_added, "added", "changed"))
    return both.filter(pc.or_kleene(is_added, is_other))


def memory_of_row(row: dict, change: Change | None = None) -> Memory:
    """A row of `records` with COLUMNS, as it travels."""
    temporal = row["temporal"] or {}
    return Memory(
        user_id=row["user_id"],
        semantic_text=row["semantic_text"],
        record_id=row["record_id"],
        memory_type=row["memory_type"],
        entities=tuple(row["entities"] or ()),
        t_ref=temporal.get("t_ref") or "",
        t_valid_from=temporal.get("t_valid_from") or "",
        t_valid_to=temporal.get("t_valid_to") or "",
        tags=tuple(row["tags"] or ()),
        evidence=tuple((item["session_id"], item["turn_index"]) for item in row["evidence"] or ()),
        source_role=row["source_role"] or "",
        conversation_id=row["conversation_id"],
        session_id=row["session_id"],
        session_time=row["session_time"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        revision=row["revision"],
        active=row["active"],
        change=change,
        closed_reason=row.get("closed_reason"),
        extra=tuple(extra_of(row.get("extra")).items()),
    )
