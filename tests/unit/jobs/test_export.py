"""Exports of real stores: what is selected, what is written, and that it is there whole or not at all."""

import datetime as dt
import hashlib
import json
import shutil
import sqlite3
import zipfile

import pyarrow.parquet as pq
import pytest

from cluster.interchange import formats
from cluster.interchange.mem0 import identify
from cluster.store.files import Files
from cluster.store.store import Store
from cluster.store.tables import connect
from jobs.common.cli import JobError, UsageError
from jobs.export import ExportConfig, run
from schemas.exchange import memory_of
from schemas.store import DECISIONS_SCHEMA, records_schema
from tests.unit.cluster.store import stores
from tests.unit.cluster.store.stores import DIM, digest, segment, vector

LYON = segment("lyon", "I live in Lyon", user="me", session="s1", records=["User lives in Lyon."])
OSLO = segment("oslo", "We moved to Oslo", user="me", session="s2", records=["User lives in Oslo."])
MOON = segment("moon", "I saw the moon", user="b.o/b", session="s3", records=["User saw the moon."])
LYON_ID, OSLO_ID, MOON_ID = (
    digest(name, text)
    for name, text in (
        ("lyon", "User lives in Lyon."),
        ("oslo", "User lives in Oslo."),
        ("moon", "User saw the moon."),
    )
)
for rows in OSLO.values():
    for row in rows:
        row["session_time"] = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """run1: Lyon, moon. run2: Oslo. run3: Lyon is deleted because of Oslo, and Oslo is put otherwise."""
    store = Store(str(tmp_path_factory.mktemp("template") / "store"), must_exist=False)
    stores.commit(store, "run1", LYON, MOON)
    stores.commit(store, "run2", OSLO)
    rows = {row["record_id"]: row for row in store.rows("records", records_schema(DIM).names).to_pylist()}
    closed = {"active": False, "closed_run_id": "run3"}
    files = Files(store.uri, "staging")
    changed = [
        rows[LYON_ID] | closed | {"closed_reason": "delete"},
        rows[OSLO_ID] | closed | {"closed_reason": "update"},
        rows[OSLO_ID] | {"revision": 2, "semantic_text": "User has lived in Oslo.", "run_id": "run3"},
    ]
    files.put_rows("records.parquet", changed, records_schema(DIM))
    files.put_rows(
        "decisions.parquet", [decision(LYON_ID, "delete"), decision(OSLO_ID, "update")], DECISIONS_SCHEMA
    )
    paths = {"records": ["records.parquet"], "decisions": ["decisions.parquet"]}
    store.commit(stores.run_row("run3") | {"job": "consolidate"}, DIM, replaces=paths)
    files.delete(files.paths())
    return store.uri


