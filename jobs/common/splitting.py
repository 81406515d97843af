"""Files with JSON: unpacked, and split into items, in bounded memory.

A file is a JSON array, also one inside an object (`{"conversations": [...]}`), JSON lines, or JSON objects
one after the other; in UTF-8 or UTF-16; plain, gzip, zstandard or a member of a zip file. It is split by
brackets, commas and quotes alone, before anything of it is parsed. So a bad item costs one item, which a
streaming JSON parser cannot offer: it stops at the first error.
"""

import codecs
import contextlib
import gzip
import io
import itertools
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

CHUNK_BYTES = 1 << 20

MAX_ITEM_BYTES = 32 << 20
"""A longer line or array item is rejected unread. It bounds memory; a user's whole history is some MiB."""

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


class ForeignFile(Exception):
    """The file is no JSON at all."""


class CutFileError(Exception):
    """The rest of a file cannot be read. `raw` is what had been read of the item it breaks off in."""

    def __init__(self, reason: str, raw: bytes = b""):
        super().__init__(reason)
        self.raw = raw


def split(path: Path, member: str | None, is_lines: bool) -> Iterator[bytes | None]:
    """The items as bytes, None for one over MAX_ITEM_BYTES. Raises CutFileError where they break off."""
    chunks = chunks_of(path, member)
    first = next(chunks, b"").removeprefix(b"\xef\xbb\xbf")
    for offset, mark, kind in FOREIGN_FILES:
        if first.startswith(mark, offset):
            raise ForeignFile(kind)
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
    except CutFileError as cut:
        return first, _breaking_off(cut)
    return first, chunks


def _breaking_off(cut: CutFileError) -> Iterator[bytes]:
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


def chunks_of(path: Path, member: str | None) -> Iterator[bytes]:
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
        raise CutFileError(f"{error}; copy the file anew") from None


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
    except CutFileError as cut:
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
                raise CutFileError("text after the end of the array; remove it")
    except CutFileError as cut:
        cut.raw = bytes(item.data).lstrip()
        raise
    if is_array and not is_over:
        raise CutFileError("the array does not end; copy the file anew", bytes(item.data).lstrip())
    yield item.take()
