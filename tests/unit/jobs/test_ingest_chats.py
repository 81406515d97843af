"""Chats of WhatsApp and of Slack as they are exported, and tables as Arrow has them."""

import datetime as dt
import json
import random
import zipfile

import pyarrow as pa
import pyarrow.feather as feather
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.common import arrow_tables, whatsapp
from jobs.common.input_items import ITEM, REST_OF_FILE, Rejection, read_items
from jobs.ingest import AUTO, IngestConfig, run
from schemas.archive import check_session
from tests.unit.jobs.history_files import as_lines, items_of, read, told

# --- WhatsApp -------------------------------------------------------------------------------------------


def chat(tmp_path, text, name="WhatsApp Chat with Bo.txt"):
    (path := tmp_path / name).write_text(text, "utf-8")
    return path


def said(rows):
    return [(turn["speaker"], turn["content"]) for row in rows for turn in row["turns"]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("[2025-03-01, 08:00:12] Ida: A", "[2025-03-13, 20:00:12] Ida: B"),
        ("[01/03/2025, 08:00:12] Ida: A", "[13/03/2025, 20:00:12] Ida: B"),
        ("[01.03.25, 08:00:12] Ida: A", "[13.03.25, 20:00:12] Ida: B"),
        ("01/03/2025, 08:00 - Ida: A", "13/03/2025, 20:00 - Ida: B"),
        ("3/1/25, 8:00 AM - Ida: A", "3/13/25, 8:00 PM - Ida: B"),
        ("3/1/25, 8:00\u202fam - Ida: A", "3/13/25, 8:00\u202fpm - Ida: B"),
        ("\u200e[3/1/25, 8:00:12\u202fAM] Ida: A", "[3/13/25, 8:00:12\u202fPM] Ida: B"),
        ("01.03.25, 08:00 - Ida: A", "13.03.25, 20:00 - Ida: B"),
        ("01-03-2025 08:00 - Ida: A", "13-03-2025 20:00 - Ida: B"),
    ],
)
def test_a_line_of_any_phone_is_read(tmp_path, first, second):
    rows, rejections = read([chat(tmp_path, f"{first}\n{second}\n")], AUTO)
    assert not rejections
    assert [f"{row['session_time']:%Y-%m-%d %H:%M}" for row in rows] == [
        "2025-03-01 08:00",
        "2025-03-13 20:00",
    ]
    assert said(rows) == [("Ida", "A"), ("Ida", "B")]
    assert rows[0]["conversation_id"] == "Bo"


@pytest.mark.parametrize(
    ("days", "first"),
    [
        (("03/04/25", "04/04/25", "05/04/25"), dt.date(2025, 4, 3)),  # one day after the other
        (("04/03/25", "04/04/25", "04/05/25"), dt.date(2025, 4, 3)),  # the same, American
        (("12/30/24", "01/02/25"), dt.date(2024, 12, 30)),
        (("03.04.25",), dt.date(2025, 4, 3)),
    ],
)
def test_the_dates_of_the_whole_chat_tell_whether_the_day_comes_first(tmp_path, days, first):
    text = "".join(f"{day}, 08:00 - Ida: Hello\n" for day in days)
    if days[0] == "04/03/25":
        text += "04/13/25, 08:00 - Ida: Hello\n"
    rows, _ = read([chat(tmp_path, text)], "whatsapp")
    assert rows[0]["session_time"].date() == first


def test_what_the_program_wrote_and_media_are_left_out_and_captions_stay(tmp_path):
    text = (
        "01/03/2025, 08:00 - Messages and calls are end-to-end encrypted. Tap to learn more.\n"
        '01/03/2025, 08:00 - Bo created group "Boats"\n'
        "01/03/2025, 08:01 - Bo: <Media omitted>\n"
        "01/03/2025, 08:02 - Bo: IMG-1.jpg (file attached)\nOtter at the pier: look\n"
        "01/03/2025, 08:03 - Bo: This message was deleted\n"
        "01/03/2025, 08:04 - Ida: Her name: Otter\n\nSecond line\n"
        "01/03/2025, 08:05 - Bo: \u200eMissed voice call\n"
        "01/03/2025, 08:06 - ~\u202fEve: Hi <3 you > me\n"
        "01/03/2025, 08:07 - Bo:\n"
    )
    rows, rejections = read([chat(tmp_path, text)], AUTO)
    assert not rejections
    assert said(rows) == [
        ("Bo", "Otter at the pier: look"),
        ("Ida", "Her name: Otter\n\nSecond line"),
        ("Eve", "Hi <3 you > me"),
    ]


