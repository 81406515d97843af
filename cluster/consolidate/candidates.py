"""Candidate pairs for consolidation: which newer memory may bear on which older one.

Memories have a strict total order, (event time, time of ingestion, session, turn, id), and a pair always
points from the newer memory, the *source*, to the strictly older one, the *target*: two memories are never
each other's target, however their clocks stand. Pairs never cross a user, nor do they join a memory of known
time with one of unknown. At least one side of a pair is new since the last run.

Two ways to be a pair: similarity of the vectors, exact, in blocks of a matrix product; and a common slot (see
cluster.consolidate.attributes), because two values of one attribute may be far apart ("lives in Leipzig",
"moved to Hanoi": cosine 0.34 with all-MiniLM-L6-v2).
"""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.archive import EARLIEST, MAX_AHEAD

BLOCK = 4096
"""Rows of one side of a matrix product; with at most as many on the other, a block of scores is 64 MiB."""

SLACK = 1e-5
"""Scores of two block shapes differ in the last bits of float32: what is this close is scored again."""


@dataclass(frozen=True)
class Pairs:
    """Pairs as arrays [num_pairs], sorted by (target, source); the numbers count the sorted memories."""

    targets: np.ndarray
    """int64."""
    sources: np.ndarray
    """int64, always greater than the target: memories are sorted, oldest first."""
    scores: np.ndarray
    """float32, cosine of unit vectors."""


def total_order(records: pa.Table) -> np.ndarray:
    """int64 [num_records]: positions of the rows, users apart, each user's memories from old to new.

    Columns user_id, session_time, ingested_at, session_id, evidence, record_id. Event time is the session's;
    memories of unknown time come first, and pairs are made of them and of dated ones apart, see
    `comparable_starts`. Of sessions with one time, or none, the one that came in later is the newer. The turn
    is the last one of the memory's own session among its evidence.
    """
    keys = pa.table(
        {
            "user_id": records.column("user_id"),
            "session_time": records.column("session_time"),
            "ingested_at": records.column("ingested_at"),
            "session_id": records.column("session_id"),
            "turn": pa.array(own_turns(records)),
            "record_id": records.column("record_id"),
        }
    )
    order = [(name, "ascending", "at_start") for name in keys.column_names]
    return pc.sort_indices(keys, sort_keys=order).to_numpy()


def comparable_starts(records: pa.Table) -> np.ndarray:
    """int64: where, in total order, memories begin that may bear on each other: those of one user that have a
    time, and those that have none. Nobody knows which of a dated and an undated memory is the newer, so
    neither may close the other."""
    users = records.column("user_id").combine_chunks().dictionary_encode().indices.to_numpy(False)
    is_dated = pc.is_valid(records.column("session_time")).to_numpy().astype(np.int64)
    return np.flatnonzero(np.diff(2 * users.astype(np.int64) + is_dated, prepend=-1))


def with_ingestion(records: pa.Table, now: dt.datetime) -> pa.Table:
    """`records` with times that are not plausible as unknown, and with the column `ingested_at`: when the
    first memory of the same session was written. Needs created_at."""
    times = records.column("session_time").combine_chunks()
    is_wrong = pc.invert(pc.and_(pc.greater_equal(times, EARLIEST), pc.less_equal(times, now + MAX_AHEAD)))
    times = pc.if_else(is_wrong, pa.scalar(None, times.type), times)
    users, sessions = (
        records.column(name).combine_chunks().dictionary_encode().indices.to_numpy(False).astype(np.int64)
        for name in ("user_id", "session_id")
    )
    # Numbers of both, and no text of both: ids may hold any character that could stand between them.
    _, number = np.unique(users * records.num_rows + sessions, return_inverse=True)
    written = records.column("created_at").cast(pa.int64()).to_numpy()
    first = np.full(records.num_rows, np.iinfo(np.int64).max)
    np.minimum.at(first, number, written)
    index = records.schema.get_field_index("session_time")
    return records.set_column(index, "session_time", times).append_column(
        "ingested_at", pa.array(first[number]).cast(records.schema.field("created_at").type)
    )


def own_turns(records: pa.Table) -> np.ndarray:
    """int64 [num_records]: the last evidence turn of each record's own session, -1 where there is none."""
    evidence = records.column("evidence").combine_chunks()
    rows = pc.list_parent_indices(evidence).to_numpy()
    flat = pc.list_flatten(evidence)
    turns = np.full(records.num_rows, -1, np.int64)
    if len(rows):
        own = records.column("session_id").combine_chunks().take(pa.array(rows))
        is_own = pc.equal(pc.struct_field(flat, "session_id"), own).fill_null(False).to_numpy(False)
        index = pc.struct_field(flat, "turn_index").fill_null(-1).to_numpy(False)
        np.maximum.at(turns, rows[is_own], index[is_own].astype(np.int64))
    return turns


