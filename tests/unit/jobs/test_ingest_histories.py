"""Histories as people have them: each format's sample is recognised, and read the same however it is packed.

`histories/NAME.*` are written for these tests, after the exporter's shape where SHAPES says.
"""

import contextlib
import datetime as dt
import gzip
import json
import re
import sqlite3
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.common import lychee
from jobs.common.cli import JobError, UsageError
from jobs.common.input_items import ITEM, read_items
from jobs.ingest import AUTO, IngestConfig, run
from jobs.ingest.files import find_files
from jobs.ingest.formats import FORMATS
from jobs.ingest.recognise import recognise
from schemas.archive import check_session
from tests.unit.jobs.damage import damaged
from tests.unit.jobs.history_files import SAMPLES, as_lines, items_of, read, told

SHAPES = {
    "chatgpt-export": "https://help.openai.com/en/articles/7260999",
    "claude-export": "https://github.com/socketteer/Claude-Conversation-Exporter",
    "claude-code": "https://github.com/alicoding/claude-parser/blob/main/docs/JSONL-STRUCTURE.md",
    "finetune": "https://platform.openai.com/docs/guides/supervised-fine-tuning",
    "sharegpt": "https://llamafactory.readthedocs.io/en/latest/getting_started/data_preparation.html",
    "langchain": "https://python.langchain.com/api_reference/core/messages.html",
    "openai-responses": "https://platform.openai.com/docs/api-reference/conversations/list-items",
    "wildchat": "https://huggingface.co/datasets/allenai/WildChat-1M",
    "lmsys": "https://huggingface.co/datasets/lmsys/lmsys-chat-1m",
    "open-webui": "https://github.com/open-webui/open-webui/blob/main/backend/open_webui/models/chats.py",
    "gemini-takeout": "https://takeout.google.com",
    "deepseek": "https://github.com/xionglongztz/DeepSeekDataExporter",
    "grok": "https://github.com/yetanotherchris/openwebui-importer/blob/main/convert_grok.py",
    "telegram": "https://core.telegram.org/import-export",
    "whatsapp": "https://faq.whatsapp.com/1180414079177245",
    "slack": "https://slack.com/help/articles/220556107-How-to-read-Slack-data-exports",
    "lychee": "https://pypi.org/project/lycheemem/0.1.4/",
    "longmemeval": "https://github.com/xiaowu0162/LongMemEval",
    "locomo": "https://github.com/snap-research/locomo",
    "beam": "https://arxiv.org/abs/2510.27246",
    "realtalk": "https://arxiv.org/abs/2502.13270",
}
"""Where the shape of a format is told, or read by others."""

OURS = {"messages", "message-rows"}
"""Formats that we define."""

OTTER, NOTED = ("user", "My canoe is called Otter."), ("assistant", "Noted.")
QUESTION, MAMMAL = ("user", "My canoe is called Otter. What is an otter?"), ("assistant", "A mammal.")
DAY, NEXT = "2025-03-01 08:00", "2025-03-02 08:00"

