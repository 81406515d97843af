"""Hindsight: a transfer ZIP (version 1) for each user, who becomes a bank.

    manifest.json             {"schema_version": 1, "source_bank_id": USER, "archive_type": "documents", ...}
    documents/000000.json     a session: its turns as chunks, its memories as facts

Importing it calls no model but the receiver's embedder. A memory without turns in the store is a fact of a
document without chunks. A user's memories and turns are in memory together.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from cluster.interchange.export import Export
from cluster.interchange.files import name_of_user
from schemas.archive import who
from schemas.exchange import Memory, known_fields, shown_time

VERSION = 1

FACT_TYPE = "world"
"""Of the two that it has: what holds of the world. The other is what the agent itself has gone through."""


def write(folder: Path, export: Export) -> None:
    """`USER.zip`, the name as in a URL."""
    for user_id, memories in groupby(export.memories(), key=lambda memory: memory.user_id):
        num_facts, number = 0, -1
        with zipfile.ZipFile(folder / f"{name_of_user(user_id)}.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for number, document in enumerate(_documents(memories, export.turns(user_id))):
                num_facts += len(document["facts"])
                file.writestr(f"documents/{number:06}.json", json.dumps(document, ensure_ascii=False))
            manifest = {
                "schema_version": VERSION,
                "source_bank_id": user_id,
                "document_count": number + 1,
                "fact_count": num_facts,
                "archive_type": "documents",
            }
            file.writestr("manifest.json", json.dumps(manifest, ensure_ascii=False))


def _documents(memories: Iterable[Memory], turns: dict[str, list[dict]]) -> Iterator[dict]:
    """A document for each session, in the order of their first memories."""
    sessions: dict[str, list[Memory]] = {}
    for memory in memories:
        sessions.setdefault(memory.session_id or memory.identity, []).append(memory)
    for session_id, facts in sessions.items():
        said = turns.get(session_id, [])
        place = {turn["turn_index"]: number for number, turn in enumerate(said)}
        texts = [f"{who(turn)}: {turn['content']}" for turn in said]
        yield {
            "id": session_id,
            "original_text": "\n".join(texts or [fact.semantic_text for fact in facts]),
            "tags": [],
            "created_at": shown_time(facts[0].time),
            "chunks": [{"chunk_index": number, "chunk_text": text} for number, text in enumerate(texts)],
            "facts": [_fact(fact, place) for fact in facts],
        }


def _fact(memory: Memory, place: dict[int, int]) -> dict:
    """A memory as a fact; `place` says in which chunk a turn of its session is."""
    chunks = [place.get(turn) for session, turn in memory.evidence if session == memory.session_id]
    days = {"occurred_start": memory.t_valid_from, "occurred_end": memory.t_valid_to}
    # Its metadata are strings alone.
    known = {name: value for name, value in known_fields(memory).items() if value is not None}
    metadata = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in known.items()
    }
    return {
        "text": memory.semantic_text,
        "fact_type": FACT_TYPE,
        **{name: f"{day}T00:00:00+00:00" if day else None for name, day in days.items()},
        "mentioned_at": shown_time(memory.session_time),
        "event_date": shown_time(memory.time),
        "metadata": metadata,
        "tags": list(memory.tags),
        "chunk_index": next((chunk for chunk in reversed(chunks) if chunk is not None), None),
        "entities": list(memory.entities),
        "created_at": shown_time(memory.created_at),
    }
