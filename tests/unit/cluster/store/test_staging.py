"""Staged files are known by what they hold, not by their names."""

import pyarrow as pa
import pytest

from cluster.store.staging import SEAL, Sealed, known_columns, put_as_content, take_out

ROWS = pa.table({"user_id": ["ann", "bob", "ann"], "number": [1, 2, 3]})


def test_a_table_is_named_by_its_content(files):
    path = put_as_content(files, "a/rows", ROWS)
    assert put_as_content(files, "a/rows", ROWS) == path
    assert put_as_content(files, "a/rows", ROWS.slice(1)) != path
    assert files.get_table(path).equals(ROWS)


@pytest.mark.parametrize("old", ["a/rows-0.parquet", "a/b/1.parquet", "top.parquet"])
def test_what_is_left_of_a_table_has_another_name(files, old):
    files.put_table(old, ROWS)
    new = take_out(files, old, [True, False, True])
    assert new != old and new.rpartition("/")[0] == old.rpartition("/")[0]
    assert files.paths() == [new]
    assert files.get_table(new).to_pylist() == [{"user_id": "bob", "number": 2}]
    assert take_out(files, new, [True]) is None
    assert files.paths() == []


def test_a_seal_holds_for_what_was_sealed(files):
    sealed = Sealed(files, "work")
    assert sealed.find("key") is None
    put = sealed.put("key", {"rows": ROWS, "none": ROWS.slice(3)}, dim=2)
    assert put["dim"] == 2 and list(put["tables"]) == ["rows"]
    assert sealed.find("key") == put
    assert Sealed(files, "other").find("key") is None
    assert b"ann" not in files.get(f"work/key/{SEAL}")


@pytest.mark.parametrize("change", ["taken out", "filtered in place", "gone", "cut off"])
def test_a_seal_counts_for_nothing_when_a_table_changed(files, change):
    sealed = Sealed(files, "work")
    path = sealed.put("key", {"rows": ROWS, "more": ROWS.slice(1)})["tables"]["rows"]
    if change == "taken out":
        take_out(files, path, [True, False, False])
    elif change == "filtered in place":
        files.put_table(path, ROWS.slice(1))
    elif change == "gone":
        files.delete([path])
    else:
        files.put(path, files.get(path)[:-1])
    assert sealed.find("key") is None
    assert sealed.put("key", {"rows": ROWS})["tables"]["rows"] == path
    assert sealed.find("key") is not None


def test_rows_become_a_table_of_the_columns_that_they_have():
    schema = pa.schema([("a", pa.int32()), ("b", pa.string())])
    assert known_columns([{"a": 1}], schema).schema == pa.schema([("a", pa.int32())])
    assert known_columns([], schema).num_rows == 0
