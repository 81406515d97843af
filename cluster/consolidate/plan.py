"""The plan of a consolidation: which memories of a group of users have to be compared with which.

A group is whole users, so that no later stage needs another group's data. Memories and pairs are staged; what
goes back to the driver are counts.
"""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.consolidate.attribute_reader import read_attributes
from cluster.consolidate.attributes import binding_keys, keys
from cluster.consolidate.candidates import (
    comparable_starts,
    own_turns,
    similar_pairs,
    slot_pairs,
    total_order,
    union,
    with_ingestion,
)
from cluster.consolidate.fold import Memory, Pair
from cluster.consolidate.pins import pinned
from cluster.language.claims import statement_key
from cluster.store.files import Files
from cluster.store.sql import in_lists
from cluster.store.store import Store
from schemas.record import extra_of
from schemas.stage_items import PlannedGroup, UserGroup
from schemas.store import EVIDENCE, EXTRA, TEMPORAL, TIME

PLANNED = pa.schema(
    [
        ("record_id", pa.string()),
        ("revision", pa.int32()),
        ("last_revision", pa.int32()),
        ("user_id", pa.string()),
        ("session_time", TIME),
        ("ingested_at", TIME),
        ("session_id", pa.string()),
        ("turn", pa.int64()),
        ("semantic_text", pa.string()),
        ("memory_type", pa.string()),
        ("entities", pa.list_(pa.string())),
        ("tags", pa.list_(pa.string())),
        ("temporal", TEMPORAL),
        ("evidence", pa.list_(EVIDENCE)),
        ("is_pinned", pa.bool_()),
        ("extra", EXTRA),
    ]
)
"""A memory of the plan: one that repeats another, or stands on either side of a pair."""

PAIRS = pa.schema([("target", pa.string()), ("source", pa.string()), ("score", pa.float32())])


@dataclass(frozen=True)
class PlanSettings:
    """What the stages need to know, the same for every worker of a run."""

    uri: str
    as_of: str
    """The run whose view is read: the same one in every worker, whatever is committed meanwhile."""
    run_id: str
    started_at: dt.datetime
    new_runs: tuple[str, ...] | None
    """Memories that these runs wrote are new; None: all are."""
    again: frozenset[str]
    """Record ids that are new once more, because a decision about them failed."""
    undone: tuple[str, ...]
    """Runs whose decisions a rollback took out: their answers are paid for all the same."""
    decider: str
    """Fingerprint."""
    min_similarity: float
    top_k: int
    max_sources: int
    min_confidence: float
    batch_size: int


_LOADED = [
    *("record_id", "revision", "user_id", "session_time", "session_id", "semantic_text", "memory_type"),
    *("entities", "tags", "temporal", "evidence", "created_at", "run_id", "vector", "extra"),
]


def plan_group(group: UserGroup, *, settings: PlanSettings, files: Files) -> PlannedGroup:
    """Stage: candidates of a group of users, staged."""
    store = Store(settings.uri)
    records = pa.concat_tables(
        store.rows("records", _LOADED, f"{users} AND active", settings.as_of)
        for users in in_lists("user_id", group.user_ids)
    )
    records = ordered(records, settings.started_at)
    is_new = is_new_mask(records, settings)
    planned, pairs, num_repeats = compared(
        records, is_new, top_k=settings.top_k, min_similarity=settings.min_similarity
    )
    highest = _highest_revisions(store, planned, settings)
    planned = planned.append_column("last_revision", pa.array(highest, pa.int32()))
    is_pinned = pc.is_in(planned.column("record_id"), pinned(store, settings.as_of))
    planned = planned.append_column("is_pinned", is_pinned)
    files.put_table(f"{group.group_id}/memories.parquet", planned.select(PLANNED.names).cast(PLANNED))
    files.put_table(f"{group.group_id}/pairs.parquet", pairs)
    return PlannedGroup(
        group_id=group.group_id,
        num_users=len(group.user_ids),
        num_memories=records.num_rows,
        num_new=int(is_new.sum()),
        num_pairs=pairs.num_rows,
        num_repeats=num_repeats,
        num_targets=pc.count_distinct(pairs.column("target")).as_py(),
    )


def ordered(records: pa.Table, now: dt.datetime) -> pa.Table:
    """Rows of the store, with `ingested_at`, in total order."""
    records = with_ingestion(records, now)
    return records.take(pa.array(total_order(records)))


def compared(
    records: pa.Table, is_new: np.ndarray, *, top_k: int, min_similarity: float
) -> tuple[pa.Table, pa.Table, int]:
    """`ordered` rows -> those that the fold needs, with `turn` and without vectors; pairs (PAIRS); number of
    repeats."""
    chosen, pairs, num_repeats = candidates(records, is_new, top_k=top_k, min_similarity=min_similarity)
    rows = records.take(pa.array(chosen)).drop_columns(["vector"])
    return rows.append_column("turn", pa.array(own_turns(rows), pa.int64())), pairs, num_repeats


def is_new_mask(records: pa.Table, settings: PlanSettings) -> np.ndarray:
    """bool [num_records]: which memories this run has to compare with the others."""
    if settings.new_runs is None:
        return np.ones(records.num_rows, bool)
    runs = pa.array(settings.new_runs, pa.string())
    mask = pc.is_in(records.column("run_id"), value_set=runs).to_numpy()
    if settings.again:
        ids = pa.array(sorted(settings.again), pa.string())
        mask = mask | pc.is_in(records.column("record_id"), value_set=ids).to_numpy()
    return mask


