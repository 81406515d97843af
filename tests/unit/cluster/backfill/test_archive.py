"""Reading damaged archives: the good rows land, and each bad row, row group or file is one BadRow.

(Which of several rows of one session counts is tested with the backfill.)
"""

import contextlib
import datetime as dt
import random
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.backfill.archive import ArchiveError, BadRow, inspect_file, list_files, plan_units, read_unit
from cluster.backfill.parquet_pages import BrokenPage, pages
from schemas.archive import ARCHIVE_SCHEMA, MAX_TURN_CHARS
from tests.memory import peak_mib

NULLABLE = pa.schema([pa.field(field.name, field.type) for field in ARCHIVE_SCHEMA])
TURN = NULLABLE.field("turns").type.value_type
TIME = NULLABLE.field("session_time").type
NULLABLE_TURN = pa.list_(
    pa.struct([("role", pa.string()), ("content", pa.string()), ("speaker", pa.string())])
)


def turn(content="hello", role="user", **changes):
    return {"role": role, "content": content, "speaker": None, "time": None} | changes


def session(number, **changes):
    return {
        "user_id": f"user{number % 3}",
        "conversation_id": None,
        "session_id": f"session{number}",
        "session_time": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "turns": [turn(f"Question {number}"), turn(f"Answer {number}", "assistant")],
    } | changes


def write(folder, rows, name="a.parquet", schema=NULLABLE, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path, **options)
    return path


def table_with(column, values, num_rows=2):
    """Good sessions with one column replaced."""
    table = pa.Table.from_pylist([session(index) for index in range(num_rows)], schema=NULLABLE)
    return table.set_column(NULLABLE.get_field_index(column), column, values)


