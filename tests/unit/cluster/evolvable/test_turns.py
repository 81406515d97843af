"""Turns of a store through an evolvable embedder: nights, failures and operations, on real tables."""

import datetime as dt
import hashlib
import random

import numpy as np
import pyarrow as pa
import pytest

from cluster.evolvable.stream import Wavefront
from cluster.evolvable.turns import TurnStage, read_states
from cluster.forget.erase import find, forget
from cluster.store.crash_markers import MAX_DEATHS
from cluster.store.files import Files
from cluster.store.maintenance import compact, reembed, rollback
from cluster.store.store import Store
from jobs.common.turns import all_users, changed_users, paths_of, rejection_rows
from schemas.profiles.embedder import EmbedderProfile, EvolvableProfile
from schemas.stage_items import EmbeddedBatch, UnreadUser, UsersRead, UsersToRead
from schemas.store import REJECTIONS_SCHEMA, SEGMENTS_SCHEMA, turns_schema
from tests.tiny import save_tiny_model

DIM = 16
POISON = "\x07"


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("model"), poison=POISON)
    turns = EvolvableProfile(model=str(folder), model_hash="tiny")
    return EmbedderProfile(name="tiny", model="package:none", model_hash="none", turns=turns)


def session(user, number, *texts):
    """A session, one segment: its rows of `segments` and `turns`, as the embed stage leaves them."""
    session_id = f"{user}-{number}"
    keys = {"user_id": user, "conversation_id": None, "session_id": session_id}
    keys["session_time"] = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=number)
    keys["segment_id"] = hashlib.sha256("\0".join([session_id, *texts]).encode()).hexdigest()[:32]
    numbers = dict.fromkeys(("start_char", "end_char", "num_records", "num_calls"), 0)
    numbers |= dict.fromkeys(("prompt_tokens", "cached_tokens", "output_tokens"), 0)
    turns = [
        {"turn_id": hashlib.sha256(f"{session_id}\0{index}".encode()).hexdigest()[:32], **keys}
        | {"turn_index": index, "role": ("user", "assistant")[index % 2], "content": text}
        | {"speaker": None, "time": None}
        for index, text in enumerate(texts)
    ]
    segment = keys | numbers | {"first_turn": 0, "last_turn": len(texts) - 1, "outcome": "complete"}
    return {"segments": [segment], "turns": turns}


def run_row(run_id, profile):
    return {
        "run_id": run_id,
        "job": "backfill",
        "started_at": "2026-01-02T03:04:05+00:00",
        "encoder": "encoder",
        "embedder": profile.fingerprint,
        "embedder_profile": profile.model_dump_json(),
        "config": "{}",
        "summary": "{}",
    }


def read(store, profile, sessions=(), closed=(), stage=None):
    """What a backfill does without Ray: stage rows, read the users that it concerns."""
    files, done = Files(store.uri, "staging"), []
    for name, schema in {"segments": SEGMENTS_SCHEMA, "turns": turns_schema(DIM)}.items():
        if rows := [row for part in sessions for row in part[name]]:
            known = pa.schema([field for field in schema if field.name in rows[0]])
            files.put_rows(f"{name}.parquet", rows, known)
    if sessions:
        users = sorted({row["user_id"] for part in sessions for row in part["turns"]})
        done = [EmbeddedBatch("batch", users=tuple(users), tables={"turns": "turns.parquet"})]
    users = changed_users(store, done, list(closed))
    paths = sorted({path for entry in users.values() for path in entry["turns"]})
    gone = [segment_id for entry in users.values() for segment_id in entry["closed"]]
    wanted = UsersToRead(tuple(sorted(users)), tuple(paths), tuple(gone))
    stage = stage or TurnStage(store.uri, profile, files, "attempt1")
    return stage(wanted) if users else None


def night(store, profile, run_id, sessions=(), closed=(), stage=None):
    """One backfill; returns the result of the turn stage."""
    result = read(store, profile, sessions, closed, stage)
    inserts, replaces = paths_of([result]) if result else ({}, {})
    if sessions:
        inserts["segments"] = ["segments.parquet"]
    if result and (rejected := rejection_rows([result])):
        Files(store.uri, "staging").put_rows("rejections.parquet", rejected, REJECTIONS_SCHEMA)
        inserts["rejections"] = ["rejections.parquet"]
    store.commit(
        run_row(run_id, profile), 4, inserts=inserts, replaces=replaces, closed_segments=closed, turn_dim=DIM
    )
    staging = Files(store.uri, "staging")
    staging.delete(staging.paths())
    return result


