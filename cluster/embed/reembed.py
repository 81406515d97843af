"""A new vector generation, as workers make it: rows of a pinned version in, rows with new vectors staged."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa

from cluster.embed.embedder import TEXTS, Embedder
from cluster.store.files import Files
from cluster.store.staging import Sealed, key_of
from cluster.store.store import Store
from schemas.profiles.embedder import EmbedderProfile
from schemas.stage_items import EmbeddedSlice, TableSlice
from schemas.store import table_schemas

if TYPE_CHECKING:
    import numpy as np


def plan_batches(store: Store, batch_size: int, tables: Iterable[str] = TEXTS) -> list[TableSlice]:
    """Slices of the newest run's tables."""
    newest = store.view()
    batches: list[TableSlice] = []
    for name in tables:
        table = store.table(name)
        assert table is not None, f"the newest run has no table {name}"
        num_rows = table.count_rows()
        for offset in range(0, num_rows, batch_size):
            count = min(batch_size, num_rows - offset)
            batches.append(TableSlice(len(batches), name, newest.versions[name], offset, count))
    return batches


class ReembedStage:
    """Actor: a slice of a table -> `reembed/EMBEDDER/HASH/`, complete rows with new vectors.

    HASH is of the rows: what a killed run has staged is good for any later version that has the same.
    """

    def __init__(self, uri: str, profile: EmbedderProfile, files: Files):
        self._store, self._profile = Store(uri), profile
        self._sealed = Sealed(files, f"reembed/{profile.fingerprint}")
        self._embedder: Embedder | None = None

    def __call__(self, batch: TableSlice) -> EmbeddedSlice:
        started_s = time.monotonic()
        rows, name = self._read(batch), batch.table
        key, num_embedded = key_of(name, listed := rows.to_pylist()), 0
        sealed = self._sealed.find(key)
        if sealed is None:
            if self._embedder is None:
                self._embedder = Embedder(self._profile)
            vectors = self._embedder.embed(list(map(TEXTS[name], listed)))
            with_vectors = self._with_vectors(rows, name, vectors)
            sealed = self._sealed.put(key, {name: with_vectors}, dim=self._embedder.dim)
            num_embedded = rows.num_rows
        return EmbeddedSlice(
            number=batch.number,
            table=name,
            path=sealed["tables"][name],
            num_rows=rows.num_rows,
            num_rows_embedded=num_embedded,
            dim=sealed["dim"],
            embed_s=time.monotonic() - started_s,
        )

    def _read(self, batch: TableSlice) -> pa.Table:
        table = self._store.head(batch.table)
        table.checkout(batch.version)
        columns = [name for name in table.schema.names if name != "vector"]
        scanner = table.to_lance().scanner(
            columns=columns, offset=batch.offset, limit=batch.num_rows, scan_in_order=True
        )
        return scanner.to_table()

    def _with_vectors(self, rows: pa.Table, name: str, vectors: "np.ndarray") -> pa.Table:
        """Rows as their table's schema has them: vectors float32 [num_rows, dim], the new embedder's name."""
        schema = table_schemas(vectors.shape[1])[name]
        flat = pa.array(vectors.reshape(-1), pa.float32())
        filled = {
            "vector": pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type),
            "embedder": pa.repeat(pa.scalar(self._profile.fingerprint, pa.string()), rows.num_rows),
        }
        columns = [
            filled[field.name] if field.name in filled else rows.column(field.name).cast(field.type)
            for field in schema
        ]
        return pa.table(columns, schema=schema)
