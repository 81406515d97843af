"""What goes wrong in the published offline update that this one follows, a test for each, on real stores.

Found by running LightMem (github.com/zjunlp/LightMem): every name says what happens there, every test that it
does not happen here. The model is scripted, all else is as it runs every night.
"""

import numpy as np
import pytest

from cluster.consolidate.candidates import similar_pairs
from cluster.consolidate.decider import DeciderPrompt
from cluster.store import maintenance
from schemas.store import DECISIONS_SCHEMA
from tests.gold import memory_row
from tests.unit.cluster.consolidate.nights import (
    DELETE,
    IGNORE,
    PROFILE,
    Model,
    consolidate,
    tell,
    texts,
    update,
)
from tests.unit.cluster.consolidate.questions import Tokenizer
from tests.unit.cluster.store.stores import vector

LYON = memory_row("u", "2026-01-01", "User lives in Lyon.")
OSLO = memory_row("u", "2026-02-01", "User lives in Oslo.")
ROME = memory_row("u", "2026-03-01", "User lives in Rome.")


@pytest.fixture
def uri(tmp_path) -> str:
    return str(tmp_path / "store")


def decisions(store) -> list[dict]:
    return store.rows("decisions", DECISIONS_SCHEMA.names).to_pylist()


@pytest.mark.parametrize("same", ["time", "time and session", "time, session and turn"])
def test_equal_timestamps_make_two_entries_each_other_s_target_and_two_deletes_lose_both(
    uri, monkeypatch, same
):
    told = [memory_row("u", "2026-01-01", f"User lives in {place}.") for place in ("Lyon", "Oslo", "Rome")]
    for number, row in enumerate(told):
        row["session_id"] += f"-{number}" if same == "time" else ""
        row["evidence_turns"] = [number if same == "time and session" else 0]
    store = tell(uri, "night-1", *told)
    done = consolidate(store, monkeypatch, Model(otherwise=DELETE))
    assert done["num_pairs"] == 3
    assert len(texts(store)) == 1


def test_a_worker_s_exception_vanishes_and_an_outage_looks_like_success(uri, monkeypatch):
    store = tell(uri, "night-1", LYON, OSLO)
    outage = consolidate(store, monkeypatch, Model(*[ConnectionError("refused")] * 9))
    assert (outage["num_failed"], outage["num_deleted"]) == (1, 0)
    (row,) = decisions(store)
    assert (row["outcome"], row["reason"], row["action"]) == ("failed", "ConnectionError: refused", "")
    assert texts(store) == ["User lives in Lyon.", "User lives in Oslo."]
    again = consolidate(store, monkeypatch, Model(), "later")
    assert (again["num_failed"], again["num_deleted"]) == (0, 1)
    assert texts(store) == ["User lives in Oslo."]


def test_a_merged_text_keeps_the_old_vector(uri, monkeypatch):
    store = tell(uri, "night-1", LYON, OSLO)
    text = "User lives in Lyon and in Oslo."
    consolidate(store, monkeypatch, Model(update(text)))
    rows = store.rows("records", ["revision", "semantic_text", "vector"], f"semantic_text = '{text}'")
    (row,) = rows.to_pylist()
    assert row["revision"] == 2
    assert np.allclose(row["vector"], vector(text))
    assert not np.allclose(row["vector"], vector(LYON["semantic_text"]))


@pytest.mark.parametrize("answer", ["I would ignore it.", '{"action": "upd', "[]", '{"action": "keep"}', ""])
def test_an_answer_that_cannot_be_read_means_ignore(uri, monkeypatch, answer):
    store = tell(uri, "night-1", LYON, OSLO)
    done = consolidate(store, monkeypatch, Model(otherwise=answer))
    (row,) = decisions(store)
    assert (row["outcome"], row["action"], row["raw"]) == ("failed", "", answer)
    assert done["num_failed"] == 1
    # What failed is no answer: it is asked for again, an "ignore" would not be.
    assert consolidate(store, monkeypatch, later := Model(otherwise=IGNORE), "later")["num_failed"] == 0
    assert consolidate(store, monkeypatch, never := Model(), "last")["num_decisions_known"] == 1
    assert (later.num_calls, never.num_calls) == (1, 0)


def test_a_source_that_was_deleted_or_rewritten_feeds_older_targets_as_it_was(uri, monkeypatch):
    store = tell(uri, "night-1", LYON, OSLO, ROME)
    deleting = Model(otherwise=DELETE)
    consolidate(store, monkeypatch, deleting)
    asked = [(one.target.text, [source.memory.text for source in one.sources]) for one in deleting.questions]
    assert asked == [
        ("User lives in Oslo.", ["User lives in Rome."]),
        ("User lives in Lyon.", ["User lives in Rome."]),
    ]
    maintenance.rollback(store, run_of(store, "back"), "night-1")
    rewriting = Model(update("User lives in Oslo and in Rome."), otherwise=IGNORE)
    consolidate(store, monkeypatch, rewriting, "again", decider="other")
    assert [source.memory.text for source in rewriting.questions[1].sources] == [
        "User lives in Oslo and in Rome.",
        "User lives in Rome.",
    ]