def vectors(store, as_of=None):
    """turn id -> vector of the active turns."""
    rows = store.rows("turns", ["turn_id", "vector"], "active", as_of).to_pylist()
    assert len({row["turn_id"] for row in rows}) == len(rows)
    return {row["turn_id"]: row["vector"] for row in rows}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for turn_id, vector in expected.items():
        np.testing.assert_allclose(found[turn_id], vector, atol=1e-5)


def one_shot(tmp_path, profile, sessions):
    """Vectors and memories of a store that reads all at once."""
    fresh = Store(str(tmp_path / "fresh"), must_exist=False)
    night(fresh, profile, "run1", sessions)
    return vectors(fresh), read_states(fresh, sorted(all_users(fresh, "states")))


def chat(rng, user, number, num_turns=None):
    texts = [
        "".join(rng.choices("abcdefgh ", k=rng.randint(3, 60))) for _ in range(num_turns or rng.randint(1, 7))
    ]
    return session(user, number, *texts)


# --- nights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_nights_leave_what_one_run_leaves(store, profile, tmp_path, seed):
    """Ragged users, some sessions late: vectors, memories and search are those of a run over everything."""
    rng = random.Random(seed)
    sessions = [chat(rng, user, number) for user in ("ann", "bob", "cid") for number in range(4)]
    late = rng.sample(sessions, 3)
    on_time = [part for part in sessions if part not in late]
    stage = TurnStage(store.uri, profile, Files(store.uri, "staging"), "attempt1")
    for number, part in enumerate([on_time[:4], on_time[4:], late]):
        night(store, profile, f"run{number}", part, stage=stage)
    expected, memories = one_shot(tmp_path, profile, sessions)
    assert_same(vectors(store), expected)
    found = read_states(store, ["ann", "bob", "cid"])
    for user, memory in memories.items():
        assert (found[user].hashes, found[user].open_ids) == (memory.hashes, memory.open_ids)
        np.testing.assert_allclose(found[user].latents, memory.latents, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(list(expected.values()), axis=1), 1, atol=1e-5)


def test_what_is_appended_leaves_earlier_vectors_as_they_are(store, profile):
    rng = random.Random(0)
    night(store, profile, "run1", [chat(rng, "ann", 1, 12), chat(rng, "bob", 1)])
    before = vectors(store)
    result = night(store, profile, "run2", [chat(rng, "ann", 2, 4)])
    assert (result.num_users, result.num_turns, result.replaces) == (1, 4, False)
    after = vectors(store)
    assert {turn_id: after[turn_id] for turn_id in before} == before
    assert read_states(store, ["ann"], "run1")["ann"].num_turns == 6
    assert read_states(store, ["ann"])["ann"].num_turns == 8


def test_an_edited_and_a_removed_session_change_what_follows(store, profile, tmp_path):
    rng = random.Random(1)
    first, second, third = (chat(rng, "ann", number, 4) for number in range(3))
    other = chat(rng, "bob", 0)
    night(store, profile, "run1", [first, second, third, other])
    before = vectors(store)
    edited = session("ann", 1, "I moved to Oslo.", "Noted.", second["turns"][2]["content"])
    night(store, profile, "run2", [edited], [second["segments"][0]["segment_id"]])
    after = vectors(store)
    assert_same(after, one_shot(tmp_path / "edited", profile, [first, edited, third, other])[0])
    unchanged = {turn_id for turn_id in before if before[turn_id] == after.get(turn_id)}
    assert unchanged == {row["turn_id"] for part in (first, other) for row in part["turns"]}
    night(store, profile, "run3", [], [first["segments"][0]["segment_id"]])
    assert_same(vectors(store), one_shot(tmp_path / "removed", profile, [edited, third, other])[0])
    assert_same(vectors(store, "run1"), before)


def test_turns_that_come_again_unchanged_keep_their_vectors(store, profile):
    """Another encoder writes all segments anew; what was said is the same."""
    rng = random.Random(2)
    sessions = [chat(rng, "ann", number) for number in range(3)]
    night(store, profile, "run1", sessions)
    before = vectors(store)
    closed = [part["segments"][0]["segment_id"] for part in sessions]
    for part in sessions:
        for row in part["segments"] + part["turns"]:
            row["segment_id"] = row["segment_id"][::-1]
    night(store, profile, "run2", sessions, closed)
    assert vectors(store) == before
    rows = store.rows("turns", ["run_id"], "active").column("run_id").to_pylist()
    assert set(rows) == {"run2"}


