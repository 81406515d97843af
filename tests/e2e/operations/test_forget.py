"""Forgetting on a real store: every file is searched for what was erased."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lancedb.table import LanceTable

from cluster.forget import leftovers, proof
from cluster.forget.forgotten import BLANK, Forgotten
from cluster.forget.rules import Subject
from cluster.store.files import Files, everything
from cluster.store.tables import settle
from jobs.common.cli import JobError, main
from jobs.forget import ForgetConfig
from jobs.forget import run as forget_job
from jobs.rollback import RollbackConfig
from jobs.rollback import run as rollback_job
from tests.dying import Killed
from tests.e2e.operations.stores import (
    ANN,
    SECRET,
    consolidate,
    files_with,
    ids,
    read,
    record_id,
    tables,
    texts,
)
from tests.unit.cluster.store.stores import commit, segment, vector, view


def test_nothing_of_a_forgotten_user_is_left_in_any_file(store):
    staging, runs = Files(store.uri, "staging"), Files(store.uri, "runs")
    plan = [{"user_id": ANN, "text": SECRET}, {"user_id": "bob", "text": "moon"}]
    staging.put_table("encoded/x/1.parquet", pa.Table.from_pylist(plan))
    staging.put("attempts/a", b"")
    staging.put_json("turns/k/seal.json", {"tables": {}})
    staging.put("raw.txt", SECRET.encode())
    runs.put_json("old.json", {"config": {"user_id": ANN}, "num_rows": 3})
    bob = {run: [row for row in view(store, run)["records"] if row["user_id"] == "bob"] for run in ids(store)}
    assert files_with(store.uri, SECRET, ANN)

    summary = forget_job(ForgetConfig(store=store.uri, user_id=ANN))

    assert summary["status"] == "done" and summary["is_clean"]
    assert (summary["num_turns_removed"], summary["num_records_removed"]) == (4, 4)
    erased = [SECRET, ANN, "Lyon", "Oslo", "green tea", "s1-of-ann"]
    assert files_with(store.uri, *erased) == []
    for run in ids(store):
        shown = view(store, run)
        assert ANN not in json.dumps(tables(shown), default=str)
        if run in bob:
            assert [row for row in shown["records"] if row["user_id"] == "bob"] == bob[run]
    # What is left of a staged file does not bear its name: it would pass for the whole.
    assert [path for path in staging.paths() if "encoded" not in path] == ["attempts/a", "turns/k/seal.json"]
    (left,) = staging.paths("encoded/x")
    assert left != "encoded/x/1.parquet" and staging.get_table(left).to_pylist() == [plan[1]]
    assert runs.get_json("old.json")["config"]["user_id"].startswith("forgotten:")
    receipt = Path(summary["receipt"]).read_text()
    assert not any(text in receipt for text in erased)
    assert store.files.paths() == []
    # The views that are left can be searched and gone back to.
    assert [hit["kind"] for hit in store.search("bob", "moon", vector("x"), 5, as_of="run1")] != []
    assert store.search(ANN, "Lyon", vector("x"), 5) == []
    rollback_job(RollbackConfig(store=store.uri, to="run1"))
    assert texts(store) == ["User saw the moon."]


def test_a_forgotten_session_takes_what_rests_on_it_alone(store):
    forget_job(ForgetConfig(store=store.uri, session_id="s1-of-ann"))
    assert texts(store) == ["User drinks green tea.", "User lives in Oslo.", "User saw the moon."]
    assert texts(store, as_of="run1") == ["User saw the moon."]
    assert files_with(store.uri, SECRET, "Lyon", "s1-of-ann") == []
    assert read(store, "decisions") == []


def test_what_only_erased_words_had_closed_is_open_again(store):
    assert "User lives in Lyon." not in texts(store)
    forget_job(ForgetConfig(store=store.uri, session_id="s3-of-ann", user_id=ANN))
    assert "User lives in Lyon." in texts(store)
    assert "Oslo" not in json.dumps(view(store), default=str)


def test_a_united_memory_loses_the_erased_evidence_and_stays(store):
    again = segment("tea3", "Still green tea", session="s5", user=ANN, records=["User drinks green tea."])
    commit(store, "run4", again)
    newer = record_id("tea3", "User drinks green tea.")
    consolidate(
        store, "run5", target=record_id("tea", "User drinks green tea."), source=newer, action="unite"
    )
    forget_job(ForgetConfig(store=store.uri, session_id="s5"))
    rows = [
        row for row in read(store, "records", "active") if row["semantic_text"] == "User drinks green tea."
    ]
    assert [(row["session_id"], row["evidence"]) for row in rows] == [
        ("s2-of-ann", [{"session_id": "s2-of-ann", "turn_index": 0}])
    ]
    assert files_with(store.uri, "Still green") == []


def test_a_value_of_an_extra_field_goes_with_the_only_turn_that_says_it(store):
    """In every version, also where another memory's evidence keeps the record."""
    house = segment("house", "My house is red", session="s8-of-ann", user=ANN, records=["User has a house."])
    (row,) = house["records"]
    evidence = [{"session_id": name, "turn_index": 0} for name in ("s1-of-ann", "s8-of-ann")]
    extra = [("colour", "red"), ("pet", f"a {SECRET} parrot"), ("mood", "good")]
    house["records"] = [row | {"evidence": evidence, "extra": extra}]
    commit(store, "run4", house)
    commit(store, "run5", segment("star", "Stars", user="bob", session="s7"))
    done = forget_job(ForgetConfig(store=store.uri, session_id="s1-of-ann", user_id=ANN))
    assert done["status"] == "done"
    for as_of in ("run4", "run5", None):
        (row,) = store.rows("records", ["extra"], "semantic_text = 'User has a house.'", as_of).to_pylist()
        assert row["extra"] == [("colour", "red")]
    assert files_with(store.uri, SECRET) == []