EXPECTED = {
    "messages": [("ida", "m1", DAY, [OTTER, NOTED])],
    "chatgpt-export": [("me", "g1", DAY, [OTTER, NOTED])],
    "claude-export": [
        (
            "me",
            "c1",
            DAY,
            [
                ("user", "My canoe is called Otter.\n[trips.txt]\nMay: Main\n[otter.jpg]"),
                ("tool", 'web_search({"query": "otter"})'),
                ("tool", "a mammal"),
                NOTED,
            ],
        )
    ],
    "finetune": [
        (
            "me",
            "finetune-*",
            None,
            [
                ("system", "Be brief."),
                QUESTION,
                ("tool", 'search({"query": "otter"})'),
                ("tool", "a mammal"),
                MAMMAL,
            ],
        )
    ],
    "message-rows": [("ida", "t2", NEXT, [("user", "And I row.")]), ("ida", "t1", DAY, [OTTER, NOTED])],
    "claude-code": [
        (
            "me",
            "s1",
            DAY,
            [
                ("user", "I always indent with tabs. Tidy the parser."),
                ("tool", 'Read({"path": "parser.py"})'),
                ("tool", "def parse(): ..."),
                ("tool", "<command-name>/cost</command-name>"),
                ("assistant", "Tidied."),
            ],
        )
    ],
    "sharegpt": [
        (
            "me",
            "h1",
            None,
            [("system", "Be brief."), OTTER, ("tool", '{"name": "note"}'), ("tool", "saved"), NOTED],
        )
    ],
    "langchain": [
        (
            "me",
            "langchain",
            None,
            [
                QUESTION,
                ("assistant", "Let me see."),
                ("tool", 'search({"query": "otter"})'),
                ("tool", "a mammal"),
                MAMMAL,
            ],
        )
    ],
    "openai-responses": [
        (
            "me",
            "openai-responses",
            None,
            [
                QUESTION,
                ("tool", 'web_search({"type": "search", "query": "otter"})'),
                ("tool", "note({})"),
                ("tool", "saved"),
                MAMMAL,
            ],
        )
    ],
    "wildchat": [("ab12", "w1", DAY, [OTTER, NOTED])],
    "lmsys": [("me", "l1", None, [OTTER, NOTED])],
    "open-webui": [
        (
            "ida",
            "o1",
            DAY,
            [
                OTTER,
                (
                    "tool",
                    '<details type="tool_calls" done="true" name="note" arguments="{}" result="saved">'
                    "<summary>Ran</summary></details>",
                ),
                NOTED,
            ],
        )
    ],
    "gemini-takeout": [
        (
            "me",
            "gemini 2025-03-01T08:00:00+00:00",
            DAY,
            [
                ("user", "My canoe is called Otter. Is 3 < 5?"),
                ("assistant", "Noted, a good name.\n3 < 5 holds."),
            ],
        ),
        ("me", "gemini 2025-03-02T08:00:00+00:00", NEXT, [("user", "And I row.")]),
    ],
    "deepseek": [("me", "d1", DAY, [OTTER, NOTED])],
    "grok": [("me", "x1", DAY, [OTTER, NOTED])],
    "telegram": [
        (
            "me",
            "Bo (7) 2025-03-01T08:00:00+00:00",
            DAY,
            [OTTER, ("user", "Mine is Heron."), ("tool", "Rain is coming.")],
        ),
        ("me", "Bo (7) 2025-03-02T08:00:00+00:00", NEXT, [("user", "And I row.")]),
    ],
    "whatsapp": [
        (
            "me",
            "whatsapp 2025-03-01T08:00:00+00:00",
            DAY,
            [("user", "My canoe is called\nOtter."), ("user", "Mine is Heron.")],
        ),
        ("me", "whatsapp 2025-03-02T08:00:00+00:00", NEXT, [("user", "And I row.")]),
    ],
    "slack": [
        (
            "me",
            "slack 2025-03-01T08:00:00.000200+00:00",
            DAY,
            [("user", "My canoe is called Otter (https://otter.example)."), ("tool", "Rain is coming.")],
        ),
        ("me", "slack 2025-03-02T08:00:00.000600+00:00", NEXT, [("user", "And I row.")]),
        (
            "me",
            "slack 1740816020.000300",
            DAY,
            [("user", "Mine is Heron & blue, @U1."), ("user", "Nice.")],
        ),
    ],
    # Written by LycheeMem's own store, in a session of which the first turn was put into a summary.
    "lychee": [
        ("me", "y1", DAY, [OTTER, ("assistant", "[empty]"), NOTED]),
        ("me", "y2", NEXT, [("user", "And I row.")]),
    ],
    "longmemeval": [("q1", "q1_s1", DAY, [OTTER, NOTED])],
    "locomo": [("conv-1", "session_1", DAY, [OTTER, ("user", "Noted.")])],
    "beam": [("me", "batch_1", "2025-03-01 00:00", [OTTER, NOTED])],
    "realtalk": [("me", "session_1", DAY, [OTTER, ("user", "Noted.")])],
}
"""format -> (user, session, time, turns) of each session of its sample; * stands for a digest."""


# --- each format -----------------------------------------------------------------------------------------


def test_every_format_has_a_sample_and_is_told_on_the_page():
    page = (Path(__file__).parents[3] / "jobs" / "README.md").read_text("utf-8")
    table = set(re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE))
    assert set(FORMATS) == set(SAMPLES) == set(EXPECTED) == table
    assert set(SHAPES) == set(FORMATS) - OURS


@pytest.mark.parametrize("format", FORMATS)
def test_a_history_is_read(format):
    rows, rejections = read([SAMPLES[format]], format)
    assert told(rows) == EXPECTED[format]
    assert {one.noted for one in rejections} <= {"empty_chat", "empty_turn"}
    assert all(check_session(row) == row for row in rows)


@pytest.mark.parametrize("format", FORMATS)
def test_a_history_is_recognised_as_its_own_format_and_as_no_other(format, capsys):
    matching = [[name for name, one in FORMATS.items() if one.matches(item)] for item in items_of(format)]
    assert [format] in matching
    assert all(names in ([format], []) for names in matching)
    found, _ = recognise(find_files([str(SAMPLES[format])], AUTO), {})
    assert found.name == format
    said = capsys.readouterr().err
    assert f"{SAMPLES[format]}: taken for {format}" in said
    assert f"items look like {found.what} (fields " in said


