"""Input files to JSON items: finding, gunzipping, splitting and parsing, in bounded memory.

A file is a JSON array, JSON lines, or JSON objects one after the other. It is first split into items by
their brackets alone, then each item is decoded and parsed for itself. So a bad item costs one item, which a
streaming JSON parser cannot offer: it stops at the first error.
"""

import dataclasses
import gzip
import hashlib
import itertools
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from jobs.cli import JobError, UsageError, say

SUFFIXES = (".json", ".jsonl", ".ndjson")
LINES_SUFFIXES = (".jsonl", ".ndjson")
CHUNK_BYTES = 1 << 20

MAX_ITEM_BYTES = 256 << 20
"""A longer line or array item is rejected unread. It bounds memory; a user's whole history is some MiB."""

RAW_CHARS = 2000

ITEM, TURN, REST_OF_FILE = "item", "turn", "rest_of_file"
"""What a Rejection costs. A dropped empty turn is noted as one too, but leaves its session whole."""


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
    """ITEM, TURN or REST_OF_FILE."""


@dataclasses.dataclass(frozen=True)
class InputFile:
    path: Path
    shown: str
    """The path as the user wrote it, for messages and records."""
    num_bytes: int
    mtime_ns: int
    sha256: str

    def check_unchanged(self) -> None:
        """Raise JobError if the file was written to since its digest was taken."""
        try:
            stat = os.stat(self.path)
            is_unchanged = (stat.st_size, stat.st_mtime_ns) == (self.num_bytes, self.mtime_ns)
        except OSError:
            is_unchanged = False
        if not is_unchanged:
            raise JobError(f"input={self.shown!r}: changed while it was read; ingest it when it is complete")


class _CutFileError(Exception):
    """The rest of a file cannot be read. `raw` is what had been read of the item it breaks off in."""

    def __init__(self, reason: str, raw: bytes = b""):
        super().__init__(reason)
        self.raw = raw


def find_files(inputs: list[str], format: str) -> list[InputFile]:
    """The files that `inputs` name, folders walked in sorted order, each file once.

    Raises UsageError for a path that does not exist or cannot be read and for a folder without input files.
    """
    paths = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            found = _walk(path, format)
            if not found:
                wanted = "conversations*.json" if format == "chatgpt-export" else ", ".join(SUFFIXES)
                raise UsageError(f"input={given!r}: no input files in it; it needs {wanted}, plain or .gz")
        elif path.is_file():
            found = [path]
        else:
            raise UsageError(f"input={given!r}: no such file or folder; check the path")
        for file in found:
            paths.setdefault(file.resolve(), file)
    return [_input_file(path) for path in paths.values()]


def _walk(folder: Path, format: str) -> list[Path]:
    found, num_ignored = [], 0
    for parent, folders, names in os.walk(folder):
        # The `_` and `.` names are an archive's own records; an archive may lie beside its input.
        folders[:] = sorted(name for name in folders if not name.startswith(("_", ".")))
        for name in sorted(names):
            if name.startswith(("_", ".")):
                continue
            is_input = name.removesuffix(".gz").endswith(SUFFIXES)
            if format == "chatgpt-export":
                # An unpacked export has other JSON beside them: user.json, shared links, feedback.
                is_input = is_input and name.startswith("conversations")
            if is_input and os.path.isfile(os.path.join(parent, name)):
                found.append(Path(parent, name))
            else:
                num_ignored += 1
    if num_ignored:
        say(f"[ingest] {folder}: {num_ignored} files with other names were not read")
    return found


def _input_file(path: Path) -> InputFile:
    try:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"input={str(path)!r}: {error.strerror}; make it readable") from None
    return InputFile(path, str(path), stat.st_size, stat.st_mtime_ns, sha256)


def digest_of(files: list[InputFile], user_id: str | None) -> str:
    """12 hex digits that stand for the content of `files`, wherever they lie, and the default user."""
    parts = [user_id, *(file.sha256 for file in files)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def read_items(path: Path, shown: str) -> Iterator[tuple[int, dict] | Rejection]:
    """Yield (number, object) for each JSON object of the file, a Rejection for anything that is not one.

    `shown` is what rejections name the file.
    """
    number = 0
    try:
        for number, data in enumerate(_split(path), start=1):
            if data is None:
                reason = f"longer than {MAX_ITEM_BYTES >> 20} MiB; split it at the source"
                yield Rejection(shown, number, reason, "", ITEM)
            elif data.strip():
                yield _parse(shown, number, data)
    except _CutFileError as cut:
        raw = cut.raw[: 4 * RAW_CHARS].decode(errors="backslashreplace")[:RAW_CHARS]
        yield Rejection(shown, number + 1, f"rest of the file is lost: {cut}", raw, REST_OF_FILE)


def read_all_items(path: str, option: str) -> Iterator[dict]:
    """The objects of a file that has to be read whole, such as an evaluation set; `option` gave it.

    Raises UsageError for what is no object and where the file breaks off.
    """
    if not Path(path).is_file():
        raise UsageError(f"{option} {path}: no such file; check the path")
    for item in read_items(Path(path), path):
        if isinstance(item, Rejection):
            raise UsageError(f"{option} {path}: item {item.line_or_item}: {item.reason}")
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
    # Four bytes are enough for any character, so this holds RAW_CHARS of them.
    raw = data[: 4 * RAW_CHARS].decode(errors="backslashreplace").strip()[:RAW_CHARS]
    return Rejection(shown, number, reason, raw, ITEM)


def as_raw(value: object) -> str:
    """The first RAW_CHARS characters of a parsed value as JSON."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)[:RAW_CHARS]
    except RecursionError:
        return f"({type(value).__name__}, nested too deeply to show)"


def _split(path: Path) -> Iterator[bytes | None]:
    """The items as bytes, None for one over MAX_ITEM_BYTES. Raises _CutFileError where they break off."""
    chunks = _chunks(path)
    first = next(chunks, b"").removeprefix(b"\xef\xbb\xbf")
    chunks = itertools.chain([first], chunks)
    is_lines = path.name.removesuffix(".gz").endswith(LINES_SUFFIXES)
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
