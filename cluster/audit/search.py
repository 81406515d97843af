"""An audit of a group of users: rows of a store in, findings out. Reads; changes nothing.

What a memory's own words say against it comes first (cluster.audit.wording). What is left is compared within
each user: near-duplicates by vectors and by words, then repeats and contradictions as a consolidation finds
them, whose decider says what a newer memory replaces.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.audit.wording import RELATIVE, Stated, faults
from cluster.backfill.gates import repeated
from cluster.consolidate.candidates import comparable_starts, similar_pairs
from cluster.consolidate.decider import guarded
from cluster.consolidate.fold import UNITE, Decide, Question, Verdict, fold
from cluster.consolidate.pins import pinned
from cluster.consolidate.plan import (
    PlanSettings,
    compared,
    dates_of,
    memory_of,
    ordered,
    pairs_of,
    vectors_of,
)
from cluster.consolidate.without_model import WITHOUT_MODEL
from cluster.store.sql import in_lists
from cluster.store.store import Store
from schemas.audit import AUDIT, Finding, Kind

NEAR = 0.9
"""Least cosine of near-duplicates, of which one also has all words of the other."""

MAX_NEAR = 10
"""Newer memories that each one is compared with by words."""

_COLUMNS = [
    *("record_id", "revision", "user_id", "session_time", "session_id", "semantic_text", "memory_type"),
    *("entities", "tags", "temporal", "evidence", "created_at", "vector"),
]

Turns = dict[tuple[str, str, int], tuple[str, str]]
"""(user, session, index) -> (role, text)."""


def audit(
    store: Store, users: Sequence[str], settings: PlanSettings, kinds: Sequence[Kind], decide: Decide
) -> tuple[list[Finding], int]:
    """Findings of these kinds among the active memories of some users, sorted by user; how many memories
    there are. What is pinned by hand is found as well, but not to be closed."""
    records = pa.concat_tables(
        store.rows("records", _COLUMNS, f"{where} AND active", settings.as_of)
        for where in in_lists("user_id", list(users))
    )
    records = ordered(records, settings.started_at)
    found, standing = _of_words(records, _turns(store, records, settings.as_of), kinds)
    if "duplicate" in kinds:
        near = _near_duplicates(records, standing)
        standing -= {position for position, _ in near}
        found += [_finding(records, *pair) for pair in near]
    if {"duplicate", "contradiction"} & set(kinds):
        rest = records.take(pa.array(sorted(standing), pa.int64()))
        found += [one for one in _decided(rest, settings, decide) if one.kind in kinds]
    pins = set(pinned(store, settings.as_of).to_pylist())
    found = [replace(one, action="") if one.record_id in pins else one for one in found]
    return sorted(found, key=lambda one: (one.user_id, kinds.index(one.kind), one.record_id)), len(records)


def deciding(kind: str, min_confidence: float) -> Decide:
    """What one of WITHOUT_MODEL answers, as the guards let it pass; loaded at the first question."""
    loaded: list[Any] = []

    def decide(questions: list[Question]) -> list[Verdict]:
        if not loaded:
            loaded.append(WITHOUT_MODEL[kind]())
        return guarded(questions, loaded[0].decide(questions), min_confidence=min_confidence)

    return decide


# --- by their own words -------------------------------------------------------------------------------


def _turns(store: Store, records: pa.Table, as_of: str) -> Turns:
    """The turns on which memories rest."""
    places = {
        (user, item["session_id"], item["turn_index"])
        for user, items in zip(*_lists(records, "user_id", "evidence"), strict=True)
        for item in items or ()
    }
    sessions = pa.array(sorted({session for _, session, _ in places}), pa.string())
    found: Turns = {}
    columns = ["user_id", "session_id", "turn_index", "role", "content"]
    for where in in_lists("user_id", sorted({user for user, _, _ in places})):
        rows = store.rows("turns", columns, f"{where} AND active", as_of)
        rows = rows.filter(pc.is_in(rows.column("session_id"), sessions))
        for user, session, index, role, content in zip(*_lists(rows, *columns), strict=True):
            if (user, session, index) in places:
                found[user, session, index] = role, content
    return found


def _lists(rows: pa.Table, *columns: str) -> Iterable[list]:
    return (rows.column(name).to_pylist() for name in columns)


def _of_words(records: pa.Table, turns: Turns, kinds: Sequence[Kind]) -> tuple[list[Finding], set[int]]:
    """Findings of each memory's own words, and the positions of the memories that have none."""
    found, standing = [], set()
    columns = ("record_id", "revision", "user_id", "semantic_text", "session_time", "temporal", "evidence")
    for position, row in enumerate(zip(*_lists(records, *columns), strict=True)):
        record_id, revision, user, text, time, temporal, evidence = row
        places = [(item["session_id"], item["turn_index"]) for item in evidence or ()]
        said = {place: turns[user, *place] for place in places if (user, *place) in turns}
        is_dated = time is not None or any(dates_of(temporal))
        wrong = faults(Stated(text, is_dated, tuple(said.values())), kinds)
        if not wrong:
            standing.add(position)
        shown = tuple(
            {"session_id": session, "turn_index": index, "text": told}
            for (session, index), (_, told) in said.items()
        )
        found += [Finding(record_id, revision, user, one.kind, one.reason, text, shown) for one in wrong]
    return found, standing


