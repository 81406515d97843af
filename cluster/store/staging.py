"""Staged files: what a stage has made and no run has published yet, for a killed run to find again.

    FOLDER/NAME-HASH.parquet    a table; HASH is of its bytes
    FOLDER/KEY/seal.json        what one step made of one input, of which KEY is a hash: put last

A staged table is never changed. Its name says what it holds, and a seal counts only while every table that
it names is there, byte for byte: what was filtered, damaged or cut off by somebody is made again, and never
trusted for its name. Rows of encoded segments need no seal: each has the hash of its segment as its id.

Whoever takes rows out of staged files (erasure) calls `take_out`, which leaves the other rows under a name of
their own and deletes the old file; never put a filtered table under the name that it had. Seals hold counts
and hashes, no ids and no words, so they may stay or go. Everything else may be deleted at any time, as long
as the store has no intent: it costs the work that was staged, and no row.
"""

import hashlib
import json
from collections.abc import Sequence

import pyarrow as pa

from cluster.store.files import Files, parquet_bytes

SEAL = "seal.json"


def put_as_content(files: Files, prefix: str, table: pa.Table) -> str:
    """Stage a table under a name that its bytes give; the path."""
    data = parquet_bytes(table)
    path = f"{prefix}-{_hash(data)}.parquet"
    files.put(path, data)
    return path


def take_out(files: Files, path: str, is_gone: Sequence[bool]) -> str | None:
    """Take rows out of a staged table: the others are staged anew, then the old file is deleted.

    Returns the new path, None where no row is left.
    """
    table, new_path = files.get_table(path), None
    if not all(is_gone):
        folder, _, name = path.rpartition("/")
        prefix = "/".join(filter(None, [folder, name.removesuffix(".parquet").rpartition("-")[0] or "rest"]))
        new_path = put_as_content(files, prefix, table.filter(pa.array([not gone for gone in is_gone])))
    if new_path != path:
        files.delete([path])
    return new_path


class Sealed:
    """Results of a step under one folder, each by the key of its input."""

    def __init__(self, files: Files, folder: str):
        self._files, self._folder = files, folder

    def find(self, key: str) -> dict | None:
        """What was sealed under this key: `tables` (name -> path) and the notes. None where there is no seal,
        or a table that it names is not what it was."""
        seal = self._files.get_json(f"{self._folder}/{key}/{SEAL}")
        return seal if seal and all(map(self._is_whole, seal["tables"].values())) else None

    def put(self, key: str, tables: dict[str, pa.Table], **notes: int) -> dict:
        """Stage the tables, those without rows left out, and seal them; returns what `find` will."""
        folder = f"{self._folder}/{key}"
        paths = {
            name: put_as_content(self._files, f"{folder}/{name}", table)
            for name, table in tables.items()
            if table.num_rows
        }
        seal = {"tables": paths, **notes}
        self._files.put_json(f"{folder}/{SEAL}", seal)
        return seal

    def _is_whole(self, path: str) -> bool:
        data = self._files.get(path)
        return data is not None and path.endswith(f"-{_hash(data)}.parquet")


def known_columns(rows: list[dict], schema: pa.Schema) -> pa.Table:
    """Rows as a table of those columns of the schema that they have: the commit fills in the others."""
    fields = [field for field in schema if rows and field.name in rows[0]]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def key_of(*parts: object) -> str:
    """32 hex digits of these, which must be JSON but for times."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