def test_the_zip_file_of_a_phone_is_read_by_the_name_that_it_has(tmp_path):
    path = tmp_path / "WhatsApp Chat - Bo.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_chat.txt", "[2025-03-01, 08:00:12] Ida: A\n")
        archive.writestr("00001-PHOTO.jpg", b"jpg")
    for format in (AUTO, "whatsapp"):
        rows, rejections = read([path], format)
        assert (said(rows), rows[0]["conversation_id"], rejections) == ([("Ida", "A")], "Bo", [])
    config = IngestConfig(input=[str(tmp_path)], user_id="me", archive=str(tmp_path / "archive"))
    assert run(config)["num_turns"] == 1, "in a folder too"


def test_a_chat_that_is_cut_off_gives_what_was_read_and_says_so(tmp_path):
    import gzip

    lines = "".join(
        f"[2025-03-01, 08:{n % 60:02}:12] Ida: {random.Random(n).random()}\n" for n in range(9000)
    )
    (path := tmp_path / "WhatsApp Chat with Bo.txt.gz").write_bytes(gzip.compress(lines.encode())[:-9000])
    rows, (rejection,) = read([path], AUTO)
    assert rejection.kind == REST_OF_FILE
    assert 1000 < len(said(rows)) < 9000


def test_a_line_without_an_end_is_kept_as_far_as_a_message_goes():
    """Regression: a zip file of some kilobytes took all memory."""
    part = b"a" * (whatsapp.MAX_TEXT_CHARS // 2)
    endless = (part for _ in range(100))
    head = "[2025-03-01, 08:00:12] Ida: "
    lines = whatsapp.text_lines([head.encode(), *endless, b"\nand on\r\n", *[part] * 3])
    first, second, last = lines
    assert first == head + "a" * (whatsapp.MAX_TEXT_CHARS - len(head))
    assert (second, len(last)) == ("and on", whatsapp.MAX_TEXT_CHARS)


def test_a_date_that_is_none_costs_its_message(tmp_path):
    text = "[2025-03-01, 08:00:12] Ida: A\n[2025-02-31, 08:00:12] Ida: B\n[2025-03-01, 29:00:12] Ida: C\n"
    rows, rejections = read([chat(tmp_path, text)], AUTO)
    assert said(rows) == [("Ida", "A")]
    assert [(one.kind, one.line_or_item) for one in rejections] == [(ITEM, 2), (ITEM, 3)]


@given(st.text(max_size=300))
def test_whatever_stands_behind_a_first_message_is_read_without_a_failure(text):
    lines = ["[2025-03-01, 08:00:12] Ida: A", *text.split("\n")]
    (first, *_) = whatsapp.items("Bo", lambda: iter(lines))
    assert first[1]["from"] == "Ida"


@pytest.mark.parametrize("text", ["", "Dear diary,\ntoday\n", "2025-03-01 08:00 it rained\n", "[1, 2]"])
def test_another_text_is_no_chat(text):
    assert not whatsapp.is_chat(text.encode())


# --- Slack ----------------------------------------------------------------------------------------------


def workspace(tmp_path):
    path, items = tmp_path / "Boats Slack export.zip", items_of("slack")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("channels.json", json.dumps([{"id": "C1", "name": "general", "members": ["U1"]}]))
        archive.writestr("users.json", json.dumps([{"id": "U1", "name": "ida"}]))
        archive.writestr("general/2025-03-01.json", json.dumps(items[:-1]))
        archive.writestr("general/2025-03-02.json", json.dumps(items[-1:]))
        archive.writestr("boats/2025-03-01.json", json.dumps(items[1:2]))
    return path


@pytest.mark.parametrize("format", [AUTO, "slack"])
def test_a_workspace_is_read_channel_by_channel(tmp_path, format):
    rows, rejections = read([workspace(tmp_path)], format)
    assert not rejections
    assert {row["conversation_id"] for row in rows} == {"boats", "general"}
    assert sorted(row["session_id"] for row in rows) == [
        "boats 2025-03-01T08:00:00.000200+00:00",
        "general 1740816020.000300",
        "general 2025-03-01T08:00:00.000200+00:00",
        "general 2025-03-02T08:00:00.000600+00:00",
    ]
    thread = next(row for row in rows if row["session_id"] == "general 1740816020.000300")
    assert said([thread]) == [("bo", "Mine is Heron & blue, @U1."), ("U1", "Nice.")]


def test_an_unpacked_channel_is_named_after_its_folder(tmp_path):
    (folder := tmp_path / "boats").mkdir()
    (folder / "2025-03-01.json").write_text(json.dumps(items_of("slack")[1:2]))
    rows, _ = read([folder], AUTO)
    assert rows[0]["conversation_id"] == "boats"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<@U1|ann> in <#C1|general>, <!channel>", "@ann in #general, @channel"),
        ("see <https://x.example>", "see https://x.example"),
        ("a &lt;b&gt; &amp; c", "a <b> & c"),
        ("<!date^1740816000^{date}|1 March>", "@1 March"),
    ],
)
def test_markup_is_read_as_people_see_it(tmp_path, text, shown):
    item = items_of("slack")[1] | {"text": text}
    (path := tmp_path / "a.jsonl").write_text(as_lines([item]))
    assert said(read([path], "slack")[0]) == [("Ida", shown)]