def test_a_text_that_uses_erased_words_goes_and_its_older_revision_is_open_again(store):
    rum = segment("rum", "Rum with my tea", session="s6", user=ANN, records=["User drinks rum in tea."])
    commit(store, "run4", rum)
    tea = record_id("tea", "User drinks green tea.")
    consolidate(
        store,
        "run5",
        target=tea,
        source=record_id("rum", "User drinks rum in tea."),
        action="update",
        text="User drinks green tea with rum.",
    )
    assert "User drinks green tea with rum." in texts(store)
    forget_job(ForgetConfig(store=store.uri, session_id="s6"))
    assert "User drinks green tea." in texts(store)
    assert "rum" not in " ".join(texts(store, where=None))


def test_a_forgotten_memory_takes_its_turns_along(store):
    forget_job(ForgetConfig(store=store.uri, memory=record_id("lyon", f"User has a {SECRET} parrot.")))
    assert files_with(store.uri, SECRET) == []
    assert "How nice" in texts(store, "turns")
    assert [text for text in texts(store, where=None) if "Lyon" in text] == []
    said = [f"I live in Lyon with my {SECRET} parrot", "How nice"]
    turns = [{"role": "user", "content": text, "speaker": None, "time": None} for text in said]
    archived = {"user_id": ANN, "session_id": "s1-of-ann", "turns": turns}
    assert Forgotten.of_store(store.uri).blank_turns(archived) == 1
    assert [turn["content"] for turn in turns] == [BLANK, "How nice"]


def test_forgetting_is_remembered_without_names(store):
    forget_job(ForgetConfig(store=store.uri, user_id=ANN))
    forgotten = Forgotten.of_store(store.uri)
    assert forgotten.has_session(ANN, "any") and not forgotten.has_session("bob", "s1")
    # Somebody who never was in the store can be kept out of it, too.
    forget_job(ForgetConfig(store=store.uri, user_id="carol", in_advance=True))
    assert Forgotten.of_store(store.uri).has_session("carol", "any")
    assert forgotten.keys < Forgotten.of_store(store.uri).keys


def test_the_search_finds_what_was_only_deleted(store):
    """Lance marks rows and keeps versions: a forgetting that stopped there must not pass for one."""
    found = {"subject": Subject(ANN), "texts": frozenset([f"I live in Lyon with my {SECRET} parrot"])}
    traces = proof.Traces(**found, ids=(ANN,))
    assert not proof.search(store, traces)["is_clean"]
    for name in ("turns", "records", "segments", "decisions"):
        store.head(name).delete(f"user_id = '{ANN}'")
        settle(store.head(name), name)
    left = proof.search(store, traces)["found"]
    assert any(item.startswith("rows of turns") for item in left)