def decision(target_id, action):
    return {
        **dict.fromkeys(("prompt_tokens", "cached_tokens", "output_tokens"), 0),
        **{"decision_id": digest(target_id), "user_id": "me", "target_id": target_id, "target_revision": 1},
        **{"source_ids": [OSLO_ID], "source_revisions": [1], "decider": "rules", "action": action},
        **{"text": "", "outcome": "applied", "reason": "newer", "raw": "", "run_id": "run3"},
        "decided_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    }


@pytest.fixture
def store(template, tmp_path):
    shutil.copytree(template, tmp_path / "store")
    return str(tmp_path / "store")


def export(store, tmp_path, name="jsonl", **settings):
    """(summary, folder) of an export."""
    folder = tmp_path / f"out-{name}-{len(list(tmp_path.iterdir()))}"
    return run(ExportConfig(store=store, format=name, output=str(folder), **settings)), folder


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def texts(folder):
    return [row["semantic_text"] for row in lines(folder / "memories.jsonl")]


# --- what is selected -----------------------------------------------------------------------------------


def test_what_is_active_is_exported_user_by_user(store, tmp_path):
    summary, folder = export(store, tmp_path)
    assert texts(folder) == ["User saw the moon.", "User has lived in Oslo."]
    assert (summary["status"], summary["num_memories"], summary["num_users"]) == ("done", 2, 2)
    assert (summary["of_user"], summary["num_skipped"]) == ({"b.o/b": 1, "me": 1}, 0)
    row = lines(folder / "memories.jsonl")[1]
    assert (row["record_id"], row["revision"], row["session_id"]) == (OSLO_ID, 2, "s2")
    assert row["evidence"] == [{"session_id": "s2", "turn_index": 0}]
    assert row["session_time"] == "2026-02-01T00:00:00+00:00"


def test_an_id_that_looks_like_a_secret_is_exported_and_not_shown(tmp_path):
    """The receiver needs ids as they are. Regression: the summary had them too."""
    key = "ghp_" + "aB3dE6gH9jK2" * 3
    made = Store(str(tmp_path / "made"), must_exist=False)
    stores.commit(made, "run1", segment("x", "Hi", user=key, records=["User sings."]))
    summary, folder = export(made.uri, tmp_path)
    assert [row["user_id"] for row in lines(folder / "memories.jsonl")] == [key]
    assert summary["of_user"] == {"[redacted:api_key]": 1} and key not in json.dumps(summary)


def test_only_the_named_users_are_exported(store, tmp_path):
    summary, folder = export(store, tmp_path, user_id=("b.o/b",))
    assert texts(folder) == ["User saw the moon."]
    assert summary["of_user"] == {"b.o/b": 1}


def test_as_of_a_run_is_what_that_run_left(store, tmp_path):
    summary, folder = export(store, tmp_path, as_of="run1")
    assert texts(folder) == ["User saw the moon.", "User lives in Lyon."]
    assert summary["as_of"] == "run1"


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (dt.date(2025, 12, 31), []),
        (dt.date(2026, 1, 15), ["User saw the moon.", "User lives in Lyon."]),
        (dt.date(2026, 2, 2), ["User saw the moon.", "User has lived in Oslo."]),
    ],
)
def test_at_a_day_is_what_held_then(store, tmp_path, day, expected):
    assert texts(export(store, tmp_path, at=day)[1]) == expected


def test_an_increment_says_what_was_added_changed_and_closed(store, tmp_path):
    summary, folder = export(store, tmp_path, since="run1")
    rows = lines(folder / "memories.jsonl")
    assert [(row["record_id"], row["change"], row.get("closed_reason")) for row in rows] == [
        (OSLO_ID, "added", None),
        (LYON_ID, "closed", "delete"),
    ]
    assert [summary[f"num_{name}"] for name in ("added", "changed", "closed")] == [1, 0, 1]
    changed = lines(export(store, tmp_path, since="run2")[1] / "memories.jsonl")
    assert [(row["record_id"], row["change"]) for row in changed] == [
        (OSLO_ID, "changed"),
        (LYON_ID, "closed"),
    ]
    assert texts(export(store, tmp_path, since="run3")[1]) == []


def test_an_increment_of_another_system_names_what_is_gone_in_its_own_ids(store, tmp_path):
    _, folder = export(store, tmp_path, "mem0", since="run1")
    [gone] = lines(folder / formats.CLOSED)
    lyon = memory_of({"user_id": "me", "semantic_text": "x", "record_id": LYON_ID})
    assert gone == {"user_id": "me", "record_id": LYON_ID, "id": identify(lyon), "closed_reason": "delete"}


def test_an_increment_is_refused_where_the_format_cannot_say_what_is_gone(store, tmp_path):
    with pytest.raises(UsageError, match="markdown cannot say which memories are gone"):
        export(store, tmp_path, "markdown", since="run1")


# --- whole or not at all --------------------------------------------------------------------------------


def test_the_manifest_of_an_export_lies_in_its_folder(store, tmp_path):
    summary, folder = export(store, tmp_path)
    [path] = (folder / "_slowwave" / "runs").glob("*.json")
    manifest = json.loads(path.read_text())
    assert (manifest["job"], manifest["status"], manifest["run_id"]) == ("export", "done", summary["run_id"])
    assert manifest["output"] == str(folder)