def test_what_a_killed_run_has_staged_is_used(store, profile):
    sessions = [chat(random.Random(3), user, 0) for user in ("ann", "bob")]
    first = read(store, profile, sessions)
    again = read(store, profile, sessions)
    assert first.num_turns_embedded_now > 0 == again.num_turns_embedded_now
    assert again.tables == first.tables


# --- failures -----------------------------------------------------------------------------------------


def test_one_poison_user_among_a_hundred_costs_that_user(store, profile):
    rng = random.Random(4)
    sessions = [chat(rng, f"user{number:03}", 0, 2) for number in range(99)]
    sessions.append(session("victim", 0, f"I like {POISON} tea", "Good."))
    night(store, profile, "run1", sessions)
    found = vectors(store)
    assert sum(vector is not None for vector in found.values()) == 99 * 2
    lost = {row["turn_id"] for row in sessions[-1]["turns"]}
    assert {turn_id for turn_id, vector in found.items() if vector is None} == lost
    assert len(all_users(store, "states")) == 99
    (rejection,) = store.rows("rejections", ["stage", "user_id", "reason", "detail"]).to_pylist()
    assert (rejection["stage"], rejection["user_id"]) == ("embedder", "victim")
    assert "not finite" in rejection["detail"]
    # Words still find what was said.
    (hit,) = store.search("victim", "tea", unit(4), 5, turn_vector=unit(DIM))
    assert "tea" in hit["content"]
    # The next night tries again, and again in vain, which changes nothing.
    again = read(store, profile)
    assert (again.num_users, again.num_turns, again.num_states) == (1, 0, 0)
    assert rejection_rows([again])[0]["user_id"] == "victim"


def unit(dim):
    return np.eye(1, dim, dtype=np.float32)[0]


class Killed(BaseException):
    """Stands for a process that the system kills: nothing in it catches that."""


def test_a_user_who_kills_the_process_costs_that_user(store, profile, monkeypatch):
    """Ray starts a dead actor anew with the same users: in the end it is known whose turns it was."""
    run, tried = Wavefront.run, []

    def deadly(self, conversations):
        tried.append([conversation.key for conversation in conversations])
        if "bob" in tried[-1]:
            raise Killed
        return run(self, conversations)

    monkeypatch.setattr(Wavefront, "run", deadly)
    parts = [session(user, 0, f"I am {user}", "yes") for user in ("ann", "bob", "cid")]
    for _ in range(1 + MAX_DEATHS):
        with pytest.raises(Killed):
            read(store, profile, parts)
    night(store, profile, "run1", parts)
    assert tried[0] == ["ann", "bob", "cid"]
    assert tried[1:].count(["bob"]) == MAX_DEATHS
    (rejection,) = store.rows("rejections", ["user_id", "detail"]).to_pylist()
    assert rejection["user_id"] == "bob"
    assert "the embedder's process died on this user's turns" in rejection["detail"]
    without = {row["user_id"] for row in store.rows("turns", ["user_id"], "vector IS NULL").to_pylist()}
    assert without == {"bob"}
    monkeypatch.undo()
    night(store, profile, "run2")
    assert not store.rows("turns", ["user_id"], "active AND vector IS NULL").num_rows


def test_a_poisoned_night_keeps_the_memory_of_before_and_heals(store, profile, tmp_path):
    rng = random.Random(5)
    good, other, healed = chat(rng, "ann", 0, 6), chat(rng, "bob", 0), chat(rng, "ann", 1, 4)
    bad = session("ann", 1, f"{POISON}", "What?")
    night(store, profile, "run1", [good, other])
    before = vectors(store)
    night(store, profile, "run2", [bad])
    after = vectors(store)
    assert {turn_id: after[turn_id] for turn_id in before} == before
    assert read_states(store, ["ann"])["ann"].num_turns == 3
    night(store, profile, "run3", [healed], [bad["segments"][0]["segment_id"]])
    assert_same(vectors(store), one_shot(tmp_path, profile, [good, other, healed])[0])


# --- operations ---------------------------------------------------------------------------------------


