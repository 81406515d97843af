"""New rows as fragments: in how many they come, and what a writer that dies leaves of them."""

from pathlib import Path

import lance
import pytest

from cluster.store import fragments, maintenance
from cluster.store.fragments import split
from cluster.store.staged_rows import StagedFile
from cluster.store.store import Store
from cluster.store.tables import MAX_ROWS, num_to_join
from tests.dying import killed_before
from tests.unit.cluster.store.stores import (
    MOON,
    TEA,
    commit,
    memory,
    nightly_run,
    rejection,
    segment,
    vector,
    view,
)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), must_exist=False)


def files_of(*nums):
    return [StagedFile(f"{number}.parquet", num) for number, num in enumerate(nums)]


def test_files_are_joined_to_fragments_of_a_least_size_in_their_order(monkeypatch):
    monkeypatch.setattr(fragments, "MIN_ROWS", 10)
    found = split(files_of(4, 5, 3, 0, 20, 1, 2))
    assert [[file.num_rows for file in one.files] for one in found] == [[4, 5, 3], [20], [1, 2]]
    assert split(files_of(0, 0)) == split([]) == []


def test_fragments_of_that_size_are_not_joined_later():
    assert num_to_join([MAX_ROWS] * 64 + [5]) == 0
    assert fragments.MIN_ROWS >= MAX_ROWS


def test_rows_in_many_fragments_are_those_in_one(tmp_path, monkeypatch):
    sun = segment("sun", "I like the sun", session="s2", records=["Ann likes the sun"])
    seen = []
    for min_rows in (MAX_ROWS, 1):
        monkeypatch.setattr(fragments, "MIN_ROWS", min_rows)
        store = Store(str(tmp_path / str(min_rows)), must_exist=False)
        commit(store, "run1", TEA, MOON, sun)
        num_fragments = len(store.head("turns").to_lance().get_fragments())
        nightly_run(store)
        commit(store, "run3", MOON, segment("rain", "It rains"), rejection("b.parquet:1"), memory("bob", 1))
        seen.append((num_fragments, view(store)))
    (one, expected), (many, found) = seen
    assert (one, many) == (1, 3)
    assert found == expected


def test_fragments_that_no_version_names_go_with_a_compaction(store, monkeypatch):
    commit(store, "run1", TEA)
    killed_before(monkeypatch, [(lance.LanceDataset, "commit")], 3, lambda: nightly_run(store))
    left = sorted(Path(store.uri, "turns.lance", "data").iterdir())
    store.files.delete(store.intents())
    store = Store(store.uri)
    store.recover()
    maintenance.tidy(store.head("turns"), store)
    there = sorted(Path(store.uri, "turns.lance", "data").iterdir())
    assert len(there) < len(left)
    assert [path.name for path in there] == [
        file.path for one in store.head("turns").to_lance().get_fragments() for file in one.data_files()
    ]


def test_a_vector_that_lacks_a_number_is_null_whether_it_is_new_or_takes_another_s_place(store):
    """Whoever searched would meet it as far from nothing."""
    nan = [float("nan"), *vector("x")[1:]]
    odd = segment("odd", "I am odd", "And even", session="s9")
    for turn in odd["turns"][:1]:
        turn["vector"] = nan
    commit(store, "run1", TEA, odd)
    assert _without_vector(store) == ["I am odd"]
    odd["turns"][0]["vector"], odd["turns"][1]["vector"] = vector("I am odd"), nan
    commit(store, "run2", odd)
    assert _without_vector(store) == ["And even"]
    assert len(store.rows("turns", ["content"])) == 4


def _without_vector(store):
    rows = store.rows("turns", ["content", "vector"]).to_pylist()
    return [row["content"] for row in rows if row["vector"] is None]
