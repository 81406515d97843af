"""Reopens memories whose superseding memory no longer exists: a decision on them has lost its grounds."""

import datetime as dt

import pyarrow as pa

from cluster.consolidate.fold import UNITE
from cluster.store.sql import in_lists
from cluster.store.store import Store
from schemas.store import BY_HAND, records_schema

LOST = "grounds_lost"
"""`closed_reason` of a revision that was rewritten because of a memory that no longer exists."""


def restorable(
    store: Store, run_id: str, started_at: dt.datetime, gone_by: frozenset[str] | None = None
) -> pa.Table | None:
    """Rows of `records` that reopen memories whose superseding memory no longer exists; None if there are
    none.

    A memory no longer exists when its segment was replaced: its session was edited, or encoded again. A
    memory that had been deleted, united or rewritten because of it returns as a new revision, with the
    content that the decision saw, if its own segment is still active. It is then compared with all others
    again.

    A later edit by hand of such a memory stays, also without an active segment.

    With `gone_by` given, only segments that those runs replaced count: earlier ones were settled by an
    earlier consolidation, even if a rollback has undone it.
    """
    names = ["record_id", "revision", "segment_id", "active", "closed_reason", "closed_run_id", "decision_id"]
    names += ["encoder"]
    applied = "outcome = 'applied' AND action != 'ignore'"
    decisions = store.rows(
        "decisions", ["decision_id", "decider", "target_id", "target_revision", "source_ids"], applied
    ).to_pylist()
    if not decisions:
        return None
    rows = store.rows("records", names, "NOT active OR revision > 1").to_pylist()
    replaced = {
        row["record_id"]
        for row in rows
        if row["closed_reason"] == "segment_replaced" and (gone_by is None or row["closed_run_id"] in gone_by)
    }
    known = sorted(replaced | {row["record_id"] for row in rows})
    active = {
        row["record_id"]: row
        for where in in_lists("record_id", known)
        for row in store.rows("records", names, f"active AND {where}").to_pylist()
    }
    gone = replaced - active.keys()
    highest: dict[str, dict] = {}
    for row in rows:
        if row["revision"] >= highest.get(row["record_id"], row)["revision"]:
            highest[row["record_id"]] = row
    wanted: dict[str, int] = {}
    edited: dict[str, int] = {}
    for decision in decisions:
        if decision["decider"] == BY_HAND:
            target, revision = decision["target_id"], decision["target_revision"]
            edited[target] = max(revision, edited.get(target, revision))
    for decision in decisions:
        target, last = decision["target_id"], highest.get(decision["target_id"])
        if decision["target_revision"] < edited.get(target, 0):
            continue
        if last is None or not gone.intersection(decision["source_ids"]):
            continue
        now = active.get(target)
        was_closed = now is None and last["closed_reason"] in ("delete", UNITE)
        if was_closed or (now is not None and now["decision_id"] == decision["decision_id"]):
            wanted[target] = min(decision["target_revision"], wanted.get(target, decision["target_revision"]))
    segments = sorted({highest[target]["segment_id"] for target in wanted})
    standing = {
        segment_id
        for where in in_lists("segment_id", segments)
        for segment_id in store.rows("segments", ["segment_id"], f"active AND {where}")
        .column("segment_id")
        .to_pylist()
    }
    wanted = {
        target: revision
        for target, revision in wanted.items()
        if highest[target]["segment_id"] in standing or highest[target]["encoder"] == BY_HAND
    }
    if not wanted:
        return None
    schema, found = records_schema(store.dim()), []
    for where in in_lists("record_id", sorted(wanted)):
        for row in store.rows("records", schema.names, where).to_pylist():
            target = row["record_id"]
            if row["revision"] == wanted[target]:
                again: dict[str, object] = {
                    "active": True,
                    "closed_run_id": None,
                    "closed_reason": None,
                    "decision_id": None,
                }
                again |= {"run_id": run_id, "revision": highest[target]["revision"] + 1}
                found.append(row | again | {"updated_at": started_at})
            elif row["active"]:
                ended = {"active": False, "closed_run_id": run_id, "closed_reason": LOST}
                found.append(row | ended | {"updated_at": started_at})
    return pa.Table.from_pylist(found, schema=schema)
