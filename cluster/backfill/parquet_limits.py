"""Limits of what a Parquet file may take of memory, checked before any of it is unpacked.

A few bytes of a file may stand for gigabytes: of archives that others wrote, no row group is unpacked whose
footer or pages say too much, and no row that is too long.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.backfill.parquet_pages import BY_DICTIONARY, longest_entry, pages

MAX_GROUP_ROWS = 1 << 20
"""Sessions of a row group; what most Parquet writers take at most."""

MAX_GROUP_VALUES, FREE_VALUES, VALUES_PER_BYTE = 1 << 23, 1 << 20, 4
"""Turns of a row group: at most the first, and more than the second only where the file has bytes for them.
Each takes some 8 bytes for each of its fields, whatever it repeats, and one session may have all of them."""

MAX_PAGE_BYTES = 256 << 20
"""Pages that are in memory together, unpacked: of each column its dictionary and one more."""

MAX_DICTIONARY_BYTES = 64 << 20
"""Texts of a column that Arrow may keep as a dictionary, which takes up to four times as much: it holds
what it has read of a row group until the end, so of longer columns it has to write out each text."""

BOMB_BYTES, BOMB_RATIO = 64 << 20, 100
"""A row group that unpacks to more than both, bytes and times its size in the file, is no text of people."""

MAX_ROW_BYTES = 64 << 20
"""One session, unpacked."""

ROWS_AT_ONCE, BYTES_AT_ONCE = 8, 8 << 20
"""Sessions that are unpacked at a time, and about how many bytes of them: the first that is reached
counts."""

BUFFER_BYTES = 1 << 20
"""Packed bytes of a column that are read at a time."""


class Oversized(ValueError):
    """A row group or a row would take more memory than a worker has. The message has the remedy."""


@dataclass(frozen=True)
class Reading:
    """How a row group is to be read."""

    repeated: list[str]
    """Paths of the columns to read as dictionaries: a text that is repeated a thousand times, which is a few
    bytes in the file, is then in memory once."""
    num_rows: int
    """Sessions at a time."""


def check_group(
    source: pa.NativeFile, metadata: pq.FileMetaData, row_group: int, names: list[str]
) -> Reading:
    """How the columns `names` of a row group are read without taking all memory.

    Raises Oversized for a row group of whose columns `names` the footer says, or the headers of their pages
    say, that they are too large. Of what it judges it unpacks nothing, but for dictionaries of a bounded
    size.
    """
    group = metadata.row_group(row_group)
    lengths = {
        metadata.schema.column(index).path: metadata.schema.column(index).length
        for index in range(metadata.num_columns)
    }
    columns = [group.column(index) for index in range(group.num_columns)]
    columns = [column for column in columns if column.path_in_schema.partition(".")[0] in names]
    packed, unpacked = (
        sum(getattr(column, f"total_{kind}_size") for column in columns)
        for kind in ("compressed", "uncompressed")
    )
    remedy = "write row groups of fewer sessions"
    if group.num_rows > MAX_GROUP_ROWS:
        raise Oversized(f"{group.num_rows} sessions, more than {MAX_GROUP_ROWS}; {remedy}")
    if unpacked > max(BOMB_BYTES, BOMB_RATIO * packed):
        raise Oversized(
            f"{packed} bytes unpack to {unpacked}: no conversations repeat so much; see what wrote the file"
        )
    together, num_bytes, repeated = 0, 0, []
    for column in columns:
        path = column.path_in_schema
        if "DELTA_BYTE_ARRAY" in column.encodings:
            raise ValueError(f"{path}: encoding DELTA_BYTE_ARRAY; write PLAIN or RLE_DICTIONARY")
        found = list(pages(source, column))
        num_bytes += sum(page.num_bytes for page in found)
        num_values = max(column.num_values, sum(page.num_values for page in found))
        if num_values > MAX_GROUP_VALUES:
            raise Oversized(f"{num_values} turns, more than {MAX_GROUP_VALUES}; {remedy}")
        if num_values > max(FREE_VALUES, VALUES_PER_BYTE * packed):
            raise Oversized(f"{packed} bytes unpack to {num_values} turns; see what wrote the file")
        if column.physical_type == "FIXED_LEN_BYTE_ARRAY":
            # Unlike texts, each of these is written out for itself.
            together += lengths[path] * num_values
        dictionaries = [page for page in found if page.is_dictionary]
        together += max((page.num_bytes for page in found if not page.is_dictionary), default=0)
        together += sum(page.num_bytes for page in dictionaries)
        if together > MAX_PAGE_BYTES:
            raise Oversized(
                f"pages of {together >> 20} MiB, more than {MAX_PAGE_BYTES >> 20}; write smaller ones"
            )
        if column.physical_type != "BYTE_ARRAY" or not dictionaries:
            continue
        if sum(page.num_bytes for page in found) <= MAX_DICTIONARY_BYTES:
            repeated.append(path)
            continue
        num_repeated = sum(page.num_values for page in found if page.encoding in BY_DICTIONARY)
        at_most = num_repeated * max(longest_entry(source, column, page) for page in dictionaries)
        if at_most > MAX_PAGE_BYTES:
            raise Oversized(
                f"{path}: a dictionary that may unpack to {at_most >> 20} MiB, more than "
                f"{MAX_PAGE_BYTES >> 20}; {remedy}, or without a dictionary"
            )
    fitting = BYTES_AT_ONCE * group.num_rows // max(num_bytes, 1)
    return Reading(repeated, max(1, min(ROWS_AT_ONCE, fitting)))


def unpacked(
    source: pa.NativeFile, metadata: pq.FileMetaData, row_group: int, columns: list[str]
) -> Iterator[pa.Table]:
    """A row group's columns, as far as it has them, a few rows at a time. Oversized before anything is read,
    see `check_group`."""
    how = check_group(source, metadata, row_group, columns)
    file = pq.ParquetFile(
        source,
        metadata=metadata,
        read_dictionary=how.repeated,
        buffer_size=BUFFER_BYTES,
        page_checksum_verification=True,
    )
    columns = [name for name in columns if name in file.schema_arrow.names]
    for batch in file.iter_batches(how.num_rows, row_groups=[row_group], columns=columns):
        yield pa.Table.from_batches([batch])


VALUE_BYTES = 64
"""What a value takes as a Python object in addition to its own bytes, at least."""


def row_bytes(table: pa.Table) -> np.ndarray:
    """int64 [num_rows]: about what each row takes as Python objects, known before it is unpacked."""
    total = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        total += _value_bytes(column.combine_chunks())
    return total


def _value_bytes(array: pa.Array) -> np.ndarray:
    kind = array.type
    if pa.types.is_dictionary(kind):
        sizes = _value_bytes(array.dictionary)
        indices = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return sizes[indices] if len(sizes) else np.zeros(len(array), np.int64)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        parents = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
        sizes = _value_bytes(pc.list_flatten(array))
        return VALUE_BYTES + np.bincount(parents, weights=sizes, minlength=len(array)).astype(np.int64)
    if pa.types.is_struct(kind):
        return VALUE_BYTES + sum(map(_value_bytes, array.flatten()), np.zeros(len(array), np.int64))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return VALUE_BYTES + pc.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(
            np.int64
        )
    return np.full(len(array), VALUE_BYTES + array.nbytes // max(len(array), 1), np.int64)
