"""The commit point: who publishes first, whatever the clocks say, and what recovery does with the rest."""

import datetime as dt
import itertools
import json
import os
import shutil

import lance
import lancedb
import pyarrow as pa
import pytest
from lancedb.index import FTS
from lancedb.merge import LanceMergeInsertBuilder
from lancedb.table import LanceTable, Tags

from cluster.forget import erase as forgetting
from cluster.forget.rules import Subject
from cluster.runtime import HIDDEN
from cluster.store import commit as commits
from cluster.store import maintenance, tables
from cluster.store.errors import StoreError
from cluster.store.files import Files, everything
from cluster.store.heads import Head, Heads
from cluster.store.lease import LeaseLost
from cluster.store.reading import INTENT
from cluster.store.store import Store
from jobs.migrate import MigrateConfig
from jobs.migrate import run as migrate_job
from schemas.intent import read_intent
from schemas.store import RUNS_SCHEMA, STORE_VERSION, TABLE_KEYS, table_schemas
from tests.dying import killed_before
from tests.unit.cluster.store.stores import (
    DIM,
    FOREIGN,
    MOON,
    STEPS,
    TEA,
    active,
    commit,
    nightly_run,
    rejection,
    run_row,
    segment,
    tags_of,
    vector,
    view,
)

ALL_STEPS = bool(os.environ.get("SLOWWAVE_CRASH"))
"""`make test-crash` stops a writer at every step, the default tests at some."""

SUN = segment("sun", "I like the sun", user="bob", session="s2", records=["Bob likes the sun"])


def run_ids(store):
    return [row["run_id"] for row in store.runs()]


def keys_of(store, name):
    rows = store.rows(name, TABLE_KEYS[name]).to_pylist()
    return [tuple(row.values()) for row in rows]


def assert_sound(store):
    """Every key once, every run once, tags and heads say the same."""
    for name in TABLE_KEYS:
        assert len(keys_of(store, name)) == len(set(keys_of(store, name))), name
    assert len(run_ids(store)) == len(set(run_ids(store)))
    for row in store.runs():
        assert tags_of(store, row["run_id"]) == json.loads(row["versions"])


# --- order ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [-600, -25, 0, 600], ids=["minutes back", "back", "still", "ahead"])
def test_runs_are_in_the_order_of_their_commits_whatever_the_clock_says(store, monkeypatch, step_s):
    """Regression: a writer whose clock was behind published runs that nobody saw, and paid for them again."""
    original, now = commits.run_row, dt.datetime.now(dt.UTC)
    for number, parts in enumerate(((TEA,), (MOON,), (SUN,))):
        finished = {"finished_at": now + dt.timedelta(seconds=number * step_s)}
        monkeypatch.setattr(commits, "run_row", lambda *row, finished=finished: original(*row) | finished)
        commit(Store(store.uri, must_exist=False), f"run{9 - number}", *parts)
        assert store.run()["run_id"] == f"run{9 - number}"
    assert run_ids(store) == ["run9", "run8", "run7"]
    assert active(store, "segments", "segment_id") == ["moon", "sun", "tea"]
    assert [row["sequence"] for row in store.runs()] == [1, 2, 3]


def test_what_is_inserted_again_stands_once_and_can_be_changed(store):
    """Regression: the next edit of such a session ended in "Ambiguous merge inserts" for ever."""
    commit(store, "run1", TEA, MOON)
    commit(store, "run2", TEA, TEA, rejection("a.parquet:1"), rejection("a.parquet:1"))
    assert_sound(store)
    assert active(store, "records", "run_id") == ["run1", "run2"]
    nightly_run(Store(store.uri))
    assert_sound(store)


# --- what others left in the way --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TABLE_KEYS, "runs"])
def test_a_folder_without_a_manifest_is_no_table(tmp_path, store, name):
    """Regression: a kill in the very first commit left such a folder, and blocked the store for ever."""
    (tmp_path / "store" / f"{name}.lance" / "data").mkdir(parents=True)
    (tmp_path / "store" / f"{name}.lance" / "data" / "01.lance").write_bytes(b"of a killed writer")
    with pytest.raises(StoreError, match=r"holds no finished run; run jobs\.backfill first"):
        Store(store.uri)
    assert Store(store.uri, must_exist=False).recover() is None
    commit(store, "run1", TEA, MOON)
    assert active(store, "segments", "segment_id") == ["moon", "tea"]


def test_rows_of_a_first_commit_that_was_never_published_do_not_count(store, monkeypatch):
    killed_before(monkeypatch, [(LanceMergeInsertBuilder, "execute")], 0, lambda: commit(store, "run1", TEA))
    (intent,) = store.intents()
    store.files.delete([intent])
    assert (store.recover(), store.run()) == (None, None)
    commit(store, "run2", MOON)
    assert active(store, "segments", "segment_id") == ["moon"]
    assert keys_of(store, "segments") == [("moon",)]


