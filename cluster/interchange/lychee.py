"""LycheeMem 0.1.4: a folder for each user, since its store has no users.

    USER/compact_memory.db    SQLite: `memory_records`, with its full text built
    USER/compact_vector/      LanceDB: `memory_records`, the vectors that the store has
    USER/user.json            {"user_id": USER}, for a later import

Point `compact_memory_db_path` and `compact_vector_db_path` of its server at the first two; its embedder must
be the store's. Its ids are hashes of texts, so that two memories of a user with one text are one there.
`t_ref` is the day on which something was said, as that release reads it, and `created_at` the time.
"""

import hashlib
import json
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from cluster.interchange.export import BATCH, Export
from cluster.interchange.files import (
    BadRow,
    Read,
    name_of_user,
    new_database,
    read_row,
    read_table,
    read_user,
    write_user,
)
from cluster.store.tables import connect
from schemas.exchange import DATES, BadMemory, Memory, shown_time
from schemas.record import MEMORY_TYPES, normalized

RECORDS, VECTORS = "compact_memory.db", "compact_vector"

TABLE = "memory_records"

_COUNTS = ("retrieval_count", "retrieval_hit_count", "action_success_count", "action_fail_count")
_TEXT, _COUNT = "TEXT NOT NULL DEFAULT ''", "INTEGER NOT NULL DEFAULT 0"
_COLUMNS = {
    "record_id": "TEXT PRIMARY KEY",
    **dict.fromkeys(("memory_type", "semantic_text", "normalized_text"), "TEXT NOT NULL"),
    "entities": "TEXT NOT NULL DEFAULT '[]'",
    "temporal": "TEXT NOT NULL DEFAULT '{}'",
    "tags": "TEXT NOT NULL DEFAULT '[]'",
    "confidence": "REAL NOT NULL DEFAULT 1.0",
    "evidence_turn_range": "TEXT NOT NULL DEFAULT '[]'",
    **dict.fromkeys(("source_session", "source_role", "created_at", "updated_at"), _TEXT),
    **dict.fromkeys(_COUNTS, _COUNT),
    "last_retrieved_at": _TEXT,
    "expired": _COUNT,
    **dict.fromkeys(("expired_at", "expired_reason"), _TEXT),
}
"""Columns of its table, as its server makes them where there is none; it makes the other tables itself."""

_FULL_TEXT = "memory_records_fts"

SCHEMA = (
    f"CREATE TABLE {TABLE} ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})",
    f"CREATE INDEX idx_mr_memory_type ON {TABLE}(memory_type)",
    f"CREATE INDEX idx_mr_expired ON {TABLE}(expired)",
    f"CREATE INDEX idx_mr_created_at ON {TABLE}(created_at)",
    f"CREATE VIRTUAL TABLE {_FULL_TEXT} USING fts5(record_id UNINDEXED, normalized_text, temporal, entities, "
    f"tags, content={TABLE}, content_rowid=rowid, tokenize='unicode61')",
)

_WRITTEN = [
    *("record_id", "memory_type", "semantic_text", "normalized_text", "entities", "temporal", "tags"),
    *("evidence_turn_range", "source_session", "source_role", "created_at", "updated_at"),
]
_INSERT = f"INSERT OR IGNORE INTO {TABLE} ({', '.join(_WRITTEN)}) VALUES ({', '.join('?' * len(_WRITTEN))})"


def identify(memory: Memory) -> str:
    """Its `record_id`, in the user's folder: the SHA-256 of the text."""
    return hashlib.sha256(memory.semantic_text.encode()).hexdigest()


def vector_schema(dim: int) -> pa.Schema:
    """Its table of vectors."""
    vector = pa.list_(pa.float32(), dim)
    names = {"record_id": pa.string(), "memory_type": pa.string(), "vector": vector}
    return pa.schema([*names.items(), ("normalized_vector", vector), ("expired", pa.bool_())])