@pytest.mark.parametrize("format", FORMATS)
def test_a_broken_item_among_those_of_a_history_costs_that_item(tmp_path, format):
    path = tmp_path / f"{format}.jsonl"
    first, *others = as_lines(items_of(format)).splitlines()
    path.write_text("\n".join([first, '{"broken', *others]))
    rows, rejections = read([path], format)
    assert told(rows) == EXPECTED[format]
    assert [one.line_or_item for one in rejections if one.kind == ITEM] == [2]


@given(data=st.data(), format=st.sampled_from(sorted(FORMATS)))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_to_an_item_of_a_history_gives_good_rows_or_rejections(tmp_path, data, format):
    items = items_of(format)
    number = data.draw(st.integers(0, len(items) - 1))
    items[number] = damaged(items[number], data.draw)
    path = tmp_path / f"{format}.jsonl"
    path.write_text(as_lines(items))
    rows, rejections = read([path], format)
    assert all(check_session(row) == row for row in rows)
    assert all(one.reason for one in rejections)


# --- however it is packed --------------------------------------------------------------------------------


def pack(tmp_path, format, how):
    source, items = SAMPLES[format], items_of(format)
    data = source.read_bytes()
    if data.startswith(lychee.MAGIC):  # a database is no text, but its server answers in JSON, too
        source, data = source.with_suffix(".json"), json.dumps(items).encode()
    path = tmp_path / source.name
    if how == "zip":
        path = tmp_path / "export.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            name = source.name if FORMATS[format].files == "*" else f"conversations{source.suffix}"
            archive.writestr(f"data/{name}", data)
            archive.writestr("users.json", '[{"uuid": "u", "full_name": "Ida"}]')
            archive.writestr("photo.png", b"png")
        return path
    if how in ("wrapped", "lines"):
        path = tmp_path / f"{format}.{'json' if how == 'wrapped' else 'jsonl'}"
        wrapped = json.dumps({"version": {"of": [1]}, "data": items, "more": [{"n": "]}"}]}, indent=1)
        path.write_text(wrapped if how == "wrapped" else as_lines(items))
        return path
    packed = {
        "bom": lambda: b"\xef\xbb\xbf" + data,
        "utf-16": lambda: data.decode().encode("utf-16"),
        "gz": lambda: gzip.compress(data),
        "zst": lambda: pa.compress(data, codec="zstd", asbytes=True),
        "zst of utf-16": lambda: pa.compress(data.decode().encode("utf-16"), codec="zstd", asbytes=True),
    }[how]()
    path = tmp_path / (source.name + {"gz": ".gz", "zst": ".zst"}.get(how, ""))
    path.write_bytes(packed)
    return path