def test_what_stands_behind_the_published_version_is_taken_back_first(store):
    commit(store, "run1", TEA, MOON)
    before = view(store)
    lancedb.connect(store.uri).open_table("turns").delete("user_id = 'ann'")
    assert view(Store(store.uri)) == before
    assert store.recover() is None
    assert lancedb.connect(store.uri).open_table("turns").count_rows() == 3
    lancedb.connect(store.uri).open_table("records").delete("true")
    commit(store, "run2", SUN)
    assert active(store, "records", "semantic_text") == [
        "Ann drinks tea",
        "Bob likes the sun",
        "Bob saw the moon",
    ]


# --- recovery ---------------------------------------------------------------------------------------------


def decided(store, monkeypatch):
    """A store with one run, and a second one that was decided and killed before its first table."""
    commit(store, "run1", TEA, MOON)
    before = view(store)
    killed_before(monkeypatch, STEPS, 4, lambda: commit(store, "run2", SUN))
    assert len(store.intents()) == 1
    return before


@pytest.mark.parametrize("harm", ["gone", "damaged", "empty"])
def test_a_run_whose_staged_files_are_lost_is_given_up_with_a_word(store, monkeypatch, capsys, harm):
    """Regression: every later writer died on the same missing file."""
    before = decided(store, monkeypatch)
    staging = Files(store.uri, "staging")
    path = "tables/records/run2-0.parquet"
    if harm == "gone":
        staging.delete([path])
    else:
        staging.put(path, b"" if harm == "empty" else staging.get(path)[:-40] + b"x" * 40)
    writer = Store(store.uri)
    assert writer.recover() is None
    said = capsys.readouterr().out
    assert "run run2 was interrupted" in said and path in said and "Run its job again" in said
    assert (view(Store(store.uri)), writer.intents(), staging.exists(path)) == (before, [], False)
    commit(writer, "run2", SUN)
    assert "Bob likes the sun" in active(store, "records", "semantic_text")


@pytest.mark.parametrize(
    "content", [b"", b'{"run": {"run_id": "ru', b"\0" * 64], ids=["empty", "half", "zeros"]
)
@pytest.mark.parametrize("path", [INTENT, "intent-000000000002.json"], ids=["old name", "new name"])
def test_an_empty_or_half_written_intent_is_given_up(store, content, path, capsys):
    commit(store, "run1", TEA)
    before = view(store)
    store.files.put(path, content)
    assert Store(store.uri).recover() is None
    assert "empty or cut off" in capsys.readouterr().out
    commit(store, "run2", MOON)
    assert run_ids(store) == [*before["runs"], "run2"]


def test_an_intent_of_a_newer_release_is_refused_and_kept(store, monkeypatch):
    decided(store, monkeypatch)
    (path,) = store.intents()
    intent = store.files.get_json(path) | {"store_version": STORE_VERSION + 1}
    store.files.put_json(path, intent)
    with pytest.raises(StoreError, match=rf"newer release .* run run2; .* delete _slowwave/commit/{path}"):
        Store(store.uri).recover()
    assert store.files.get_json(path) == intent


@pytest.mark.parametrize(
    "change",
    [{"kind": "prune"}, {"kind": "reembed"}, {"dim": "many"}],
    ids=["unknown kind", "other fields", "other type"],
)
def test_an_intent_that_this_release_does_not_know_is_refused_and_kept(store, monkeypatch, change):
    before = decided(store, monkeypatch)
    (path,) = store.intents()
    intent = store.files.get_json(path) | change
    store.files.put_json(path, intent)
    with pytest.raises(StoreError, match=rf"another release .* run run2.* delete _slowwave/commit/{path}"):
        Store(store.uri).recover()
    assert store.files.get_json(path) == intent
    assert view(Store(store.uri)) == before


def test_an_operation_of_a_floor_above_is_finished_by_who_brings_it_along(store, monkeypatch):
    commit(store, "run1", TEA)
    before = view(store)
    subject = Subject("ann")
    killed_before(monkeypatch, STEPS, 4, lambda: forgetting.forget(store, run_row("op"), subject))
    (path,) = store.intents()
    with pytest.raises(StoreError, match=r"the forget of run op was interrupted; .* such as jobs\.migrate"):
        Store(store.uri).recover()
    assert (view(Store(store.uri)), store.intents()) == (before, [path])
    assert Store(store.uri).recover(forgetting.OPERATIONS) == "op"
    assert active(store, "turns", "content") == []
    assert forgetting.receipt(store, "op")["proof"]["is_clean"]


def test_an_intent_in_whose_place_another_run_was_published_is_given_up(store, monkeypatch, capsys):
    decided(store, monkeypatch)
    (path,) = store.intents()
    intent = store.files.get(path)
    store.files.delete([path])
    commit(store, "run3", SUN)
    store.files.put(path, intent)
    after = view(store)
    assert Store(store.uri).recover() is None
    assert "another run was published in its place" in capsys.readouterr().out
    assert (view(store), store.intents()) == (after, [])