def write(folder: Path, export: Export) -> None:
    """A folder for each user, its name as in a URL."""
    for user_id, pairs in groupby(export.with_vectors(), key=lambda pair: pair[0].user_id):
        place = folder / name_of_user(user_id)
        place.mkdir()
        write_user(place, user_id)
        vectors = _Vectors(place / VECTORS)
        with new_database(place / RECORDS, *SCHEMA) as database:
            for memory, vector in pairs:
                if database.execute(_INSERT, _row(memory)).rowcount:
                    vectors.add(memory, vector)
                else:
                    export.skip(memory, "same_text")
            database.execute(f"INSERT INTO {_FULL_TEXT}({_FULL_TEXT}) VALUES ('rebuild')")
        vectors.flush()


class _Vectors:
    """Its LanceDB table, written some thousand rows at a time."""

    def __init__(self, path: Path):
        self._path, self._rows = path, list[dict]()
        self._table: Any = None

    def add(self, memory: Memory, vector: list[float]) -> None:
        # It searches both; ours is of the text alone, and a kind in front changes little.
        both = {"vector": vector, "normalized_vector": vector}
        names = {"record_id": identify(memory), "memory_type": _type_of(memory)}
        self._rows.append(names | both | {"expired": False})
        if len(self._rows) == BATCH:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        rows = pa.Table.from_pylist(self._rows, vector_schema(len(self._rows[0]["vector"])))
        if self._table is None:
            self._table = connect(str(self._path)).create_table(TABLE, rows)
        else:
            self._table.add(rows)
        self._rows = []


def _type_of(memory: Memory) -> str:
    """Its types are those that ship here; of any other a memory is a fact."""
    return memory.memory_type if memory.memory_type in MEMORY_TYPES else "fact"


def _row(memory: Memory) -> tuple:
    turns = [turn for session, turn in memory.evidence if session == memory.session_id]
    values = {
        "record_id": identify(memory),
        "memory_type": _type_of(memory),
        "semantic_text": memory.semantic_text,
        "normalized_text": normalized(_type_of(memory), memory.semantic_text),
        "entities": _json(list(memory.entities)),
        "temporal": _json({name: getattr(memory, name) for name in DATES}),
        "tags": _json(list(memory.tags)),
        "evidence_turn_range": _json([min(turns), max(turns)] if turns else []),
        "source_session": memory.session_id or "",
        "source_role": memory.source_role,
        "created_at": shown_time(memory.time) or "",
        "updated_at": shown_time(memory.updated_at) or "",
    }
    return tuple(values[name] for name in _WRITTEN)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- in -----------------------------------------------------------------------------------------------


def read(path: Path, user_id: str | None) -> Read:
    """Memories of a `compact_memory.db`, of the folder that it lies in, or of a folder of such folders.

    What has expired there counts as closed.
    """
    inner = sorted(path.glob(f"*/{RECORDS}")) if path.is_dir() else []
    files = [path] if path.is_file() else [path / RECORDS] if (path / RECORDS).is_file() else inner
    if not files:
        raise BadMemory(f"{path}: has no {RECORDS}; check --from, or name the folder that holds it")
    for file in files:
        # Without --user-id a folder of many names the users.
        user = read_user(file.parent) or user_id or (unquote(file.parent.name) if inner else None)
        for place, row in read_table(file, TABLE, "LycheeMem"):
            yield _memory(place, row, user)


def _memory(place: str, row: dict, user_id: str | None) -> Memory | BadRow:
    session = row.get("source_session") or None
    turns = _value(row, "evidence_turn_range", list)
    evidence = [
        {"session_id": session, "turn_index": turn}
        for turn in dict.fromkeys(turns)
        if session and type(turn) is int and turn >= 0
    ]
    fields = {
        "semantic_text": row.get("semantic_text"),
        "memory_type": row.get("memory_type"),
        **{name: [str(one) for one in _value(row, name, list)] for name in ("entities", "tags")},
        "temporal": _value(row, "temporal", dict),
        "evidence": evidence,
        "source_role": row.get("source_role"),
        "session_id": session,
        "session_time": row.get("created_at"),
        "updated_at": row.get("updated_at"),
        "change": "closed" if row.get("expired") else None,
    }
    return read_row(place, fields, user_id)


def _value(row: dict, name: str, kind: type) -> Any:
    """A column's JSON; empty if it is not JSON, as its own reader has it."""
    try:
        found = json.loads(row.get(name) or "null")
    except (ValueError, TypeError):
        found = None
    return found if isinstance(found, kind) else kind()
