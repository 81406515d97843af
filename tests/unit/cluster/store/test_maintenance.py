"""Marks that a rollback leaves, what the ledger makes of them, and the differences of two views."""

import datetime as dt
from types import SimpleNamespace

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cluster.backfill.ledger import Ledger
from cluster.consolidate.history import diff
from cluster.store.maintenance import expiring, rollback_marks
from schemas.store import RESTORED, ROLLED_BACK, SEGMENTS_SCHEMA


def segments(*rows) -> pa.Table:
    """(segment id, outcome, active) of one session."""
    defaults = {field.name: None for field in SEGMENTS_SCHEMA} | {"user_id": "u", "session_id": "s"}
    given_rows = [
        defaults | {"segment_id": name, "outcome": outcome, "active": active}
        for name, outcome, active in rows
    ]
    return pa.Table.from_pylist(given_rows, schema=SEGMENTS_SCHEMA)


def marks(now, then):
    found = rollback_marks(now=segments(*now), then=segments(*then), run_id="run9").to_pylist()
    return {row["segment_id"]: row["outcome"] for row in found}


def test_what_came_later_is_rolled_back_and_what_had_gone_is_restored():
    then = [("old", "complete", True), ("same", "partial", True), ("gone", "complete", False)]
    now = [("old", "complete", False), ("same", "partial", True), ("new", "split", True)]
    assert marks(now, then) == {"new": ROLLED_BACK, "old": RESTORED}


def test_marks_outlive_a_second_rollback_to_the_same_run():
    then = [("old", "complete", True)]
    now = [("old", RESTORED, True), ("new", ROLLED_BACK, True), ("newer", "complete", True)]
    assert marks(now, then) == {"old": RESTORED, "new": ROLLED_BACK, "newer": ROLLED_BACK}


def test_undoing_takes_the_marks_away():
    then = [("old", "complete", False), ("new", "complete", True)]
    now = [("old", RESTORED, True), ("new", ROLLED_BACK, True)]
    assert marks(now, then) == {"old": ROLLED_BACK}


NAMES = st.sampled_from("abcdef")
VIEW = st.dictionaries(NAMES, st.tuples(st.sampled_from(["complete", "partial"]), st.booleans()))


@given(VIEW, VIEW)
def test_after_a_rollback_the_same_archive_changes_nothing(now, then):
    """The archive is as the newest run saw it: its segments are the active ones of `now`."""
    after = {name: (outcome, active) for name, (outcome, active) in then.items()}
    found = marks([(name, *row) for name, row in now.items()], [(name, *row) for name, row in then.items()])
    after |= {name: (outcome, True) for name, outcome in found.items()}
    rows = segments(*((name, outcome, True) for name, (outcome, active) in after.items() if active))
    rows = rows.set_column(
        rows.schema.get_field_index("encoder"), "encoder", pa.array(["e"] * rows.num_rows, pa.string())
    )
    archive = {name for name, (_, active) in now.items() if active}
    ledger = Ledger.of(rows)
    known = ledger.of_session("u", "s")
    assert all(known.get(name) for name in archive)
    assert ledger.gone("u", "s", archive) == []


# --- differences --------------------------------------------------------------------------------------


def row(record_id, text, active=True, evidence=1, revision=1, reason=None):
    return {
        "record_id": record_id,
        "revision": revision,
        "user_id": "u",
        "session_time": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "semantic_text": text,
        "evidence": [{"session_id": "s", "turn_index": index} for index in range(evidence)],
        "active": active,
        "closed_reason": reason,
        "closed_run_id": reason and "run2",
        "decision_id": None,
    }


def test_every_kind_of_change_is_told():
    before = [
        row("same", "a"),
        row("rewritten", "b"),
        row("supported", "c"),
        row("removed", "d"),
        row("superseded", "i"),
        row("gone", "e"),
        row("returned", "f", active=False, reason="delete"),
        row("closed", "g", active=False, reason="delete"),
    ]
    after = [
        row("same", "a"),
        row("rewritten", "b", active=False, reason="update"),
        row("rewritten", "b2", revision=2),
        row("supported", "c", evidence=2),
        row("removed", "d", active=False, reason="segment_replaced"),
        row("superseded", "i", active=False, reason="delete"),
        row("returned", "f"),
        row("closed", "g", active=False, reason="delete"),
        row("added", "h"),
    ]
    decision = {"target_id": "superseded", "target_revision": 1, "outcome": "applied", "action": "delete"}
    found = diff(before, after, [decision | {"source_ids": ["added"], "source_revisions": [1]}])
    assert {kind: [entry["record_id"] for entry in entries] for kind, entries in found.items()} == {
        "added": ["added"],
        "returned": ["returned"],
        "rewritten": ["rewritten"],
        "supported": ["supported"],
        "superseded": ["superseded"],
        "removed": ["gone", "removed"],
    }
    assert (found["rewritten"][0]["before"], found["rewritten"][0]["after"]) == ("b", "b2")
    assert [entry["closed_reason"] for entry in found["removed"]] == [None, "segment_replaced"]
    (superseded,) = found["superseded"]
    assert superseded["closed_reason"] == "delete"
    assert superseded["by"] == [{"record_id": "added", "revision": 1, "text": "h"}]
    assert all(entries == [] for entries in diff(after, after).values())


def test_of_older_months_the_last_view_stays():
    start = dt.datetime(2025, 12, 1, tzinfo=dt.UTC)
    runs = [
        SimpleNamespace(run_id=f"run-{day}", finished_at=start + dt.timedelta(days=day)) for day in range(100)
    ]

    def stay(*keep: int) -> list[str]:
        gone = {run.run_id for run in expiring(runs, *keep)}
        return [run.run_id for run in runs if run.run_id not in gone]

    newest = [f"run-{day}" for day in range(90, 100)]
    # The last days of December, January and February.
    assert stay(10, 12) == ["run-30", "run-61", "run-89", *newest]
    assert stay(10, 2) == ["run-61", "run-89", *newest]
    assert stay(10, 0) == newest
    assert stay(100, 0) == stay(500, 12) == [run.run_id for run in runs]