def test_a_second_run_repeats_every_call_and_every_edit(uri, monkeypatch):
    store = tell(uri, "night-1", LYON, OSLO, ROME)
    consolidate(store, monkeypatch, Model(IGNORE, update("User lives in Lyon and in Oslo.")))
    before = texts(store), decisions(store)
    assert before[0][0] == "User lives in Lyon and in Oslo."
    again = consolidate(store, monkeypatch, Model(), "again")
    # Oslo and Rome are known; Lyon has another text now, and is another question: only that one is asked.
    assert (again["num_decisions_known"], again["num_calls"]) == (1, 1)
    third = consolidate(store, monkeypatch, model := Model(), "third")
    assert (model.num_calls, third["num_decisions_known"], third["num_rows_decisions"]) == (0, 1, 0)


def test_an_edit_leaves_no_version_no_trail_and_no_way_back(uri, monkeypatch):
    store = tell(uri, "night-1", LYON, OSLO)
    consolidate(store, monkeypatch, Model(otherwise=DELETE))
    assert texts(store) == ["User lives in Oslo."]
    # Version: the night before can be seen, and the closed row says by what and why it was closed.
    assert texts(store, as_of="night-1") == ["User lives in Lyon.", "User lives in Oslo."]
    (row,) = store.rows("records", ["closed_run_id", "closed_reason"], "NOT active").to_pylist()
    assert row == {"closed_run_id": "now", "closed_reason": "delete"}
    # Trail: who decided what, on which grounds, at what price.
    (row,) = decisions(store)
    assert (row["target_id"], row["target_revision"]) == (LYON["memory_id"], 1)
    assert (row["source_ids"], row["source_revisions"]) == ([OSLO["memory_id"]], [1])
    assert (row["decider"], row["model"]) == (PROFILE.fingerprint, "owner/base")
    assert row["prompt"] == PROFILE.prompt_fingerprint
    assert (row["action"], row["outcome"], row["raw"]) == ("delete", "applied", DELETE)
    assert (row["prompt_tokens"], row["output_tokens"], row["run_id"]) == (10, 5, "now")
    # Way back.
    maintenance.rollback(store, run_of(store, "back"), "night-1")
    assert texts(store) == ["User lives in Lyon.", "User lives in Oslo."]


def run_of(store, run_id: str) -> dict:
    run = {name: value for name, value in store.run().row.items() if name not in ("versions", "finished_at")}
    return run | {"run_id": run_id, "job": "rollback", "started_at": run["started_at"].isoformat()}


def test_candidates_cross_users(uri, monkeypatch):
    others = [
        memory_row(user, "2026-04-01", text)
        for user in ("v", "w")
        for text in ("User lives in Lyon.", "User lives in Rome.")
    ]
    store = tell(uri, "night-1", LYON, OSLO, *others)
    model = Model(otherwise=DELETE)
    consolidate(store, monkeypatch, model)
    for question in model.questions:
        assert {source.memory.user_id for source in question.sources} == {question.target.user_id}
    assert [len(texts(store, user)) for user in "uvw"] == [1, 1, 1]
    assert texts(store, "u") == ["User lives in Oslo."]


def test_the_scan_is_over_all_pairs_and_not_over_what_is_new():
    """A product of num_new x num, not of num x num: the work of a night does not grow with its square."""
    counted = []

    class Counting(np.ndarray):
        def __matmul__(self, other):
            counted.append(self.shape[0] * other.shape[1])
            return np.asarray(self) @ np.asarray(other)

    vectors = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    is_new = np.arange(2000) >= 1990
    original = np.ascontiguousarray
    try:
        np.ascontiguousarray = lambda array, dtype=None: original(array, dtype).view(Counting)
        similar_pairs(vectors, is_new, top_k=3, min_similarity=0.9)
    finally:
        np.ascontiguousarray = original
    assert 0 < sum(counted) <= 10 * 2000


def test_the_prompt_shows_candidates_without_time_and_order(uri, monkeypatch):
    # Told, and stored, out of order.
    store = tell(uri, "night-1", ROME, LYON)
    store = tell(uri, "night-2", OSLO)
    model = Model(otherwise=IGNORE)
    consolidate(store, monkeypatch, model)
    (question,) = [one for one in model.questions if one.target.text == "User lives in Lyon."]
    shown = DeciderPrompt(PROFILE, Tokenizer()).text(question)
    assert shown.endswith(
        "(2026-01-01) User lives in Lyon. "
        "1. (2026-02-01) User lives in Oslo.\n2. (2026-03-01) User lives in Rome."
    )


@pytest.mark.parametrize("session_time", [None, "9999-12-31T00:00:00+00:00", "1970-01-01T00:00:00+00:00"])
def test_an_undated_or_implausible_memory_closes_none_that_has_a_time_nor_is_closed_by_one(
    uri, monkeypatch, session_time
):
    bergen = memory_row("u", "2026-01-01", "User moved to Bergen.", session_time=session_time)
    bergen |= {"session_id": "undated"}
    rome = bergen | {"memory_id": "later", "semantic_text": ROME["semantic_text"], "evidence_turns": [1]}
    told = [OSLO, bergen, ROME, rome]
    store = tell(uri, "night-1", *told)
    consolidate(store, monkeypatch, Model(otherwise=DELETE))
    found = store.rows("records", ["semantic_text", "session_id"], "active").to_pylist()
    assert sorted((row["semantic_text"], row["session_id"]) for row in found) == [
        ("User lives in Rome.", "u-2026-03-01"),
        ("User lives in Rome.", "undated"),
    ]
    hits = store.search("u", "Bergen", vector("x"), 10, as_of="night-1")
    assert {hit["semantic_text"] for hit in hits} == {row["semantic_text"] for row in told}