def test_a_half_written_head_is_no_head_and_blocks_nobody(store):
    commit(store, "run1", TEA)
    Files(store.uri, "heads").put("000000000002.json", b'{"number": 2, "vers')
    assert run_ids(Store(store.uri)) == ["run1"]
    writer = Store(store.uri)
    writer.recover()
    commit(writer, "run2", MOON)
    assert run_ids(Store(store.uri)) == ["run1", "run2"]
    assert writer.heads.newest().number == 3


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_among_heads_blocks_nobody(store, tmp_path, name):
    commit(store, "run1", TEA)
    foreign = tmp_path / "store" / "_slowwave" / "heads" / name
    foreign.write_bytes(b"\0")
    writer = Store(store.uri)
    writer.recover()
    commit(writer, "run2", MOON)
    assert run_ids(Store(store.uri)) == ["run1", "run2"]
    assert foreign.exists()


def test_a_store_that_has_lost_its_heads_is_refused_and_not_overwritten(store, tmp_path):
    """Some tools leave out files whose names begin with an underscore when they copy a folder."""
    commit(store, "run1", TEA)
    shutil.copytree(store.uri, tmp_path / "copy", ignore=shutil.ignore_patterns("_slowwave"))
    for must_exist in (True, False):
        with pytest.raises(StoreError, match=r"_slowwave/heads, .* is not there; copy or restore the whole"):
            Store(str(tmp_path / "copy"), must_exist=must_exist)
    shutil.copytree(tmp_path / "store" / "_slowwave", tmp_path / "copy" / "_slowwave")
    assert view(Store(str(tmp_path / "copy"))) == view(store)


def test_a_first_commit_that_was_killed_at_its_very_end_is_no_lost_head(store, tmp_path, monkeypatch):
    monkeypatch.setattr(Heads, "create", lambda *_: (_ for _ in ()).throw(LeaseLost("killed")))
    with pytest.raises(LeaseLost):
        commit(store, "run1", TEA)
    monkeypatch.undo()
    with pytest.raises(StoreError, match="holds no finished run"):
        Store(store.uri)
    shutil.copytree(store.uri, tmp_path / "copy")
    assert Store(store.uri, must_exist=False).recover() == "run1"
    assert run_ids(store) == ["run1"]
    # Nor is it when it has to be given up.
    copy = Store(str(tmp_path / "copy"), must_exist=False)
    Files(copy.uri, "staging").delete(["tables/turns/run1-0.parquet"])
    assert (copy.recover(), Store(copy.uri, must_exist=False).run()) == (None, None)
    commit(Store(copy.uri, must_exist=False), "run2", MOON)
    assert run_ids(copy) == ["run2"]


def test_a_file_uri_names_the_same_store_as_its_path(tmp_path):
    """Regression: with escapes in it, tables lay in another folder than the files beside them."""
    path = tmp_path / "my store"
    commit(Store(path.as_uri(), must_exist=False), "run1", TEA)
    assert [one.name for one in tmp_path.iterdir()] == ["my store"]
    assert view(Store(str(path))) == view(Store(path.as_uri()))
    with pytest.raises(StoreError, match="no such store"):
        Store((tmp_path / "nowhere").as_uri())


@pytest.mark.parametrize(
    "name", ["a?b", "b\nc", "d\te", "what?/store", "file", "s3://bucket/a?b", "s3://bucket/a#b"]
)
def test_a_place_where_no_store_can_lie_is_refused_before_anything_is_made(tmp_path, name):
    """Regression: tables of "a?b" were written to "a", and the first commit failed, after all was paid."""
    uri = name if "://" in name else f"file://{tmp_path}/a%3Fb" if name == "file" else str(tmp_path / name)
    for must_exist in (True, False):
        with pytest.raises(
            StoreError, match=r"^--store '.*': has the character '.*', and no store can lie there"
        ):
            Store(uri, must_exist=must_exist)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a#b", "a%b", "a%3Fb", "a b", "ä", "北京", "a'b", "a:b"])
def test_a_store_may_have_any_other_name(tmp_path, name):
    store = Store(str(tmp_path / name), must_exist=False)
    commit(store, "run1", TEA, MOON)
    maintenance.compact(store, run_row("op") | {"job": "compact"}, 1)
    again = Store(str(tmp_path / name))
    assert again.search("ann", "tea", vector("tea"), 5)
    assert (tmp_path / name / "turns.lance").is_dir()


def test_old_heads_go(store):
    for number in range(7):
        commit(store, f"run{number}", segment(f"s{number}", "x", session=f"s{number}"))
    assert [int(path[:12]) for path in Files(store.uri, "heads").paths()] == [4, 5, 6, 7]


# --- two writers --------------------------------------------------------------------------------------------


