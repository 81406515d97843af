"""LangGraph: a SQLite store, as `langgraph.store.sqlite.SqliteStore` opens it, with memories as LangMem's
manager reads them.

    prefix              key         value
    memories.USER       RECORD_ID   {"kind": "Memory", "content": {"content": TEXT}, "metadata": {...}}

A full stop parts the labels of a namespace, so the one in a user's id is written `%2E` (and `%` as `%25`).
"""

import json
from pathlib import Path

from cluster.interchange.export import BATCH, Export
from cluster.interchange.files import new_database
from schemas.exchange import Memory, known_fields

STORE = "store.db"

TABLES = (
    """CREATE TABLE store (prefix text NOT NULL, key text NOT NULL, value text NOT NULL,
        created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
        expires_at TIMESTAMP, ttl_minutes REAL, PRIMARY KEY (prefix, key))""",
    "CREATE INDEX store_prefix_idx ON store (prefix)",
    "CREATE INDEX idx_store_expires_at ON store (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE TABLE store_migrations (v INTEGER PRIMARY KEY)",
    "INSERT INTO store_migrations (v) VALUES (0), (1), (2), (3), (4)",
)
"""As its five migrations leave them; it would do those again that the last table does not name."""


INSERT = "INSERT INTO store (prefix, key, value, created_at, updated_at) VALUES (?, ?, ?, ?, ?)"


def identify(memory: Memory) -> str:
    """`PREFIX/KEY`."""
    return f"{namespace(memory.user_id)}/{memory.record_id}"


def namespace(user_id: str) -> str:
    """The prefix of a user's rows."""
    return f"memories.{user_id.replace('%', '%25').replace('.', '%2E')}"


def write(folder: Path, export: Export) -> None:
    """`store.db`."""
    with new_database(folder / STORE, *TABLES) as database:
        rows = []
        for memory in export.memories():
            rows.append(_row(memory))
            if len(rows) == BATCH:
                database.executemany(INSERT, rows)
                rows = []
        database.executemany(INSERT, rows)


def _row(memory: Memory) -> tuple:
    value = {
        "kind": "Memory",
        "content": {"content": memory.semantic_text},
        "metadata": known_fields(memory) | {"user_id": memory.user_id},
    }
    # As SQLite writes CURRENT_TIMESTAMP, which the times of other rows have.
    times = [f"{time:%Y-%m-%d %H:%M:%S}" if time else None for time in (memory.created_at, memory.updated_at)]
    return namespace(memory.user_id), memory.record_id, json.dumps(value, ensure_ascii=False), *times
