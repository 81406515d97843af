"""Compaction on a real store: versions and files are bounded, what expired is refused by name."""

import datetime as dt

import pytest
from lancedb.table import LanceTable

from cluster.store.errors import StoreError
from cluster.store.files import everything
from jobs.common.cli import JobError
from jobs.compact import CompactConfig
from jobs.compact import run as compact_job
from jobs.history import HistoryConfig
from jobs.history import run as history_job
from jobs.rollback import RollbackConfig
from jobs.rollback import run as rollback_job
from tests.e2e.operations.stores import (
    ANN,
    ids,
    tables,
)
from tests.unit.cluster.store.stores import SCHEMAS, commit, segment, vector, view


def test_compact_bounds_versions_and_says_what_expired(store):
    for number in range(4, 10):
        commit(store, f"run{number}", segment(f"day{number}", f"Day {number}", session=f"d{number}"))
    kept = {run: view(store, run) for run in ("run8", "run9")}
    summary = compact_job(CompactConfig(store=store.uri, keep_runs=2))
    assert (summary["num_runs_expired"], summary["num_runs_kept"]) == (7, 2)
    assert summary["num_versions"] <= 2 * 2 * len(SCHEMAS) < summary["num_versions_before"]
    for run, shown in kept.items():
        assert tables(view(store, run)) == tables(shown)
    with pytest.raises(StoreError, match=r"--as-of run3: the view of this run has expired .*'run8', 'run9'"):
        store.rows("records", ["record_id"], as_of="run3")
    with pytest.raises(JobError, match="--to run3: its view has expired"):
        rollback_job(RollbackConfig(store=store.uri, to="run3"))
    shown = history_job(HistoryConfig(store=store.uri, as_json=True))["runs"]
    assert [row["run_id"] for row in shown if row["has_view"]] == ["run8", "run9"]
    assert len(store.search(ANN, "tea", vector("tea"), 5)) == 5
    num_files = sum(1 for _ in everything(store.uri))
    for _ in range(3):
        compact_job(CompactConfig(store=store.uri, keep_runs=2))
    assert sum(1 for _ in everything(store.uri)) <= num_files + 3  # a manifest each


def test_commits_go_on_when_tags_are_a_week_old(store, monkeypatch):
    """LanceDB's optimize cleans up what is older than a week and fails at a tag: so would every later run."""
    monkeypatch.setattr("cluster.store.tables.KEEP_UNNAMED", dt.timedelta(0))
    original = LanceTable.optimize

    def a_week_later(table, *, cleanup_older_than=dt.timedelta(0), **options):
        return original(table, cleanup_older_than=cleanup_older_than, **options)

    monkeypatch.setattr(LanceTable, "optimize", a_week_later)
    before = {run: view(store, run) for run in ids(store)}
    commit(store, "run4", segment("sun", "The sun", session="s7"))
    compact_job(CompactConfig(store=store.uri, keep_runs=9))
    for run, shown in before.items():
        assert tables(view(store, run)) == tables(shown)
