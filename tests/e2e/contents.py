"""What a store holds, whichever run wrote it, and what is left of work in progress."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lance.file import LanceFileReader

from cluster.store.files import everything
from cluster.store.store import Store
from schemas.store import table_schemas

OF_A_RUN = ("run_id", "closed_run_id", "created_at", "updated_at", "decided_at", "vector")
"""Columns that differ between two runs that did the same; vectors are compared by number."""


def content(store: Path, as_of: str | None = None) -> dict:
    """Table -> its rows in a fixed order, but for what differs from run to run; and all vectors."""
    found = {}
    opened = Store(str(store))
    for name, schema in table_schemas(opened.dim()).items():
        rows = opened.rows(name, schema.names, as_of=as_of).to_pylist()
        key = [column for column in schema.names if column not in OF_A_RUN]
        rows.sort(key=lambda row, key=key: json.dumps([row[column] for column in key], default=str))
        found[name] = [{column: row[column] for column in key} for row in rows]
        if "vector" in schema.names:
            found[f"{name}-vectors"] = np.array([row["vector"] for row in rows])
    return found


def assert_same(found: dict, expected: dict) -> None:
    for name, rows in expected.items():
        if name.endswith("-vectors"):
            assert np.allclose(found[name], rows, atol=1e-5), name
        else:
            assert found[name] == rows, name


def traces(store: Path, texts: list[str]) -> list[str]:
    """Files in which one of the texts stands, as bytes or in any column of any Lance or Parquet file."""
    found = []
    for path, data in everything(str(store)):
        if path.endswith(".lance"):
            data += str(LanceFileReader(str(store / path)).read_all().to_table().to_pylist()).encode()
        elif path.endswith(".parquet"):
            data += str(pq.read_table(pa.BufferReader(data)).to_pylist()).encode()
        if any(text.encode() in data for text in texts):
            found.append(path)
    return found
