"""Files of JSON items: unpacking, splitting and parsing, in bounded memory.

A file is a JSON array, also one inside an object (`{"conversations": [...]}`), JSON lines, or JSON objects
one after the other; in UTF-8 or UTF-16; plain, gzip, zstandard or a member of a zip file. It is first split
into items by their brackets alone, then each item is decoded and parsed for itself. So a bad item costs one
item, which a streaming JSON parser cannot offer: it stops at the first error. The rows of a Parquet or Arrow
file are items too, and so are the messages of a chat of WhatsApp, which is plain text, and the sessions of a
LycheeMem server's database.
"""

import codecs
import contextlib
import dataclasses
import datetime as dt
import gzip
import io
import itertools
import json
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from jobs.common import arrow_tables, lychee, whatsapp
from jobs.common.cli import UsageError
from schemas.archive import MAX_SESSION_TURNS

if TYPE_CHECKING:
    import pyarrow as pa

LINES_SUFFIXES = (".jsonl", ".ndjson")
CHUNK_BYTES = 1 << 20

MAX_ITEM_BYTES = 32 << 20
"""A longer line or array item is rejected unread. It bounds memory; a user's whole history is some MiB."""

MAX_ITEM_VALUES = 1_000_000
"""So is an item of more values: each takes some hundred bytes once it is parsed, and two in the file."""

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


FOREIGN_FILES = (
    (0, b"PK\x03\x04", "a zip file: unpack it and give the JSON files in it"),
    (0, b"PAR1", "a Parquet file in another file: unpack it"),
    (0, b"ARROW1", "an Arrow file: write its table as Parquet"),
    (
        0,
        b"SQLite format 3",
        "a SQLite database, damaged or none of LycheeMem's sessions: export its conversations as JSON",
    ),
    (0, b"%PDF", "a PDF: give the conversations as JSON"),
    (0, b"BZh", "a bzip2 file: unpack it"),
    (0, b"\xfd7zXZ", "an xz file: unpack it"),
    (0, b"7z\xbc\xaf", "a 7z file: unpack it"),
    (0, b"<!DOCTYPE", "HTML: give the JSON of the same export"),
    (0, b"<html", "HTML: give the JSON of the same export"),
    (0, b"<?xml", "XML: give the conversations as JSON"),
    (257, b"ustar", "a tar file: unpack it and give the JSON files in it"),
)
"""(offset, bytes that stand there, what such a file is and the remedy)."""


class _ForeignFile(Exception):
    """The file is no JSON at all."""


class _CutFileError(Exception):
    """The rest of a file cannot be read. `raw` is what had been read of the item it breaks off in."""

    def __init__(self, reason: str, raw: bytes = b""):
        super().__init__(reason)
        self.raw = raw


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
        for number, data in enumerate(_split(path, member, is_lines), start=1):
            if data is None:
                reason = f"longer than {MAX_ITEM_BYTES >> 20} MiB; split it at the source"
                yield Rejection(shown, number, reason, "", ITEM)
            elif _has_too_many_values(data):
                reason = f"more than {MAX_ITEM_VALUES} values; split it at the source"
                yield Rejection(shown, number, reason, _start(data), ITEM)
            elif data.strip():
                yield _parse(shown, number, data)
    except _ForeignFile as foreign:
        yield Rejection(shown, 1, f"this is {foreign}", "", REST_OF_FILE)
    except _CutFileError as cut:
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


_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


def _has_too_many_values(data: bytes) -> bool:
    """Told by its commas and brackets, before anything of it is parsed; those of its texts do not count."""

    def num_marks(part: bytes) -> int:
        return sum(part.count(mark) for mark in (b",", b"[", b"{"))

    return num_marks(data) > MAX_ITEM_VALUES and num_marks(_TEXTS.sub(b"", data)) > MAX_ITEM_VALUES


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


def _split(path: Path, member: str | None, is_lines: bool) -> Iterator[bytes | None]:
    """The items as bytes, None for one over MAX_ITEM_BYTES. Raises _CutFileError where they break off."""
    chunks = _chunks(path, member)
    first = next(chunks, b"").removeprefix(b"\xef\xbb\xbf")
    for offset, mark, kind in FOREIGN_FILES:
        if first.startswith(mark, offset):
            raise _ForeignFile(kind)
    if not is_lines and first.lstrip().startswith(b"{"):
        first, chunks = _head(first, chunks)
        if wrapped := _wrapped_array(first):
            begin, num_around = wrapped
            return _split_brackets(itertools.chain([first[begin:]], chunks), True, num_around)
    chunks = itertools.chain([first], chunks)
    start = first.lstrip()
    first_line, newline, _ = start.partition(b"\n")
    if not is_lines and start.startswith(b"["):
        return _split_brackets(chunks, is_array=True)
    if not is_lines and newline and start.startswith(b"{") and not first_line.rstrip().endswith(b"}"):
        return _split_brackets(chunks, is_array=False)  # an object over several lines
    return _split_lines(chunks)