def test_an_export_that_fails_leaves_nothing(store, tmp_path, monkeypatch):
    def broken(folder, export):
        (folder / "memories.jsonl").write_text("half")
        raise RuntimeError("no space")

    monkeypatch.setitem(formats.WRITERS, "jsonl", formats.Writer(broken))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RuntimeError):
        export(store, tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_with_anything_in_it_is_refused_and_an_empty_one_is_not(store, tmp_path):
    (folder := tmp_path / "full").mkdir()
    (folder / "a").touch()
    with pytest.raises(UsageError, match="is there already and not empty"):
        run(ExportConfig(store=store, format="jsonl", output=str(folder)))
    (folder / "a").unlink()
    assert run(ExportConfig(store=store, format="jsonl", output=str(folder)))["num_memories"] == 2


@pytest.mark.parametrize("settings", [{"as_of": "run9"}, {"since": "run9"}])
def test_a_run_that_is_not_there_is_refused_and_leaves_nothing(store, tmp_path, settings):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(JobError, match="run9: no such run"):
        export(store, tmp_path, **settings)
    assert sorted(tmp_path.iterdir()) == before


# --- formats --------------------------------------------------------------------------------------------


def test_parquet_has_the_rows_of_json_lines(store, tmp_path):
    rows = pq.read_table(export(store, tmp_path, "parquet")[1] / "memories.parquet").to_pylist()
    assert [row["semantic_text"] for row in rows] == texts(export(store, tmp_path)[1])


def test_markdown_has_a_file_for_each_user(store, tmp_path):
    _, folder = export(store, tmp_path, "markdown")
    assert sorted(path.name for path in folder.glob("*.md")) == ["b.o%2Fb.md", "me.md"]
    assert (folder / "me.md").read_text() == (
        '---\nuser_id: "me"\n---\n\n## fact\n\n- [2026-02-01] User has lived in Oslo.\n'
    )
    assert not list(folder.glob(".*"))


def test_mem0_gets_its_import_file_and_a_history_of_every_revision(store, tmp_path):
    _, folder = export(store, tmp_path, "mem0", user_id=("me",))
    whole = json.loads((folder / "memories.json").read_text())
    assert (whole["version"], whole["kind"]) == (1, "mem0_oss_qdrant_export")
    [record] = whole["records"]
    assert (record["memory"], record["user_id"], record["role"]) == ("User has lived in Oslo.", "me", "user")
    assert record["created_at"] == "2026-02-01T00:00:00+00:00"
    columns = "memory_id, event, old_memory, new_memory, is_deleted"
    with sqlite3.connect(folder / "history.db") as database:
        # In the order in which mem0 reads a memory's history.
        found = database.execute(f"SELECT {columns} FROM history ORDER BY created_at, DATETIME(updated_at)")
        events = [row for row in found.fetchall() if row[0] == record["id"]]
        [gone] = database.execute(f"SELECT {columns} FROM history WHERE is_deleted = 1").fetchall()
    assert [event[1:] for event in events] == [
        ("ADD", None, "User lives in Oslo.", 0),
        ("UPDATE", "User lives in Oslo.", "User has lived in Oslo.", 0),
    ]
    assert gone[1:] == ("DELETE", "User lives in Lyon.", None, 1)


def test_cogx_gets_a_manifest_that_counts_its_memories(store, tmp_path):
    _, folder = export(store, tmp_path, "cogx")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["cogx_version"], manifest["counts"]) == ("0.1", {"memory": 2})
    record = lines(folder / "memories.jsonl")[1]
    assert (record["kind"], record["external_id"], record["content"]) == (
        "memory",
        OSLO_ID,
        "User has lived in Oslo.",
    )
    assert record["scope"] == {"user_id": "me", "session_id": "s2"}


def test_letta_gets_a_folder_for_each_user_with_a_description_in_front(store, tmp_path):
    _, folder = export(store, tmp_path, "letta")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.md"))
    assert files == ["b.o%2Fb/reference/fact.md", "me/reference/fact.md"]
    first, description, last, _, line = (folder / "me/reference/fact.md").read_text().splitlines()
    assert (first, last, line) == ("---", "---", "- [2026-02-01] User has lived in Oslo.")
    assert json.loads(description.removeprefix("description: ")).startswith("What is remembered")
    assert not list(folder.rglob("*.part"))


def test_hindsight_gets_sessions_with_their_turns_as_chunks_and_their_memories_as_facts(store, tmp_path):
    _, folder = export(store, tmp_path, "hindsight")
    assert sorted(path.name for path in folder.glob("*.zip")) == ["b.o%2Fb.zip", "me.zip"]
    with zipfile.ZipFile(folder / "me.zip") as file:
        assert file.namelist() == ["documents/000000.json", "manifest.json"]
        manifest, document = (json.loads(file.read(name)) for name in reversed(file.namelist()))
    assert manifest == {
        "schema_version": 1,
        "source_bank_id": "me",
        "document_count": 1,
        "fact_count": 1,
        "archive_type": "documents",
    }
    [fact] = document.pop("facts")
    assert document == {
        "id": "s2",
        "original_text": "user: We moved to Oslo",
        "tags": [],
        "created_at": "2026-02-01T00:00:00+00:00",
        "chunks": [{"chunk_index": 0, "chunk_text": "user: We moved to Oslo"}],
    }
    assert (fact["text"], fact["fact_type"], fact["chunk_index"]) == ("User has lived in Oslo.", "world", 0)
    assert (fact["mentioned_at"], fact["occurred_start"]) == ("2026-02-01T00:00:00+00:00", None)
    assert fact["metadata"]["record_id"] == OSLO_ID
    assert all(isinstance(value, str) for value in fact["metadata"].values())


