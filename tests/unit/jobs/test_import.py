"""Imports into real stores: what becomes a record, once, and like every other; the embedder is scripted."""

import datetime as dt
import importlib
import json
import sqlite3
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.embed import embedder, questions
from cluster.forget.erase import find, forget
from cluster.forget.forgotten import Forgotten
from cluster.memory import Memories
from cluster.models.resolve import resolve_embedder
from cluster.store.maintenance import rollback
from cluster.store.store import Store
from jobs.common import choice
from jobs.common.cli import JobError, UsageError
from jobs.common.consolidation import FEEDING_JOBS, consolidate
from jobs.common.run import writing
from jobs.common.update_config import UpdateConfig
from jobs.export import ExportConfig
from jobs.export import run as export_job
from schemas.profiles.embedder import EmbedderProfile
from schemas.store import table_schemas
from tests.unit.cluster.store import stores
from tests.unit.cluster.store.stores import DIM, segment, vector

job = importlib.import_module("jobs.import.__main__")
PROFILE = resolve_embedder(EmbedderProfile(name="scripted", model="owner/scripted"))
TEA = segment("tea", "I drink tea", user="me", session="s1", records=["User drinks tea."])


class Scripted:
    """In the place of cluster.embed.embedder.Embedder."""

    dim = DIM

    def __init__(self, profile):
        assert profile == PROFILE

    def embed(self, texts):
        return np.array([vector(text) for text in texts], np.float32)

    embed_queries = embed


@pytest.fixture(autouse=True)
def models(monkeypatch):
    monkeypatch.setattr(embedder, "Embedder", Scripted)
    monkeypatch.setattr(questions, "Embedder", Scripted)
    monkeypatch.setattr(choice, "choose_embedder", lambda name, store: PROFILE)
    monkeypatch.setattr(job, "choose_encoder", lambda name, store: SimpleNamespace(fingerprint="encoder-1"))


@pytest.fixture
def store(tmp_path, monkeypatch):
    made = {"embedder": PROFILE.fingerprint, "embedder_profile": PROFILE.model_dump_json()}
    row = stores.run_row
    monkeypatch.setattr(stores, "run_row", lambda run_id: row(run_id) | made)
    store = Store(str(tmp_path / "store"), must_exist=False)
    stores.commit(store, "run1", TEA)
    return store


def bring(store, path, name="jsonl", **settings):
    return job.run(job.ImportConfig(format=name, input=str(path), store=store.uri, **settings))


