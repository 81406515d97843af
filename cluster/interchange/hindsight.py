"""Hindsight: a transfer ZIP (version 1) for each user, who becomes a bank.

    manifest.json             {"schema_version": 1, "source_bank_id": USER, "archive_type": "documents", ...}
    documents/000000.json     a session: its turns as chunks, its memories as facts

Importing it calls no model but the receiver's embedder. A memory without turns in the store is a fact of a
document without chunks. A user's memories and turns are in memory together. Facts come in, their bank as the
user; observations, which it made of facts, are left to a consolidation here.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from cluster.interchange.export import Export
from cluster.interchange.files import BadRow, Read, name_of_user, read_row
from schemas.archive import who
from schemas.exchange import BadMemory, Memory, day_of, known_fields, shown_time, with_known_fields

VERSION = 1

MANIFEST = "manifest.json"

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
            file.writestr(MANIFEST, json.dumps(manifest, ensure_ascii=False))


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
    known = known_fields(memory) | {"updated_at": shown_time(memory.updated_at)}
    known = {name: value for name, value in known.items() if value is not None}
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


# --- in -----------------------------------------------------------------------------------------------


def read(path: Path, user_id: str | None) -> Read:
    """Facts of a transfer ZIP, or of every one in a folder."""
    files = sorted(path.glob("*.zip")) if path.is_dir() else [path]
    if not files:
        raise BadMemory(f"{path}: has no ZIP; check --from, or name the transfer archive")
    for file in files:
        yield from _archive(file, user_id)


def bank_of(file: zipfile.ZipFile) -> str | None:
    """Id of the bank of a transfer archive. ValueError if it is another file, or of another version."""
    try:
        manifest = json.loads(file.read(MANIFEST))
    except KeyError:
        raise ValueError(f"it has no {MANIFEST}") from None
    if not isinstance(manifest, dict) or "source_bank_id" not in manifest:
        raise ValueError(f"its {MANIFEST} names no bank")
    if manifest.get("schema_version", VERSION) != VERSION:
        raise ValueError(f"schema_version={manifest['schema_version']!r} instead of {VERSION}")
    bank = manifest["source_bank_id"]
    return bank if isinstance(bank, str) else None


def _archive(path: Path, user_id: str | None) -> Read:
    try:
        with zipfile.ZipFile(path) as file:
            user = bank_of(file) or user_id
            for name in sorted(file.namelist()):
                if name.startswith("documents/") and name.endswith(".json"):
                    yield from _document(f"{path.name}/{name}", file.read(name), user)
    except (zipfile.BadZipFile, ValueError) as error:
        raise BadMemory(f"{path}: is no transfer archive of Hindsight ({error}); check --from") from None


def _document(place: str, content: bytes, user_id: str | None) -> Read:
    try:
        document = json.loads(content)
        facts = document.get("facts") or []
        facts = [fact if isinstance(fact, dict) else {} for fact in facts]
    except (ValueError, RecursionError, AttributeError, TypeError):
        yield BadRow(
            place, "is no document of a transfer archive", content[:200].decode(errors="replace"), user_id
        )
        return
    for number, fact in enumerate(facts, 1):
        yield read_row(f"{place}: fact {number}", _row(fact, document), user_id)


def _row(fact: dict, document: dict) -> dict:
    time = fact.get("mentioned_at") or fact.get("event_date") or document.get("created_at")
    metadata = _decoded(fact.get("metadata"))
    row = {
        "semantic_text": fact.get("text"),
        "entities": fact.get("entities"),
        "tags": fact.get("tags"),
        "temporal": {
            "t_valid_from": day_of(fact.get("occurred_start")),
            "t_valid_to": day_of(fact.get("occurred_end")),
        },
        "session_id": document.get("id"),
        "session_time": time,
        "updated_at": metadata.get("updated_at"),
    }
    return with_known_fields(row, metadata)


def _decoded(metadata: object) -> dict:
    """What `_fact` made strings of; empty where another system has written it."""
    if not isinstance(metadata, dict) or not {"record_id", "first_written_at"} <= metadata.keys():
        return {}
    known: dict = {"session_time": None} | metadata
    for name in ("entities", "tags", "evidence", "revision", "extra"):
        if isinstance(known.get(name), str):
            try:
                known[name] = json.loads(known[name])
            except ValueError:
                return {}
    return known
