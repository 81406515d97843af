"""What jobs.history lists, and how ids are given to it."""

import datetime as dt

import pytest

from cluster.store.store import Store
from jobs.common.cli import JobError, parse_config
from jobs.history import HistoryConfig
from jobs.history import run as history_job
from jobs.rollback import RollbackConfig
from jobs.rollback import run as rollback_job
from tests.e2e.operations.stores import ANN, record_id
from tests.unit.cluster.report import nights as story
from tests.unit.cluster.store.stores import commit, segment


def ask(store, **asked):
    return history_job(HistoryConfig(store=store.uri, **asked))


def test_every_run_is_listed_with_how_it_ended_what_it_did_what_it_cost_and_why(nights, capsys):
    assert ask(nights)["num_runs"] == len(story.ALL)
    shown = dict(zip(story.ALL, capsys.readouterr().out.splitlines(), strict=True))
    assert all(line.startswith(name) for name, line in shown.items())
    assert "failed" in shown[story.FAILURE] and story.FAILED in shown[story.FAILURE]
    assert "stopped" in shown[story.CAPPED] and "cost 0.5000" in shown[story.CAPPED]
    assert "2 segments encoded, 2 records" in shown[story.FIRST] and "(view expired)" in shown[story.FIRST]
    assert f"undone by {story.BACK}" in shown[story.IMPORTED]
    assert f"to {story.DECIDED}" in shown[story.BACK] and "2 records removed" in shown[story.FORGOT]
    assert "unchanged" in shown[story.UNCHANGED] and "dry_run" in shown[story.DRY]
    assert "90 s" in shown[story.LAST]


def test_as_json_a_run_keeps_the_keys_that_it_had_and_has_new_ones(nights):
    runs = ask(nights, as_json=True, since=dt.date(2026, 3, 11))["runs"]
    assert [row["run_id"] for row in runs] == [story.LAST, story.COMPACTED]
    had = {"run_id", "job", "started_at", "finished_at", "encoder", "embedder", "has_view", "summary"}
    assert had | {"status", "reason", "cost", "seconds", "undone_by"} <= runs[0].keys()
    assert runs[0]["summary"]["num_records"] == 1 and runs[0]["has_view"]


def test_rejections_are_told_by_reason_with_samples_also_those_of_a_run_that_failed(nights, capsys):
    found = ask(nights, rejections=True, as_json=True)
    assert found["num_rejections"] == 2
    assert [(one["stage"], one["reason"], one["num"]) for one in found["rejections"]] == [
        ("archive", "bad", 1),
        ("archive", "no_turns", 1),
    ]
    ask(nights, rejections=True)
    shown = capsys.readouterr().out
    assert (
        "a.parquet:1" in shown and f"b.parquet:7, run {story.FAILURE}" in shown and "what she said" in shown
    )
    since = ask(nights, rejections=True, since=dt.date(2026, 3, 2), as_json=True)
    assert [one["reason"] for one in since["rejections"]] == ["no_turns"]


def test_users_are_told_in_counts_with_how_fresh_they_are(nights, capsys):
    found = {row["user_id"]: row for row in ask(nights, users=True, as_json=True)["users"]}
    assert found.keys() == {ANN, "eve"}, "bob is forgotten"
    assert (found[ANN]["num_memories"], found[ANN]["num_turns"]) == (3, 4)
    assert found[ANN]["last_said"] == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    ends = {run.run_id: run.finished_at for run in nights.runs()}
    assert found["eve"]["last_changed"] == ends[story.LAST]
    ask(nights, users=True)
    assert f"{ANN}  3 memories, 4 turns, last said 2026-01-01" in capsys.readouterr().out


def test_a_beginning_of_an_id_names_a_memory_or_a_run(nights, capsys):
    lyon = record_id("lyon", "User lives in Lyon.")
    (life,) = ask(nights, memory=lyon[:8], as_json=True)["memories"]
    assert life["record_id"] == lyon
    ask(nights, run="20260311T", against="20260308")
    assert f"run {story.LAST} against {story.FORGOT}" in capsys.readouterr().out
    assert ask(nights, run="20260311T", as_json=True)["num_added"] == 1
    with pytest.raises(JobError, match=r"--run 202603: several runs .* begin so; name one of"):
        ask(nights, run="202603")
    with pytest.raises(JobError, match=r"--against nothing: no such run"):
        ask(nights, run="20260311T", against="nothing")
    with pytest.raises(JobError, match="--memory none: not in run"):
        ask(nights, memory="none")


def test_a_beginning_that_several_memories_have_is_refused_with_them(tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    commit(store, "run1", segment("many", "I said much", records=[f"Statement {n}" for n in range(17)]))
    ids = store.rows("records", ["record_id"]).column("record_id").to_pylist()
    first = next(name[0] for name in ids if sum(other[0] == name[0] for other in ids) > 1)
    with pytest.raises(JobError, match=f"memory {first}: .* begin so") as refused:
        ask(store, memory=first)
    assert all(name in str(refused.value) for name in ids if name[0] == first)


def test_a_beginning_with_marks_of_sql_is_only_text(nights):
    for given in ("%", "_", "' OR true --", "\\"):
        with pytest.raises(JobError, match="not in run"):
            ask(nights, memory=given)


def test_a_rollback_takes_the_beginning_of_an_id_and_keeps_the_whole_one(own_nights):
    summary = rollback_job(RollbackConfig(store=own_nights.uri, to="20260308"))
    assert summary["to"] == story.FORGOT
    with pytest.raises(JobError, match=r"--to 202603: several runs of .* begin so; name one of"):
        rollback_job(RollbackConfig(store=own_nights.uri, to="202603"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--rejections", "--users"], "rejections and users: give rejections, or users, without the others"),
        (["--users", "--user-id", "u"], "user_id and users: give"),
        (["--since", "2026-03-01", "--users"], "since=2026-03-01: goes with the list of runs"),
        (["--since", "2026-03-01", "--memory", "m"], "since=2026-03-01: goes with the list of runs"),
    ],
)
def test_what_does_not_go_together_is_refused(options, told, capsys):
    with pytest.raises(SystemExit):
        parse_config(HistoryConfig, "A job.", ["--store", "s", *options])
    assert told in capsys.readouterr().err
