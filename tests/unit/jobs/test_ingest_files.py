"""Input files to items: shapes of JSON, compression, and damage."""

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jobs.common.input_items
import jobs.common.splitting
from jobs.common.cli import JobError, UsageError
from jobs.common.input_items import ITEM, REST_OF_FILE, Rejection, read_items
from jobs.ingest import versions
from jobs.ingest.files import find_files
from schemas.archive import ARCHIVE_SCHEMA
from tests.memory import peak_mib

ITEMS = [{"n": 1, "text": 'a "b" \\ [x], {y'}, {"n": 2, "text": "\\\\", "list": [[], {}]}, {"n": 3}]


def read(path):
    (file,) = find_files([str(path)], "messages")
    found = list(read_items(file.path, file.shown))
    return (
        [item for item in found if not isinstance(item, Rejection)],
        [item for item in found if isinstance(item, Rejection)],
    )


def lines(items=ITEMS):
    return "".join(json.dumps(item) + "\n" for item in items).encode()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", lines()),
        ("a.ndjson", lines().replace(b"\n", b"\r\n")),
        ("a.jsonl", b"\xef\xbb\xbf" + lines().rstrip()),
        ("a.json", lines()),
        ("a.json", json.dumps(ITEMS).encode()),
        ("a.json", b" \n" + json.dumps(ITEMS, indent=2).encode() + b"\n"),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(ITEMS).encode()),
        ("a.json", "\n".join(json.dumps(item, indent=2) for item in ITEMS).encode()),
        ("a.txt", json.dumps(ITEMS).encode()),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [40, 1 << 20])
def test_every_shape_gives_its_items(tmp_path, monkeypatch, name, data, packed, chunk_bytes):
    monkeypatch.setattr(jobs.common.splitting, "CHUNK_BYTES", chunk_bytes)
    path = tmp_path / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    items, rejections = read(path)
    assert not rejections
    assert items == list(enumerate(ITEMS, start=1))


def test_gzip_is_known_by_its_content(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(lines()) + gzip.compress(lines()))
    items, rejections = read(tmp_path / "a.jsonl")
    assert (len(items), rejections) == (6, [])


@pytest.mark.parametrize("data", [b"", b"\n \n", b"[]", b"[ ]\n"])
def test_nothing_in_a_file_is_no_error(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    assert read(tmp_path / "a.json") == ([], [])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"n": "\xff"}', "not UTF-8 at byte 7"),
        (b'{"n": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"n": tru}', "not JSON"),
        (b"{1: 2}", "not JSON"),
        (b'{"n": 1}}', "not JSON"),
        (b'{"n": 1]', "not JSON"),
        (b'{"n": ]}', "not JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"n": "\x00"}', "not JSON"),
        (b'{"n": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
        (b"[1, 2]", "must be an object, not list"),
        (b"null", "must be an object, not NoneType"),
        (b'"{}"', "must be an object, not str"),
    ],
)
@pytest.mark.parametrize("shape", ["lines", "array"])
def test_a_bad_item_costs_one_item(tmp_path, bad, reason, shape):
    good = json.dumps(ITEMS[0]).encode()
    if shape == "lines":
        path, data = tmp_path / "a.jsonl", b"\n".join([good, bad, good])
    else:
        path, data = tmp_path / "a.json", b"[" + b",".join([good, bad, good]) + b"]"
    path.write_bytes(data)
    items, (rejection,) = read(path)
    assert [number for number, _ in items] == [1, 3]
    assert (rejection.line_or_item, rejection.kind, rejection.file) == (2, ITEM, str(path))
    assert reason in rejection.reason
    assert len(rejection.raw) <= 2000
    assert rejection.raw[:3] == bad[:3].decode()


def test_a_half_line_costs_that_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines()[:-5])
    items, (rejection,) = read(tmp_path / "a.jsonl")
    assert len(items) == 2
    assert (rejection.line_or_item, rejection.kind) == (3, ITEM)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz"])
