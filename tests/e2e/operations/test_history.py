"""History of a real store, as text and as JSON."""

import pytest

from jobs.common.cli import JobError
from jobs.history import HistoryConfig
from jobs.history import run as history_job
from tests.e2e.operations.stores import (
    ANN,
    record_id,
)


def test_history_tells_a_memory_s_life_with_its_decisions_and_what_was_said(store, capsys):
    lyon = record_id("lyon", "User lives in Lyon.")
    history_job(HistoryConfig(store=store.uri, memory=lyon))
    shown = capsys.readouterr().out
    for part in (
        "User lives in Lyon.",
        "closed by run3: delete",
        "s1-of-ann#0  user: I live in Lyon",
        "run3",
    ):
        assert part in shown
    (life,) = history_job(HistoryConfig(store=store.uri, memory=lyon, as_json=True))["memories"]
    assert not life["active"]
    assert life["decisions"][0]["sources"][0]["text"] == "User lives in Oslo."
    assert history_job(HistoryConfig(store=store.uri, user_id=ANN, as_json=True))["num_memories"] == 4
    with pytest.raises(JobError, match="--memory none: not in run run3"):
        history_job(HistoryConfig(store=store.uri, memory="none"))


def test_history_compares_two_runs(store, capsys):
    history_job(HistoryConfig(store=store.uri, run="run3", against="run1"))
    shown = capsys.readouterr().out
    assert "added: 2" in shown and "superseded: 1" in shown and "removed: 0" in shown
    assert "User lives in Lyon.  (delete because of User lives in Oslo. [" in shown
    found = history_job(HistoryConfig(store=store.uri, run="run3", as_json=True))
    assert (found["num_added"], found["num_superseded"], found["num_removed"]) == (0, 1, 0)
    assert [item["text"] for item in found["superseded"][0]["by"]] == ["User lives in Oslo."]
    history_job(HistoryConfig(store=store.uri))
    assert capsys.readouterr().out.count("\nrun") == 2
