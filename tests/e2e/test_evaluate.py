"""jobs.evaluate on real stores and models: what retrieval finds, before and after consolidation."""

import json

import pytest

from tests.e2e.conftest import here, job
from tests.gold import gold_rows, load_embedder, write_run
from tests.unit.cluster.report.reading import problems

pytestmark = pytest.mark.engine

LISTS = ("turns", "records", "both", "search")


def report(folder):
    assert problems({"report.html": (folder / "report.html").read_text()}) == []
    assert "](report.html)" in (folder / "report.md").read_text()
    assert sum(line.startswith("| --- ") for line in (folder / "report.md").read_text().splitlines()) == 1
    return json.loads((folder / "report.json").read_text())


def test_retrieval_measures_turns_records_and_both(archive, store, tmp_path):
    questions = archive / "_gold" / "questions.jsonl"
    options = ("--store", store, "--questions", questions, "--report", tmp_path)
    summary = job("jobs.evaluate", "retrieval", *options).summary
    assert summary["num_questions"] == len(questions.read_text().splitlines())
    for name in LISTS:
        found = summary[name]
        assert 0 <= found["evidence_turn_recall_at_5"] <= found["evidence_turn_recall_at_20"] <= 1
        assert found["session_recall_at_10"] >= found["evidence_turn_recall_at_10"] - 1e-9
    assert summary["turns"]["evidence_turn_recall_at_20"] > 0.8
    assert 0 <= summary["records"]["evidence_coverage"] <= 1
    whole = report(tmp_path)
    assert {row["question_type"] for row in whole["per_question"]} == set(whole["by_type"])


def test_consolidation_makes_fewer_answers_stale(archive, tmp_path):
    """A store of the gold memories, old values included: after the rules, none stands above the current."""
    store, options = str(tmp_path / "store"), []
    write_run(store, gold_rows(archive), load_embedder(), "gold")
    here("jobs.consolidate", "--store", store)
    options = ("--questions", archive / "_gold" / "questions.jsonl", "--report", tmp_path / "report")
    summary = job("jobs.evaluate", "retrieval", "--store", store, *options, "--before", "gold").summary
    assert summary["records"]["stale_rate"] == 0 < summary["before"]["records"]["stale_rate"]
    assert summary["search"]["stale_rate"] == 0
    assert summary["before"]["records"]["evidence_coverage"] == 1


def test_a_store_of_other_users_is_refused(store, tmp_path):
    item = {"question_id": "q", "user_id": "nobody", "question": "?", "answer": "x", "question_type": "y"}
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(item | {"evidence": [{"session_id": "s", "turn_index": 0}]}))
    options = ("--questions", path, "--report", tmp_path / "report")
    done = job("jobs.evaluate", "retrieval", "--store", store, *options, code=1)
    assert "nobody" in done.summary["error"]


@pytest.mark.slow
def test_encoders_in_one_leaderboard(archive, tmp_path):
    small = tmp_path / "small.toml"
    small.write_text("max_sessions = 2\nnum_alone = 1\n[pool]\nbatch_size = 8\n")
    options = (
        "--archive",
        archive,
        "--profiles",
        "extractor-135m",
        "extractor-135m:base",
        "--report",
        tmp_path,
    )
    questions = archive / "_gold" / "questions.jsonl"
    command = ("jobs.evaluate", "encoder", *options, "--questions", questions, "--config", small)
    summary = job(*command).summary
    assert {row["profile"] for row in summary["leaderboard"]} == {"extractor-135m", "extractor-135m:base"}
    for row in summary["leaderboard"]:
        assert row["segments"] > 0 and row["p50_s"] > 0
        assert 0 <= row["composite"] <= 5
    report(tmp_path)
    again = job(*command)
    assert again.summary["leaderboard"] == summary["leaderboard"]
    assert again.stderr.count("measured before") == 2
    judged = job(*command, "--judge", "vllm").summary
    assert judged["scores_by"] == "vllm"
    failures = [
        {row["profile"]: row["failure_rate"] for row in found["leaderboard"]} for found in (judged, summary)
    ]
    assert failures[0] == failures[1]


@pytest.mark.slow
def test_answers_with_retrieval_off_and_on(archive, store, tmp_path):
    questions = archive / "_gold" / "questions.jsonl"
    options = ("--store", store, "--questions", questions, "--report", tmp_path)
    summary = job("jobs.evaluate", "qa", *options, "--max-questions", "4", "-k", "3").summary
    off, on = summary["answerers"]
    assert (off["retrieval"], on["retrieval"]) == ("off", "on")
    assert off["questions"] == on["questions"] == 4
    assert report(tmp_path)["answers"][0]["answer"]