# --- Arrow ----------------------------------------------------------------------------------------------

ROWS = [
    {
        "user_id": "ida",
        "session_id": f"s{n}",
        "role": "user",
        "content": f"Otter {n}",
        "timestamp": 1740816000 + n,
    }
    for n in range(10)
]


def ipc(path, rows, *, compression=None, chunk=4, **types):
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        table = table.set_column(table.column_names.index(name), name, table.column(name).cast(kind))
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as file:
        file.write_table(table, max_chunksize=chunk)
    return path


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_a_table_of_arrow_is_read_like_one_of_parquet(tmp_path, compression):
    path = ipc(tmp_path / "rows.arrow", ROWS, compression=compression)
    assert [item for _, item in read_items(path, "a")] == ROWS
    rows, rejections = read([path], AUTO)
    assert (len(rows), rejections) == (10, [])
    assert all(check_session(row) == row for row in rows)


def test_feather_is_read_and_so_are_words_that_stand_in_a_dictionary(tmp_path):
    feather.write_feather(pa.Table.from_pylist(ROWS), str(path := tmp_path / "rows.feather"))
    assert [item for _, item in read_items(path, "a")] == ROWS
    path = ipc(tmp_path / "rows.arrow", ROWS, compression="zstd", role=pa.dictionary(pa.int8(), pa.string()))
    assert [item for _, item in read_items(path, "a")] == ROWS


def test_columns_of_a_table_may_have_other_names(tmp_path):
    path = ipc(tmp_path / "rows.arrow", [{"uid": "ida", "thread": "t", "role": "user", "text": "Otter"}])
    columns = ("user_id=uid", "session_id=thread", "content=text")
    rows, _ = read([path], AUTO, columns)
    assert told(rows) == [("ida", "t", None, [("user", "Otter")])]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_batch_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch, compression):
    big = [ROWS[0] | {"content": "x" * 3_000_000}]
    path = ipc(tmp_path / "rows.arrow", ROWS[:4] + big, compression=compression)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(arrow_tables, "MAX_BATCH_BYTES", 2 << 20)
    *good, rejection = read_items(path, "a")
    assert [item for _, item in good] == ROWS[:4]
    assert (rejection.kind, rejection.line_or_item) == (REST_OF_FILE, 5)
    assert "a batch of 2 MiB unpacked, more than 2" in rejection.reason


@given(st.data())
def test_damage_to_a_table_gives_rows_or_rejections(tmp_path_factory, data):
    path = ipc(tmp_path_factory.mktemp("arrow") / "rows.arrow", ROWS, compression="zstd")
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(8, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(len(whole) // 2, len(whole)))])
    for one in read_items(path, "a"):
        assert isinstance(one, Rejection) or isinstance(one[1], dict)
