"""mem0: the file that its own migration script reads (`memories.json`), and its `history.db`.

    {"version": 1, "kind": "mem0_oss_qdrant_export", "source": {...}, "records":
     [{"id", "memory", "hash", "created_at", "updated_at", "user_id", "role", "metadata"}]}

The history has our revisions one to one: ADD, UPDATE for each later one, DELETE where none is active.
"""

import datetime as dt
import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

from cluster.interchange.export import Export
from cluster.interchange.files import BadRow, Read, new_database, read_array, read_row, write_array
from schemas.exchange import Memory, known_fields, shown_time, with_known_fields

MEMORIES, HISTORY = "memories.json", "history.db"

KIND = "mem0_oss_qdrant_export"

ROLES = ("user", "assistant")

_NAMESPACE = uuid.UUID("6a1d4c0e-6b0f-5b36-9f0d-3d1f4e0b7c55")

_TABLE = """CREATE TABLE history (id TEXT PRIMARY KEY, memory_id TEXT, old_memory TEXT, new_memory TEXT,
    event TEXT, created_at DATETIME, updated_at DATETIME, is_deleted INTEGER, actor_id TEXT, role TEXT)"""
"""As mem0/memory/storage.py has it; with other columns it would be migrated."""


def identify(memory: Memory) -> str:
    """mem0 has UUIDs: the same one for a memory in every export."""
    return str(uuid.uuid5(_NAMESPACE, memory.identity))


def write(folder: Path, export: Export) -> None:
    """`memories.json`, and `history.db` unless the export is of a day."""
    source = {"sdk": "slowwave", "vector_store": "qdrant", "collection": "mem0"}
    head = {"version": 1, "kind": KIND, "exported_at": dt.datetime.now(dt.UTC).isoformat(), "source": source}
    write_array(folder / MEMORIES, head, "records", map(_record, export.memories()))
    if export.selection.at:
        return
    with new_database(folder / HISTORY, _TABLE) as database:
        marks = ", ".join("?" * 10)
        for revisions in export.revisions():
            database.executemany(f"INSERT INTO history VALUES ({marks})", _events(revisions))


def _record(memory: Memory) -> dict:
    role = {"role": memory.source_role} if memory.source_role in ROLES else {}
    return {
        "id": identify(memory),
        "memory": memory.semantic_text,
        "hash": hashlib.md5(memory.semantic_text.encode()).hexdigest(),
        "created_at": shown_time(memory.time),
        "updated_at": shown_time(memory.updated_at),
        "user_id": memory.user_id,
        **role,
        "metadata": known_fields(memory),
    }


def _events(revisions: list[Memory]) -> Iterator[tuple]:
    first, before = revisions[0], None
    for memory in revisions:
        event = "UPDATE" if before else "ADD"
        written = memory.created_at if before else None
        yield _event(first, event, before, memory.semantic_text, written)
        before = memory.semantic_text
    last = revisions[-1]
    if not any(memory.active for memory in revisions):
        yield _event(first, "DELETE", before, None, last.updated_at)


def _event(first: Memory, event: str, old: str | None, new: str | None, when: dt.datetime | None) -> tuple:
    number = uuid.uuid5(_NAMESPACE, "\0".join([first.identity, event, old or "", new or "", str(when)]))
    role = first.source_role if first.source_role in ROLES else None
    times = shown_time(first.created_at), shown_time(when)
    return str(number), identify(first), old, new, event, *times, int(event == "DELETE"), None, role


# --- in -----------------------------------------------------------------------------------------------


def read(path: Path, user_id: str | None) -> Read:
    """Memories of an export file, of a plain list, of what `get_all` answers (`results`), or of points of its
    Qdrant collection, as a scroll gives them."""
    path = path / MEMORIES if path.is_dir() else path
    for found in read_array(path, ("records", "results", "memories", "points")):
        yield found if isinstance(found, BadRow) else _memory(*found, user_id)


def _memory(place: str, record: dict, user_id: str | None) -> Memory | BadRow:
    if isinstance(payload := record.get("payload"), dict):
        record = payload | {"metadata": payload}  # which lies among the rest there
    text = next((record[name] for name in ("memory", "data", "content", "text") if record.get(name)), None)
    row = {
        "user_id": record.get("user_id"),
        "semantic_text": text,
        "session_time": record.get("created_at"),
        "updated_at": record.get("updated_at"),
        "session_id": record.get("run_id"),
        "tags": record.get("categories"),
        "source_role": record.get("role"),
    }
    return read_row(place, with_known_fields(row, record.get("metadata")), user_id)
