"""Small files beside the tables: staged batches, manifests, the lease. Local path or object store, one code.

A put is atomic on every backend (a local file is written aside and renamed), and `create` puts succeed for
exactly one of two writers, which is all that resume and the lease need.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import AlreadyExistsError, NotFoundError
from obstore.store import LocalStore, from_url

HOME = "_slowwave"
"""Folder of a store in which everything lies that is no table."""


class Files:
    """Files under `<store>/_slowwave/<folder>`. Paths are relative, with forward slashes."""

    def __init__(self, uri: str, folder: str):
        self.uri, self.folder = uri, folder
        where = f"{uri.rstrip('/')}/{HOME}/{folder}"
        if "://" in uri:
            self._store = from_url(where, **({"mkdir": True} if uri.startswith("file://") else {}))
        else:
            self._store = LocalStore(str(Path(where).absolute()), mkdir=True)

    def __reduce__(self):
        return Files, (self.uri, self.folder)

    def put(self, path: str, data: bytes) -> None:
        obstore.put(self._store, path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Put only where nothing is; False when something was there."""
        try:
            obstore.put(self._store, path, data, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def get(self, path: str) -> bytes | None:
        """The content, or None where there is no such file."""
        try:
            return bytes(obstore.get(self._store, path).bytes())
        except (NotFoundError, FileNotFoundError):
            return None

    def exists(self, path: str) -> bool:
        try:
            obstore.head(self._store, path)
        except (NotFoundError, FileNotFoundError):
            return False
        return True

    def paths(self, prefix: str = "") -> list[str]:
        """Paths under a prefix (whole path parts), sorted."""
        listed = obstore.list(self._store, prefix=prefix or None)
        return sorted(meta["path"] for chunk in listed for meta in chunk)

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            try:
                obstore.delete(self._store, path)
            except (NotFoundError, FileNotFoundError):
                continue

    def put_json(self, path: str, value: object) -> None:
        self.put(path, json.dumps(value, default=str).encode())

    def get_json(self, path: str) -> dict | None:
        data = self.get(path)
        return None if data is None else json.loads(data)

    def put_rows(self, path: str, rows: list[dict], schema: pa.Schema) -> None:
        self.put_table(path, pa.Table.from_pylist(rows, schema=schema))

    def put_table(self, path: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        self.put(path, sink.getvalue().to_pybytes())

    def get_table(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """A staged Parquet file. FileNotFoundError names it when it is gone, OSError a damaged page."""
        data = self.get(path)
        if data is None:
            raise FileNotFoundError(f"{self.uri}/{HOME}/{self.folder}/{path}")
        return pq.read_table(pa.BufferReader(data), columns=columns, page_checksum_verification=True)


def everything(uri: str) -> Iterator[tuple[str, bytes]]:
    """(path, content) of every file of a store, the tables' own files included; one in memory at a time."""
    store = from_url(uri) if "://" in uri else LocalStore(str(Path(uri).absolute()))
    paths = [meta["path"] for chunk in obstore.list(store) for meta in chunk]
    for path in sorted(paths):
        yield path, bytes(obstore.get(store, path).bytes())
