"""A store of version 3, whose records have no extra fields, as the code of that release writes it."""

import contextlib
import shutil

import pytest

import schemas.store
from cluster.consolidate.history import lives
from cluster.forget import erase as forgetting
from cluster.forget.rules import Subject
from cluster.interchange.export import Export, Selection
from cluster.store import maintenance, reading, writer
from cluster.store.store import Store
from jobs.migrate import MigrateConfig
from jobs.migrate import run as migrate_job
from schemas.store import STORE_VERSION, records_schema
from tests.dying import killed_before
from tests.unit.cluster.store.stores import MOON, STEPS, TEA, commit, run_row, segment, vector, view

SUN = segment("sun", "I like the sun", user="bob", session="s2", records=["Bob likes the sun"])


@contextlib.contextmanager
def release_3():
    """The release before, in this process: its version, and its schema of `records`."""

    def without_extra(dim):
        schema = records_schema(dim)
        return schema.remove(schema.get_field_index("extra"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schemas.store, "records_schema", without_extra)
        for module in (writer, reading):
            patch.setattr(module, "STORE_VERSION", 3)
        patch.setattr(writer.Writer.put_head, "__defaults__", (3,))
        yield patch


@pytest.fixture
def old(store):
    """Two runs of the release before."""
    with release_3():
        commit(store, "run1", TEA, MOON)
        commit(store, "run2", segment("cat", "I got a cat", session="s9", records=["Ann has a cat"]))
    return Store(store.uri)


def columns(store, as_of=None) -> list[str]:
    return store.table("records", as_of).schema.names


def test_a_store_of_version_3_is_read_as_it_is(old):
    assert old.version_found == 3 and "extra" not in columns(old)
    rows = view(old)["records"]
    assert len(rows) == 3 and {row["extra"] for row in rows} == {None}
    hits = old.search("ann", "cat", vector("cat"), 9, kind="record")
    assert [hit["extra"] for hit in hits] == [{}, {}]
    assert [row["extra"] for life in lives(old, where="user_id = 'ann'") for row in life["revisions"]] == [
        {},
        {},
    ]
    for as_of in ("run1", None):
        assert {memory.extra for memory in Export(old, Selection(as_of=as_of)).memories()} == {()}
    assert Store(old.uri).version_found == 3


def test_the_first_writer_adds_the_column_and_earlier_views_stay_as_they_are(old):
    before = {run_id: view(old, run_id)["records"] for run_id in ("run1", "run2")}
    walk = segment("walk", "I like my walk", session="s8", records=["Ann walks"])
    walk["records"] = [row | {"extra": [("place", "park")]} for row in walk["records"]]
    commit(old, "run3", walk)
    new = Store(old.uri)
    assert new.version_found == STORE_VERSION == 4
    assert {run_id: view(new, run_id)["records"] for run_id in before} == before
    assert "extra" not in columns(new, "run1")
    (row,) = new.rows("records", ["extra"], "semantic_text = 'Ann walks'").to_pylist()
    assert row["extra"] == [("place", "park")]
    maintenance.rollback(new, run_row("back") | {"job": "rollback"}, "run1")
    assert view(new)["records"] == before["run1"] and "extra" in columns(new)
    commit(new, "run4", walk)
    (row,) = new.rows("records", ["extra"], "active AND semantic_text = 'Ann walks'").to_pylist()
    assert row["extra"] == [("place", "park")]


def test_migrating_from_version_3_changes_no_row(old):
    before = view(old)
    done = migrate_job(MigrateConfig(store=old.uri))
    assert (done["status"], done["from_version"], done["version"]) == ("done", 3, 4)
    assert view(Store(old.uri)) == before and "extra" in columns(Store(old.uri))
    assert migrate_job(MigrateConfig(store=old.uri))["status"] == "unchanged"


WORK = {
    "commit": lambda store: commit(store, "op", SUN),
    "rollback": lambda store: maintenance.rollback(store, run_row("op") | {"job": "rollback"}, "run1"),
    "forget": lambda store: forgetting.forget(store, run_row("op") | {"job": "forget"}, Subject("ann", "s9")),
}


@pytest.mark.parametrize("name", WORK)
def test_what_version_3_had_decided_is_finished_however_often_the_upgrade_is_killed(old, name, tmp_path):
    """Regression: the head of the upgrade took the place of the run that was decided, which was given up."""
    shutil.copytree(old.uri, tmp_path / "whole")
    whole = Store(str(tmp_path / "whole"))
    whole.recover()
    WORK[name](whole)
    expected = view(whole)
    with release_3() as patch:
        killed_before(patch, STEPS, 5, lambda: WORK[name](old))
    (path,) = old.intents()
    before = view(Store(old.uri))
    again = tmp_path / "again"
    shutil.copytree(old.uri, again)
    with pytest.MonkeyPatch.context() as patch:
        recover = lambda: Store(str(again)).recover(forgetting.OPERATIONS)  # noqa: E731
        num_steps = len(killed_before(patch, STEPS, None, recover))
        assert view(Store(str(again))) == expected
        for number in range(1, num_steps, max(1, num_steps // 6)):
            shutil.rmtree(again)
            shutil.copytree(old.uri, again)
            killed_before(patch, STEPS, number, recover)
            assert view(Store(str(again))) in (before, expected)
            recover()
            store = Store(str(again))
            assert (view(store), store.intents(), store.version_found) == (expected, [], 4), number
    assert path.endswith("3.json")


@pytest.mark.parametrize("release", [release_3, contextlib.nullcontext], ids=["before", "after"])
def test_what_was_decided_is_given_up_once_another_run_stands_in_its_place(old, capsys, release):
    """Published before the upgrade, or behind it."""
    with release_3() as patch:
        killed_before(patch, STEPS, 5, lambda: commit(old, "late", SUN))
    (path,) = old.intents()
    intent = old.files.get(path)
    old.files.delete([path])
    with release():
        commit(Store(old.uri), "run3", MOON)
    old.files.put(path, intent)
    assert Store(old.uri).recover() is None
    assert "another run was published in its place" in capsys.readouterr().out
    assert view(Store(old.uri))["runs"] == ["run1", "run2", "run3"]