@pytest.mark.parametrize("how", ["bom", "utf-16", "gz", "zst", "zst of utf-16", "zip", "wrapped", "lines"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_history_is_recognised_and_read_however_it_is_packed(tmp_path, format, how):
    rows, rejections = read([pack(tmp_path, format, how)], AUTO)
    place = "conversations" if how == "zip" and FORMATS[format].files != "*" else None
    assert [row[3] for row in told(rows)] == [row[3] for row in EXPECTED[format]]
    assert place or told(rows) == EXPECTED[format]
    assert not [one for one in rejections if one.kind == ITEM]


def test_an_export_of_chatgpt_is_read_as_it_was_downloaded(tmp_path):
    path, (item, shell) = tmp_path / "export.zip", items_of("chatgpt-export")
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(2):
            named = item | {"conversation_id": f"g{number}", "id": f"g{number}"}
            archive.writestr(f"conversations-00{number}.json", json.dumps([named, shell]))
        archive.writestr("shared_conversations.json", json.dumps([{"id": "s", "title": "t"}]))
        archive.writestr("user.json", json.dumps({"id": "u", "email": "ida@example.com"}))
        archive.writestr("chat.html", "<html></html>")
    config = {"input": [str(path)], "user_id": "ida", "archive": str(tmp_path / "archive")}
    summary = run(IngestConfig(**config))
    assert (summary["status"], summary["format"], summary["num_input_files"]) == ("done", "chatgpt-export", 2)
    assert (summary["num_sessions"], summary["num_empty_chats"], summary["num_rejections"]) == (2, 2, 0)
    again = run(IngestConfig(**config, format="chatgpt-export"))
    assert (again["ingest"], again["num_sessions"]) == (summary["ingest"], 0)


def test_a_damaged_zip_file_costs_what_is_damaged(tmp_path):
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", SAMPLES["messages"].read_text())
        archive.writestr("b.jsonl", SAMPLES["messages"].read_text().replace("m1", "m2"))
    data = bytearray(path.read_bytes())
    data[data.index(b"Otter")] ^= 1
    path.write_bytes(bytes(data))
    rows, (rejection,) = read([path], "messages")
    assert "m2" in [row["session_id"] for row in rows]
    assert (rejection.file, rejection.kind) == (f"{path}/a.jsonl", "rest_of_file")
    assert "Bad CRC-32" in rejection.reason


def test_a_zip_file_without_histories_is_wrong_usage(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.png", b"png")
    with pytest.raises(UsageError, match=r"no input files in it; it needs \.json"):
        read([path], AUTO)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"data": [{"n": 1}, {"n": 2}]}', [1, 2]),
        ('{"data": [{"n": 1}], "data2": [{"n": 2}]}\n', [1]),
        ('{"chats": {"about": {"n": []}, "list": [{"n": 1}]}, "n": {"}": "]"}}', [1]),
        ('{"n": 3, "data": []}', [3]),
        ('{"n": 3, "data": [5]}', [3]),
        ('{"n": 3, "conversations": [{"from": "human", "value": "x"}]}', [3]),
        ('{"id": "a", "n": 3, "data": [{"n": 1}]}', [3]),
        ('{"data": {"list": [{"n": 1}]}, "n": 3}', [3]),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [3, 1 << 20])
def test_items_in_an_object_are_told_from_an_item(tmp_path, monkeypatch, text, found, chunk_bytes):
    monkeypatch.setattr("jobs.common.splitting.CHUNK_BYTES", chunk_bytes)
    path = tmp_path / "a.json"
    path.write_text(text)
    assert [item["n"] for _, item in read_items(path, "a")] == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"data": [{"n": 1}, {"n": 2}', "the array does not end"),
        ('{"data": [{"n": 1}], "more": ', "the array does not end"),
        ('{"data": [{"n": 1}]}\n{"data": [{"n": 2}]}', "text after the end of the array"),
    ],
)
def test_what_is_lost_behind_items_in_an_object_is_told(tmp_path, text, reason):
    path = tmp_path / "a.json"
    path.write_text(text)
    (_, item), rejection = read_items(path, "a")
    assert item == {"n": 1}
    assert reason in rejection.reason


