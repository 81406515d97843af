"""Items of a file, each parsed for itself, in bounded memory: a bad one costs one item.

The items of a file with JSON are first split by their brackets alone (jobs.common.splitting). The rows of a
Parquet or Arrow file are items too, and so are the messages of a chat of WhatsApp, which is plain text, and
the sessions of a LycheeMem server's database.
"""

import dataclasses
import datetime as dt
import itertools
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.common import arrow_tables, lychee, splitting, whatsapp
from jobs.common.cli import UsageError
from schemas.archive import MAX_SESSION_TURNS

if TYPE_CHECKING:
    import pyarrow as pa

LINES_SUFFIXES = (".jsonl", ".ndjson")

MAX_ITEM_VALUES = 1_000_000
"""An item of more values is rejected unread: each takes some hundred bytes once it is parsed, and two in the
file. How many bytes it may have is said in jobs.common.splitting."""

RAW_CHARS = 2000

ITEM, NOTE, REST_OF_FILE = "item", "note", "rest_of_file"
"""What a Rejection costs. What was mended is noted as one too, and costs nothing."""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """Something of the input that does not reach the archive, as saved in `_rejections/`."""

    file: str
    line_or_item: int
    """Counted from 1: the line of JSON lines, else the item of the array."""
    reason: str
    raw: str
    """The first RAW_CHARS characters of what was rejected."""
    kind: str
    """ITEM, NOTE or REST_OF_FILE."""
    noted: str = ""
    """Of a NOTE, what was mended: a kind of schemas.archive.Note."""


def read_items(
    path: Path, shown: str, *, member: str | None = None, trust_name: bool = True
) -> Iterator[tuple[int, dict] | Rejection]:
    """Yield (number, object) for each JSON object of the file, a Rejection for anything that is not one.

    `shown` is what rejections name the file, `member` the file to read of a zip file. `trust_name`: a file
    that is called JSON lines is split at line breaks whatever it begins with, so that a first line that is
    damaged costs that line.
    """
    if member is None and _is_parquet(path):
        yield from _parquet_rows(path, shown)
        return
    if member is None and arrow_tables.is_arrow(path):
        yield from _arrow_rows(path, shown)
        return
    if member is None and lychee.is_file(path):
        yield from _lychee_sessions(path, shown)
        return
    if _is_chat(path, member):
        yield from _chat_messages(path, shown, member)
        return
    is_lines = trust_name and plain_name(member or path.name).endswith(LINES_SUFFIXES)
    number = 0
    try:
        for number, data in enumerate(splitting.split(path, member, is_lines), start=1):
            if data is None:
                reason = f"longer than {splitting.MAX_ITEM_BYTES >> 20} MiB; split it at the source"
                yield Rejection(shown, number, reason, "", ITEM)
            elif _has_too_many_values(data):
                reason = f"more than {MAX_ITEM_VALUES} values; split it at the source"
                yield Rejection(shown, number, reason, _start(data), ITEM)
            elif data.strip():
                yield _parse(shown, number, data)
    except splitting.ForeignFile as foreign:
        yield Rejection(shown, 1, f"this is {foreign}", "", REST_OF_FILE)
    except splitting.CutFileError as cut:
        raw = cut.raw[: 4 * RAW_CHARS].decode(errors="backslashreplace")[:RAW_CHARS]
        yield Rejection(shown, number + 1, f"rest of the file is lost: {cut}", raw, REST_OF_FILE)


def plain_name(name: str) -> str:
    """The name of a file without the ending that says how it is packed."""
    return re.sub(r"\.(?:gz|zst|zstd)$", "", name)


def read_all_items(path: str, option: str) -> Iterator[dict]:
    """The objects of a file that has to be read whole, such as an evaluation set; `option` gave it.

    Raises UsageError for what is no object and where the file breaks off.
    """
    if not Path(path).is_file():
        raise UsageError(f"{option} {path}: no such file; check the path")
    for item in read_items(Path(path), path, trust_name=False):
        if isinstance(item, Rejection):
            where = f"{option} {path}: item {item.line_or_item}"
            raise UsageError(f"{where}: {item.reason}; give a readable JSON or JSON lines file")
        yield item[1]


def _parse(shown: str, number: int, data: bytes) -> tuple[int, dict] | Rejection:
    try:
        value = json.loads(data.decode())
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 at byte {error.start}; re-encode it"
    except RecursionError:
        reason = "nested too deeply; flatten it at the source"
    except ValueError as error:
        reason = f"not JSON: {error}"
    else:
        if isinstance(value, dict):
            return number, value
        reason = f"must be an object, not {type(value).__name__}; check --format"
    return Rejection(shown, number, reason, _start(data), ITEM)


def _start(data: bytes) -> str:
    # Four bytes are enough for any character, so this holds RAW_CHARS of them.
    return data[: 4 * RAW_CHARS].decode(errors="backslashreplace").strip()[:RAW_CHARS]


_MARKS = re.compile(rb'[,\[{]|"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
"""A comma or bracket outside of texts, or a whole text; one that does not end is as long as the rest."""


def _has_too_many_values(data: bytes) -> bool:
    """Told by its commas and brackets, before anything of it is parsed; those of its texts do not count."""
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) <= MAX_ITEM_VALUES:
        return False
    # One by one: its texts as a list would take more memory than what they are counted to prevent.
    marks = (found for found in _MARKS.finditer(data) if data[found.start()] != ord('"'))
    return next(itertools.islice(marks, MAX_ITEM_VALUES, None), None) is not None