class Lost:
    """A lease that is lost at the n-th time that it is asked for; None: never, as far as its holder sees."""

    def __init__(self, at: int | None):
        self.at, self.num = at, 0

    def check(self):
        self.num += 1
        if self.at is not None and self.num > self.at:
            raise LeaseLost("the lease was lost")


WRITES = [*STEPS, (Tags, "delete"), (LanceTable, "delete")]


def stopped_at(monkeypatch, number, work, meanwhile):
    """Do `work`, and before its step `number`, all of `meanwhile`; whether it came to that."""
    begun, is_stopped = itertools.count(), []

    def stopping(original):
        def step(*args, **kwargs):
            if not is_stopped and next(begun) == number:
                is_stopped.append(True)
                meanwhile()
            return original(*args, **kwargs)

        return step

    with monkeypatch.context() as patch:
        for owner, name in WRITES:
            patch.setattr(owner, name, stopping(getattr(owner, name)))
        work()
    return bool(is_stopped)


def steps_of(monkeypatch, store, work) -> list[int]:
    """Steps to stop at: all of them, or every sixteenth and the last one."""
    labels = killed_before(monkeypatch, WRITES, None, work)
    every = range(len(labels))
    return list(every) if ALL_STEPS else sorted({*every[4::16], every[-1]})