HEAD_BYTES = 1 << 20
"""How much of a file is looked at to see whether its items stand in an object."""

WRAPPERS = ("conversations", "data", "chats")
"""Fields of an object that is no item, but holds an array of them. That of `chats` may be `chats.list`."""

ITEM_FIELDS = {"id", "uuid", "user_id", "session_id", "messages", "mapping", "chat_messages", "role", "from"}
"""An object that begins with one of these is an item, whatever else is in it."""


def _head(first: bytes, chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """At least HEAD_BYTES of a file, or as much as it has, and the rest, which breaks off where it does."""
    try:
        while len(first) < HEAD_BYTES and (chunk := next(chunks, b"")):
            first += chunk
    except _CutFileError as cut:
        return first, _breaking_off(cut)
    return first, chunks


def _breaking_off(cut: _CutFileError) -> Iterator[bytes]:
    raise cut
    yield b""


_WHITE = re.compile(r"[ \t\r\n]*")


def _behind_white(text: str, pos: int) -> int:
    found = _WHITE.match(text, pos)
    assert found is not None, "it matches the empty text"
    return found.end()


def _wrapped_array(head: bytes) -> tuple[int, int] | None:
    """Where the array of items begins in an object, and how many objects are around it; None where the object
    is an item itself."""
    text = head.decode("latin-1")  # of as many characters as bytes
    decoder, pos, num_around, name = json.JSONDecoder(), 0, 0, ""

    def skip(mark: str) -> int:
        at = _behind_white(text, pos)
        if text[at : at + 1] != mark:
            raise ValueError
        return at + 1

    try:
        while True:
            pos = skip(",") if name else skip("{")
            num_around += not name
            pos = skip('"') - 1
            name, pos = decoder.raw_decode(text, pos)
            if name in ITEM_FIELDS:
                return None
            pos = skip(":")
            pos = _behind_white(text, pos)
            is_wrapper = name in WRAPPERS or (num_around == 2 and name == "list")
            if is_wrapper and text[pos] == "[":
                return (pos, num_around) if _holds_items(name, text, pos + 1, decoder) else None
            if name == "chats" and text[pos] == "{" and num_around == 1:
                name = ""  # and on inside
            else:
                _, pos = decoder.raw_decode(text, pos)
    except (ValueError, IndexError, RecursionError):
        return None


def _holds_items(name: str, text: str, pos: int, decoder: json.JSONDecoder) -> bool:
    """Whether the array that begins at `pos` has items, and not the turns of one conversation."""
    pos = _behind_white(text, pos)
    if text[pos] != "{":
        return False
    try:
        first, _ = decoder.raw_decode(text, pos)
    except ValueError:
        return True  # longer than the head: no turn
    is_turn = first.keys() & {"from", "role"} and first.keys() & {"value", "content"}
    return name != "conversations" or not is_turn


GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

ZSTD_CHUNK_BYTES = 1 << 16
"""What is read at once of a zstandard file: of a damaged one, the last part that is lost with the damage."""


def _chunks(path: Path, member: str | None) -> Iterator[bytes]:
    """What a file holds once it is unpacked, as UTF-8."""
    damage = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError, KeyError)
    try:
        with contextlib.ExitStack() as stack:
            file: IO[bytes] = stack.enter_context(open(path, "rb"))
            if member is not None:
                file = stack.enter_context(stack.enter_context(zipfile.ZipFile(file)).open(member))
            assert isinstance(file, io.BufferedReader | zipfile.ZipExtFile)
            yield from _as_utf8(_unpacked(file, member or path.name))
    except damage as error:
        raise _CutFileError(f"{error}; copy the file anew") from None


def _unpacked(file: io.BufferedReader | zipfile.ZipExtFile, name: str) -> Iterator[bytes]:
    mark = file.peek(4)[:4]
    read: Callable[[int], bytes]
    if mark.startswith(GZIP) or name.endswith(".gz"):
        # read1 hands out what was unpacked before the damage; read would lose it to the exception.
        read, num_bytes = gzip.GzipFile(fileobj=file).read1, CHUNK_BYTES
    elif mark == ZSTD or name.endswith((".zst", ".zstd")):
        import pyarrow as pa

        unpacked = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
        read, num_bytes = unpacked.read, min(ZSTD_CHUNK_BYTES, CHUNK_BYTES)
    else:
        read, num_bytes = file.read1, CHUNK_BYTES
    while chunk := read(num_bytes):
        yield chunk