UNKNOWN = [
    {"user_id": "ann-of-the-hil"},
    {"user_id": ANN, "session_id": "s9"},
    {"user_id": "bob", "session_id": "s1-of-ann"},
    {"session_id": "s9"},
    {"memory": "m9"},
]


@pytest.mark.parametrize("given", UNKNOWN, ids=str)
def test_of_whom_the_store_has_nothing_nothing_is_found_or_blocked_or_changed(store, given, capsys):
    # Work in progress and records of somebody else are no reason to think otherwise.
    rows = pa.Table.from_pylist([{"user_id": ANN, "session_id": "s2-of-ann"}])
    Files(store.uri, "staging").put_table("encoded/x/1.parquet", rows)
    before = dict(everything(store.uri))
    assert forget_job(ForgetConfig(store=store.uri, **given)) == {
        "status": "nothing_found",
        "store": store.uri,
    }
    assert "no run of this store has it" in capsys.readouterr().err
    after = dict(everything(store.uri))
    assert {path: after[path] for path in after if "/lease/" not in path} == {
        path: before[path] for path in before if "/lease/" not in path
    }


def test_nothing_found_is_a_failure_to_who_called(store, monkeypatch):
    monkeypatch.setattr("sys.argv", ["forget", "--store", store.uri, "--user-id", "nobody-here"])
    # It would be taken from the tests that follow, too.
    monkeypatch.setattr("jobs.common.cli.reserve_stdout", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main(ForgetConfig, forget_job, "Forget.")
    assert ended.value.code == 1


@pytest.mark.parametrize(
    "given",
    [
        {"user_id": ANN},
        {"user_id": ANN, "session_id": "s2-of-ann"},
        {"session_id": "s2-of-ann"},
        {"memory": record_id("tea", "User drinks green tea.")},
    ],
    ids=["user", "session of user", "session", "memory"],
)
def test_what_was_forgotten_before_is_unchanged(store, given):
    assert forget_job(ForgetConfig(store=store.uri, **given))["status"] == "done"
    runs = ids(store)
    assert forget_job(ForgetConfig(store=store.uri, **given))["status"] == "unchanged"
    assert ids(store) == runs and len(Files(store.uri, "receipts").paths()) == 1


def test_who_is_kept_out_in_advance_is_kept_out_once(store):
    config = ForgetConfig(store=store.uri, user_id="carol", session_id="s1", in_advance=True)
    assert forget_job(config)["status"] == "done"
    assert Forgotten.of_store(store.uri).has_session("carol", "s1")
    assert not Forgotten.of_store(store.uri).has_session("carol", "s2")
    assert forget_job(config)["status"] == "unchanged"


@pytest.mark.parametrize("folder", ["staging", "runs"])
def test_who_is_only_in_work_in_progress_is_found(store, folder):
    rows = pa.Table.from_pylist(
        [{"user_id": "carol", "text": "I am Carol"}, {"user_id": "bob", "text": "moon"}]
    )
    Files(store.uri, folder).put_table("x/1.parquet", rows)
    assert forget_job(ForgetConfig(store=store.uri, user_id="carol"))["status"] == "done"
    left = [Files(store.uri, folder).get_table(path) for path in Files(store.uri, folder).paths("x")]
    assert [table.column("user_id").to_pylist() for table in left] == [["bob"]]


def test_a_search_that_found_something_is_repeated_until_it_finds_nothing(store):
    """What was searched for is gone after the first time: the file still counts as long as it is the same."""
    notes = Path(store.uri, "notes.txt")
    notes.write_text(f"I live in Lyon with my {SECRET} parrot")
    for _ in range(2):
        with pytest.raises(JobError, match=r"still found traces in \['notes.txt"):
            forget_job(ForgetConfig(store=store.uri, session_id="s1-of-ann", user_id=ANN))
    notes.write_text("my parrot")
    assert forget_job(ForgetConfig(store=store.uri, session_id="s1-of-ann", user_id=ANN))["is_clean"]
    again = forget_job(ForgetConfig(store=store.uri, session_id="s1-of-ann", user_id=ANN))
    assert again["status"] == "unchanged"


def test_what_may_not_be_deleted_yet_is_deleted_by_the_same_command_later(store, monkeypatch):
    config = ForgetConfig(store=store.uri, user_id=ANN)
    with monkeypatch.context() as patch:
        patch.setattr(
            leftovers, "look", lambda uri: leftovers.Leftovers(left=["3 older versions of objects"])
        )
        with pytest.raises(JobError, match=r"still found traces in .*3 older versions of objects"):
            forget_job(config)
    assert forget_job(config)["is_clean"]
    assert forget_job(config)["status"] == "unchanged"


LEFT_BY_THE_KILLED = [
    "_slowwave/commit/intent.json#1",
    "_slowwave/staging/plan/1.parquet#1",
    "_slowwave/tmp/commit-1-a",
    "turns.lance/data/half.lance#1",
]


@pytest.mark.parametrize("path", LEFT_BY_THE_KILLED)
def test_what_a_killed_write_has_left_is_found_and_removed(store, path):
    left = Path(store.uri, path)
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text(f"I live in Lyon with my {SECRET} parrot")
    assert not proof.search(store, proof.Traces(Subject("nobody"), frozenset(), ()))["is_clean"]
    assert forget_job(ForgetConfig(store=store.uri, user_id=ANN))["is_clean"]
    assert not left.exists() and files_with(store.uri, SECRET) == []


def test_a_killed_forgetting_is_finished_by_who_has_no_secret(store, monkeypatch, tmp_path):
    key = tmp_path / "key"
    key.write_text("k" * 32)
    config = ForgetConfig(store=store.uri, user_id=ANN, forget_key_file=str(key))
    with pytest.raises(Killed), monkeypatch.context() as patch:
        patch.setattr(LanceTable, "restore", lambda *_: (_ for _ in ()).throw(Killed))
        forget_job(config)
    rollback_job(RollbackConfig(store=store.uri, to="run1"))
    assert files_with(store.uri, SECRET, ANN) == []
    assert Forgotten.of_store(store.uri, "k" * 32).has_session(ANN, "any")
    assert forget_job(config)["status"] == "unchanged"
    with pytest.raises(JobError, match="keyed with the operator's secret; give it"):
        forget_job(ForgetConfig(store=store.uri, user_id="bob"))


@pytest.mark.parametrize("kind", ["file", "tag", "branch"])
def test_what_others_left_in_a_store_is_no_hiding_place(store, kind):
    if kind == "tag":
        store.head("turns").tags.create("mine", store.head("turns").version)
    elif kind == "branch":
        store.head("turns").to_lance().create_branch("mine")
    else:
        Path(store.uri, "notes.txt").write_text(f"ann has a {SECRET}, {ANN}")
        with pytest.raises(JobError, match=r"still found traces in \['notes.txt"):
            forget_job(ForgetConfig(store=store.uri, user_id=ANN))
        return
    forget_job(ForgetConfig(store=store.uri, user_id=ANN))
    assert files_with(store.uri, SECRET, ANN) == []


def test_whom_to_forget_must_be_clear(store):
    commit(store, "run4", segment("other", "Hello", user="bob", session="s2-of-ann"))
    with pytest.raises(JobError, match="s2-of-ann: 2 users have such a session; add --user-id"):
        forget_job(ForgetConfig(store=store.uri, session_id="s2-of-ann"))
    forget_job(ForgetConfig(store=store.uri, session_id="s2-of-ann", user_id=ANN))
    assert "Hello" in texts(store, "turns") and "I drink green tea" not in texts(store, "turns")


def test_parquet_of_a_store_is_read_by_the_search(store):
    """Its text columns are compressed: the bytes alone would not show them."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"note": [f"I live in Lyon with my {SECRET} parrot"] * 3}), sink, compression="zstd"
    )
    Files(store.uri, "exports").put("notes.parquet", sink.getvalue().to_pybytes())
    with pytest.raises(JobError, match=r"exports/notes.parquet"):
        forget_job(ForgetConfig(store=store.uri, session_id="s1-of-ann"))
