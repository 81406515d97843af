"""LangGraph: a SQLite store, as `langgraph.store.sqlite.SqliteStore` opens it, with memories as LangMem's
manager reads them.

    prefix              key         value
    memories.USER       RECORD_ID   {"kind": "Memory", "content": {"content": TEXT}, "metadata": {...}}

A full stop parts the labels of a namespace, so the one in a user's id is written `%2E` (and `%` as `%25`).
Items that LangMem's manager or tool have written come in, and others that say something in one field.
"""

import datetime as dt
import json
from pathlib import Path

from cluster.interchange.export import BATCH, Export
from cluster.interchange.files import BadRow, Read, new_database, read_row, read_table
from schemas.exchange import (
    BadMemory,
    Memory,
    known_fields,
    shown_time,
    time_of,
    with_known_fields,
)

STORE, TABLE = "store.db", "store"

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


NAMESPACE = "memories"


def namespace(user_id: str) -> str:
    """The prefix of a user's rows."""
    return f"{NAMESPACE}.{user_id.replace('%', '%25').replace('.', '%2E')}"


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
        "metadata": known_fields(memory)
        | {"user_id": memory.user_id, "updated_at": shown_time(memory.updated_at)},
    }
    # As SQLite writes CURRENT_TIMESTAMP, which the times of other rows have.
    times = [f"{time:%Y-%m-%d %H:%M:%S}" if time else None for time in (memory.created_at, memory.updated_at)]
    return namespace(memory.user_id), memory.record_id, json.dumps(value, ensure_ascii=False), *times


# --- in -----------------------------------------------------------------------------------------------

TEXTS = ("content", "text", "memory", "data")
"""Keys under which an item may have its text."""


def read(path: Path, user_id: str | None) -> Read:
    """Memories of a SQLite store; `path` is the file, or a folder that an export wrote.

    The user is the label of the namespace that is not `memories`. What has expired counts as closed.
    """
    for place, row in read_table(path / STORE if path.is_dir() else path, TABLE, "LangGraph"):
        yield _memory(place, row, user_id)


def _memory(place: str, row: dict, user_id: str | None) -> Memory | BadRow:
    try:
        value = json.loads(row["value"])
    except (KeyError, TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return BadRow(place, "value: is no JSON object", str(row.get("value"))[:200])
    metadata = value.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    labels = [label for label in str(row.get("prefix")).split(".") if label != NAMESPACE]
    fields = {
        "user_id": metadata.get("user_id") or (labels[0] if len(labels) == 1 else None),
        "semantic_text": _text(value),
        "session_time": row.get("created_at"),
        "updated_at": metadata.get("updated_at") or row.get("updated_at"),
        "change": "closed" if _has_expired(row) else None,
    }
    return read_row(place, with_known_fields(fields, metadata), user_id)


def _text(value: dict) -> str | None:
    """The text of an item: of LangMem's manager it lies one deeper than of its tool."""
    for name in TEXTS:
        found = value.get(name)
        if isinstance(found, dict):
            found = _text(found)
        if isinstance(found, str) and found.strip():
            return found
    return None


def _has_expired(row: dict) -> bool:
    try:
        expires = time_of(row.get("expires_at"), "expires_at")
    except BadMemory:
        return False
    return expires is not None and expires < dt.datetime.now(dt.UTC)