def test_langgraph_gets_a_store_with_all_of_its_migrations_done(store, tmp_path):
    _, folder = export(store, tmp_path, "langgraph")
    with sqlite3.connect(folder / "store.db") as database:
        rows = database.execute("SELECT prefix, key, value, created_at FROM store ORDER BY prefix").fetchall()
        assert database.execute("SELECT v FROM store_migrations").fetchall() == [(v,) for v in range(5)]
    assert [row[:2] for row in rows] == [("memories.b%2Eo/b", MOON_ID), ("memories.me", OSLO_ID)]
    value = json.loads(rows[1][2])
    assert (value["kind"], value["content"]) == ("Memory", {"content": "User has lived in Oslo."})
    assert dt.datetime.fromisoformat(rows[1][3])


def test_lychee_gets_a_folder_for_each_user_with_full_text_and_vectors(store, tmp_path):
    summary, folder = export(store, tmp_path, "lychee")
    assert summary["num_memories"] == 2
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != "_") == ["b.o%2Fb", "me"]
    with sqlite3.connect(folder / "me" / "compact_memory.db") as database:
        [row] = database.execute(
            "SELECT record_id, normalized_text, evidence_turn_range, created_at FROM memory_records"
        ).fetchall()
        found = database.execute(
            "SELECT record_id FROM memory_records_fts WHERE memory_records_fts MATCH 'oslo'"
        ).fetchall()
    text = "User has lived in Oslo."
    own_id = hashlib.sha256(text.encode()).hexdigest()
    assert row == (own_id, f"fact: {text}", "[0, 0]", "2026-02-01T00:00:00+00:00")
    assert found == [(own_id,)]
    [point] = (
        connect(str(folder / "me" / "compact_vector")).open_table("memory_records").to_arrow().to_pylist()
    )
    assert (point["record_id"], point["expired"]) == (own_id, False)
    # The text was changed, and the vector of this store's row was not.
    assert point["vector"] == point["normalized_vector"] == pytest.approx(vector("User lives in Oslo."))


def test_two_memories_with_one_text_are_one_to_lychee_and_the_summary_says_so(store, tmp_path):
    again = segment("again", "The moon!", user="b.o/b", session="s9", records=["User saw the moon."])
    stores.commit(Store(store), "run4", again)
    summary, _ = export(store, tmp_path, "lychee", user_id=("b.o/b",))
    assert (summary["num_memories"], summary["skipped"]) == (1, {"same_text": 1})


def test_lightmem_gets_points_with_payload_and_vector(store, tmp_path):
    _, folder = export(store, tmp_path, "lightmem", user_id=("me",))
    [point] = lines(folder / "me.jsonl")
    assert point["vector"] == pytest.approx(vector("User lives in Oslo."), abs=1e-6)
    payload = point["payload"]
    assert (payload["memory"], payload["speaker_id"]) == ("User has lived in Oslo.", "me")
    assert (payload["time_stamp"], payload["weekday"]) == ("2026-02-01T00:00:00.000", "Sun")
    assert payload["float_time_stamp"] == dt.datetime(2026, 2, 1, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize("name", ["lychee", "lightmem"])
def test_a_day_has_vectors_too_and_an_increment_says_what_is_gone(store, tmp_path, name):
    day = dt.date(2026, 1, 15)
    assert export(store, tmp_path, name, at=day)[0]["num_memories"] == 2
    _, folder = export(store, tmp_path, name, since="run1")
    writer = formats.WRITERS[name]
    gone = memory_of({"user_id": "me", "semantic_text": "User lives in Lyon.", "record_id": LYON_ID})
    assert [row["id"] for row in lines(folder / "closed.jsonl")] == [writer.identify(gone)]