def _as_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(chunks, b"")
    chunks = itertools.chain([first], chunks)
    if not first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    for chunk in chunks:
        yield decoder.decode(chunk).encode()
    yield decoder.decode(b"", final=True).encode()


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

    from cluster.backfill.archive import unpacked

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
    from cluster.backfill.archive import MAX_ROW_BYTES, row_bytes

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
        if num_bytes <= MAX_ITEM_BYTES and session.num_turns <= MAX_SESSION_TURNS:
            return number, session.item()
        limit = f"at most {MAX_SESSION_TURNS} with {MAX_ITEM_BYTES >> 20} MiB are read"
        size = f"{session.num_turns} turns with {num_bytes >> 20} MiB"
        problem = f"{size}; {limit}; split the session at the source"
    except sqlite3.Error as error:
        problem = f"cannot be read ({error}); mend the file with `sqlite3 FILE .recover`"
    name = repr(str(session.session_id)[:80])
    return Rejection(shown, number, f"session_id={name}: {problem}", "", ITEM)


def _is_chat(path: Path, member: str | None) -> bool:
    try:
        return whatsapp.is_chat(next(_chunks(path, member), b""))
    except _CutFileError:
        return False


def _chat_messages(path: Path, shown: str, member: str | None) -> Iterator[tuple[int, dict] | Rejection]:
    """Messages of a chat as items, numbered by their lines."""
    number, cuts = 0, dict[str, None]()

    def lines() -> Iterator[str]:
        # Twice: the dates of all tell what a date means.
        try:
            yield from whatsapp.text_lines(_chunks(path, member))
        except _CutFileError as cut:
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


class _Item:
    """The bytes of one item as they come in. Keeps at most MAX_ITEM_BYTES."""

    def __init__(self) -> None:
        self.data, self.is_too_long = bytearray(), False

    def add(self, data: bytes) -> None:
        if len(self.data) + len(data) > MAX_ITEM_BYTES:
            self.is_too_long = True
            self.data = bytearray()
        if not self.is_too_long:
            self.data += data

    def take(self) -> bytes | None:
        data = None if self.is_too_long else bytes(self.data)
        self.data, self.is_too_long = bytearray(), False
        return data


def _split_lines(chunks: Iterator[bytes]) -> Iterator[bytes | None]:
    line = _Item()
    try:
        for chunk in chunks:
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                line.add(end)
                yield line.take()
            line.add(rest)
    except _CutFileError as cut:
        cut.raw = bytes(line.data)
        raise
    yield line.take()


_OUTSIDE = re.compile(rb'["\[\]{},]')
_INSIDE = re.compile(rb'["\\]')


def _split_brackets(chunks: Iterator[bytes], is_array: bool, num_around: int = 0) -> Iterator[bytes | None]:
    """Split an array's items, or objects that follow each other, by brackets, commas and quotes only.

    `num_around`: objects around the array. What follows in them is no item and is left out.
    """
    item = _Item()
    depth, pos, is_string, is_over, is_behind = 0, 0, False, False, False
    try:
        for chunk in chunks:
            start = 0
            while not is_over and (match := (_INSIDE if is_string else _OUTSIDE).search(chunk, pos)):
                pos, mark = match.end(), match.group()
                if mark == b'"':
                    is_string = not is_string
                elif mark == b"\\":
                    pos += 1  # the escaped character, which may be the first of the next chunk
                elif is_behind:
                    num_around += (mark in b"[{") - (mark in b"]}")
                    is_over, start = num_around == 0, pos
                elif mark in b"[{":
                    depth += 1
                    if is_array and depth == 1:
                        start = pos
                elif mark == b"}" and is_array and depth == 1:
                    pass  # one too many, left in its item for the parser to refuse; only ] ends an array
                elif mark in b"]}":
                    depth = max(depth - 1, 0)
                    if depth == 0:
                        is_over, is_behind = is_array and not num_around, num_around > 0
                        item.add(chunk[start : match.start() if is_array else pos])
                        yield item.take()
                        start = pos
                elif is_array and depth == 1:
                    item.add(chunk[start : match.start()])
                    yield item.take()
                    start = pos
            if is_over or not is_behind:
                item.add(chunk[start:])
            pos = max(pos - len(chunk), 0)
            if is_over and item.data.strip():
                raise _CutFileError("text after the end of the array; remove it")
    except _CutFileError as cut:
        cut.raw = bytes(item.data).lstrip()
        raise
    if is_array and not is_over:
        raise _CutFileError("the array does not end; copy the file anew", bytes(item.data).lstrip())
    yield item.take()
