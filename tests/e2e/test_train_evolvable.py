"""An evolvable embedder from labelled questions to its use: distilled, trained on Ray, killed, loaded."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from cluster.evolvable.embedder import EvolvableEmbedder
from tests.e2e.conftest import finish, job, start, wait_until
from tests.tiny import tiny_base, tiny_tokenizer

PLACES = ("Lyon", "Oslo", "Quito", "Turin", "Perth", "Osaka", "Cairo", "Delhi", "Lima", "Bonn")


def question(number: int) -> dict:
    turns = []
    for place in PLACES[:6]:
        asked = place == PLACES[number % 6]
        turns.append({"role": "user", "content": f"{number} went to {place}", "has_answer": asked})
        turns.append({"role": "assistant", "content": "ok"})
    return {
        "question_id": f"q{number}",
        "question_type": "single-session-user",
        "question": f"{number}: {PLACES[number % 6]}?",
        "answer": "yes",
        "answer_session_ids": [f"s{number}"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21"],
        "haystack_session_ids": [f"s{number}"],
        "haystack_sessions": [turns],
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_base().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory, base) -> Path:
    path = tmp_path_factory.mktemp("config") / "train.toml"
    path.write_text(f"""
base = "{base}"
[lora]
rank = 4
target_modules = ["q_proj", "v_proj", "down_proj"]
[evolvable]
num_latents = 2
queue_capacity = 12
max_chunk_turns = 4
embedding_dim = 16
[recipe]
max_steps = 30
accumulation = 2
learning_rate = 0.02
warmup = 0.1
schedule = "cosine"
eval_every_steps = 15
save_every_steps = 5
dtype = "float32"
""")
    return path


def test_labelled_questions_become_an_embedder(base, settings, tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(question(number)) + "\n" for number in range(16)))
    data, output = tmp_path / "set", tmp_path / "trained"
    archive = tmp_path / "archive"
    job("jobs.ingest", "--format", "longmemeval", "--input", questions, "--archive", archive)
    made = job(
        *("jobs.distill", "--task", "evolvable", "--archive", archive, "--questions", questions),
        *("--output", data, "--base", base),
        *("--conversation-questions", "2", "--max-turns", "10", "--validation-fraction", "0.3"),
    )
    assert made.summary["num_train"] + made.summary["num_validation"] == 16

    command = ("jobs.train", "--task", "evolvable", "--data", data, "--output", output, "--config", settings)
    first, metrics = start(*command), output / "metrics.jsonl"
    wait_until(first, (output / "checkpoints" / "checkpoint-10").exists)
    assert first.poll() is None, first.communicate()[1][-4000:]
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    done = finish(start(*command))
    assert done.code == 0, done.stderr[-4000:]
    assert "goes on from step" in done.stderr
    summary = done.summary
    assert (summary["status"], summary["num_steps"]) == ("done", 30)
    entries = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [entry["step"] for entry in entries if "grad_norm" in entry] == list(range(1, 31))
    assert summary["trained"]["loss"] < summary["at_start"]["loss"]
    assert set(summary["without_queue"]) >= {"recall_at_10", "mrr"}
    assert set(summary["baseline"]) == {"recall_at_10", "recall_at_5", "mrr"}
    assert "read with an empty queue" in (output / "model" / "README.md").read_text()

    # Another training goes on with that model and its memory, of which the file need not speak.
    further = tmp_path / "further.toml"
    text = (
        settings.read_text().replace("max_steps = 30", "max_steps = 2").replace("queue_capacity = 12\n", "")
    )
    further.write_text(text.replace("[evolvable]", f'[evolvable]\nstart = "{output / "model"}"'))
    more = finish(start(*command[:5], "--output", tmp_path / "more", "--config", further))
    assert more.code == 0, more.stderr[-4000:]
    assert more.summary["at_start"] == pytest.approx(summary["trained"], abs=1e-3)
    card = (tmp_path / "more" / "model" / "README.md").read_text()
    assert "queue of 12" in card and f"start: model ({more.summary['start_hash']})" in card

    embedder = EvolvableEmbedder.load(output / "model")
    vectors = embedder.encode_messages(question(3)["haystack_sessions"][0] + [{"content": "Turin?"}])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), np.ones(7), atol=1e-5)


def test_a_set_without_evidence_is_refused_before_any_work(settings, tmp_path):
    (data := tmp_path / "set").mkdir()
    row = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}
    for part in ("train", "validation"):
        (data / f"{part}.jsonl").write_text(json.dumps(row) + "\n")
    command = ("jobs.train", "--task", "evolvable", "--data", data, "--output", tmp_path / "out")
    done = finish(start(*command, "--config", settings))
    assert done.code == 2
    assert "row 0 is no sample" in done.stderr and "evidence_turns" in done.stderr
    assert not (tmp_path / "out").exists()
