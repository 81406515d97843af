"""What the pages of a Parquet column unpack to, as their headers say, before any of them is unpacked.

A footer may lie about its columns, and a page of a few bytes may unpack to gigabytes, but a reader makes
room for what the header of a page says and for no more. Headers are Thrift structs in the compact protocol
(parquet.thrift: PageHeader); of each, only the sizes are read.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HEADER_BYTES = 1 << 16
"""Read at a time: statistics of a page stand in its header, and may be long."""

MAX_HEADER_BYTES = 1 << 24
"""A longer header is damage; what Arrow takes at most."""

BY_DICTIONARY = (2, 8)
"""Encodings whose values are places in the column's dictionary: PLAIN_DICTIONARY and RLE_DICTIONARY."""


class BrokenPage(ValueError):
    """The bytes where a page should be are not a page."""


@dataclass(frozen=True)
class Page:
    """What a header says of its page."""

    start: int
    """Byte of the file at which the content begins."""
    num_bytes_packed: int
    num_bytes: int
    """Unpacked."""
    num_values: int
    """Entries of the column, nulls among them; 0 of a dictionary."""
    encoding: int | None
    is_dictionary: bool


def pages(source: pa.NativeFile, column: pq.ColumnChunkMetaData) -> Iterator[Page]:
    """The pages of a column of a row group, without their content. BrokenPage for what is no header."""
    starts = (column.dictionary_page_offset, column.data_page_offset)
    at = min(start for start in starts if start)
    end, window = at + column.total_compressed_size, (at, b"")
    while at < end:
        header, length, window = _header(source, at, end, window)
        packed, unpacked = header.get(3), header.get(2)
        if not isinstance(packed, int) or not isinstance(unpacked, int) or min(packed, unpacked) < 0:
            raise BrokenPage(f"byte {at}: no size of a page")
        first, second = header.get(5), header.get(8)
        of_data = first if isinstance(first, dict) else second if isinstance(second, dict) else {}
        encoding = of_data.get(2 if of_data is first else 4)
        at += length
        yield Page(at, packed, unpacked, of_data.get(1, 0), encoding, is_dictionary=7 in header)
        at += packed


def longest_entry(source: pa.NativeFile, column: pq.ColumnChunkMetaData, page: Page) -> int:
    """Bytes of the longest text of a dictionary, which is unpacked for it."""
    data = source.read_at(page.num_bytes_packed, page.start)
    if column.compression != "UNCOMPRESSED":
        data = pa.Codec(CODECS.get(column.compression, column.compression)).decompress(data, page.num_bytes)
    view, at, longest = memoryview(data), 0, 0
    while at + 4 <= len(view):
        (length,) = struct.unpack_from("<I", view, at)
        longest, at = max(longest, length), at + 4 + length
    return longest


CODECS = {"LZ4": "lz4_raw"}
"""Names of the footer that are others here."""


def _header(source: pa.NativeFile, at: int, end: int, window: tuple[int, bytes]) -> tuple[dict, int, tuple]:
    """(fields of the struct at this place, how many bytes it has, what was read of the file).

    `window` is what was read before: small pages need no reading of their own.
    """
    size = HEADER_BYTES
    while True:
        reader = _Compact(window[1], at - window[0])
        try:
            fields = reader.struct()
            return fields, reader.at - at + window[0], window
        except IndexError:
            if size > MAX_HEADER_BYTES or (window[0] == at and len(window[1]) == end - at):
                raise BrokenPage(f"byte {at}: no header of a page") from None
        data = source.read_at(min(size, end - at), at)
        if len(data) < min(size, end - at):
            end = at + len(data)
        window, size = (at, data), size * 16


MAX_DEPTH = 8
"""Structs in structs; a page's header has two."""


class _Compact:
    """Values of the compact protocol, in order. IndexError where the bytes end."""

    def __init__(self, data: bytes, at: int = 0):
        self._data, self.at = data, at

    def struct(self, depth: int = 0) -> dict:
        """Field id -> value; of strings, lists and maps only that they are there."""
        if depth > MAX_DEPTH:
            raise BrokenPage("structs in structs without end")
        fields, number = {}, 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._zigzag()
            fields[number] = self._value(kind & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # true and false stand in the kind itself
            return kind == 1
        if kind == 3:
            return self._skip(1)
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._skip(8)
        if kind == 8:
            return self._skip(self._varint())
        if kind in (9, 10):
            return self._list(depth)
        if kind == 12:
            return self.struct(depth + 1)
        raise BrokenPage(f"kind {kind} of a field is none of a page's header")

    def _list(self, depth: int) -> None:
        head = self._byte()
        for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
            self._value(3 if head & 15 in (1, 2) else head & 15, depth + 1)

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise BrokenPage("a number without end")
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, num_bytes: int) -> None:
        self.at += num_bytes
        if self.at > len(self._data):
            raise IndexError