def two_writers(base, path):
    """Copies of a store, open for two writers who both hold the lease, as each of them believes."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(base, path)
    first, second = Store(str(path)), Store(str(path))
    assert first.recover() is None
    return first, second


@pytest.fixture
def base(tmp_path):
    commit(Store(str(tmp_path / "base"), must_exist=False), "run1", TEA, MOON)
    return tmp_path / "base"


def test_a_writer_that_is_stopped_at_any_step_never_publishes_over_another(base, tmp_path, monkeypatch):
    """It was asked for its lease just before, sleeps while another takes over and publishes, and goes on."""
    shutil.copytree(base, tmp_path / "counted")
    counted = Store(str(tmp_path / "counted"))
    for number in steps_of(monkeypatch, counted, lambda: nightly_run(counted)):
        sleeper, other = two_writers(base, tmp_path / "store")
        seen = {}

        def takes_over(other=other, seen=seen):
            other.recover()
            commit(other, "run3", SUN)
            seen |= view(other)

        try:
            assert stopped_at(monkeypatch, number, lambda s=sleeper: nightly_run(s), takes_over)
        except StoreError as error:
            assert "another job has published" in str(error) or "not finished" in str(error)
        reader = Store(sleeper.uri)
        assert view(reader) == seen, f"stopped before step {number}"
        reader.recover()
        assert view(reader) == seen, f"stopped before step {number}"
        if "run2" not in seen["runs"]:
            nightly_run(reader)  # nothing was promised: the job runs again
        assert_sound(reader)
        assert sorted(run_ids(reader)) == ["run1", "run2", "run3"]
        assert active(reader, "turns", "content") == [
            *("And coffee", "Black tea", "I drink tea", "I like the sun", "I saw the moon")
        ]


def test_what_a_stopped_writer_writes_between_two_steps_of_another_is_noticed(base, tmp_path, monkeypatch):
    """The other way round: it wakes while the other one commits, and loses its lease only at its end."""
    shutil.copytree(base, tmp_path / "counted")
    counted = Store(str(tmp_path / "counted"))
    for number in steps_of(monkeypatch, counted, lambda: commit(counted, "run3", SUN)):
        sleeper, other = two_writers(base, tmp_path / "store")
        other.recover()
        staged = Store(sleeper.uri)
        killed_before(monkeypatch, STEPS, 7, lambda s=staged: nightly_run(s))
        intent = staged.files.get_json(staged.intents()[0])
        staged.files.delete(staged.intents())

        def wakes(sleeper=sleeper, intent=intent):
            sleeper._number, sleeper.put_head = 1, lambda *_: (_ for _ in ()).throw(LeaseLost("too late"))
            with pytest.raises(LeaseLost):
                commits.apply(sleeper, read_intent(intent))

        if not stopped_at(monkeypatch, number, lambda o=other: commit(o, "run3", SUN), wakes):
            continue
        reader = Store(other.uri)
        reader.recover()
        assert run_ids(reader) == ["run1", "run3"]
        assert_sound(reader)
        assert active(reader, "turns", "content") == [
            *("Green tea", "I drink tea", "I like the sun", "I saw the moon")
        ], f"stopped before step {number}"


def test_of_two_writers_that_believe_to_hold_the_lease_one_publishes(base, tmp_path, monkeypatch):
    """Both build on one state, and both go on to the very end."""
    shutil.copytree(base, tmp_path / "counted")
    counted = Store(str(tmp_path / "counted"))
    for number in steps_of(monkeypatch, counted, lambda: commit(counted, "run3", SUN))[::2]:
        first, second = two_writers(base, tmp_path / "store")
        second.recover()
        refused = []

        def meanwhile(first=first, refused=refused):
            try:
                nightly_run(first)
            except StoreError:
                refused.append("run2")

        try:
            stopped_at(monkeypatch, number, lambda s=second: commit(s, "run3", SUN), meanwhile)
        except StoreError:
            refused.append("run3")
        reader = Store(first.uri)
        reader.recover()
        assert_sound(reader)
        published = set(run_ids(reader))
        # A refused run that was decided is finished by the next writer; one that was not runs again.
        assert published | set(refused) == {"run1", "run2", "run3"}


def test_the_lease_is_asked_for_before_each_table_and_before_the_commit_point(base, tmp_path):
    asked = Lost(None)
    shutil.copytree(base, tmp_path / "counted")
    counted = Store(str(tmp_path / "counted"), lease=asked)
    nightly_run(counted)
    assert asked.num >= len(TABLE_KEYS) + 2
    before = view(Store(str(base)))
    for at in range(asked.num):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        shutil.copytree(base, tmp_path / "store")
        with pytest.raises(LeaseLost):
            nightly_run(Store(str(tmp_path / "store"), lease=Lost(at)))
        assert view(Store(str(tmp_path / "store"))) == before


def test_work_that_was_planned_before_another_job_published_is_refused(base):
    writer, other = Store(str(base)), Store(str(base))
    writer.recover()
    other.recover()
    commit(other, "run2", SUN)
    with pytest.raises(StoreError, match=r"another job has published .* run the same command again"):
        commit(writer, "run3", segment("late", "Too late"))
    assert run_ids(writer) == ["run1", "run2"]
    writer.recover()
    commit(writer, "run3", segment("late", "Too late"))
    assert run_ids(writer) == ["run1", "run2", "run3"]


def test_a_lost_answer_to_the_winning_put_is_no_other_writer(store, monkeypatch):
    create = Files.create
    monkeypatch.setattr(
        Files,
        "create",
        lambda self, *put: create(self, *put) and self.folder == "commit",
    )
    commit(store, "run1", TEA)
    assert run_ids(store) == ["run1"]


def test_a_number_that_was_tidied_away_publishes_nothing(store):
    commit(store, "run1", TEA)
    head, heads = store.heads.newest(), Heads(store.uri)
    for number in range(2, 9):
        assert heads.create(Head(number, "other", head.versions, STORE_VERSION))
    heads.tidy()
    assert not heads.create(Head(2, "late", head.versions, STORE_VERSION))
    assert heads.newest().by == "other"


# --- readers ------------------------------------------------------------------------------------------------


def test_a_search_during_which_a_run_is_published_sees_one_run(store, monkeypatch):
    """Regression: each table was looked up anew, so that records and turns could be of two runs."""
    commit(store, "run1", TEA)
    reader, original = Store(store.uri), Store.table

    def published_between(self, name, as_of=None):
        if name == "turns" and self.uri == reader.uri and len(run_ids(store)) == 1:
            monkeypatch.setattr(Store, "table", original)
            commit(Store(store.uri), "run2", segment("more", "More tea", session="s9", records=["More tea"]))
        return original(self, name, as_of)

    monkeypatch.setattr(Store, "table", published_between)
    assert {hit["run_id"] for hit in reader.search("ann", "tea", vector("tea"), 20)} == {"run1"}
    assert {hit["run_id"] for hit in reader.search("ann", "tea", vector("tea"), 20)} == {"run1", "run2"}


def test_a_reader_that_sleeps_while_heads_come_and_go_sees_the_newest(store, monkeypatch):
    """Regression: all that it had listed was gone by then, and the store passed for an empty one."""
    commit(store, "run1", TEA)
    original = Files.paths

    def sleeps(self, *args):
        found = original(self, *args)
        if self.folder == "heads":
            monkeypatch.setattr(Files, "paths", original)
            for number in range(2, 7):
                commit(Store(store.uri), f"run{number}", segment(f"s{number}", "x", session=f"s{number}"))
        return found

    monkeypatch.setattr(Files, "paths", sleeps)
    assert Heads(store.uri).newest().by == "run6"


def test_a_snapshot_stays_as_it_is(store):
    commit(store, "run1", TEA)
    seen = Store(store.uri).snapshot()
    before = view(seen)
    commit(store, "run2", MOON)
    assert view(seen) == before
    assert view(seen.snapshot()) == before
    assert run_ids(Store(store.uri)) == ["run1", "run2"]


def test_a_reader_writes_nothing(store, tmp_path):
    """Regression: it made `_slowwave/commit`, even in a folder that is no store."""
    (tmp_path / "archive").mkdir()
    with pytest.raises(StoreError):
        Store(str(tmp_path / "archive"))
    assert list((tmp_path / "archive").iterdir()) == []
    commit(store, "run1", TEA)

    def everything():
        paths = sorted((tmp_path / "store").rglob("*"))
        return [(str(path), path.stat().st_mtime_ns) for path in paths]

    before = everything()
    reader = Store(store.uri)
    view(reader)
    reader.search("ann", "tea", vector("tea"), 5)
    assert everything() == before


def test_a_reader_that_is_sent_to_an_archive_writes_nothing_there(tmp_path):
    """Regression: it made folders of a store in it."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="holds no finished run"):
        Store(str(tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["a.parquet"]


# --- releases ---------------------------------------------------------------------------------------------


def as_version_2(store):
    """The store as the release before heads would have left it."""
    db = lancedb.connect(store.uri)
    rows = [run.row for run in store.runs()]
    old = RUNS_SCHEMA.remove(RUNS_SCHEMA.get_field_index("sequence"))
    for row in rows:
        del row["sequence"]
    table = db.open_table("runs")
    table.to_lance().insert(pa.Table.from_pylist(rows, schema=old), mode="overwrite")
    db.open_table("records").drop_columns(["extra"])
    for name, column in (("turns", "content"), ("records", "semantic_text")):
        db.open_table(name).create_index(column, config=FTS(), replace=True)
        table = db.open_table(name)
        table.tags.update(rows[-1]["run_id"], table.version)
        rows[-1]["versions"] = json.dumps(json.loads(rows[-1]["versions"]) | {name: table.version})
    table = db.open_table("runs")
    table.to_lance().insert(pa.Table.from_pylist(rows, schema=old), mode="overwrite")
    shutil.rmtree(os.path.join(store.uri, "_slowwave", "heads"))
    return Store(store.uri)


@pytest.fixture
def version_2(store):
    commit(store, "run2", TEA, MOON, rejection("a.parquet:1"))
    commit(store, "run1", segment("zh", "我住在北京", session="zh", records=["User 住在北京"]))
    expected = view(store)
    return as_version_2(store), expected


def test_a_store_of_the_release_before_is_read_as_it_is(version_2):
    store, expected = version_2
    assert store.version_found == 2
    assert view(store) == expected
    assert store.run()["run_id"] == "run1"
    assert len(store.search("ann", '"tea"', vector("tea"), 9)) == 5
    assert not os.path.exists(os.path.join(store.uri, "_slowwave", "heads"))


def test_the_first_writer_brings_a_store_of_the_release_before_up_to_this_one(version_2):
    store, expected = version_2
    commit(store, "run3", SUN)
    assert run_ids(store) == ["run2", "run1", "run3"]
    assert [row["sequence"] for row in store.runs()] == [1, 2, 4]
    assert Store(store.uri).version_found == STORE_VERSION
    for run_id in ("run2", "run1"):
        assert tags_of(store, run_id) == json.loads(store.run(run_id)["versions"])
    assert {name: rows for name, rows in view(store, "run1").items() if name != "runs"} == {
        name: rows for name, rows in expected.items() if name != "runs"
    }
    table = store.table("turns")
    assert table.search(tables.words_query("北京", "content"), query_type="fts").to_list()


def test_migrating_is_a_job_of_its_own_and_safe_to_repeat(version_2):
    store, expected = version_2
    config = MigrateConfig(store=store.uri)
    done = migrate_job(config)
    assert (done["status"], done["from_version"], done["version"]) == ("done", 2, STORE_VERSION)
    assert migrate_job(config)["status"] == "unchanged"
    assert view(Store(store.uri)) == expected


def holding(uri, token):
    return [path for path, data in everything(uri) if token.encode() in data]


def test_migrating_hides_the_tokens_that_the_release_before_stored_in_clear(version_2):
    """In `runs` and in manifests, also in the run that it had only decided. Older versions of `runs` go with
    the next compaction."""
    store, _ = version_2
    dumped = {
        "archive": "https://me:hf_CANARY@host/a",
        "cluster": {"env_vars": {"HF_TOKEN": "hf_CANARY"}, "pip": ["git+https://hf_CANARY@host/x"]},
    }
    table = lancedb.connect(store.uri).open_table("runs")
    rows = [row | {"config": json.dumps(dumped)} for row in table.to_arrow().to_pylist()]
    rows = pa.Table.from_pylist(rows, schema=table.schema)
    table.to_lance().insert(rows, mode="overwrite")
    manifests = Files(store.uri, "runs")
    manifests.put_json("run1.json", {"run_id": "run1", "config": dumped, "evaluation": {"config": dumped}})
    manifests.put("cut.json", b'{"config')
    decided = run_row("run3") | {"config": json.dumps(dumped)}
    intent = {"run": decided, "dim": DIM, "turn_dim": DIM, "store_version": 2, "replaces": {}}
    store.files.put_json(INTENT, intent | {"inserts": {}, "closed_segments": []})
    assert len(holding(store.uri, "hf_CANARY")) >= 3
    assert migrate_job(MigrateConfig(store=store.uri))["status"] == "done"
    store = Store(store.uri)
    assert run_ids(store) == ["run2", "run1", "run3"]
    for row in store.runs():
        config = json.loads(row["config"])
        assert config["cluster"]["env_vars"] == {"HF_TOKEN": HIDDEN} and "CANARY" not in row["config"]
        assert config["archive"] == f"https://{HIDDEN}@host/a"
    assert holding(f"{store.uri}/_slowwave", "hf_CANARY") == []
    assert all(path.startswith("runs.lance/") for path in holding(store.uri, "hf_CANARY"))
    maintenance.compact(store, run_row("op") | {"job": "compact"}, 9)
    assert holding(store.uri, "hf_CANARY") == []


def test_a_migration_may_die_at_any_step(version_2, tmp_path, monkeypatch):
    store, expected = version_2
    shutil.copytree(store.uri, tmp_path / "whole")
    whole = Store(str(tmp_path / "whole"))
    every = range(len(killed_before(monkeypatch, WRITES, None, whole.recover)))
    for number in every if ALL_STEPS else every[3::16]:
        path = tmp_path / "killed"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(store.uri, path)
        killed_before(monkeypatch, WRITES, number, Store(str(path)).recover)
        assert view(Store(str(path))) == expected
        Store(str(path)).recover()
        assert Store(str(path)).version_found == STORE_VERSION
        assert view(Store(str(path))) == expected
        assert run_ids(Store(str(path))) == ["run2", "run1"]


def test_what_the_release_before_had_decided_is_finished(version_2):
    store, _ = version_2
    files = Files(store.uri, "staging")
    for name, rows in SUN.items():
        schema = table_schemas(DIM)[name]
        known = pa.schema([field for field in schema if field.name in rows[0]])
        files.put_rows(f"{name}.parquet", rows, known)
    intent = {"run": run_row("run3"), "dim": DIM, "turn_dim": DIM, "store_version": 2, "replaces": {}}
    inserts = {name: [f"{name}.parquet"] for name in SUN}
    store.files.put_json(INTENT, intent | {"inserts": inserts, "closed_segments": []})
    assert Store(store.uri).recover() == "run3"
    assert run_ids(store) == ["run2", "run1", "run3"]
    assert "Bob likes the sun" in active(store, "records", "semantic_text")
    assert store.files.paths() == []


def test_rows_that_the_release_before_stored_twice_stand_once(version_2):
    """One active and one closed row of each key: the active one stays."""
    store, expected = version_2
    db = lancedb.connect(store.uri)
    for name in TABLE_KEYS:
        table = db.open_table(name)
        rows = table.to_arrow()
        if "active" in rows.column_names:
            closed = pa.repeat(False, rows.num_rows)
            rows = rows.set_column(rows.column_names.index("active"), "active", closed)
        table.add(rows)
    runs = [run.row for run in store.runs()]
    versions = {name: db.open_table(name).version for name in TABLE_KEYS}
    runs[-1]["versions"] = json.dumps(versions)
    old = db.open_table("runs").schema
    db.open_table("runs").to_lance().insert(pa.Table.from_pylist(runs, schema=old), mode="overwrite")
    assert len(keys_of(store, "turns")) == 8
    store = Store(store.uri)
    store.recover()
    assert_sound(store)
    assert view(store) == expected


def test_a_store_of_a_later_release_is_refused(store):
    commit(store, "run1", TEA)
    head = store.heads.newest()
    store.heads.create(Head(2, "run1", head.versions, STORE_VERSION + 1))
    with pytest.raises(StoreError, match=rf"has version {STORE_VERSION + 1} and .* use the newer release"):
        Store(store.uri)


def test_a_column_that_an_older_view_lacks_is_null_until_the_store_is_brought_up(version_2):
    store, expected = version_2
    db = lancedb.connect(store.uri)
    db.open_table("segments").drop_columns(["cached_tokens"])
    runs = [run.row for run in store.runs()]
    versions = json.loads(runs[-1]["versions"]) | {"segments": db.open_table("segments").version}
    runs[-1]["versions"] = json.dumps(versions)
    old = db.open_table("runs").schema
    db.open_table("runs").to_lance().insert(pa.Table.from_pylist(runs, schema=old), mode="overwrite")
    nulls = [row | {"cached_tokens": None} for row in expected["segments"]]
    assert view(Store(store.uri)) == expected | {"segments": nulls}
    Store(store.uri).recover()
    assert view(Store(store.uri)) == expected | {"segments": nulls}
    commit(Store(store.uri), "run3", SUN)
    (row,) = store.rows("segments", ["cached_tokens"], where="segment_id = 'sun'").to_pylist()
    assert row == {"cached_tokens": 0}


def repeat_rows(table):
    table.add(table.to_arrow())


@pytest.mark.parametrize("kills", [False, True])
def test_a_rollback_over_a_migration_leaves_a_store_of_this_release(store, monkeypatch, kills):
    """Regression: it brought back an index in which Chinese is not found, a table without a column, and rows
    that stand twice. Also where another process finishes a killed rollback."""
    with monkeypatch.context() as patch:
        for name, column in (("turns", "content"), ("records", "semantic_text")):
            patch.setitem(tables.INDEXES, name, {column: FTS()})
        commit(store, "run1", TEA, segment("zh", "我住在北京", session="zh", records=["User 住在北京"]))
        old = view(store)
        commit(store, "run2", MOON)
    db, runs = lancedb.connect(store.uri), [run.row for run in store.runs()]
    first, second = (json.loads(row["versions"]) for row in runs)
    changes = {"turns": repeat_rows, "segments": lambda table: table.drop_columns(["cached_tokens"])}
    for name, change in changes.items():
        table = db.open_table(name)
        table.checkout(first[name])
        table.restore()
        change(table)
        first[name] = table.version
        table.tags.update("run1", table.version)
        table.checkout(second[name])
        table.restore()
        second[name] = table.version
    runs[0]["versions"], runs[1]["versions"] = json.dumps(first), json.dumps(second)
    rows = pa.Table.from_pylist(runs, schema=RUNS_SCHEMA)
    db.open_table("runs").to_lance().insert(rows, mode="overwrite")
    store = as_version_2(store)
    store.recover()

    def back():
        maintenance.rollback(store, run_row("run3") | {"job": "rollback"}, "run1")

    if kills:
        steps = killed_before(monkeypatch, WRITES, 12, back)
        assert steps[-1] == "killed" and store.recover() == "run3"
    else:
        back()
    found = view(store)
    assert_sound(store)
    assert {name: found[name] for name in ("turns", "records", "rejections")} == {
        name: old[name] for name in ("turns", "records", "rejections")
    }
    assert store.run()["run_id"] == "run3"
    for name, column in (("turns", "content"), ("records", "semantic_text")):
        query = tables.words_query("北京", column)
        assert store.table(name).search(query, query_type="fts").to_list(), name
    commit(Store(store.uri), "run4", SUN)
    assert active(store, "segments", "segment_id") == ["moon", "sun", "tea", "zh"]


def test_an_index_of_another_tokenizer_is_made_anew_with_the_next_run(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(tables.INDEXES, "turns", {"content": FTS()})
        commit(store, "run1", segment("zh", "我住在北京", session="zh"))
    query = tables.words_query("北京", "content")
    assert not store.table("turns").search(query, query_type="fts").to_list()
    commit(store, "run2", TEA)
    assert store.table("turns").search(query, query_type="fts").to_list()


def test_an_index_that_is_as_it_should_be_is_not_made_anew(store):
    commit(store, "run1", TEA)
    table = lancedb.connect(store.uri).open_table("turns")
    before = {index.index_uuid for index in table.list_indices()}
    tables.make_indexes(table, "turns")
    assert {index.index_uuid for index in table.list_indices()} == before


# --- deleting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["cleanup_old_versions", "delete_below"])
def test_a_compaction_that_sleeps_while_it_deletes_takes_nothing_of_another_writer(base, monkeypatch, step):
    """It knows what was there while it held the lease; what came later is not its to judge."""
    commit(Store(str(base)), "run2", SUN)
    lease, other, seen, begun = Lost(None), Store(str(base)), {}, []
    sleeper = Store(str(base), lease=lease)
    owner = lance.LanceDataset if step == "cleanup_old_versions" else maintenance
    original, in_work = getattr(owner, step), base / "turns.lance" / "data" / "being-written.lance"

    def sleeps(*args, **options):
        if not begun:
            begun.append(True)
            lease.at = lease.num
            other.recover()
            commit(other, "run3", segment("more", "More tea", session="s9", records=["More tea"]))
            in_work.write_bytes(b"of a commit that is under way")
            seen.update(view(Store(str(base))))
        return original(*args, **options)

    monkeypatch.setattr(owner, step, sleeps)
    with pytest.raises(LeaseLost):
        maintenance.compact(sleeper, run_row("op") | {"job": "compact"}, 9)
    assert in_work.exists()
    assert view(Store(str(base))) == seen
    assert seen["runs"] == ["run1", "run2", "run3"]
    assert_sound(Store(str(base)))


def test_a_compaction_removes_what_killed_writers_have_left(base):
    """Data, index and transaction files that no version has, and nothing else."""
    left = [
        f"turns.lance/{place}" for place in ("data/x.lance", "_indices/y/z.lance", "_transactions/1-t.txn")
    ]
    for path in left:
        (base / path).parent.mkdir(exist_ok=True)
        (base / path).write_bytes(b"of a killed writer")
    before = view(Store(str(base)))
    maintenance.compact(Store(str(base)), run_row("op") | {"job": "compact"}, 1)
    assert [path for path in left if (base / path).exists()] == []
    assert view(Store(str(base))) == before
    commit(Store(str(base)), "run2", SUN)
    assert len(Store(str(base)).search("bob", "sun", vector("sun"), 9)) == 4