def similar_pairs(
    vectors: np.ndarray, is_new: np.ndarray, *, top_k: int, min_similarity: float, block: int = BLOCK
) -> Pairs:
    """Pairs of one user by similarity: for each target its `top_k` sources of at least `min_similarity`.

    `vectors` float32 [num, dim], unit norm, sorted oldest first; `is_new` bool [num]. Costs num_new * num *
    dim multiplications and the memory of one block of scores. Exact: no pair of the definition is missed,
    ties go to the newer source, and the result does not depend on `block`.
    """
    new, old = np.flatnonzero(is_new), np.flatnonzero(~is_new)
    vectors = np.ascontiguousarray(vectors, np.float32)
    found = []
    # Sources are new, targets are anything older; then targets are new, sources older in the store but newer.
    for targets, sources in ((np.arange(len(vectors)), new), (new, old)):
        for start in range(0, len(targets), block):
            chunk = targets[start : start + block]
            found += _top(vectors, chunk, sources[sources > chunk[0]], top_k, min_similarity, block)
    if not found:
        return _no_pairs()
    targets, sources = (np.concatenate(part) for part in zip(*found, strict=True))
    return _best(vectors, targets, sources, top_k, min_similarity)


def _top(
    vectors: np.ndarray,
    targets: np.ndarray,
    sources: np.ndarray,
    top_k: int,
    min_similarity: float,
    block: int,
) -> list[tuple]:
    """Pairs of a block of targets that may be among the best: of each block of sources, its best and ties."""
    found = []
    for start in range(0, len(sources), block):
        chunk = sources[start : start + block]
        scores = vectors[chunk] @ vectors[targets].T
        if chunk[0] <= targets[-1]:
            scores[chunk[:, None] <= targets[None, :]] = -2.0
        num_enough = np.count_nonzero(scores >= min_similarity - SLACK, axis=0)
        keep = np.flatnonzero(num_enough)
        if not len(keep):
            continue
        scores, num_enough = scores[:, keep], num_enough[keep]
        bar = np.full(len(keep), min_similarity, np.float32)
        # Finding the k-th best is dear: only for targets that have more than k good ones.
        crowded = np.flatnonzero(num_enough > top_k)
        if len(crowded):
            kth = np.partition(scores[:, crowded], len(chunk) - top_k, axis=0)[len(chunk) - top_k]
            bar[crowded] = np.maximum(bar[crowded], kth)
        rows, columns = np.nonzero(scores >= bar - SLACK)
        found.append((targets[keep[columns]], chunk[rows]))
    return found


def _best(
    vectors: np.ndarray, targets: np.ndarray, sources: np.ndarray, top_k: int, min_similarity: float
) -> Pairs:
    scores = pair_scores(vectors, targets, sources)
    keep = scores >= min_similarity
    targets, sources, scores = targets[keep], sources[keep], scores[keep]
    order = np.lexsort((-sources, -scores, targets))
    targets, sources, scores = targets[order], sources[order], scores[order]
    rank = np.arange(len(targets)) - np.searchsorted(targets, targets, "left")
    keep = rank < top_k
    return _sorted(targets[keep], sources[keep], scores[keep])


def pair_scores(vectors: np.ndarray, targets: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """float32 [num_pairs]: cosines, each computed by itself, so that they depend on nothing but the pair."""
    scores = np.empty(len(targets), np.float32)
    for start in range(0, len(targets), 65536):
        part = slice(start, start + 65536)
        products = vectors[targets[part]].astype(np.float64) * vectors[sources[part]]
        scores[part] = products.sum(axis=1)
    return scores


def slot_pairs(
    vectors: np.ndarray,
    is_new: np.ndarray,
    slots: list[set[str]],
    binding: list[set[str]],
    *,
    max_sources: int = 3,
) -> Pairs:
    """Pairs of one user by common slot: each target with the newest `max_sources` that may replace it there.

    `slots` are those under which each memory may be replaced, `binding` those under which it may replace,
    oldest first (see cluster.consolidate.attributes). Linear in the memories; a pair needs a new side.
    """
    by_slot: dict[str, tuple[list[int], list[int]]] = {}
    for index, (names, strong) in enumerate(zip(slots, binding, strict=True)):
        for name in names:
            by_slot.setdefault(name, ([], []))[0].append(index)
        for name in strong:
            by_slot.setdefault(name, ([], []))[1].append(index)
    found: set[tuple[int, int]] = set()
    for targets, sources in by_slot.values():
        new = [index for index in sources if is_new[index]]
        for target in targets if sources else ():
            newest = (sources if is_new[target] else new)[-max_sources:]
            found.update((target, source) for source in newest if source > target)
    if not found:
        return _no_pairs()
    older, newer = (np.array(part, np.int64) for part in zip(*sorted(found), strict=True))
    return Pairs(older, newer, pair_scores(vectors, older, newer))


def union(first: Pairs, second: Pairs) -> Pairs:
    """Both, each pair once."""
    return _sorted(
        np.concatenate([first.targets, second.targets]),
        np.concatenate([first.sources, second.sources]),
        np.concatenate([first.scores, second.scores]),
    )


def _sorted(targets: np.ndarray, sources: np.ndarray, scores: np.ndarray) -> Pairs:
    order = np.lexsort((sources, targets))
    targets, sources, scores = targets[order], sources[order], scores[order]
    is_first = np.ones(len(targets), bool)
    is_first[1:] = (np.diff(targets) != 0) | (np.diff(sources) != 0)
    return Pairs(targets[is_first], sources[is_first], scores[is_first])


def _no_pairs() -> Pairs:
    return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