def test_truncated_gzip_keeps_what_came_before(tmp_path, name):
    items = [{"n": n, "text": os.urandom(300).hex()} for n in range(100)]
    data = lines(items) if "jsonl" in name else json.dumps(items).encode()
    packed = gzip.compress(data)
    (tmp_path / name).write_bytes(packed[: len(packed) // 2])
    found, (rejection,) = read(tmp_path / name)
    assert 30 < len(found) < 70
    assert [item for _, item in found] == items[: len(found)]
    assert (rejection.line_or_item, rejection.kind) == (len(found) + 1, REST_OF_FILE)
    assert "rest of the file is lost" in rejection.reason
    assert rejection.raw.startswith('{"n": ')


def test_gzip_with_wrong_checksum_is_reported(tmp_path):
    packed = bytearray(gzip.compress(lines()))
    packed[-5] ^= 1
    packed[-8] ^= 1
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    items, (rejection,) = read(tmp_path / "a.jsonl.gz")
    assert len(items) == 3
    assert "CRC" in rejection.reason


def test_gz_name_without_gzip_content_is_rejected(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(lines())
    items, (rejection,) = read(tmp_path / "a.jsonl.gz")
    assert not items
    assert rejection.kind == REST_OF_FILE


@pytest.mark.parametrize(
    ("data", "num_items", "reason"),
    [
        (b'[{"n": 1}, {"n": 2}', 1, "the array does not end"),
        (b'[{"n": 1}, {"n": 2}, ', 2, "the array does not end"),
        (b'[{"n": 1}, {"n": "2', 1, "the array does not end"),
        (b"[", 0, "the array does not end"),
        (b'[{"n": 1}] {"n": 2}', 1, "text after the end"),
        (b'[{"n": 1}]]', 1, "text after the end"),
        (b'[{"n": 1}, }', 1, "the array does not end"),
    ],
)
def test_a_broken_array_costs_its_rest(tmp_path, data, num_items, reason):
    (tmp_path / "a.json").write_bytes(data)
    items, (rejection,) = read(tmp_path / "a.json")
    assert len(items) == num_items
    assert rejection.kind == REST_OF_FILE
    assert reason in rejection.reason


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_an_item_too_long_for_memory_is_skipped(tmp_path, monkeypatch, name):
    monkeypatch.setattr(jobs.common.splitting, "MAX_ITEM_BYTES", 1 << 20)
    monkeypatch.setattr(jobs.common.splitting, "CHUNK_BYTES", 1 << 16)
    items = [{"n": 1}, {"n": 2, "text": "x" * (3 << 20)}, {"n": 3}]
    (tmp_path / name).write_bytes(lines(items) if name == "a.jsonl" else json.dumps(items).encode())
    found, (rejection,) = read(tmp_path / name)
    assert [number for number, _ in found] == [1, 3]
    assert "longer than 1 MiB" in rejection.reason


@given(data=st.binary(max_size=60) | st.text('[]{},:"\\ an1\n\ud7ff', max_size=60).map(str.encode))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_items_or_rejections(tmp_path, data):
    for name in ("a.json", "a.jsonl", "a.json.gz"):
        (tmp_path / name).write_bytes(data)
        items, rejections = read(tmp_path / name)
        assert all(isinstance(item, dict) for _, item in items)
        marks = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
        assert items or rejections or not data.strip(b"[], \t\r\n\v\f\0") or data.startswith(marks)


@given(values=st.lists(st.dictionaries(st.text(max_size=4), st.text() | st.lists(st.text())), max_size=5))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arrays_split_at_any_chunk_border(tmp_path, values):
    (tmp_path / "a.json").write_text(json.dumps(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.common.splitting, "CHUNK_BYTES", 3)
        items, rejections = read(tmp_path / "a.json")
    assert not rejections
    assert [item for _, item in items] == values


# --- which files ------------------------------------------------------------------------------------


def names(inputs, format="messages"):
    return [file.path.name for file in find_files([str(path) for path in inputs], format)]


def test_folders_are_walked_in_order_and_each_file_is_read_once(tmp_path, capsys):
    for name in ("b.jsonl", "a.json.gz", "sub/c.ndjson", "_rejections/d.jsonl", ".e.jsonl", "photo.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert names([tmp_path, tmp_path / "b.jsonl"]) == ["a.json.gz", "b.jsonl", "c.ndjson"]
    assert "1 files with other names were not read" in capsys.readouterr().err


def test_export_folder_gives_its_conversations_only(tmp_path):
    for name in ("conversations.json", "conversations-001.json", "user.json", "message_feedback.json"):
        (tmp_path / name).write_bytes(b"[]")
    assert names([tmp_path], "chatgpt-export") == ["conversations-001.json", "conversations.json"]


def test_link_keeps_its_own_name(tmp_path):
    (tmp_path / "blob").write_bytes(b'[1]\n{"n": 1}\n')
    (tmp_path / "a.jsonl").symlink_to("blob")
    items, (rejection,) = read(tmp_path / "a.jsonl")
    assert (items, rejection.kind) == ([(2, {"n": 1})], ITEM)


def test_wrong_paths_are_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        find_files([str(tmp_path / "gone")], "messages")
    with pytest.raises(UsageError, match="no input files in it"):
        find_files([str(tmp_path)], "messages")
    (tmp_path / "user.json").write_bytes(b"[]")
    with pytest.raises(UsageError, match=r"it needs conversations\*\.json"):
        find_files([str(tmp_path)], "chatgpt-export")


def test_input_that_changes_meanwhile_is_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines())
    (file,) = find_files([str(tmp_path / "a.jsonl")], "messages")
    file.check_unchanged()
    (tmp_path / "a.jsonl").write_bytes(lines() + b"\n")
    with pytest.raises(JobError, match="changed while it was read"):
        file.check_unchanged()
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(JobError, match="changed while it was read"):
        file.check_unchanged()


# --- what is no JSON --------------------------------------------------------------------------------

FOREIGN = {
    "zip": (b"PK\x03\x04\x14\x00rest", "a zip file: unpack it"),
    "arrow": (b"ARROW1\x00\x00", "an Arrow file: write its table as Parquet"),
    "sqlite": (b"SQLite format 3\x00", "a SQLite database"),
    "html": (b"<!DOCTYPE html><html>", "HTML: give the JSON"),
    "tar": (b"conversations.json".ljust(257, b"\0") + b"ustar\x0000", "a tar file: unpack it"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("data", "named"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path, data, named, packed):
    path = tmp_path / "conversations.json"
    path.write_bytes(gzip.compress(data) if packed else data)
    (rejection,) = read_items(path, "conversations.json")
    assert rejection.kind == REST_OF_FILE
    assert rejection.reason.startswith(f"this is {named}")


# --- memory -----------------------------------------------------------------------------------------

BOMBS = {
    "values": (
        b'{"user_id": "u", "session_id": "s", "messages": [' + b"{}," * 3_000_000 + b"{}]}",
        "values",
    ),
    "messages": (
        b'{"user_id": "u", "messages": [' + b'{"role":"user","content":"b"},' * 1_000_000 + b"{}]}",
        "values",
    ),
    "text": (b'{"user_id": "' + b"x" * 34_000_000 + b'"}', "longer than 32 MiB"),
    # Looked at once: not from each of its quotation marks to its end.
    "text without an end": (b'{"user_id": "' + b'\\",' * 2_000_000, "not JSON"),
}


@pytest.mark.parametrize(("data", "reason"), BOMBS.values(), ids=BOMBS)
def test_a_gzip_of_some_kilobytes_cannot_take_all_memory(tmp_path, data, reason):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(compresslevel=1, data=data + b'\n{"good": 1}\n'))
    assert path.stat().st_size < 300_000
    code = (
        "for item in read_items(pathlib.Path(sys.argv[1]), 'a'):\n"
        "    print(item.reason if isinstance(item, Rejection) else item)\n"
    )
    imports = "import pathlib\nfrom jobs.common.input_items import Rejection, read_items"
    peak, printed = peak_mib(code, str(path), imports=imports)
    rejected, good = printed.splitlines()
    assert reason in rejected
    assert good == "(2, {'good': 1})"
    assert peak < 120


def archived(number, num_turns=2, num_words=200_000):
    turns = [
        {"role": "user", "content": f"{number} {place}" + "word " * num_words + "end"}
        for place in range(num_turns)
    ]
    row = {"user_id": "u", "conversation_id": None, "session_time": None, "session_id": f"s{number}"}
    return row | {"turns": [turn | {"speaker": None, "time": None} for turn in turns]}


def test_a_row_group_of_the_archive_is_not_read_whole_to_compare_it(tmp_path):
    """Regression: to see what an archive has of a session, all of its row group was unpacked at once."""
    table = pa.Table.from_pylist([archived(number) for number in range(100)], schema=ARCHIVE_SCHEMA)
    pq.write_table(
        table, tmp_path / "a.parquet", compression="zstd", write_batch_size=4, use_dictionary=False
    )
    code = (
        "row = {'user_id': 'u', 'conversation_id': None, 'session_time': None, 'turns': []}\n"
        "versions = Versions()\n"
        "versions.add(row | {'session_id': 's70'}, None)\n"
        "versions.compare_with(pathlib.Path(sys.argv[1]), ['a.parquet'], 'b.parquet')\n"
        "print([len(version) for version in versions._archived.values()])\n"
    )
    imports = (
        "import pathlib\nfrom cluster.backfill import parquet_limits\n"
        "from jobs.ingest.versions import Versions\n"
        "parquet_limits.BOMB_RATIO = 10**6"
    )
    peak, printed = peak_mib(code, str(tmp_path), imports=imports)
    assert printed == "[24]"
    assert peak < 130


def test_a_session_of_the_archive_that_is_too_long_for_readers_is_superseded(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "MAX_ROW_BYTES", 15_000)
    rows = [archived(0, 1, 2_000), archived(1, 2, 2_000)]
    pq.write_table(pa.Table.from_pylist(rows, schema=ARCHIVE_SCHEMA), tmp_path / "a.parquet")
    known = versions.Versions()
    for row in rows:
        known.add(row, None)
    known.compare_with(tmp_path, ["a.parquet"], "b.parquet")
    assert [known.judge(row) for row in rows] == ["duplicate", "changed"]


def test_marks_inside_of_texts_are_no_values(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.common.input_items, "MAX_ITEM_VALUES", 5)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": '1,2,3,[4],{5},6, " [,,,'}) + "\n" + json.dumps({"a": [1] * 6}))
    (_, value), rejection = read_items(path, "a.jsonl")
    assert value["a"].startswith("1,2")
    assert rejection.reason == "more than 5 values; split it at the source"
