"""Files beside the tables: what was put is there, whole, under whatever name, and created only once."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from stat import S_ISDIR

import pyarrow as pa
import pytest

from cluster.store.files import Files, everything, sweep_aside

ODD_NAMES = [
    "plain.json",
    "with space",
    "per%20cent",
    "%",
    "hash#tag",
    "question?mark",
    "a=b&c",
    "colon:name",
    "back\\slash",
    "star*",
    "[brackets]",
    "{braces}",
    "quo'te\"s",
    "~home",
    ".hidden",
    "_underscore",
    "two..dots",
    "ünïcödé ✓ 🙂",
    "e\u0301",
    "deep/er/and deeper/file",
]

SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.string())])


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_of_any_name_comes_and_goes(files, name):
    assert (files.get(name), files.exists(name), files.paths()) == (None, False, [])
    files.put(name, b"first")
    files.put(name, b"second")
    assert (files.get(name), files.exists(name), files.paths()) == (b"second", True, [name])
    assert not files.create(name, b"third")
    assert files.get(name) == b"second"
    files.delete([name])
    assert (files.get(name), files.exists(name), files.paths()) == (None, False, [])


@pytest.mark.parametrize("name", [name for name in ODD_NAMES if "/" not in name])
def test_a_store_of_any_name(tmp_path, name):
    Files(str(tmp_path / name), "commit").put("a/b", b"x")
    assert Files(str(tmp_path / name), "commit").paths() == ["a/b"]
    assert (tmp_path / name / "_slowwave" / "commit" / "a" / "b").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["..", "../outside", "a/../../outside", "a//b", "line\nbreak", "a.json#1"])
def test_names_that_lead_astray_are_refused(files, tmp_path, name):
    with pytest.raises(ValueError, match="path"):
        files.put(name, b"x")
    assert files.paths() == []


def test_a_file_uri_is_a_store_too(tmp_path):
    files = Files(f"file://{tmp_path}/store", "staging")
    files.put("a", b"x")
    assert Files(str(tmp_path / "store"), "staging").get("a") == b"x"


def test_folders_of_a_store_are_apart(tmp_path):
    Files(str(tmp_path), "lease").put("a", b"lease")
    Files(str(tmp_path), "staging").put("a", b"staging")
    assert Files(str(tmp_path), "lease").get("a") == b"lease"
    assert Files(str(tmp_path), "commit").paths() == []


def test_a_prefix_means_whole_parts(files):
    for path in ("plan/b", "plan/a", "planned/c", "plan2/d"):
        files.put(path, b"")
    assert files.paths("plan") == ["plan/a", "plan/b"]
    assert files.paths("plan/") == ["plan/a", "plan/b"]
    assert files.paths("pla") == []
    assert files.paths("nothing/here") == []
    assert not files.exists("plan")


def test_deleting_what_is_gone_is_no_error(files):
    files.put("here", b"")
    files.delete(["gone", "no/folder/either", "here"])
    files.delete([])
    assert files.paths() == []


def test_empty_and_large_contents(files):
    large = bytes(range(256)) * 40_000
    files.put("empty", b"")
    files.put("large", large)
    assert files.get("empty") == b""
    assert files.get("large") == large


def test_create_has_one_winner_among_twenty(files):
    for round_number in range(10):
        start = threading.Barrier(20)

        def create(thread, path=f"lease/{round_number}", start=start):
            start.wait()
            return files.create(path, f"{thread} ".encode() * 1000)

        with ThreadPoolExecutor(20) as pool:
            won = list(pool.map(create, range(20)))
        assert won.count(True) == 1
        assert files.get(f"lease/{round_number}") == f"{won.index(True)} ".encode() * 1000


def test_a_reader_sees_the_old_or_the_new_whole(files):
    contents = [b"a" * 300_000, b"b" * 300_000]
    files.put("x", contents[0])
    stop = threading.Event()

    def read():
        while not stop.is_set():
            assert files.get("x") in contents
            assert files.paths() == ["x"]

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for number in range(60):
            files.put("x", contents[number % 2])
        stop.set()
        for reader in readers:
            reader.result()


def test_what_a_killed_writer_left_is_not_listed_and_can_be_swept(files, tmp_path, monkeypatch):
    """A local put is written aside first; a kill leaves that file, and whoever looks finds it."""
    home = tmp_path / "store" / "_slowwave"
    files.put("a.json", b"{}")
    (home / "staging" / "b.json#1").write_bytes(b"left by an earlier release")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        files.put("c.json", b"secret")
    Files(str(tmp_path / "store"), "lease").put("1.json", b"{}")
    (home / "tmp" / "lease-1-2").write_bytes(b"of a job that is about to ask for the lease")
    assert files.paths() == ["a.json"]
    assert b"secret" in [data for _, data in everything(str(tmp_path / "store"))]
    assert sweep_aside(str(tmp_path / "store")) == 2
    contents = [data for _, data in everything(str(tmp_path / "store"))]
    assert sorted(contents) == sorted([b"{}", b"{}", b"of a job that is about to ask for the lease"])


def test_reading_makes_no_folder(tmp_path):
    files = Files(str(tmp_path / "nowhere"), "staging")
    assert (files.get("a"), files.get_json("a"), files.exists("a"), files.paths(), files.paths("b")) == (
        *(None, None, False),
        *([], []),
    )
    files.delete(["a"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"null", b"[1]", b"\xff\xfe", b"\0" * 512])
def test_an_empty_or_half_written_json_file_counts_as_none(files, content):
    files.put("a.json", content)
    assert files.get_json("a.json") is None


def test_what_was_put_is_on_the_disk_before_it_has_its_name(files, monkeypatch):
    """First the content, then the name, then the folder that lists it."""
    order, replace, fsync = [], os.replace, os.fsync

    def synced(handle):
        order.append("folder" if S_ISDIR(os.fstat(handle).st_mode) else "content")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: order.append("name") or replace(*paths))
    files.put("a", b"first")
    order.clear()
    files.put("a", b"second")
    assert order == ["content", "name", "folder"]


def test_pickled_files_are_the_same_files(files):
    files.put("a", b"x")
    assert pickle.loads(pickle.dumps(files)).get("a") == b"x"


def test_json_and_rows(files):
    assert files.get_json("a.json") is None
    files.put_json("a.json", {"text": "ü", "number": 1})
    assert files.get_json("a.json") == {"text": "ü", "number": 1}
    rows = [{"number": 1, "text": "ü"}, {"number": None, "text": None}]
    files.put_rows("rows.parquet", rows, SCHEMA)
    assert files.get_table("rows.parquet").to_pylist() == rows
    assert files.get_table("rows.parquet", columns=["text"]).column_names == ["text"]
    assert files.get_table("rows.parquet", columns=[]).num_rows == 2
    files.put_rows("none.parquet", [], SCHEMA)
    assert files.get_table("none.parquet").schema == SCHEMA


def test_a_missing_table_is_named(files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"store/_slowwave/staging/plan/x\.parquet"):
        files.get_table("plan/x.parquet")


def test_a_flipped_bit_does_not_pass_for_data(files):
    rows = [{"number": index, "text": f"text {index}"} for index in range(1000)]
    files.put_rows("rows.parquet", rows, SCHEMA)
    whole = files.get("rows.parquet")
    for position in range(4, len(whole) - 4, 97):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        files.put("damaged.parquet", bytes(damaged))
        try:
            table = files.get_table("damaged.parquet")
        except (OSError, pa.ArrowException):
            continue
        # Bits that carry no value, of a header or a statistic, may differ.
        assert [tuple(row.values()) for row in table.to_pylist()] == [tuple(row.values()) for row in rows]