def written(tmp_path, *rows, name="in.jsonl"):
    (path := tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def records(store, where="active"):
    rows = store.rows("records", table_schemas(DIM)["records"].names, where).to_pylist()
    return {row["semantic_text"]: row for row in rows}


ROWS = (
    {"user_id": "me", "text": "User lives in Oslo.", "timestamp": "2026-02-01T12:00:00Z"},
    {"user_id": "bob", "text": "Bob  has a cat.\n"},
)


# --- what becomes a record ------------------------------------------------------------------------------


def test_rows_become_records_without_invented_evidence_in_a_run_of_their_own(store, tmp_path):
    summary = bring(store, written(tmp_path, *ROWS))
    assert (summary["status"], summary["num_records"], summary["num_users"]) == ("done", 2, 2)
    run = store.run()
    assert (run["job"], run["run_id"], run["encoder"]) == ("import", summary["run_id"], "encoder-1")
    found = records(store)
    assert set(found) == {"User drinks tea.", "User lives in Oslo.", "Bob has a cat."}
    oslo = found["User lives in Oslo."]
    assert (oslo["encoder"], oslo["evidence"], oslo["revision"]) == ("imported", [], 1)
    assert (oslo["user_id"], oslo["run_id"], oslo["memory_type"]) == ("me", summary["run_id"], "fact")
    assert str(oslo["session_time"]) == "2026-02-01 12:00:00+00:00"
    assert oslo["session_id"] == f"imported-{summary['run_id']}"
    assert found["User drinks tea."]["encoder"] == "encoder-1"
    segments = store.rows(
        "segments", ["user_id", "outcome", "num_records"], "outcome = 'imported'"
    ).to_pylist()
    assert sorted((row["user_id"], row["num_records"]) for row in segments) == [("bob", 1), ("me", 1)]


def test_the_same_file_a_second_time_leaves_the_store_unchanged(store, tmp_path):
    path = written(tmp_path, *ROWS, {"text": "Nobody's."}, {"user_id": "me", "text": "User has a boat."})
    assert bring(store, path, max_rejected_fraction=0.5)["num_rejections"] == 1
    run = store.run()
    summary = bring(store, path, max_rejected_fraction=0.5)
    assert (summary["status"], summary["num_known"], summary["num_records"]) == ("unchanged", 3, 0)
    assert store.run() == run


def test_a_row_that_stands_twice_in_a_file_is_brought_once(store, tmp_path):
    summary = bring(store, written(tmp_path, *ROWS, *ROWS))
    assert (summary["num_records"], summary["num_known"]) == (2, 2)


def test_a_store_is_made_where_there_is_none(tmp_path):
    store = SimpleNamespace(uri=str(tmp_path / "new"))
    assert bring(store, written(tmp_path, *ROWS))["num_records"] == 2
    made = Store(store.uri)
    assert (made.run()["encoder"], made.dim()) == ("encoder-1", DIM)


def test_a_bad_row_costs_that_row_and_is_kept_with_its_reason(store, tmp_path):
    path = written(
        tmp_path, *ROWS, {"user_id": "me", "text": " "}, {"user_id": "me", "text": "x", "date": "soon"}
    )
    with path.open("a") as file:
        file.write("{broken\n")
    summary = bring(store, path, max_rejected_fraction=0.9)
    assert (summary["num_records"], summary["num_rejections"]) == (2, 3)
    rows = store.rows("rejections", ["stage", "source", "detail", "run_id"]).to_pylist()
    assert {row["source"]: row["detail"].partition(":")[0].partition("(")[0] for row in rows} == {
        "in.jsonl:3": "semantic_text",
        "in.jsonl:4": "session_time='soon'",
        "in.jsonl:5": "is no JSON ",
    }
    assert {(row["stage"], row["run_id"]) for row in rows} == {("import", summary["run_id"])}


def test_too_many_bad_rows_publish_nothing(store, tmp_path):
    path = written(tmp_path, *ROWS, {"user_id": "me"})
    with pytest.raises(JobError, match="1 of 3 rows were rejected; nothing was published"):
        bring(store, path)
    assert store.run()["run_id"] == "run1"


def test_rows_that_name_nobody_are_those_of_the_named_user(store, tmp_path):
    (path := tmp_path / "notes.md").write_text(
        "# Notes\n\n## Preferences\n\n- likes rain\n* [2026-01-02] ran\n"
    )
    bring(store, path, "markdown", user_id="me")
    assert [records(store)[text]["memory_type"] for text in ("likes rain", "ran")] == ["preference"] * 2
    assert records(store)["likes rain"]["user_id"] == "me"
    with pytest.raises(JobError, match="give --user-id"):
        bring(store, path, "markdown")


def test_secrets_are_replaced_by_markers(store, tmp_path):
    summary = bring(store, written(tmp_path, {"user_id": "me", "text": "My password is hunter2horse!"}))
    assert summary["num_redactions"] == 1
    assert not any("hunter2horse" in text for text in records(store))


def test_the_format_is_told_where_none_is_named(store, tmp_path, capsys):
    path = written(tmp_path, *ROWS)
    assert job.run(job.ImportConfig(input=str(path), store=store.uri))["num_records"] == 2
    assert "read as jsonl; --from names another format" in capsys.readouterr().err
    (other := tmp_path / "in.txt").write_text("nothing of the kind")
    with pytest.raises(UsageError, match="name its format with --from"):
        job.run(job.ImportConfig(input=str(other), store=store.uri))


@pytest.mark.parametrize("name", ["cogx", "hindsight", "langgraph", "letta", "mem0", "parquet"])
def test_a_file_of_another_format_is_refused_and_changes_nothing(store, tmp_path, name):
    (path := tmp_path / "in.txt").write_text("nothing of the kind")
    with pytest.raises(UsageError, match="check --from"):
        bring(store, path, name)
    assert store.run()["run_id"] == "run1"


# --- what other systems have ----------------------------------------------------------------------------


def test_a_folder_without_the_format_s_file_is_refused(store, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"memories\.jsonl: No such file or directory; check --input"):
        bring(store, tmp_path / "empty")


def test_numbers_as_users_and_days_as_times_are_read(store, tmp_path):
    table = pa.table({"user_id": [42], "memory": ["Likes rain."], "date": [dt.date(2026, 1, 2)]})
    pq.write_table(table, tmp_path / "in.parquet")
    bring(store, tmp_path / "in.parquet", "parquet")
    found = records(store)["Likes rain."]
    assert (found["user_id"], str(found["session_time"])) == ("42", "2026-01-02 00:00:00+00:00")


def test_mem0_answers_are_read(store, tmp_path):
    memories = {
        "results": [
            {
                "id": "0f1e",
                "memory": "Likes rain",
                "hash": "h",
                "user_id": "me",
                "created_at": "2025-07-01T00:00:00-07:00",
                "metadata": {"topic": "weather"},
                "categories": ["preferences"],
            }
        ]
    }
    (path := tmp_path / "mem0.json").write_text(json.dumps(memories, indent=2))
    bring(store, path, "mem0")
    found = records(store)["Likes rain"]
    assert (str(found["session_time"]), found["tags"]) == ("2025-07-01 07:00:00+00:00", ["preferences"])


def test_facts_of_a_cogx_folder_are_read_with_their_validity(store, tmp_path):
    (folder := tmp_path / "cogx").mkdir()
    (folder / "manifest.json").write_text('{"cogx_version": "0.1", "source_system": "zep"}')
    fact = {
        "kind": "fact",
        "external_id": "f",
        "subject_ref": "Ann",
        "predicate": "lives in",
        "object_ref": "Rome",
    }
    fact |= {"valid_at": "2020-05-01T00:00:00Z", "invalid_at": None, "scope": {"user_id": "ann"}}
    (folder / "facts.jsonl").write_text(json.dumps(fact) + "\n")
    bring(store, folder, "cogx")
    found = records(store)["Ann lives in Rome"]
    assert (found["user_id"], found["temporal"]["t_valid_from"]) == ("ann", "2020-05-01")


def test_the_rest_of_a_file_that_is_cut_off_costs_one_rejection(store, tmp_path):
    whole = json.dumps([{"memory": f"m{number}", "user_id": "me"} for number in range(3)])
    (path := tmp_path / "cut.json").write_text(whole[:-20])
    summary = bring(store, path, "mem0", max_rejected_fraction=0.5)
    assert (summary["num_records"], summary["num_rejections"]) == (2, 1)


# --- like every other record ----------------------------------------------------------------------------


def test_what_was_brought_is_found_and_is_new_to_the_next_consolidation(store, tmp_path):
    bring(store, written(tmp_path, *ROWS))
    with Memories(store.uri) as memories:
        hit = memories.search("me", "User lives in Oslo.", kind="record")[0]
        assert (hit.text, hit.evidence) == ("User lives in Oslo.", ())
        assert memories.users() == ["bob", "me"]
    assert store.run()["job"] in FEEDING_JOBS


def test_of_two_memories_that_were_brought_the_newer_closes_the_older(store, tmp_path):
    said = (("2026-01-01", "Lyon"), ("2026-02-01", "Oslo"))
    rows = [{"user_id": "ann", "text": f"User lives in {town}.", "timestamp": day} for day, town in said]
    bring(store, written(tmp_path, *rows))
    with writing(store.uri, "test") as held:
        summary = consolidate(UpdateConfig(store=store.uri, decider="rules", local=True), held)
    assert summary["num_deleted"] == 1
    [closed] = store.rows("records", ["semantic_text", "closed_reason"], "NOT active").to_pylist()
    assert closed == {"semantic_text": "User lives in Lyon.", "closed_reason": "delete"}


def test_a_rollback_takes_it_out_and_a_further_import_brings_it_back(store, tmp_path):
    path = written(tmp_path, *ROWS)
    bring(store, path)
    rollback(store, stores.run_row("back") | {"job": "rollback"}, "run1")
    assert set(records(store)) == {"User drinks tea."}
    assert bring(store, path)["num_records"] == 2
    assert len(records(store)) == 3


def test_what_was_forgotten_is_gone_and_stays_out(store, tmp_path):
    path = written(tmp_path, *ROWS)
    bring(store, path)
    subject = find(store, user_id="bob")
    receipt = forget(
        store, stores.run_row("gone") | {"job": "forget"}, subject, Forgotten.of_store(store.uri)
    )
    assert receipt["proof"]["is_clean"], receipt["proof"]
    assert set(records(store)) == {"User drinks tea.", "User lives in Oslo."}
    summary = bring(store, path)
    assert (summary["status"], summary["num_forgotten"], summary["num_known"]) == ("unchanged", 1, 1)


def test_a_memory_that_was_forgotten_alone_stays_out(store, tmp_path):
    path = written(tmp_path, *ROWS)
    bring(store, path)
    subject = find(store, record_id=records(store)["User lives in Oslo."]["record_id"])
    forget(store, stores.run_row("gone") | {"job": "forget"}, subject, Forgotten.of_store(store.uri))
    summary = bring(store, path)
    assert (summary["status"], summary["num_forgotten"], summary["num_known"]) == ("unchanged", 1, 1)


def test_another_user_s_record_is_never_replaced(store, tmp_path):
    [mine] = records(store).values()
    row = {"user_id": "bob", "record_id": mine["record_id"], "semantic_text": "Bob was here."}
    bring(store, written(tmp_path, row), max_rejected_fraction=1)
    assert records(store)["User drinks tea."] == mine
    [rejected] = store.rows("rejections", ["detail"]).to_pylist()
    assert "another user's" in rejected["detail"]


# --- round trips of a store -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["jsonl", "parquet", "mem0", "cogx", "lightmem"])
def test_a_store_s_memories_come_back_from_a_format_as_they_were(store, tmp_path, name):
    bring(store, written(tmp_path, *ROWS))
    export_job(ExportConfig(store=store.uri, format=name, output=str(tmp_path / "out")))
    other = Store(str(tmp_path / "other"), must_exist=False)
    stores.commit(other, "run1")
    assert bring(other, tmp_path / "out", name)["num_records"] == 3
    assert kept(other) == kept(store)
    assert bring(store, tmp_path / "out", name)["status"] == "unchanged"


def test_what_lychee_can_hold_comes_back_and_what_has_expired_there_does_not(store, tmp_path):
    bring(store, written(tmp_path, *ROWS))
    export_job(ExportConfig(store=store.uri, format="lychee", output=str(tmp_path / "out")))
    with sqlite3.connect(tmp_path / "out" / "bob" / "compact_memory.db") as database:
        database.execute("UPDATE memory_records SET expired = 1")
    other = Store(str(tmp_path / "other"), must_exist=False)
    stores.commit(other, "run1")
    summary = bring(other, tmp_path / "out", "lychee")
    assert (summary["num_records"], summary["num_closed"]) == (2, 1)
    tea = records(other)["User drinks tea."]
    for name in (
        "user_id",
        "session_id",
        "session_time",
        "memory_type",
        "temporal",
        "evidence",
        "source_role",
    ):
        assert tea[name] == records(store)["User drinks tea."][name], name
    assert bring(other, tmp_path / "out", "lychee")["status"] == "unchanged"


@pytest.mark.parametrize("user_id", [None, "ann"])
def test_a_store_of_lychee_s_own_is_the_users_that_its_folder_names_or_the_option(store, tmp_path, user_id):
    (folder := tmp_path / "data" / "eve").mkdir(parents=True)
    with sqlite3.connect(folder / "compact_memory.db") as database:
        database.execute(
            "CREATE TABLE memory_records (record_id, memory_type, semantic_text, entities, temporal)"
        )
        database.execute("INSERT INTO memory_records VALUES ('x', 'event', 'User sings.', 'broken', NULL)")
    bring(store, tmp_path / "data", "lychee", user_id=user_id)
    row = records(store)["User sings."]
    assert (row["user_id"], row["memory_type"], row["entities"]) == (user_id or "eve", "event", [])


def test_entries_of_lightmem_are_of_the_user_that_the_option_names(store, tmp_path):
    payload = {
        **{"time_stamp": "2023-05-20T00:44:00.000", "float_time_stamp": 1684543440.0, "weekday": "Sat"},
        **{
            "category": "",
            "subcategory": "travel",
            "memory": "User flew to Rome.",
            "speaker_id": "speaker_a",
        },
        **{"speaker_name": "user", "consolidated": False},
    }
    path = written(tmp_path, {"id": "1", "vector": [0.5], "payload": payload}, {"id": "2", "payload": "x"})
    with pytest.raises(JobError, match="says not whose it is"):
        bring(store, path, "lightmem", max_rejected_fraction=0.5)
    summary = bring(store, path, "lightmem", user_id="me", max_rejected_fraction=0.5)
    assert (summary["num_records"], summary["num_rejections"]) == (1, 1)
    row = records(store)["User flew to Rome."]
    assert (row["user_id"], row["tags"], row["source_role"], row["evidence"]) == (
        "me",
        ["travel"],
        "user",
        [],
    )
    assert str(row["session_time"]) == "2023-05-20 00:44:00+00:00"


def kept(store):
    """What does not belong to one store alone."""
    own = ("segment_id", "created_at", "updated_at", "encoder", "embedder", "run_id")
    return {
        text: {name: value for name, value in row.items() if name not in own}
        for text, row in records(store).items()
    }


def test_what_an_increment_says_is_closed_is_not_brought(store, tmp_path):
    row = {"user_id": "me", "record_id": "a", "semantic_text": "Old.", "change": "closed"}
    summary = bring(store, written(tmp_path, row))
    assert (summary["status"], summary["num_closed"]) == ("unchanged", 1)


@pytest.mark.parametrize("name", ["jsonl", "parquet", "mem0", "hindsight"])
def test_values_of_extra_fields_travel_and_secrets_in_them_are_replaced(store, tmp_path, name):
    row = ROWS[0] | {
        "extra": {"place": "Oslo", "note": "My password is hunter2horse!", "Not a name": "x", "n": 3}
    }
    assert bring(store, written(tmp_path, row, ROWS[1]))["num_redactions"] == 1
    told = [("place", "Oslo"), ("note", "My password is [redacted:password]")]
    export_job(ExportConfig(store=store.uri, format=name, output=str(tmp_path / "out")))
    other = Store(str(tmp_path / "other"), must_exist=False)
    stores.commit(other, "run1")
    bring(other, tmp_path / "out", name)
    for one in (store, other):
        found = records(one)
        assert found["User lives in Oslo."]["extra"] == told
        assert found["Bob has a cat."]["extra"] is None
