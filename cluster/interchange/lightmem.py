"""LightMem: the points of its Qdrant collection as JSON lines, a file for each user, since it has no users.

    USER.jsonl    {"id": UUID, "vector": [...], "payload": {"memory": TEXT, "time_stamp": ..., ...}}

A line is what its retriever's `insert` takes and `get_all` gives, and a point of `qdrant_client`; its
embedder must be the store's. `metadata` of the payload is ours: LightMem keeps it until it rewrites the
entry.
"""

import datetime as dt
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from cluster.interchange.export import Export
from cluster.interchange.files import BadRow, Read, line_of, name_of_user, read_lines, read_row
from cluster.interchange.mem0 import identify
from schemas.exchange import Memory, known_fields, shown_time, with_known_fields
from schemas.record import MEMORY_TYPES

ENDING = ".jsonl"


def write(folder: Path, export: Export) -> None:
    """`USER.jsonl` for each user, the name as in a URL."""
    for user_id, pairs in groupby(export.with_vectors(), key=lambda pair: pair[0].user_id):
        with open(folder / f"{name_of_user(user_id)}{ENDING}", "w", encoding="utf-8") as file:
            for memory, vector in pairs:
                point = {"id": identify(memory), "vector": [round(one, 7) for one in vector]}
                file.write(line_of(point | {"payload": _payload(memory)}))


def _payload(memory: Memory) -> dict:
    # It sorts by times and computes with them: without one it would fail.
    time = memory.time or dt.datetime.fromtimestamp(0, dt.UTC)
    text = memory.semantic_text
    return {
        "time_stamp": f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}",
        "float_time_stamp": time.timestamp(),
        "weekday": _DAYS[time.weekday()],
        "topic_id": 0,
        "topic_summary": "",
        "category": memory.memory_type,
        "subcategory": "",
        "memory_class": "",
        **dict.fromkeys(("memory", "original_memory"), text),
        "compressed_memory": "",
        "speaker_id": memory.user_id,
        "speaker_name": memory.source_role,
        "consolidated": False,
        "metadata": known_fields(memory)
        | {"user_id": memory.user_id, "updated_at": shown_time(memory.updated_at)},
    }


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


# --- in -----------------------------------------------------------------------------------------------


def read(path: Path, user_id: str | None) -> Read:
    """Memories of a file, or of every `.jsonl` file of a folder. Lines are points, or payloads alone."""
    files = sorted(path.glob(f"*{ENDING}")) if path.is_dir() else [path]
    for file in files:
        for found in read_lines(file):
            yield found if isinstance(found, BadRow) else _memory(*found, user_id)


def _memory(place: str, point: dict, user_id: str | None) -> Memory | BadRow:
    payload = point.get("payload", point)
    if not isinstance(payload, dict):
        return BadRow(place, "payload: is no JSON object")
    metadata = payload.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    row = {
        # A speaker of its own is no user: "speaker_a" is in every conversation.
        "user_id": metadata.get("user_id"),
        "updated_at": metadata.get("updated_at"),
        "semantic_text": payload.get("memory"),
        "session_time": payload.get("time_stamp") or payload.get("float_time_stamp"),
        # Its own categories are other words.
        "memory_type": category if (category := payload.get("category")) in MEMORY_TYPES else None,
        "tags": list(_words(payload)),
        "source_role": payload.get("speaker_name"),
    }
    return read_row(place, with_known_fields(row, metadata), user_id)


def _words(payload: dict) -> Iterator[str]:
    for name in ("category", "subcategory", "memory_class"):
        if isinstance(payload.get(name), str):
            yield payload[name]