_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)


def as_raw(value: object) -> str:
    """The first RAW_CHARS characters of a parsed value as JSON."""
    text = ""
    try:
        for part in _ENCODER.iterencode(value):
            text += part[:RAW_CHARS]
            if len(text) >= RAW_CHARS:
                break
    except RecursionError:
        return f"({type(value).__name__}, nested too deeply to show)"
    return text[:RAW_CHARS]


def _is_parquet(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def _parquet_rows(path: Path, shown: str) -> Iterator[tuple[int, dict] | Rejection]:
    """Rows of a Parquet file as items, numbered from 1. Nothing is unpacked before its size is known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cluster.backfill.parquet_limits import unpacked

    first, damage = 1, (pa.ArrowException, OSError, ValueError)
    try:
        with pa.OSFile(str(path)) as source:
            metadata = pq.read_metadata(source)
            names = metadata.schema.to_arrow_schema().names
            for group in range(metadata.num_row_groups):
                number = first
                try:
                    for table in unpacked(source, metadata, group, names):
                        yield from _table_rows(table, shown, number)
                        number += table.num_rows
                except damage as error:
                    reason = f"row group {group} is lost from here: {error}"
                    yield Rejection(shown, number, reason, "", REST_OF_FILE)
                first += metadata.row_group(group).num_rows
    except damage as error:
        yield Rejection(shown, first, f"rest of the file is lost: {error}", "", REST_OF_FILE)


def _table_rows(table: "pa.Table", shown: str, first: int) -> Iterator[tuple[int, dict] | Rejection]:
    """Rows of a table as items, numbered from `first`; one that is too large is a rejection."""
    from cluster.backfill.parquet_limits import MAX_ROW_BYTES, row_bytes

    for index, num_bytes in enumerate(row_bytes(table).tolist()):
        if num_bytes > MAX_ROW_BYTES:
            size = f"{num_bytes >> 20} MiB unpacked, more than {MAX_ROW_BYTES >> 20}"
            yield Rejection(shown, first + index, f"{size}; split it at the source", "", ITEM)
        else:
            yield _table_row(table.slice(index, 1), shown, first + index)


def _arrow_rows(path: Path, shown: str) -> Iterator[tuple[int, dict] | Rejection]:
    """Rows of an Arrow IPC or Feather file as items, numbered from 1."""
    import pyarrow as pa

    number = 1
    try:
        for table in arrow_tables.batches(path):
            yield from _table_rows(table, shown, number)
            number += table.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        yield Rejection(shown, number, f"rest of the file is lost: {error}", "", REST_OF_FILE)


def _lychee_sessions(path: Path, shown: str) -> Iterator[tuple[int, dict] | Rejection]:
    """Sessions of a LycheeMem server as items, numbered from 1."""
    number = 0
    try:
        for number, session in enumerate(lychee.sessions(path), 1):
            yield _lychee_session(session, shown, number)
    except sqlite3.Error as error:
        yield Rejection(shown, number + 1, f"rest of the file is lost: {error}", "", REST_OF_FILE)


def _lychee_session(session: lychee.Session, shown: str, number: int) -> tuple[int, dict] | Rejection:
    try:
        num_bytes = session.num_bytes()
        if num_bytes <= splitting.MAX_ITEM_BYTES and session.num_turns <= MAX_SESSION_TURNS:
            return number, session.item()
        limit = f"at most {MAX_SESSION_TURNS} with {splitting.MAX_ITEM_BYTES >> 20} MiB are read"
        size = f"{session.num_turns} turns with {num_bytes >> 20} MiB"
        problem = f"{size}; {limit}; split the session at the source"
    except sqlite3.Error as error:
        problem = f"cannot be read ({error}); mend the file with `sqlite3 FILE .recover`"
    name = repr(str(session.session_id)[:80])
    return Rejection(shown, number, f"session_id={name}: {problem}", "", ITEM)


def _is_chat(path: Path, member: str | None) -> bool:
    try:
        return whatsapp.is_chat(next(splitting.chunks_of(path, member), b""))
    except splitting.CutFileError:
        return False


def _chat_messages(path: Path, shown: str, member: str | None) -> Iterator[tuple[int, dict] | Rejection]:
    """Messages of a chat as items, numbered by their lines."""
    number, cuts = 0, dict[str, None]()

    def lines() -> Iterator[str]:
        # Twice: the dates of all tell what a date means.
        try:
            yield from whatsapp.text_lines(splitting.chunks_of(path, member))
        except splitting.CutFileError as cut:
            cuts[str(cut)] = None

    for number, item in whatsapp.items(whatsapp.title(path.name, member), lines):
        yield number, item
    for cut in cuts:
        yield Rejection(shown, number + 1, f"rest of the file is lost: {cut}", "", REST_OF_FILE)


def _table_row(row: "pa.Table", shown: str, number: int) -> tuple[int, dict] | Rejection:
    try:
        return number, {name: _plain(value) for name, value in row.to_pylist()[0].items()}
    except Exception as error:  # no UTF-8, a time outside the years 1 to 9999, an unknown time zone, ...
        reason = f"row cannot be read ({type(error).__name__}: {error}); write it anew"
        return Rejection(shown, number, reason, "", ITEM)


def _plain(value: object) -> object:
    """A value of a table as JSON has it: times in ISO 8601."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, dt.date) else value