# --- beside others ------------------------------------------------------------------------------------


def _near_duplicates(records: pa.Table, standing: set[int]) -> list[tuple[int, int]]:
    """(position of a memory, position of the one that stays and tells it whole), oldest first."""
    columns = ("semantic_text", "memory_type", "temporal", "session_time")
    rows = list(zip(*_lists(records, *columns), strict=True))
    vectors, starts, gone = vectors_of(records), comparable_starts(records), dict[int, int]()
    for start, end in zip(starts, [*starts[1:], records.num_rows], strict=True):
        members = np.array([position for position in range(start, end) if position in standing], np.int64)
        if len(members) < 2:
            continue
        every = np.ones(len(members), bool)
        near = similar_pairs(vectors[members], every, top_k=MAX_NEAR, min_similarity=NEAR)
        for older, newer in zip(members[near.targets].tolist(), members[near.sources].tolist(), strict=True):
            if older in gone or newer in gone or not _of_one_time(rows[older], rows[newer]):
                continue
            # Of two with the same words the newer one stays.
            told = repeated([(rows[newer][0], set()), (rows[older][0], set())])
            if told:
                lost, kept = (newer, older) if 0 in told else (older, newer)
                gone[lost] = kept
    return [(lost, _last(gone, kept)) for lost, kept in sorted(gone.items())]


def _last(gone: dict[int, int], position: int) -> int:
    while position in gone:
        position = gone[position]
    return position


def _of_one_time(older: tuple, newer: tuple) -> bool:
    """Whether two memories may tell of the same: what happens on two days happens twice."""
    if not any(kind == "event" or RELATIVE.search(text) for text, kind, _, _ in (older, newer)):
        return True
    days = [(*dates_of(temporal)[1:], time and time.date()) for _, _, temporal, time in (older, newer)]
    return days[0] == days[1]


def _finding(records: pa.Table, lost: int, kept: int) -> Finding:
    columns = ["record_id", "revision", "user_id", "semantic_text"]
    row, other = records.select(columns).take(pa.array([lost, kept])).to_pylist()
    return Finding(
        row["record_id"],
        row["revision"],
        row["user_id"],
        "duplicate",
        "another memory says all of it, in other words",
        row["semantic_text"],
        ({"record_id": other["record_id"], "text": other["semantic_text"]},),
        UNITE,
        ((other["record_id"], other["revision"]),),
    )


_REASONS = {
    UNITE: "another memory says the same",
    "delete": "a newer memory replaces it",
    "": "a newer memory replaces a part of it; jobs.consolidate rewrites it",
}


def _decided(records: pa.Table, settings: PlanSettings, decide: Callable) -> Iterable[Finding]:
    """What a consolidation of these memories would close, or rewrite."""
    planned, pairs, _ = compared(
        records,
        np.ones(records.num_rows, bool),
        top_k=settings.top_k,
        min_similarity=settings.min_similarity,
    )
    memories = [memory_of(row | {"last_revision": 0, "is_pinned": False}) for row in planned.to_pylist()]
    folded = fold(memories, pairs_of(pairs), decide, decider=AUDIT, max_sources=settings.max_sources)
    texts = {memory.record_id: memory.text for memory in memories}
    sources = {
        row["decision_id"]: tuple(zip(row["source_ids"], row["source_revisions"], strict=True))
        for row in folded.decisions
    }
    revisions = {memory.record_id: memory.revision for memory in memories}
    for change in folded.changes:
        if not (change.closed_reason or change.is_rewritten):
            continue
        memory, action = change.memory, change.closed_reason
        because = [name for name, _ in sources.get(change.decision_id, ())]
        yield Finding(
            memory.record_id,
            memory.revision,
            memory.user_id,
            "duplicate" if action == UNITE else "contradiction",
            _REASONS[action],
            memory.text,
            tuple({"record_id": name, "text": texts[name]} for name in because),
            action,
            # As they stand in the store: what a consolidation would add to them is not written here.
            tuple((name, revisions[name]) for name in because),
        )
