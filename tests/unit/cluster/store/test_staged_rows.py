"""Which rows of staged files a commit takes: each key once, whatever the hashes of the keys are."""

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.store import staged_rows
from cluster.store.files import Files
from cluster.store.staged_rows import staged_files

KEYS = [pa.field("id", pa.string()), pa.field("revision", pa.int32())]
SCHEMA = pa.schema([*KEYS, ("text", pa.string())])

keys = st.tuples(st.sampled_from("abcdefg"), st.integers(1, 2))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def as_table(rows):
    return pa.Table.from_pylist(
        [{"id": name, "revision": number, "text": ""} for name, number in rows], SCHEMA
    )


def taken(place, in_table, contents, held, is_inserted):
    """New rows and known ones, as (file, row), and the keys that are replaced."""
    files = Files(str(place), "staging")
    paths = [f"{number}.parquet" for number in range(len(contents))]
    for path, rows in zip(paths, contents, strict=True):
        files.put_table(path, as_table(rows))
    table = lancedb.connect(str(place)).create_table("t", schema=SCHEMA, mode="overwrite")
    if in_table:
        table.add(as_table(in_table))
    inserted = [path for path, is_one in zip(paths, is_inserted, strict=True) if is_one]
    found, replaced = staged_files(files, paths, KEYS, table, held=held, inserted=inserted)
    new, known = set(), set()
    for number, file in enumerate(found):
        known |= {(number, row) for row in file.known}
        others = {*file.left_out, *file.known}
        new |= {(number, row) for row in range(file.num_rows) if row not in others}
        assert file.num_new == sum(place[0] == number for place in new)
        assert file.num_before == sum(one.num_rows for one in found[:number])
    return new, known, replaced


def expected(in_table, contents, held, is_inserted):
    """The same, by a dictionary of all keys."""
    last = {
        key: (number, row)
        for number, rows in enumerate(contents)
        for row, key in enumerate(rows)
        if not (is_inserted[number] and key[0] in held)
    }
    known = {key: place for key, place in last.items() if key in in_table}
    return set(last.values()) - set(known.values()), set(known.values()), known.keys()


cases = st.lists(st.tuples(st.lists(keys, max_size=8), st.booleans()), max_size=4)


@given(st.sets(keys, max_size=6), cases, st.sets(st.sampled_from("abc"), max_size=2))
def test_each_key_comes_once_from_the_last_row_that_has_it(place, in_table, files, held):
    contents, is_inserted = [rows for rows, _ in files], [is_one for _, is_one in files]
    found = taken(place, in_table, contents, held, is_inserted)
    assert found == expected(in_table, contents, held, is_inserted)


@pytest.mark.parametrize("bits", [0, 1])
def test_keys_of_one_hash_are_told_apart(place, monkeypatch, bits):
    hashes = staged_rows._hashes
    monkeypatch.setattr(staged_rows, "_hashes", lambda table: hashes(table) & np.uint64(bits))
    contents = [[("a", 1), ("b", 1), ("c", 1)], [("b", 1), ("d", 1), ("a", 2)]]
    case = {("c", 1), ("e", 1)}, contents, {"d"}, [True, True]
    assert taken(place, *case) == expected(*case)


def test_what_is_known_of_a_table_without_rows_is_nothing(place):
    case = set(), [[("a", 1)]], set(), [True]
    assert taken(place, *case) == ({(0, 0)}, set(), set())
