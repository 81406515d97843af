"""Rollback on a real store: exactly that run's view, a run itself, and remembered by the ledger."""

import lancedb
import pytest

from cluster.store import maintenance
from cluster.store.files import Files
from cluster.store.store import Store
from jobs.common.cli import JobError
from jobs.rollback import RollbackConfig
from jobs.rollback import run as rollback_job
from tests.e2e.operations.stores import (
    ANN,
    TEA,
    ledger_of,
    ops_row,
    tables,
    texts,
)
from tests.unit.cluster.store.stores import commit, segment, view


def test_rollback_gives_exactly_that_run_s_view_and_can_be_undone(store):
    before = {run: view(store, run) for run in ("run1", "run2", "run3")}
    summary = rollback_job(RollbackConfig(store=store.uri, to="run1"))
    assert (summary["status"], summary["from"], summary["to"]) == ("done", "run3", "run1")
    for name in ("records", "turns", "decisions", "rejections"):
        assert view(store)[name] == before["run1"][name]
        plain = lancedb.connect(store.uri).open_table(name)
        assert sorted(plain.to_arrow().to_pylist(), key=str) == before["run1"][name]
    assert texts(store) == ["User has a zanzibarine parrot.", "User lives in Lyon.", "User saw the moon."]
    for run in ("run1", "run2", "run3"):
        assert tables(view(store, run)) == tables(before[run])
    assert store.run()["job"] == "rollback"

    rollback_job(RollbackConfig(store=store.uri, to="run3"))
    for name in ("records", "turns", "decisions"):
        assert view(store)[name] == before["run3"][name]
    manifests = Files(store.uri, "runs").paths()
    assert {f"{row['run_id']}.json" for row in store.runs()[3:]} == set(manifests)


def test_a_nightly_run_does_not_bring_back_what_was_rolled_back(store):
    rollback_job(RollbackConfig(store=store.uri, to="run1"))
    known = ledger_of(store)
    assert known.of_session(ANN, "s2-of-ann") == {"tea": True}
    assert known.gone(ANN, "s2-of-ann", {"tea"}) == []
    asked = ledger_of(store, include_rolled_back=True)
    assert asked.of_session(ANN, "s2-of-ann") == {"tea": False}
    # Another encoder is no word for it either.
    assert ledger_of(store, encoder="encoder-2").of_session(ANN, "s2-of-ann") == {"tea": True}
    # What came before is known as ever, and what is new is encoded.
    assert known.of_session(ANN, "s1-of-ann") == {"lyon": True}
    assert known.of_session(ANN, "s4") == {}
    # Asked for, the segment takes the place of its mark.
    commit(store, "run5", TEA, closed=["tea"])
    rows = store.rows("segments", ["outcome", "active"], where="segment_id = 'tea'").to_pylist()
    assert rows == [{"outcome": "complete", "active": True}]
    assert "User drinks green tea." in texts(store)


def test_a_replaced_segment_that_came_back_stays_until_its_session_changes(tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    commit(store, "run1", segment("old", "I drink tea", records=["User drinks tea."]))
    commit(store, "run2", segment("new", "I drink rum", records=["User drinks rum."]), closed=["old"])
    maintenance.rollback(store, ops_row("run3", "rollback"), "run1")
    assert texts(store) == ["User drinks tea."]
    known = ledger_of(store)
    assert known.of_session("ann", "s") == {"old": True, "new": True}
    assert known.gone("ann", "s", {"new"}) == []
    assert known.gone("ann", "s", {"new", "appended"}) == []
    assert sorted(known.gone("ann", "s", {"edited"})) == ["new", "old"]
    assert ledger_of(store, include_rolled_back=True).gone("ann", "s", {"new"}) == ["old"]
    maintenance.rollback(store, ops_row("run4", "rollback"), "run2")
    assert texts(store) == ["User drinks rum."]
    assert ledger_of(store).gone("ann", "s", {"new"}) == ["old"]


def test_rollback_to_a_run_that_is_not_there(store):
    with pytest.raises(JobError, match=r"--to run9: no such run in .*; it has \['run1', 'run2', 'run3'\]"):
        rollback_job(RollbackConfig(store=store.uri, to="run9"))
