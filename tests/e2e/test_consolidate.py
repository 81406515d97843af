"""Consolidation on real parts: gold memories, real vectors, Ray, LanceDB, rules; and one short model run.

The runs share one Ray instance of this process: what is tested is the store that they leave.
"""

import json
from pathlib import Path

import lancedb
import numpy as np
import pytest

from cluster.lease import Lease
from cluster.store import Store
from jobs.cli import JobError
from jobs.consolidate import ConsolidateConfig, run
from jobs.sample.__main__ import SampleConfig
from jobs.sample.__main__ import run as make_sample
from tests.e2e.conftest import job
from tests.gold import gold_rows, load_embedder, memory_row, write_run


@pytest.fixture(scope="module")
def embedder():
    return load_embedder()


@pytest.fixture(scope="module", autouse=True)
def ray_down_afterwards():
    yield
    import ray

    ray.shutdown()


def consolidate(store: Path, **options) -> dict:
    return run(ConsolidateConfig(store=str(store), **options))


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
    return folder / "store", gold, consolidate(folder / "store")


def test_current_values_are_active_and_old_ones_are_not(world):
    store, gold, summary = world
    left = active(store)
    superseded = [row for row in gold if row["status"] == "superseded"]
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
    again = consolidate(store, since="all")
    assert again["num_decisions"] == again["num_decisions_known"] > 0
    assert active(store) == before and table(store, "decisions") == decisions


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


def test_a_dry_run_names_the_cost_and_writes_nothing(tmp_path, embedder):
    write(tmp_path / "s", embedder, "night-1", LYON, OSLO)
    before = table(tmp_path / "s", "runs")
    planned = consolidate(tmp_path / "s", decider="model", dry_run=True)
    assert planned["status"] == "dry_run"
    assert planned["expected_calls"] == 1 and planned["expected_tokens"] > 100
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

    def die(self, table, name, *rest):
        if name == "records":
            raise KeyboardInterrupt
        return original(self, table, name, *rest)

    original = Store._apply_table
    monkeypatch.setattr(Store, "_apply_table", die)
    with pytest.raises(KeyboardInterrupt):
        consolidate(tmp_path / "s")
    assert len(texts(tmp_path / "s")) == 2
    monkeypatch.undo()
    assert consolidate(tmp_path / "s")["status"] == "unchanged"
    assert texts(tmp_path / "s") == [OSLO["semantic_text"]]


def test_an_outage_is_recorded_retried_and_ends_as_failed(tmp_path, embedder, monkeypatch):
    """A decider that cannot answer: the run says so, and the next one asks again without being told to."""
    from schemas.store import DECISIONS_SCHEMA

    write(tmp_path / "s", embedder, "night-1", LYON, OSLO)
    staged = Store(str(tmp_path / "s"))
    failed = {name: None for name in DECISIONS_SCHEMA.names} | {
        "decision_id": "x",
        "user_id": "u",
        "target_id": LYON["memory_id"],
        "decider": "rules-1",
        "outcome": "failed",
        "run_id": "outage",
    }
    from cluster.files import Files

    Files(staged.uri, "staging").put_rows("d.parquet", [failed], DECISIONS_SCHEMA)
    last = staged.run()
    row = {name: last[name] for name in ("encoder", "embedder", "embedder_profile", "config")}
    row |= {"run_id": "outage", "job": "consolidate", "summary": json.dumps({"decider": "rules-1"})}
    row["started_at"] = last["started_at"].isoformat()
    staged.commit(row, staged.dim(), replaces={"decisions": ["d.parquet"]})
    summary = consolidate(tmp_path / "s")
    assert (summary["num_decisions"], summary["num_deleted"]) == (1, 1)
    assert texts(tmp_path / "s") == [OSLO["semantic_text"]]


def test_a_model_decides_under_its_schema_and_is_paid_once(tmp_path, embedder):
    write(tmp_path / "s", embedder, "night-1", LYON, OSLO)
    summary = consolidate(tmp_path / "s", decider="model", min_confidence=0.0)
    assert (summary["num_decisions"], summary["num_failed"]) == (1, 0)
    assert summary["prompt_tokens"] > 0 and summary["output_tokens"] > 0
    (decision,) = table(tmp_path / "s", "decisions")
    assert decision["action"] in ("update", "delete", "ignore")
    assert json.loads(decision["raw"])["action"] == decision["action"]
    assert decision["prompt_tokens"] == summary["prompt_tokens"]
    assert consolidate(tmp_path / "s", decider="model")["status"] == "unchanged"


def test_the_nightly_job_does_both_under_one_lease(archive, store, small_batches, tmp_path):
    import shutil

    shutil.copytree(store, tmp_path / "s")
    options = ("--archive", archive, "--store", tmp_path / "s", "--config", small_batches, "--consolidate")
    night = job("jobs.backfill", *options).summary
    assert night["status"] == "unchanged"
    assert night["consolidation"]["status"] == "done"
    assert night["consolidation"]["num_new"] == len(active(store))
    assert [row["job"] for row in Store(str(tmp_path / "s")).runs()] == ["backfill", "consolidate"]
    assert job("jobs.backfill", *options).summary["consolidation"]["status"] == "unchanged"
