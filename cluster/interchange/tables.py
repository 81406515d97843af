"""JSON lines and Parquet: the columns of `records` that travel, as they are."""

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.interchange.export import BATCH, Export
from cluster.interchange.files import BadRow, Read, line_of, read_lines, read_row
from schemas.exchange import EXCHANGE_SCHEMA, BadMemory, Memory, json_row, row_of

LINES, PARQUET = "memories.jsonl", "memories.parquet"

TEXTS = ("semantic_text", "text", "memory", "content")
"""Keys under which a row of JSON lines or Parquet may have its text."""

TIMES = ("session_time", "timestamp", "date", "created_at")
"""Keys under which it may say when."""


def write_lines(folder: Path, export: Export) -> None:
    """`memories.jsonl`, a memory a line."""
    with open(folder / LINES, "w", encoding="utf-8") as file:
        for memory in itertools.chain(export.memories(), export.closed()):
            file.write(line_of(json_row(memory)))


def write_parquet(folder: Path, export: Export) -> None:
    """`memories.parquet`, a memory a row."""
    memories = itertools.chain(export.memories(), export.closed())
    with pq.ParquetWriter(
        folder / PARQUET, EXCHANGE_SCHEMA, compression="zstd", write_page_checksum=True
    ) as file:
        while batch := list(map(row_of, itertools.islice(memories, BATCH))):
            file.write_table(pa.Table.from_pylist(batch, schema=EXCHANGE_SCHEMA))


def read_jsonl(path: Path, user_id: str | None) -> Read:
    """Memories of JSON lines; `path` is a file, or a folder that an export wrote."""
    for found in read_lines(path / LINES if path.is_dir() else path):
        yield found if isinstance(found, BadRow) else _memory(*found, user_id)


def read_parquet(path: Path, user_id: str | None) -> Read:
    """The same of Parquet."""
    path = path / PARQUET if path.is_dir() else path
    number = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield _memory(f"{path.name}: row {number}", row, user_id)
    except (pa.ArrowException, OSError) as error:
        if not number:
            raise BadMemory(f"{path}: is no readable Parquet ({error}); check --from") from None
        yield BadRow(f"{path.name}: row {number + 1}", f"the rest of the file cannot be read ({error})")


def _memory(place: str, row: dict, user_id: str | None) -> Memory | BadRow:
    # A row of an export has our names; of another origin the usual ones.
    text = next((row[name] for name in TEXTS if row.get(name)), None)
    time = row.get("session_time")
    if "session_time" not in row and "record_id" not in row:
        time = next((row[name] for name in TIMES if row.get(name)), None)
    return read_row(place, row | {"semantic_text": text, "session_time": time}, user_id)