def candidates(
    records: pa.Table, is_new: np.ndarray, *, top_k: int, min_similarity: float
) -> tuple[np.ndarray, pa.Table, int]:
    """Rows of the store in total order -> positions that the fold needs, pairs (PAIRS), number of repeats.

    Of memories that repeat each other only the newest is compared: the others are united with it.
    """
    starts = comparable_starts(records)
    texts = records.column("semantic_text").to_pylist()
    types = records.column("memory_type").to_pylist()
    temporals = records.column("temporal").to_pylist()
    ids = records.column("record_id").to_pylist()
    vectors = vectors_of(records)
    rows: list[tuple[int, int, float]] = []
    chosen, num_repeats = set(), 0
    for start, end in zip(starts, [*starts[1:], records.num_rows], strict=True):
        if not is_new[start:end].any():
            continue
        groups: dict[str, list[int]] = {}
        for position in range(start, end):
            dates = dates_of(temporals[position])
            groups.setdefault(statement_key(texts[position], types[position], dates), []).append(position)
        for members in groups.values():
            if len(members) > 1 and is_new[members].any():
                chosen.update(members)
                num_repeats += len(members) - 1
        distinct = np.array(sorted(members[-1] for members in groups.values()))
        new = is_new[distinct]
        similar = similar_pairs(vectors[distinct], new, top_k=top_k, min_similarity=min_similarity)
        said = [read_attributes(texts[position]) for position in distinct]
        names, binding = [keys(one) for one in said], [binding_keys(one) for one in said]
        pairs = union(similar, slot_pairs(vectors[distinct], new, names, binding))
        targets, sources = distinct[pairs.targets], distinct[pairs.sources]
        chosen.update(targets.tolist(), sources.tolist())
        rows += zip(targets.tolist(), sources.tolist(), pairs.scores.tolist(), strict=True)
    table = pa.table(
        {
            "target": pa.array([ids[target] for target, _, _ in rows], pa.string()),
            "source": pa.array([ids[source] for _, source, _ in rows], pa.string()),
            "score": pa.array([score for _, _, score in rows], pa.float32()),
        }
    )
    return np.array(sorted(chosen), np.int64), table, num_repeats


TEMPORAL_NAMES = [field.name for field in TEMPORAL]


def vectors_of(records: pa.Table) -> np.ndarray:
    """float32 [num_records, dim] of the column `vector`."""
    column = records.column("vector").combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _highest_revisions(store: Store, planned: pa.Table, settings: PlanSettings) -> list[int]:
    """A record that was closed and came back may have closed revisions above its active one."""
    highest: dict[str, int] = {}
    for where in in_lists("user_id", planned.column("user_id").unique().to_pylist()):
        closed = store.rows("records", ["record_id", "revision"], f"{where} AND NOT active", settings.as_of)
        columns = (closed.column(name).to_pylist() for name in ("record_id", "revision"))
        for record_id, revision in zip(*columns, strict=True):
            highest[record_id] = max(revision, highest.get(record_id, 0))
    return [highest.get(record_id, 0) for record_id in planned.column("record_id").to_pylist()]


def load_memories(group_id: str, files: Files) -> list[Memory]:
    """The planned memories of a group."""
    return [memory_of(row) for row in files.get_table(f"{group_id}/memories.parquet").to_pylist()]


def dates_of(temporal: dict[str, str | None] | None) -> tuple[str, str, str]:
    """The dates of a row, in the order of TEMPORAL_NAMES; "" for what it does not say."""
    said_on, valid_from, valid_to = ((temporal or {}).get(name) or "" for name in TEMPORAL_NAMES)
    return said_on, valid_from, valid_to


def memory_of(row: dict) -> Memory:
    """A row of PLANNED as the fold's memory."""
    return Memory(
        record_id=row["record_id"],
        revision=row["revision"],
        last_revision=row["last_revision"],
        user_id=row["user_id"],
        session_time=row["session_time"].isoformat() if row["session_time"] else "",
        ingested_at=row["ingested_at"].isoformat(),
        session_id=row["session_id"],
        turn=row["turn"],
        text=row["semantic_text"],
        memory_type=row["memory_type"],
        entities=tuple(row["entities"] or ()),
        tags=tuple(row["tags"] or ()),
        temporal=dates_of(row["temporal"]),
        evidence=tuple(sorted((turn["session_id"], turn["turn_index"]) for turn in row["evidence"] or ())),
        is_pinned=row["is_pinned"],
        # What compares and writes nothing does not read it.
        extra=tuple(extra_of(row.get("extra")).items()),
    )


def columns_of(memory: Memory) -> dict:
    """The columns of its row in `records` that a revision may change, as the memory has them."""
    return {
        "revision": memory.revision,
        "semantic_text": memory.text,
        "entities": list(memory.entities),
        "tags": list(memory.tags),
        "temporal": dict(zip(TEMPORAL_NAMES, memory.temporal, strict=True)),
        "evidence": [{"session_id": session, "turn_index": turn} for session, turn in memory.evidence],
        "extra": list(memory.extra) or None,
    }


def load_pairs(group_id: str, files: Files) -> list[Pair]:
    """The planned pairs of a group."""
    return pairs_of(files.get_table(f"{group_id}/pairs.parquet"))


def pairs_of(table: pa.Table) -> list[Pair]:
    """Rows of PAIRS as the fold's pairs."""
    columns = (table.column(name).to_pylist() for name in PAIRS.names)
    return [Pair(*pair) for pair in zip(*columns, strict=True)]
