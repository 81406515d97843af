"""Operations that die before any of their steps, or meet another writer."""

import json

import lance
import pytest
from lance.dataset import DatasetOptimizer
from lancedb.merge import LanceMergeInsertBuilder
from lancedb.table import LanceTable, Tags

from cluster.forget import erase as forgetting
from cluster.forget.rules import Subject
from cluster.store import maintenance
from cluster.store.files import Files
from cluster.store.lease import Lease
from cluster.store.store import Store
from jobs.common.cli import JobError
from jobs.compact import CompactConfig
from jobs.compact import run as compact_job
from jobs.forget import ForgetConfig
from jobs.forget import run as forget_job
from jobs.rollback import RollbackConfig
from jobs.rollback import run as rollback_job
from schemas.store import table_schemas
from tests.dying import Killed, killed_before
from tests.e2e.operations.stores import (
    ANN,
    SECRET,
    copy_of,
    files_with,
    ids,
    ops_row,
    read,
    tables,
)
from tests.unit.cluster.store.stores import SCHEMAS, view

STEPS = [
    (Files, "put"),
    (Files, "create"),
    (Files, "delete"),
    (LanceTable, "restore"),
    (LanceTable, "delete"),
    (LanceTable, "drop_index"),
    (LanceTable, "create_index"),
    (LanceTable, "optimize"),
    (LanceMergeInsertBuilder, "execute"),
    (Tags, "create"),
    (Tags, "update"),
    (Tags, "delete"),
    (lance.LanceDataset, "insert"),
    (lance.LanceDataset, "cleanup_old_versions"),
    (DatasetOptimizer, "compact_files"),
]
"""Every call of an operation that changes something on disk."""


def reembedded(store):
    """Staged rows of a new generation, with vectors of another length."""
    files, staged = Files(store.uri, "staging"), {}
    for name in ("turns", "records"):
        schema = table_schemas(2)[name]
        rows = [row | {"vector": [0.6, 0.8], "embedder": "embedder-2"} for row in read(store, name)]
        files.put_rows(path := f"reembed/{name}.parquet", rows, schema)
        staged[name] = [path]
    return staged


OPERATIONS = {
    "rollback": lambda store: maintenance.rollback(store, ops_row("op", "rollback"), "run1"),
    "reembed": lambda store: maintenance.reembed(store, ops_row("op", "reembed"), 2, reembedded(store)),
    "compact": lambda store: maintenance.compact(store, ops_row("op", "compact"), 2),
    "forget": lambda store: forgetting.forget(store, ops_row("op", "forget"), Subject(ANN, "s1-of-ann")),
}


def chosen(labels: list[str], at_most: int) -> list[int]:
    """Steps to die before: the last of every kind, and others evenly."""
    steps = {len(labels) - 1 - labels[::-1].index(label) for label in set(labels)}
    others = [number for number in range(len(labels)) if number not in steps]
    return sorted(steps | set(others[:: -(-len(others) // max(1, at_most - len(steps)))]))


@pytest.mark.parametrize(
    "name",
    # The crash matrix kills the others at some writes in the default tests.
    [name if name == "rollback" else pytest.param(name, marks=pytest.mark.slow) for name in OPERATIONS],
)
def test_an_operation_that_dies_at_any_step_is_brought_to_its_end(name, template, tmp_path, monkeypatch):
    whole = copy_of(template, tmp_path / "whole")
    before = view(whole)
    labels = killed_before(monkeypatch, STEPS, -1, lambda: OPERATIONS[name](whole))
    expected = {run: tables(view(whole, run)) for run in ids(whole) if has_view(whole, run)}
    for number in chosen(labels, 14):
        store = copy_of(template, tmp_path / "killed")
        killed_before(monkeypatch, STEPS, number, lambda store=store: OPERATIONS[name](store))
        store = Store(store.uri)
        shown = view(store)
        if "op" not in shown["runs"] and name != "compact":
            assert shown == before, f"half of it is seen, killed before step {number}, {labels[number]}"
        if store.recover(forgetting.OPERATIONS) is None:
            # Killed before it was decided, or behind the very last step.
            OPERATIONS[name](store) if "op" not in ids(store) else None
        assert {run: tables(view(store, run)) for run in ids(store) if has_view(store, run)} == expected
        assert store.files.paths() == []
        assert ids(store) == ids(whole)
        if name == "forget":
            assert files_with(store.uri, SECRET, "Lyon") == [], f"killed before step {number}"
            assert forgetting.receipt(store, "op")["proof"]["is_clean"]
        for table in SCHEMAS:
            newest = json.loads(store.run()["versions"])[table]
            assert store.head(table).version == newest


def has_view(store, run_id):
    return json.loads(store.run(run_id)["versions"]) != {}


@pytest.mark.parametrize(
    "start_job",
    [
        lambda uri: rollback_job(RollbackConfig(store=uri, to="run1")),
        lambda uri: forget_job(ForgetConfig(store=uri, user_id=ANN)),
        lambda uri: compact_job(CompactConfig(store=uri, keep_runs=1)),
    ],
    ids=["rollback", "forget", "compact"],
)
def test_an_operation_waits_for_no_other_writer(store, start_job):
    before = view(store)
    with Lease(store.uri, "jobs.backfill"), pytest.raises(JobError, match=r"being written by jobs\.backfill"):
        start_job(store.uri)
    assert view(store) == before


def test_a_dead_operation_is_finished_by_the_next_job(store, monkeypatch, capsys):
    with pytest.raises(Killed), monkeypatch.context() as patch:
        patch.setattr(LanceTable, "restore", lambda *_: (_ for _ in ()).throw(Killed))
        rollback_job(RollbackConfig(store=store.uri, to="run1"))
    compact_job(CompactConfig(store=store.uri, keep_runs=9))
    assert store.run()["job"] == "rollback"
    assert "which had been interrupted" in capsys.readouterr().err
