"""Files of JSON items: splitting and parsing, plain or gzipped, in bounded memory.

A file is a JSON array, JSON lines, or JSON objects one after the other. It is first split into items by
their brackets alone, then each item is decoded and parsed for itself. So a bad item costs one item, which a
streaming JSON parser cannot offer: it stops at the first error.
"""

import dataclasses
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from jobs.common.cli import UsageError

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
    (0, b"PAR1", "a Parquet file: give the JSON that it was made of"),
    (0, b"SQLite format 3", "a SQLite database: export its conversations as JSON"),
    (0, b"%PDF", "a PDF: give the conversations as JSON"),
    (0, b"BZh", "a bzip2 file: unpack it"),
    (0, b"\xfd7zXZ", "an xz file: unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "a zstandard file: unpack it"),
    (0, b"7z\xbc\xaf", "a 7z file: unpack it"),
    (0, b"\xff\xfe", "UTF-16 text: save it as UTF-8"),
    (0, b"\xfe\xff", "UTF-16 text: save it as UTF-8"),
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


def read_items(path: Path, shown: str, *, trust_name: bool = True) -> Iterator[tuple[int, dict] | Rejection]:
    """Yield (number, object) for each JSON object of the file, a Rejection for anything that is not one.

    `shown` is what rejections name the file. `trust_name`: a file that is called JSON lines is split at line
    breaks whatever it begins with, so that a first line that is damaged costs that line.
    """
    is_lines = trust_name and path.name.removesuffix(".gz").endswith(LINES_SUFFIXES)
    number = 0
    try:
        for number, data in enumerate(_split(path, is_lines), start=1):
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


def _split(path: Path, is_lines: bool) -> Iterator[bytes | None]:
    """The items as bytes, None for one over MAX_ITEM_BYTES. Raises _CutFileError where they break off."""
    chunks = _chunks(path)
    first = next(chunks, b"").removeprefix(b"\xef\xbb\xbf")
    for offset, mark, kind in FOREIGN_FILES:
        if first.startswith(mark, offset):
            raise _ForeignFile(kind)
    chunks = itertools.chain([first], chunks)
    start = first.lstrip()
    first_line, newline, _ = start.partition(b"\n")
    if not is_lines and start.startswith(b"["):
        return _split_brackets(chunks, is_array=True)
    if not is_lines and newline and start.startswith(b"{") and not first_line.rstrip().endswith(b"}"):
        return _split_brackets(chunks, is_array=False)  # an object over several lines
    return _split_lines(chunks)


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b" or path.suffix == ".gz"
            file.seek(0)
            # read1 hands out what was unpacked before the damage; read would lose it to the exception.
            reader = gzip.GzipFile(fileobj=file) if is_gzip else file
            while chunk := reader.read1(CHUNK_BYTES):
                yield chunk
    except (OSError, EOFError, zlib.error) as error:
        raise _CutFileError(f"{error}; copy the file anew") from None


class _Item:
    """The bytes of one item as they come in. Keeps at most MAX_ITEM_BYTES."""

    def __init__(self):
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


def _split_brackets(chunks: Iterator[bytes], is_array: bool) -> Iterator[bytes | None]:
    """Split an array's items, or objects that follow each other, by brackets, commas and quotes only."""
    item = _Item()
    depth, pos, is_string, is_over = 0, 0, False, False
    try:
        for chunk in chunks:
            start = 0
            while not is_over and (match := (_INSIDE if is_string else _OUTSIDE).search(chunk, pos)):
                pos, mark = match.end(), match.group()
                if mark == b'"':
                    is_string = not is_string
                elif mark == b"\\":
                    pos += 1  # the escaped character, which may be the first of the next chunk
                elif mark in b"[{":
                    depth += 1
                    if is_array and depth == 1:
                        start = pos
                elif mark == b"}" and is_array and depth == 1:
                    pass  # one too many, left in its item for the parser to refuse; only ] ends an array
                elif mark in b"]}":
                    depth = max(depth - 1, 0)
                    if depth == 0:
                        is_over = is_array
                        item.add(chunk[start : match.start() if is_array else pos])
                        yield item.take()
                        start = pos
                elif is_array and depth == 1:
                    item.add(chunk[start : match.start()])
                    yield item.take()
                    start = pos
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
