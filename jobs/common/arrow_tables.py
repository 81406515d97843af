"""Arrow IPC and Feather files: their record batches, none of which is unpacked before its size is known.

A file of these formats is a stream of messages behind eight bytes. The body of a message has buffers, each
packed for itself behind its size; where they lie stands in the message's head, a flatbuffer of which this
reads four fields.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC, HEAD_BYTES = b"ARROW1", 8

MAX_BATCH_BYTES = 256 << 20
"""Of a batch, unpacked. Writers take some ten thousand rows; whole tables of people's words stay below."""


class TooLarge(ValueError):
    """A batch unpacks to too much."""


def is_arrow(path: Path) -> bool:
    """Whether a file is one of these, with a schema that can be read."""
    import pyarrow as pa

    try:
        with open(path, "rb") as file:
            if file.read(HEAD_BYTES)[: len(MAGIC)] != MAGIC:
                return False
        with pa.memory_map(str(path)) as source:
            source.seek(HEAD_BYTES)
            return bool(pa.ipc.open_stream(source).schema)
    except (pa.ArrowException, OSError, ValueError):
        return False


def batches(path: Path) -> "Iterator[pa.Table]":
    """The batches of a file, in order. TooLarge before one is unpacked; ArrowException and OSError where the
    file is damaged, after the batches in front of that."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as sizes, pa.memory_map(str(path)) as source:
        sizes.seek(HEAD_BYTES)
        source.seek(HEAD_BYTES)
        messages, reader = pa.ipc.MessageReader.open_stream(sizes), pa.ipc.open_stream(source)
        messages.read_next_message()  # the schema, which `reader` has read
        while True:
            try:
                message = messages.read_next_message()
                while message.type != "record batch":
                    _check(message)
                    message = messages.read_next_message()
            except StopIteration:
                return
            _check(message)
            batch = reader.read_next_batch()
            # A damaged offset would otherwise read somebody else's memory.
            batch.validate(full=True)
            yield pa.Table.from_batches([batch])


def _check(message: "pa.ipc.Message") -> None:
    num_bytes = unpacked_bytes(message.metadata.to_pybytes(), message.body)
    if num_bytes > MAX_BATCH_BYTES:
        raise TooLarge(
            f"a batch of {num_bytes >> 20} MiB unpacked, more than {MAX_BATCH_BYTES >> 20}; write it with "
            "fewer rows a batch"
        )


_HEADER, _DATA, _BUFFERS, _COMPRESSION = 2, 0, 2, 3
"""Numbers of fields: of a message its header; of a dictionary batch its data; of a record batch the rest."""

_DICTIONARY_BATCH, _TYPE = 2, 1


def unpacked_bytes(head: bytes, body: "pa.Buffer | None") -> int:
    """Bytes of a message's body once it is unpacked. ValueError if `head` is not the head of a message."""
    if body is None:
        return 0
    try:
        message = struct.unpack_from("<I", head, 0)[0]
        kind, batch = _field(head, message, _TYPE), _table(head, message, _HEADER)
        if kind is not None and head[kind] == _DICTIONARY_BATCH:
            # Behind its id.
            batch = _table(head, batch, _DATA + 1)
        if _field(head, batch, _COMPRESSION) is None:
            return body.size
        place = _table(head, batch, _BUFFERS)
        (count,) = struct.unpack_from("<I", head, place)
        total = 0
        for number in range(count):
            offset, length = struct.unpack_from("<qq", head, place + 4 + 16 * number)
            if length > 0:
                (unpacked,) = struct.unpack_from("<q", body, offset)
                total += length if unpacked < 0 else unpacked
        return total
    except (struct.error, IndexError, TypeError) as error:
        raise ValueError(f"the head of a batch is damaged ({error})") from None


def _field(head: bytes, table: int, number: int) -> int | None:
    """Where a field of a flatbuffer's table lies; None where it has its default."""
    fields = table - struct.unpack_from("<i", head, table)[0]
    (num_bytes,) = struct.unpack_from("<H", head, fields)
    slot = 4 + 2 * number
    offset = struct.unpack_from("<H", head, fields + slot)[0] if slot < num_bytes else 0
    return table + offset if offset else None


def _table(head: bytes, table: int, number: int) -> int:
    """Where the table or vector begins that a field refers to."""
    place = _field(head, table, number)
    if place is None:
        raise struct.error(f"field {number} is missing")
    return place + struct.unpack_from("<I", head, place)[0]