def broken_strings(*values):
    """A string column of these bytes, whatever they are."""
    offsets = [0]
    for value in values:
        offsets.append(offsets[-1] + len(value))
    buffers = [None, pa.py_buffer(struct.pack(f"<{len(offsets)}i", *offsets)), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def read(folder):
    """(sessions, bad rows) as a backfill meets them."""
    inspected = [inspect_file(str(folder), path) for path in list_files(str(folder))]
    good, bad = [], [row for found in inspected for row in found.bad]
    for unit in plan_units(inspected):
        for row in read_unit(str(folder), unit):
            (bad if isinstance(row, BadRow) else good).append(row)
    return good, bad


# --- rows ---------------------------------------------------------------------------------------------

BAD_ROWS = {
    "no user": ({"user_id": None}, "user_id=None"),
    "blank user": ({"user_id": "  "}, "user_id='  '"),
    "no session": ({"session_id": None}, "session_id=None"),
    "no turns": ({"turns": None}, "turns=None"),
    "empty turns": ({"turns": []}, "turns=[]"),
    "null turn": ({"turns": [None]}, r"turns[0]=None"),
    "blank turn": ({"turns": [turn(" \n")]}, r"turns[0].content=' \n'"),
    "turn without text": ({"turns": [turn(None)]}, r"turns[0].content=None"),
    "turn without role": ({"turns": [turn(role=None)]}, r"turns[0].role=None"),
    "foreign role": ({"turns": [turn(role="gpt")]}, r"turns[0].role='gpt'"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_costs_itself(tmp_path, changes, message):
    schema = NULLABLE.set(4, pa.field("turns", NULLABLE_TURN))
    write(tmp_path, [session(0), session(1, **changes), session(2)], schema=schema)
    good, bad = read(tmp_path)
    assert [row["session_id"] for row in good] == ["session0", "session2"]
    ((source, reason, detail),) = [(row.source, row.reason, row.detail) for row in bad]
    assert (source, reason) == ("a.parquet:1", "invalid_session")
    assert message in detail


def test_a_bad_row_says_whose_it_is_and_what_it_held(tmp_path):
    write(tmp_path, [session(1, turns=[turn("something said", "gpt")])])
    _, (bad,) = read(tmp_path)
    assert (bad.user_id, bad.session_id) == ("user1", "session1")
    assert "something said" in bad.raw


def test_an_odd_turn_costs_neither_its_session_nor_the_places_of_the_others(tmp_path):
    schema = NULLABLE.set(4, pa.field("turns", NULLABLE_TURN))
    odd = [None, turn(""), turn(role="gpt"), turn("x" * (MAX_TURN_CHARS + 1))]
    write(tmp_path, [session(0, turns=[turn("first"), *odd, turn("last")])], schema=schema)
    (row,), bad = read(tmp_path)
    assert bad == []
    said = [(found["role"], found["content"][:9]) for found in row["turns"]]
    assert said == [
        ("user", "first"),
        ("tool", "[empty]"),
        ("user", "[empty]"),
        ("tool", "hello"),
        ("user", "xxxxxxxxx"),
        ("user", "last"),
    ]


def test_a_time_that_is_not_plausible_is_unknown(tmp_path):
    times = [dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (1970, 2026, 9999)]
    write(tmp_path, [session(index, session_time=time) for index, time in enumerate(times)])
    good, bad = read(tmp_path)
    assert ([row["session_time"] for row in good], bad) == ([None, times[1], None], [])


def test_a_turn_of_exactly_the_limit_is_read(tmp_path):
    write(tmp_path, [session(0, turns=[turn("x" * MAX_TURN_CHARS)])])
    good, bad = read(tmp_path)
    assert (len(good), bad) == (1, [])


def test_rows_without_a_user_are_rejected_each(tmp_path):
    """Regression: their keys were alike, so that all but the last of them vanished as superseded."""
    for name in ("a.parquet", "b.parquet", "c.parquet"):
        write(tmp_path, [session(0, user_id=None), session(1, session_id=None)], name, row_group_size=1)
    good, bad = read(tmp_path)
    assert good == []
    assert sorted(row.source for row in bad) == [f"{name}.parquet:{row}" for name in "abc" for row in (0, 1)]


def test_whatever_else_is_text_or_time_is_read(tmp_path):
    """Archives of other writers: naive and foreign times, other string types."""
    naive = dt.datetime(2026, 1, 2)
    columns = {
        "user_id": [
            pa.array(["a", "b"], pa.large_string()),
            pa.array(["a", "b"]).dictionary_encode(),
            pa.array(["a", "b"], pa.string_view()),
        ],
        "session_time": [
            pa.array([naive, None], pa.timestamp("ns")),
            pa.array([naive, None], pa.timestamp("ms")),
            pa.array([naive, None], pa.timestamp("us", tz="Europe/Berlin")),
        ],
    }
    for name, arrays in columns.items():
        for index, values in enumerate(arrays):
            write(tmp_path / f"{name}{index}", table_with(name, values))
            good, bad = read(tmp_path / f"{name}{index}")
            assert (len(good), bad) == (2, [])
            if name == "session_time":
                assert (good[0]["session_time"].tzinfo, good[1]["session_time"]) == (dt.UTC, None)


# --- columns ------------------------------------------------------------------------------------------

WRONG_TYPES = {
    "int user_id": ("user_id", pa.array([1, 2]), "user_id=1: must be a non-empty string"),
    "bytes user_id": ("user_id", pa.array([b"a", b"b"]), "user_id=b'a'"),
    "null user_id": ("user_id", pa.nulls(2), "user_id=None"),
    "list session_id": ("session_id", pa.array([["a"], ["b"]]), "session_id=['a']"),
    "int conversation_id": ("conversation_id", pa.array([1, 2]), "conversation_id=1"),
    "text session_time": ("session_time", pa.array(["2026-01-02"] * 2), "session_time='2026-01-02'"),
    "int session_time": ("session_time", pa.array([1, 2]), "session_time=1: must be a timestamp"),
    "int turns": ("turns", pa.array([1, 2]), "turns=1: must be a non-empty list"),
    "text turns": ("turns", pa.array(["user: hi"] * 2), "turns='user: hi'"),
    "list of texts": ("turns", pa.array([["hi"], ["ho"]]), "turns[0]='hi': must be an object"),
    "one turn, no list": (
        "turns",
        pa.array([{"role": "user", "content": "x"}] * 2),
        "must be a non-empty list",
    ),
    "map turns": (
        "turns",
        pa.array([[("role", "user")]] * 2, pa.map_(pa.string(), pa.string())),
        "must be an object",
    ),
    "int content": ("turns", pa.array([[{"role": "user", "content": 1}]] * 2), "turns[0].content=1"),
    "turns without content": ("turns", pa.array([[{"role": "user"}]] * 2), "turns[0].content=None"),
}


@pytest.mark.parametrize(("column", "values", "message"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_a_column_of_another_type_costs_each_row(tmp_path, column, values, message):
    write(tmp_path, table_with(column, values))
    write(tmp_path, [session(7)], "b.parquet")
    good, bad = read(tmp_path)
    assert [row["session_id"] for row in good] == ["session7"]
    assert [row.source for row in bad] == ["a.parquet:0", "a.parquet:1"]
    assert {row.reason for row in bad} == {"invalid_session"}
    assert message in bad[0].detail


@pytest.mark.parametrize("column", ["user_id", "session_id", "conversation_id"])
def test_broken_utf8_costs_its_row(tmp_path, column):
    write(tmp_path, table_with(column, broken_strings(b"ok", b"\xff\xfe", b"fine"), 3))
    good, bad = read(tmp_path)
    assert [row[column] for row in good] == ["ok", "fine"]
    ((source, reason, detail),) = [(row.source, row.reason, row.detail) for row in bad]
    assert (source, reason) == ("a.parquet:1", "broken_text")
    assert "re-encode the row as UTF-8" in detail


def test_broken_utf8_in_a_turn_costs_its_session(tmp_path):
    contents = broken_strings(b"good", b"\x80\x80", "ü".encode())
    turns = pa.StructArray.from_arrays([pa.array(["user"] * 3), contents], names=["role", "content"])
    write(tmp_path, table_with("turns", pa.ListArray.from_arrays([0, 1, 2, 3], turns), 3))
    good, bad = read(tmp_path)
    assert [row["turns"][0]["content"] for row in good] == ["good", "ü"]
    assert [(row.source, row.reason) for row in bad] == [("a.parquet:1", "broken_text")]


def test_an_impossible_time_costs_its_row(tmp_path):
    """Regression: a time outside the years 1 to 9999 ended the whole job with an OverflowError."""
    times = pa.array([0, 2**62, -(2**62)], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    write(tmp_path, table_with("session_time", times, 3))
    good, bad = read(tmp_path)
    assert [row["session_id"] for row in good] == ["session0"]
    assert [(row.source, row.reason) for row in bad] == [
        ("a.parquet:1", "unreadable_row"),
        ("a.parquet:2", "unreadable_row"),
    ]


def test_an_unknown_time_zone_costs_the_rows_that_use_it(tmp_path):
    times = pa.array([0, None], pa.int64()).cast(pa.timestamp("us", tz="Atlantis/Capital"))
    write(tmp_path, table_with("session_time", times))
    good, bad = read(tmp_path)
    assert [row["session_id"] for row in good] == ["session1"]
    assert [(row.source, row.reason) for row in bad] == [("a.parquet:0", "unreadable_row")]


@pytest.mark.parametrize("column", ["user_id", "session_id", "turns"])
def test_a_missing_column_costs_the_file(tmp_path, column):
    write(tmp_path, table_with("conversation_id", pa.nulls(2, pa.string())).drop_columns([column]))
    write(tmp_path, [session(7)], "b.parquet")
    good, bad = read(tmp_path)
    assert [row["session_id"] for row in good] == ["session7"]
    ((source, reason, detail),) = [(row.source, row.reason, row.detail) for row in bad]
    assert (source, reason) == ("a.parquet", "wrong_schema")
    assert f"columns ['{column}'] are missing" in detail
    assert "expected" in detail and "found" in detail


def test_columns_that_may_be_missing_are_null(tmp_path):
    table = table_with("conversation_id", pa.nulls(2, pa.string()))
    write(tmp_path, table.drop_columns(["conversation_id", "session_time"]))
    good, bad = read(tmp_path)
    assert bad == []
    assert [(row["conversation_id"], row["session_time"]) for row in good] == [(None, None)] * 2


def test_extra_columns_do_no_harm(tmp_path):
    """Regression: broken text in a column that nobody reads cost the row."""
    table = table_with("conversation_id", pa.nulls(2, pa.string()))
    table = table.append_column("note", broken_strings(b"fine", b"\xff\xfe"))
    write(tmp_path, table.append_column("score", pa.array([1.5, None])).select([6, 4, 2, 5, 0, 3, 1]))
    good, bad = read(tmp_path)
    assert bad == []
    assert [set(row) for row in good] == [set(ARCHIVE_SCHEMA.names)] * 2


def test_a_column_that_stands_twice_is_no_guess(tmp_path):
    table = table_with("conversation_id", pa.nulls(2, pa.string()))
    write(tmp_path, table.append_column("user_id", pa.array(["v", "w"])))
    good, bad = read(tmp_path)
    assert (good, [row.reason for row in bad]) == ([], ["unreadable_rows"])


# --- files --------------------------------------------------------------------------------------------


def corrupt(path, position, value=0x5A):
    content = bytearray(path.read_bytes())
    content[position] ^= value
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "no footer", "footer"])
def test_an_unreadable_file_costs_the_file(tmp_path, damage):
    path = write(tmp_path, [session(index) for index in range(20)])
    content = path.read_bytes()
    if damage == "footer":
        corrupt(path, -9)
        corrupt(path, -30, 0xFF)
        corrupt(path, -31, 0xFF)
    else:
        path.write_bytes(
            {
                "empty": b"",
                "truncated": content[: len(content) // 2],
                "text": b'{"user_id": "u"}\n',
                "no footer": content[:-8],
            }[damage]
        )
    write(tmp_path, [session(77)], "b.parquet")
    good, bad = read(tmp_path)
    assert [row["session_id"] for row in good] == ["session77"]
    assert [(row.source, row.reason) for row in bad] == [("a.parquet", "unreadable_file")]
    assert "\n" not in bad[0].detail


@pytest.mark.parametrize("column", ["user_id", "session_id", "turns.list.element.content"])
@pytest.mark.parametrize("compression", ["zstd", "snappy", "none"])
def test_a_flipped_byte_costs_its_row_group(tmp_path, column, compression):
    rows = [session(index) for index in range(30)]
    path = write(
        tmp_path,
        rows,
        row_group_size=10,
        compression=compression,
        use_dictionary=False,
        write_page_checksum=True,
    )
    group = pq.read_metadata(path).row_group(1)
    (chunk,) = [
        group.column(index)
        for index in range(group.num_columns)
        if group.column(index).path_in_schema == column
    ]
    corrupt(path, chunk.data_page_offset + chunk.total_compressed_size - 3)
    good, bad = read(tmp_path)
    assert good == rows[:10] + rows[20:]
    assert [(row.source, row.reason) for row in bad] == [("a.parquet:rows 10-19", "unreadable_rows")]


def test_no_flipped_byte_ends_a_job_or_changes_a_word(tmp_path):
    """With page checksums, as jobs.ingest and jobs.sample ought to write them."""
    rows = [session(index) for index in range(30)]
    path = write(tmp_path, rows, row_group_size=10, compression="zstd", write_page_checksum=True)
    content = path.read_bytes()
    footer = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    dice = random.Random(7)
    for _ in range(150):
        path.write_bytes(content)
        corrupt(path, dice.randrange(4, footer), dice.randrange(1, 256))
        good, bad = read(tmp_path)
        assert all(row in rows for row in good)
        assert len(good) + 10 * len(bad) == 30
    for _ in range(150):
        path.write_bytes(content)
        corrupt(path, dice.randrange(footer, len(content)), dice.randrange(1, 256))
        read(tmp_path)


def test_files_without_rows(tmp_path):
    write(tmp_path, [], "none.parquet")
    write(tmp_path, pa.table({"unrelated": [1]}), "other.parquet")
    good, bad = read(tmp_path)
    assert (good, [row.source for row in bad]) == ([], ["other.parquet"])


def test_hidden_names_are_left_out(tmp_path):
    kept = ["a.parquet", "deep/er/b.parquet", "odd name ü#%20.parquet", "under_score/c_.parquet"]
    left = [
        "_rejections/x.parquet",
        ".tmp.parquet",
        "_a.parquet",
        "deep/.part/x.parquet",
        "deep/_x/y/z.parquet",
    ]
    for index, name in enumerate(kept + left):
        write(tmp_path, [session(index)], name)
    (tmp_path / "notes.txt").write_text("not Parquet")
    (tmp_path / "folder.parquet").mkdir()
    assert list_files(str(tmp_path)) == sorted(kept)
    assert list_files(f"{tmp_path}/") == sorted(kept)
    good, bad = read(tmp_path)
    assert (len(good), bad) == (4, [])


def test_a_hidden_folder_above_the_archive_does_not_hide_it(tmp_path):
    write(tmp_path / "_work" / ".archive", [session(0)])
    assert list_files(str(tmp_path / "_work" / ".archive")) == ["a.parquet"]


def test_no_archive_says_how_to_make_one(tmp_path):
    with pytest.raises(ArchiveError, match=r"--archive .*gone.*jobs\.ingest"):
        list_files(str(tmp_path / "gone"))
    with pytest.raises(ArchiveError, match="no Parquet files"):
        list_files(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError):
        list_files(str(tmp_path / "file"))


def test_a_limit_takes_the_first_sessions(tmp_path):
    write(tmp_path, [session(index) for index in range(5)], row_group_size=2)
    write(tmp_path, [session(index) for index in range(5, 8)], "b.parquet", row_group_size=2)
    inspected = [inspect_file(str(tmp_path), path) for path in reversed(list_files(str(tmp_path)))]
    for limit in (1, 2, 3, 5, 6, 8, 100):
        units = plan_units(inspected, limit)
        found = [row["session_id"] for unit in units for row in read_unit(str(tmp_path), unit)]
        assert found == [f"session{index}" for index in range(min(limit, 8))]


@pytest.mark.parametrize("limit", [1, 2, 3, None])
def test_a_limit_reads_the_newest_version_of_a_session_that_grew(tmp_path, limit):
    """Regression: with a limit the older version was read, as if what the session grew by were gone."""
    write(tmp_path, [session(0), session(1), session(2)], "a.parquet", row_group_size=2)
    grown = session(0)["turns"] + [turn("One more thing.")]
    write(tmp_path, [session(3), session(0, turns=grown)], "b.parquet", row_group_size=1)
    units = plan_units([inspect_file(str(tmp_path), path) for path in list_files(str(tmp_path))], limit)
    rows = {row["session_id"]: row for unit in units for row in read_unit(str(tmp_path), unit)}
    assert sorted(rows) == [f"session{number}" for number in range(limit or 4)]
    assert rows["session0"]["turns"][-1]["content"] == "One more thing."
    assert sum(unit.num_rows_read for unit in units) == len(rows)
    assert sum(len(unit.superseded) for unit in units) == 1


def test_units_have_names_of_their_own(tmp_path):
    for name in ("a.parquet", "b.parquet"):
        write(tmp_path, [session(index) for index in range(4)], name, row_group_size=2)
    inspected = [inspect_file(str(tmp_path), path) for path in list_files(str(tmp_path))]
    ids = [unit.unit_id for unit in plan_units(inspected)]
    assert len(set(ids)) == 4
    assert ids == [unit.unit_id for unit in plan_units(inspected, 100)]


def test_a_file_that_vanished_is_a_rejection(tmp_path):
    write(tmp_path, [session(0)])
    (unit,) = plan_units([inspect_file(str(tmp_path), "a.parquet")])
    (tmp_path / "a.parquet").unlink()
    (bad,) = read_unit(str(tmp_path), unit)
    assert (bad.source, bad.reason) == ("a.parquet:rows 0-0", "unreadable_rows")
    assert inspect_file(str(tmp_path), "a.parquet").bad[0].reason == "unreadable_file"


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%b", "a%3Fb", "a b", "ä", "北京", "a\nb", "a*b", "a[b"])
def test_an_archive_may_lie_in_a_folder_of_any_name(tmp_path, name):
    write(tmp_path / name, [session(0)], name="x?/a#%.parquet")
    good, bad = read(tmp_path / name)
    assert ([row["session_id"] for row in good], bad) == (["session0"], [])


# --- memory -------------------------------------------------------------------------------------------

LONG = "word " * 200_000


IMPORTS = "from cluster.backfill.archive import BadRow, inspect_file, list_files, plan_units, read_unit"

READ = """
folder = sys.argv[1]
found = [inspect_file(folder, path) for path in list_files(folder)]
for bad in found[0].bad: print(bad.reason, bad.detail)
for unit in plan_units(found):
    for row in read_unit(folder, unit):
        print(row.reason + " " + row.detail if isinstance(row, BadRow) else "good")
"""


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        ([session(0, turns=[turn(LONG)] * 200), session(1)], {}, ["oversized_row 190 MiB unpacked", "good"]),
        ([session(number, turns=[turn(LONG)] * 10) for number in range(20)], {}, ["good"] * 20),
        (
            [session(number, turns=[turn(LONG)] * 5) for number in range(32)],
            {"use_dictionary": False},
            ["oversized_rows Oversized:"],
        ),
        (
            [session(0, turns=[turn("")] * 600_000), session(1)],
            {},
            ["oversized_row", "good"],
        ),
    ],
    ids=["one session", "many sessions", "unpacks to much", "many turns"],
)
def test_a_file_of_some_kilobytes_cannot_take_all_memory(tmp_path, rows, options, expected):
    path = write(tmp_path, rows, compression="zstd", **options)
    assert path.stat().st_size < 100_000
    peak, printed = peak_mib(READ, str(tmp_path), imports=IMPORTS)
    printed = printed.splitlines()
    assert len(printed) == len(expected)
    assert all(line.startswith(start) for line, start in zip(printed, expected, strict=True))
    assert peak < 160


def one_page(folder, rows):
    """Texts of 320 MiB in one page, of which the footer says that they are some bytes."""
    return lie(write(folder, rows, compression="zstd", use_dictionary=False, data_page_size=1 << 30))


def one_dictionary(folder, rows):
    """The same as a dictionary."""
    for number, row in enumerate(rows):
        for place, one in enumerate(row["turns"]):
            one["content"] = f"{number} {place}" + LONG
    return lie(write(folder, rows, compression="zstd", dictionary_pagesize_limit=1 << 30))


def repeated_nothing(folder, rows):
    """A session of two million turns without a word."""
    columns = [pa.nulls(2_000_000, pa.string()).fill_null("") for _ in range(3)]
    told = pa.StructArray.from_arrays([*columns, pa.nulls(2_000_000, TIME)], fields=list(TURN))
    turns = pa.ListArray.from_arrays([0, 2_000_000], told)
    table = pa.Table.from_pylist(rows[:1], schema=NULLABLE)
    index = NULLABLE.get_field_index("turns")
    return write(folder, table.set_column(index, "turns", turns), compression="zstd")


def long_numbers(folder, rows):
    """Ids of a fixed length of 4 MiB, one after another the same."""
    ids = pa.array([b"x" * (1 << 22)] * len(rows), pa.binary(1 << 22))
    return write(folder, table_with("user_id", ids, len(rows)), compression="zstd")


@pytest.mark.parametrize("bomb", [one_page, one_dictionary, repeated_nothing, long_numbers])
def test_no_page_is_unpacked_before_its_size_is_known(tmp_path, bomb):
    """Regression: 2.4 kB took 1.3 GB."""
    rows = [session(number, turns=[turn(LONG) for _ in range(5)]) for number in range(64)]
    assert bomb(tmp_path, rows).stat().st_size < 300_000
    peak, printed = peak_mib(READ, str(tmp_path), imports=IMPORTS)
    assert printed.startswith("oversized_rows Oversized: ") and "good" not in printed
    assert peak < 60


def test_a_page_of_another_encoding_is_named_with_the_remedy(tmp_path):
    options = {"use_dictionary": False, "column_encoding": {"user_id": "DELTA_BYTE_ARRAY"}}
    write(tmp_path, [session(0)], **options)
    good, (bad,) = read(tmp_path)
    assert (good, bad.reason) == ([], "unreadable_rows")
    assert "encoding DELTA_BYTE_ARRAY; write PLAIN or RLE_DICTIONARY" in bad.detail


@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}, {"compression": "none"}]
)
def test_headers_of_pages_say_what_the_footer_says(tmp_path, options):
    rows = [
        session(number, turns=[turn(f"{number} {place}" * 99) for place in range(9)]) for number in range(99)
    ]
    path = write(tmp_path, rows, **({"compression": "zstd", "data_page_size": 10_000} | options))
    group = pq.read_metadata(path).row_group(0)
    with pa.OSFile(str(path)) as source:
        for index in range(group.num_columns):
            column = group.column(index)
            found = list(pages(source, column))
            assert sum(page.num_values for page in found) == column.num_values
            num_bytes = sum(page.num_bytes for page in found)
            assert 0 <= column.total_uncompressed_size - num_bytes <= 5_000 * len(found)
            assert sum(page.is_dictionary for page in found) == column.has_dictionary_page


@pytest.mark.parametrize("seed", range(20))
def test_bytes_that_are_no_header_of_a_page_are_told_apart(tmp_path, seed):
    path = write(tmp_path, [session(number) for number in range(9)])
    column = pq.read_metadata(path).row_group(0).column(0)
    dice = random.Random(seed)
    data = bytearray(path.read_bytes())
    data[4 : 4 + column.total_compressed_size] = dice.randbytes(column.total_compressed_size)
    with contextlib.suppress(BrokenPage):
        for page in pages(pa.BufferReader(bytes(data)), column):
            assert page.num_bytes >= 0


def lie(path):
    """Let a file's footer say of the column with the most bytes that it has a thousand."""
    group = pq.read_metadata(path).row_group(0)
    told = max(group.column(index).total_uncompressed_size for index in range(group.num_columns))
    assert told > 300 << 20
    data = path.read_bytes()
    path.write_bytes(data.replace(varint(told), varint(1000, len(varint(told)))))
    return path


def varint(value: int, num_bytes: int = 0) -> bytes:
    """A positive number as a footer has it, with as many bytes as asked for."""
    value, found = value << 1, []
    while value or not found:
        found.append(value & 0x7F)
        value >>= 7
    found += [0] * (num_bytes - len(found))
    return bytes([*(byte | 0x80 for byte in found[:-1]), found[-1]])


def test_a_footer_that_lies_about_its_row_group_cannot_take_all_memory(tmp_path):
    """It says of 320 MiB that they are some bytes: the sessions, none of which is too large, are read."""
    rows = [session(number, turns=[turn(LONG)] * 5) for number in range(64)]
    path = lie(write(tmp_path, rows, compression="zstd", use_dictionary=False, write_batch_size=4))
    assert path.stat().st_size < 200_000
    peak, printed = peak_mib(READ, str(tmp_path), imports=IMPORTS)
    assert printed.split() == ["good"] * 64
    assert peak < 160


def test_too_many_sessions_in_a_row_group_are_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("cluster.backfill.parquet_limits.MAX_GROUP_ROWS", 2)
    write(tmp_path, [session(number) for number in range(5)], row_group_size=3)
    good, (bad,) = read(tmp_path)
    assert [row["session_id"] for row in good] == ["session3", "session4"]
    assert (bad.source, bad.reason) == ("a.parquet:rows 0-2", "oversized_rows")
    assert "3 sessions, more than 2; write row groups of fewer sessions" in bad.detail