def test_a_forgotten_session_takes_memory_and_vectors_along(store, profile, tmp_path):
    rng = random.Random(6)
    sessions = [chat(rng, user, number, 4) for user in ("ann", "bob") for number in range(3)]
    night(store, profile, "run1", [part for part in sessions if part["turns"][0]["session_id"] != "ann-2"])
    night(store, profile, "run2", [sessions[2]])
    before = vectors(store)
    receipt = forget(store, run_row("run3", profile), find(store, session_id="ann-1"))
    assert receipt["proof"]["is_clean"], receipt["proof"]["found"]
    assert receipt["removed"]["states"]["num_rows_in_all_versions"] == 2
    for view in (None, "run1", "run2"):
        assert read_states(store, ["ann", "bob"], view).keys() == {"bob"}
    left = {part["turns"][0]["session_id"]: [row["turn_id"] for row in part["turns"]] for part in sessions}
    found = vectors(store)
    assert all(found[turn_id] == before[turn_id] for turn_id in left["ann-0"] + left["bob-2"])
    assert all(found[turn_id] is None for turn_id in left["ann-2"])
    night(store, profile, "run4")
    kept = [part for part in sessions if part["turns"][0]["session_id"] != "ann-1"]
    assert_same(vectors(store), one_shot(tmp_path, profile, kept)[0])


def test_rollback_brings_the_memory_back_and_compacting_keeps_it(store, profile, tmp_path):
    rng = random.Random(7)
    first, second = chat(rng, "ann", 0, 6), chat(rng, "ann", 1, 6)
    night(store, profile, "run1", [first])
    night(store, profile, "run2", [second])
    rollback(store, run_row("run3", profile), "run1")
    assert read_states(store, ["ann"])["ann"].num_turns == 3
    assert changed_users(store, [], []) == {}
    compact(store, run_row("run4", profile), 1)
    third = chat(rng, "ann", 2, 2)
    night(store, profile, "run5", [third])
    assert_same(vectors(store), one_shot(tmp_path, profile, [first, third])[0])


def test_a_store_changes_to_an_evolvable_embedder(store, profile, tmp_path):
    """All rows are staged complete, closed ones without vectors, and the memories go on from there."""
    static = profile.model_copy(update={"turns": None})
    rng, files = random.Random(8), Files(store.uri, "staging")
    first, second, third = (chat(rng, "ann", number, 4) for number in range(3))
    for run_id, part, closed in (("run1", first, ()), ("run2", second, [first["segments"][0]["segment_id"]])):
        for name, schema in {"segments": SEGMENTS_SCHEMA, "turns": turns_schema(4)}.items():
            rows = [row | {"vector": unit(4)} if name == "turns" else row for row in part[name]]
            files.put_rows(f"{name}.parquet", rows, pa.schema([f for f in schema if f.name in rows[0]]))
        inserts = {name: [f"{name}.parquet"] for name in ("segments", "turns")}
        store.commit(run_row(run_id, static), 4, inserts=inserts, closed_segments=closed)
    stage = TurnStage(store.uri, profile, files, "attempt1", anew=True)
    result = stage(UsersToRead(("ann",)))
    inserts, replaces = paths_of([result])
    staged = {"turns": inserts["turns"] + replaces["turns"], "states": replaces["states"]}
    reembed(store, run_row("run3", profile), 4, staged, DIM)
    assert (store.dim(), store.turn_dim()) == (4, DIM)
    columns = ["session_id", "vector", "closed_run_id", "embedder"]
    closed = store.rows("turns", columns, "NOT active").to_pylist()
    assert [tuple(row.values()) for row in closed] == [("ann-0", None, "run2", profile.fingerprint)] * 4
    night(store, profile, "run4", [third])
    assert_same(vectors(store), one_shot(tmp_path, profile, [second, third])[0])
    reembed(store, run_row("run5", static), 4, {"turns": [], "states": []})
    assert (store.turn_dim(), all_users(store, "states")) == (4, set())


def test_the_rejection_of_a_user_shows_no_key_that_is_in_an_id_or_an_error():
    key = "sk_live_" + "a1B2" * 6
    (row,) = rejection_rows([UsersRead("hash", rejections=(UnreadUser(key, f"failed on {key}"),))])
    assert row["source"] == "user:[redacted:api_key]" and row["detail"].startswith("failed on [redacted")
    # By which a forgetting finds it.
    assert row["user_id"] == key