def test_a_cut_zstandard_file_keeps_what_came_before(tmp_path):
    items = [json.loads(SAMPLES["messages"].read_text()) | {"session_id": f"s{n}"} for n in range(5000)]
    data = pa.compress(as_lines(items).encode(), codec="zstd", asbytes=True)
    (tmp_path / "a.jsonl.zst").write_bytes(data[: len(data) // 2])
    rows, rejections = read([tmp_path / "a.jsonl.zst"], "messages")
    assert len(rows) > 500
    assert "rest of the file is lost" in rejections[-1].reason


def test_cut_lines_in_a_file_that_is_not_called_lines_keep_what_came_before(tmp_path):
    items = [json.loads(SAMPLES["messages"].read_text()) | {"session_id": f"s{n}"} for n in range(5000)]
    data = gzip.compress(as_lines(items).encode())
    (tmp_path / "a.json.gz").write_bytes(data[: len(data) // 2])
    rows, rejections = read([tmp_path / "a.json.gz"], "messages")
    assert len(rows) > 500
    assert "rest of the file is lost" in rejections[-1].reason


# --- recognition -----------------------------------------------------------------------------------------


def write(path, *items):
    path.write_text(as_lines(items))
    return path


def test_an_unknown_format_is_refused_with_the_nearest(tmp_path):
    path = write(tmp_path / "a.jsonl", {"conversation": "c", "model": "m", "text": "Hello"})
    with pytest.raises(
        UsageError, match=r"has the fields conversation, model, text, .* nearest: lmsys \(with"
    ):
        read([path], AUTO)


def test_what_is_no_history_is_refused_by_its_name(tmp_path):
    memory = write(tmp_path / "a.jsonl", {"id": "1", "memory": "Has a canoe", "user_id": "ida"})
    with pytest.raises(UsageError, match="this is a memory of a memory system"):
        read([memory], AUTO)
    (tmp_path / "b.json").write_bytes(b"%PDF-1.7")
    with pytest.raises(UsageError, match="this is a PDF"):
        read([tmp_path / "b.json"], AUTO)


def test_a_file_that_may_be_in_two_formats_is_refused_with_both(tmp_path):
    items = [items_of("lmsys")[0], items_of("sharegpt")[0]]
    with pytest.raises(UsageError, match=r"may be lmsys \(.*\) or sharegpt \(.*\); name one with --format"):
        read([write(tmp_path / "a.jsonl", *items)], AUTO)


def test_files_in_different_formats_are_refused_together(tmp_path):
    paths = [SAMPLES["lmsys"], SAMPLES["grok"]]
    with pytest.raises(UsageError, match=r"2 formats: .*taken for lmsys, .*taken for grok; ingest each"):
        read(paths, AUTO)


def test_files_of_a_folder_that_are_no_histories_are_told_and_not_read(tmp_path, capsys):
    write(tmp_path / "conversations.json", *items_of("claude-export"))
    write(tmp_path / "users.json", {"uuid": "u", "full_name": "Ida"})
    write(tmp_path / "empty.json")
    rows, rejections = read([tmp_path], AUTO)
    assert told(rows) == EXPECTED["claude-export"]
    assert [one.noted for one in rejections] == ["empty_chat"]
    assert f"1 files in other formats were not read: {tmp_path / 'users.json'}" in capsys.readouterr().err


def test_an_input_that_names_no_user_needs_one_once_it_is_recognised(tmp_path):
    config = IngestConfig(input=[str(SAMPLES["lmsys"])], archive=str(tmp_path / "archive"))
    with pytest.raises(UsageError, match="lmsys files name no user; name theirs with --user-id"):
        run(config)
    assert not (tmp_path / "archive").exists()


def test_an_empty_input_needs_no_format(tmp_path):
    path = write(tmp_path / "a.jsonl")
    summary = run(IngestConfig(input=[str(path)], archive=str(tmp_path / "archive")))
    assert (summary["status"], summary["is_empty"]) == ("done", True)


# --- a server's database ---------------------------------------------------------------------------------


def sessions_of(tmp_path, *turns):
    """A database like that of LycheeMem, of (session, role, content); returns an open connection."""
    database = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    names = "session_id TEXT, role TEXT, content TEXT, created_at TEXT DEFAULT '2025-03-01 08:00:00'"
    database.execute(f"CREATE TABLE IF NOT EXISTS turns (id INTEGER PRIMARY KEY, {names})")
    query = "INSERT INTO turns (session_id, role, content) VALUES (CAST(? AS TEXT), ?, CAST(? AS TEXT))"
    database.executemany(query, turns)
    return database


def test_a_server_s_database_that_is_in_use_is_read_to_its_last_turn(tmp_path):
    path, archive = tmp_path / "sessions.db", str(tmp_path / "archive")
    config = IngestConfig(input=[str(path)], user_id="me", archive=archive)
    with contextlib.closing(sessions_of(tmp_path, ("s1", *OTTER))) as server:
        server.execute("PRAGMA journal_mode=WAL")
        server.execute("PRAGMA wal_autocheckpoint=0")
        assert run(config)["num_turns"] == 1
        data = path.read_bytes()
        server.execute("INSERT INTO turns (session_id, role, content) VALUES ('s1', ?, ?)", NOTED)
        assert path.read_bytes() == data
        summary = run(config)
        assert (summary["num_sessions_changed"], summary["num_turns"]) == (1, 2)
        (file,) = find_files([str(path)], "lychee")
        file.check_unchanged()
        server.execute("INSERT INTO turns (session_id, role, content) VALUES ('s1', 'user', 'Bye.')")
        with pytest.raises(JobError, match="changed while it was read"):
            file.check_unchanged()


def test_a_database_at_rest_is_read_without_a_trace_beside_it(tmp_path):
    path = tmp_path / "sessions.db"
    path.write_bytes(SAMPLES["lychee"].read_bytes())
    rows, _ = read([path], AUTO)
    assert told(rows) == EXPECTED["lychee"]
    assert [one.name for one in tmp_path.iterdir()] == ["sessions.db"]


def test_an_odd_session_of_a_database_costs_that_session(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.common.splitting.MAX_ITEM_BYTES", 100)
    turns = [
        ("long", "user", "x" * 101),
        (b"bad\xff", "user", "Hi"),
        ("s1", "poet", b"caf\xe9"),
        ("s1", *NOTED),
    ]
    sessions_of(tmp_path, *turns).close()
    rows, rejections = read([tmp_path / "sessions.db"], AUTO)
    assert told(rows)[-1] == ("me", "s1", DAY, [("tool", "caf\ufffd"), NOTED])
    costly = [one for one in rejections if one.kind == ITEM]
    assert "1 turns with 0 MiB; at most 50000 with 0 MiB are read" in costly[0].reason
    assert len(rows) + len(costly) == 3


def test_a_damaged_page_of_a_database_costs_its_sessions(tmp_path):
    with contextlib.closing(
        sessions_of(tmp_path, *((f"s{n}", "user", "word " * 200) for n in range(100)))
    ) as server:
        server.execute("CREATE INDEX idx_turns_session ON turns(session_id)")
        page_bytes = server.execute("PRAGMA page_size").fetchone()[0]
    path = tmp_path / "sessions.db"
    data = bytearray(path.read_bytes())
    data[10 * page_bytes : 11 * page_bytes] = b"\xff" * page_bytes
    path.write_bytes(data)
    rows, rejections = read([path], AUTO)
    assert 0 < len(rejections) < 10 and len(rows) + len(rejections) == 100
    assert all("cannot be read (database disk image is malformed); mend" in one.reason for one in rejections)


def test_a_cut_database_is_refused(tmp_path):
    path = tmp_path / "sessions.db"
    path.write_bytes(SAMPLES["lychee"].read_bytes()[:-8192])
    rows, rejections = read([path], "lychee")
    assert not rows and rejections


def test_another_database_is_refused(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("CREATE TABLE turns (id INTEGER PRIMARY KEY, text)")
    with pytest.raises(
        UsageError, match="this is a SQLite database, damaged or none of LycheeMem's sessions"
    ):
        read([tmp_path / "a.db"], AUTO)


# --- columns and tables ----------------------------------------------------------------------------------

COLUMNS = ["user_id=uid", "session_id=thread", "role=who", "content=body", "time=at"]


def table_rows():
    base = dt.datetime(2025, 3, 1, 8, tzinfo=dt.UTC)
    texts = [("human", OTTER[1]), ("bot", NOTED[1])]
    return [
        {"uid": 7, "thread": "t1", "who": who, "body": body, "at": base + dt.timedelta(seconds=number)}
        for number, (who, body) in enumerate(texts)
    ]


def test_a_parquet_table_is_read_with_a_mapping_of_its_columns(tmp_path):
    path = tmp_path / "chats.parquet"
    pq.write_table(pa.Table.from_pylist(table_rows()), path, row_group_size=1)
    rows, rejections = read([path], AUTO, COLUMNS)
    assert (told(rows), rejections) == ([("7", "t1", DAY, [OTTER, NOTED])], [])


@pytest.mark.parametrize("format", ["lmsys", "wildchat", "messages", "finetune", "sharegpt"])
def test_a_history_as_a_parquet_table_is_recognised_and_read(tmp_path, format):
    path = tmp_path / "train.parquet"
    tables = {"finetune": [{"messages": [{"role": "user", "content": "Hi"}]}]}
    items = tables.get(format) or items_of(format)
    items = [{name: value for name, value in item.items() if value != []} for item in items]
    pq.write_table(pa.Table.from_pylist(items), path)
    rows, rejections = read([path], AUTO)
    expected = [("user", "Hi")] if format == "finetune" else EXPECTED[format][0][3]
    assert ([row[3] for row in told(rows)], rejections) == ([expected], [])


def test_a_damaged_row_group_of_a_table_costs_that_group(tmp_path):
    path = tmp_path / "chats.parquet"
    items = [json.loads(SAMPLES["messages"].read_text()) | {"session_id": f"session-{n}"} for n in range(3)]
    pq.write_table(
        pa.Table.from_pylist(items), path, row_group_size=1, compression="none", write_page_checksum=True
    )
    data = bytearray(path.read_bytes())
    data[data.index(b"session-1")] ^= 1
    path.write_bytes(bytes(data))
    rows, (rejection,) = read([path], "messages")
    assert [row["session_id"] for row in rows] == ["session-0", "session-2"]
    assert (rejection.line_or_item, rejection.kind) == (2, "rest_of_file")
    assert "row group 1 is lost" in rejection.reason


def test_fields_of_lines_are_mapped_too(tmp_path):
    items = [row | {"at": row["at"].isoformat()} for row in table_rows()]
    rows, _ = read([write(tmp_path / "a.jsonl", *items)], "message-rows", COLUMNS)
    assert told(rows) == [("7", "t1", DAY, [OTTER, NOTED])]


def test_a_mapping_is_part_of_what_an_input_is_known_by(tmp_path):
    path = write(
        tmp_path / "a.jsonl", {"session_id": "s", "role": "user", "content": "A", "body": "B", "user_id": "u"}
    )
    config = {"input": [str(path)], "archive": str(tmp_path / "archive")}
    ingests = {run(IngestConfig(**config, columns=columns))["ingest"] for columns in ([], ["content=body"])}
    assert len(ingests) == 2


@pytest.mark.parametrize("column", ["uid", "=uid", "user_id="])
def test_a_mapping_that_is_none_is_refused(column):
    with pytest.raises(ValueError, match="must be OURS=THEIRS"):
        IngestConfig(input=["a"], archive="b", columns=[column])


# --- rows of sessions ------------------------------------------------------------------------------------


def row(text, time=None, session="s", **changes):
    item = {"user_id": "u", "session_id": session, "role": "user", "content": text}
    return item | ({"timestamp": time} if time else {}) | changes


def said(rows):
    return {row["session_id"]: [turn["content"] for turn in row["turns"]] for row in rows}


def test_rows_of_a_session_are_put_together_across_files(tmp_path):
    paths = [
        write(tmp_path / "day1.jsonl", row("a", 1740816000), row("x", 1740816000, "t")),
        write(tmp_path / "day2.jsonl", row("b", 1740816060)),
    ]
    rows, _ = read(paths, "message-rows")
    assert said(rows) == {"s": ["a", "b"], "t": ["x"]}


def test_rows_of_a_session_of_which_some_name_no_conversation_are_one(tmp_path):
    items = [row("a", conversation_id="c"), row("b"), row("c", conversation_id="c")]
    (found,), _ = read([write(tmp_path / "a.jsonl", *items)], "message-rows")
    assert (found["conversation_id"], said([found])) == ("c", {"s": ["a", "b", "c"]})


def test_rows_are_put_in_order_by_their_times_where_all_have_one(tmp_path):
    mixed = [row("b", 1740816060), row("a", 1740816000), row("c", 1740816060)]
    newest_first = [row("f", 1740816060, "n"), row("e", 1740816060, "n"), row("d", 1740816000, "n")]
    untimed = [row("h", 1740816060, "m"), row("g", session="m")]
    rows, _ = read([write(tmp_path / "a.jsonl", *mixed, *newest_first, *untimed)], "message-rows")
    assert said(rows) == {"s": ["a", "b", "c"], "n": ["d", "e", "f"], "m": ["h", "g"]}


def test_rows_that_two_exports_share_stand_once(tmp_path):
    first = [row("ok", 1740816000), row("ok", 1740816000), row("b", 1740816060)]
    paths = [
        write(tmp_path / "1.jsonl", *first),
        write(tmp_path / "2.jsonl", *first[2:], row("c", 1740816070)),
    ]
    rows, _ = read(paths, "message-rows")
    assert said(rows) == {"s": ["ok", "ok", "b", "c"]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"session_id": None}, "session_id=None: must be a non-empty string"),
        ({"session_id": " "}, "session_id=' '"),
        ({"user_id": True}, "user_id=True: must be a non-empty string; name the user with --user-id"),
        ({"user_id": "\ud800"}, "user_id='\\ud800'"),
    ],
)
def test_a_row_without_its_place_costs_that_row(tmp_path, changes, reason):
    items = [row("a"), row("b", **changes), row("c")]
    rows, (rejection,) = read([write(tmp_path / "a.jsonl", *items)], "message-rows")
    assert said(rows) == {"s": ["a", "c"]}
    assert rejection.line_or_item == 2
    assert reason in rejection.reason


def test_the_share_of_bad_rows_is_one_of_turns(tmp_path):
    path = write(tmp_path / "a.jsonl", *[row(f"{n}") for n in range(99)], row("b", session_id=None))
    config = IngestConfig(input=[str(path)], archive=str(tmp_path / "archive"))
    summary = run(config)
    assert (summary["status"], summary["num_sessions"], summary["num_rejections"]) == ("done", 1, 1)


def test_no_space_for_rows_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    def fail(*arguments):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("jobs.ingest.rows.Rows.sessions", fail)
    path = write(tmp_path / "a.jsonl", row("a"))
    with pytest.raises(JobError, match="disk is full; see that the folder for temporary files has space"):
        run(IngestConfig(input=[str(path)], archive=str(tmp_path / "archive")))


def test_a_session_of_too_many_rows_is_rejected_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.ingest.rows.MAX_SESSION_TURNS", 3)
    items = [*[row(f"{n}") for n in range(4)], row("x", session="t")]
    rows, (rejection,) = read([write(tmp_path / "a.jsonl", *items)], "message-rows")
    assert said(rows) == {"t": ["x"]}
    assert "session_id='s': 4 rows" in rejection.reason


def chat(times):
    messages = [
        {"id": n, "type": "message", "date_unixtime": str(time), "from": "Bo", "text": f"{n}"}
        for n, time in enumerate(times)
    ]
    return {"name": "Bo", "type": "personal_chat", "id": 7, "messages": messages}


def test_a_chat_is_cut_where_it_fell_silent_and_named_the_same_when_it_went_on(tmp_path):
    hour = 3600
    times = [1740816000 + hours * hour for hours in (0, 4, 9, 10)]
    first, _ = read([write(tmp_path / "a.jsonl", chat(times[:3]))], "telegram")
    later, _ = read([write(tmp_path / "b.jsonl", chat(times))], "telegram")
    assert list(said(first).values()) == [["0", "1"], ["2"]]
    assert list(said(later).values()) == [["0", "1"], ["2", "3"]]
    assert list(said(first)) == list(said(later))


def test_a_chat_that_never_falls_silent_is_cut_by_its_length(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.ingest.rows.MAX_CUT_TURNS", 2)
    path = write(tmp_path / "a.jsonl", chat([1740816000 + n for n in range(5)]))
    assert list(said(read([path], "telegram")[0]).values()) == [["0", "1"], ["2", "3"], ["4"]]


def test_a_message_of_a_chat_without_a_time_costs_that_message(tmp_path):
    item = chat([1740816000, 1740816010])
    item["messages"].append({"type": "message", "from": "Bo", "text": "when?"})
    rows, (rejection,) = read([write(tmp_path / "a.jsonl", item)], "telegram")
    assert list(said(rows).values()) == [["0", "1"]]
    assert "time: is missing" in rejection.reason


# --- what single formats know ----------------------------------------------------------------------------


def test_a_thread_of_langgraph_is_named_by_its_configuration(tmp_path):
    messages = [{"type": "human", "content": "Hello"}, {"type": "ai", "content": "Hi"}]
    states = [
        {"values": {"messages": messages}, "config": {"configurable": {"thread_id": "t1", "user_id": "u1"}}},
        {"thread_id": "t2", "values": {"messages": messages}, "created_at": "2025-03-01T08:00:00Z"},
        {"messages": messages},
    ]
    rows, rejections = read([write(tmp_path / "a.jsonl", *states)], AUTO)
    assert [row[:2] for row in told(rows)] == [("u1", "t1"), ("me", "t2"), ("me", "langchain-*")]
    assert not rejections


def test_messages_that_langchain_dumped_as_constructors_are_read(tmp_path):
    def message(name, **kwargs):
        path = ["langchain", "schema", "messages", name]
        return {"lc": 1, "type": "constructor", "id": path, "kwargs": kwargs}

    items = [message("HumanMessage", content="Hello"), message("AIMessageChunk", content="Hi")]
    rows, _ = read([write(tmp_path / "talk.jsonl", *items)], AUTO)
    assert told(rows) == [("me", "talk", None, [("user", "Hello"), ("assistant", "Hi")])]


def test_responses_of_a_conversation_are_one_session(tmp_path):
    def response(name, text, number, **more):
        output = [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ok"}]}
        ]
        times = {"created_at": 1740816000 + number}
        return {"id": name, "object": "response", "input": text, "output": output} | times | more

    items = [response(f"r{n}", f"{n}", n, conversation={"id": "conv"}) for n in (1, 0)]
    items.append(response("r2", [{"role": "user", "content": "alone"}], 2))
    rows, rejections = read([write(tmp_path / "a.jsonl", *items)], AUTO)
    assert said(rows) == {"conv": ["0", "ok", "1", "ok"], "r2": ["alone", "ok"]}
    assert not rejections


def test_a_claude_export_without_parents_is_read_in_its_order(tmp_path):
    (item, _) = items_of("claude-export")
    item["chat_messages"] = [{"sender": "human", "text": "a"}, {"sender": "assistant", "text": "b"}]
    rows, _ = read([write(tmp_path / "a.jsonl", item)], "claude-export")
    assert told(rows)[0][3] == [("user", "a"), ("assistant", "b")]


@pytest.mark.parametrize("name", ["conversation", "items"])
def test_variants_of_sharegpt_are_read(tmp_path, name):
    item = {"id": "v", name: [{"from": "user", "value": "Hello"}, {"from": "bard", "content": "Hi"}]}
    roles = {"id": "w", "conversations": [{"role": "user", "content": "Hello"}]}
    rows, _ = read([write(tmp_path / "a.jsonl", item, roles)], AUTO)
    assert [row[3][0] for row in told(rows)] == [("user", "Hello"), ("user", "Hello")]
