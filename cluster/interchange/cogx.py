"""COGX 0.1, the exchange format of cognee: a folder with `manifest.json` and JSON lines for each kind.

Memories go out as `memory` records; `memory` and `fact` records come in. Other kinds (documents, episodes,
entities, memory blocks, nodes of a graph) are no memories of ours, and are left alone.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster.interchange.export import Export
from cluster.interchange.files import BadRow, Read, line_of, read_lines, read_row
from schemas.exchange import (
    BadMemory,
    Memory,
    day_of,
    known_fields,
    shown_time,
    with_known_fields,
)
from schemas.record import MEMORY_TYPES

VERSION = "0.1"

MANIFEST, MEMORIES, FACTS = "manifest.json", "memories.jsonl", "facts.jsonl"

SYSTEM = "slowwave"


def identify(memory: Memory) -> str:
    """`external_id` of its record."""
    return memory.identity


def write(folder: Path, export: Export) -> None:
    """`memories.jsonl` and `manifest.json`."""
    count = 0
    with open(folder / MEMORIES, "w", encoding="utf-8") as file:
        for memory in export.memories():
            file.write(line_of(_record(memory)))
            count += 1
    manifest = {
        "cogx_version": VERSION,
        "source_system": SYSTEM,
        "exported_at": dt.datetime.now(dt.UTC).isoformat(),
        "counts": {"memory": count} if count else {},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def _record(memory: Memory) -> dict:
    session = {"session_id": memory.session_id} if memory.session_id else {}
    times = {"created_at": shown_time(memory.time), "updated_at": shown_time(memory.updated_at)}
    return {
        "kind": "memory",
        "external_system": SYSTEM,
        "external_id": identify(memory),
        "scope": {"user_id": memory.user_id, **session},
        **{name: time for name, time in times.items() if time},
        "metadata": known_fields(memory),
        "content": memory.semantic_text,
        "categories": [memory.memory_type],
    }


# --- in -----------------------------------------------------------------------------------------------


def read(path: Path, user_id: str | None) -> Read:
    """Memories of a COGX folder. BadMemory if it is another folder, or of a later version."""
    version = _version(path)
    if version.partition(".")[0] != VERSION.partition(".")[0]:
        raise BadMemory(f"{path}: is of COGX {version}, and this release reads {VERSION}; export it as that")
    for name, take in ((MEMORIES, _memory), (FACTS, _fact)):
        if (path / name).is_file():
            yield from _read(path / name, take, user_id)


def _version(path: Path) -> str:
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        return str(manifest.get("cogx_version", VERSION))
    except (OSError, ValueError, AttributeError):
        raise BadMemory(f"{path}: is no COGX folder, {MANIFEST} cannot be read; check --from") from None


def _read(path: Path, take: Callable[[dict], dict], user_id: str | None) -> Iterator[Memory | BadRow]:
    for found in read_lines(path):
        if isinstance(found, BadRow):
            yield found
            continue
        place, record = found
        scope = record.get("scope")
        scope = scope if isinstance(scope, dict) else {}
        row = take(record) | {"user_id": scope.get("user_id"), "session_id": scope.get("session_id")}
        row |= {"session_time": record.get("created_at"), "updated_at": record.get("updated_at")}
        yield read_row(place, with_known_fields(row, record.get("metadata")), user_id)


def _memory(record: dict) -> dict:
    categories = record.get("categories")
    kinds = [one for one in categories or () if one in MEMORY_TYPES] if isinstance(categories, list) else []
    return {"semantic_text": record.get("content"), "tags": categories, "memory_type": (kinds or [None])[0]}


def _fact(record: dict) -> dict:
    parts = [record.get(name) for name in ("subject_ref", "predicate", "object_ref")]
    said = " ".join(part for part in parts if isinstance(part, str))
    temporal = {
        "t_valid_from": day_of(record.get("valid_at")),
        "t_valid_to": day_of(record.get("invalid_at")),
    }
    return {"semantic_text": record.get("fact_text") or said, "temporal": temporal}
