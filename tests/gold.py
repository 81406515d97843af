"""A store written directly from the sample world's gold memories, as a perfect encoder would have left it."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas.store import SEGMENTS_SCHEMA, records_schema, turns_schema

STAND_BESIDE = ("/pet",)
"""Ends of keys of facts whose new value ends no old one: who has a dog now may still have the parrot."""

STARTED_AT = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def gold_rows(folder: Path) -> list[dict]:
    """Rows of memories.jsonl of an archive that jobs.sample wrote."""
    return [json.loads(line) for line in (folder / "_gold" / "memories.jsonl").read_text().splitlines()]


def record_of(row: dict) -> dict:
    """A gold memory as a row of `records`, less vector and life; what only gold knows is left out."""
    return {
        "record_id": row["memory_id"],
        "revision": 1,
        "segment_id": f"segment-of-{row['session_id']}",
        "user_id": row["user_id"],
        "conversation_id": row["user_id"],
        "session_id": row["session_id"],
        "session_time": row["session_time"] and dt.datetime.fromisoformat(row["session_time"]),
        "memory_type": row["memory_type"],
        "semantic_text": row["semantic_text"],
        "normalized_text": f"{row['memory_type']}: {row['semantic_text']}",
        "entities": row["entities"],
        "temporal": row["temporal"],
        "tags": row["tags"],
        "evidence": [{"session_id": row["session_id"], "turn_index": turn} for turn in row["evidence_turns"]],
        "source_role": row["source_role"],
    }


def turn_of(row: dict) -> dict:
    """The turn in which a gold memory was told, as a row of `turns`, less vector and life."""
    record, index = record_of(row), max(row["evidence_turns"])
    keys = ("segment_id", "user_id", "conversation_id", "session_id", "session_time")
    return {name: record[name] for name in keys} | {
        "turn_id": f"{row['session_id']}#{index}",
        "turn_index": index,
        "role": "user",
        "speaker": None,
        "time": None,
        "content": f"By the way: {row['semantic_text']}",
    }


def memory_row(user: str, day: str, text: str, **changes) -> dict:
    """A row like those of memories.jsonl, for small worlds made by hand; `day` is YYYY-MM-DD."""
    session = f"{user}-{day}"
    return {
        "memory_id": f"{user}/{day}/{text}",
        "user_id": user,
        "session_id": session,
        "session_time": f"{day}T12:00:00+00:00",
        "memory_type": "fact",
        "semantic_text": text,
        "entities": [],
        "temporal": {"t_ref": day, "t_valid_from": "", "t_valid_to": ""},
        "tags": [],
        "evidence_turns": [0],
        "source_role": "user",
    } | changes


def write_run(
    uri: str,
    memories: list[dict],
    embedder,
    run_id: str,
    closed_segments: list[str] | None = None,
    with_turns: bool = False,
) -> None:
    """Commit memories as one run of a backfill; `embedder` is a loaded cluster.embed.embedder.Embedder."""
    from cluster.store.files import Files
    from cluster.store.store import Store

    store, staging = Store(uri, must_exist=False), Files(uri, "staging")
    records = [record_of(row) for row in memories]
    for record, vector in zip(
        records, embedder.embed([row["semantic_text"] for row in records]), strict=True
    ):
        record["vector"] = vector
    schema = records_schema(embedder.dim)
    known = pa.schema([field for field in schema if field.name in (*record_of(memories[0]), "vector")])
    staging.put_rows(f"{run_id}/records.parquet", records, known)
    keys = ("segment_id", "user_id", "conversation_id", "session_id", "session_time")
    segments = {row["segment_id"]: {name: row[name] for name in keys} for row in records}
    counts = {
        field.name: 0
        for field in SEGMENTS_SCHEMA
        if field.name.startswith(("num_", "first_", "last_", "start_", "end_"))
    }
    tokens = {"prompt_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "outcome": "complete"}
    rows = [segment | counts | tokens for segment in segments.values()]
    known = pa.schema([field for field in SEGMENTS_SCHEMA if field.name in rows[0]])
    staging.put_rows(f"{run_id}/segments.parquet", rows, known)
    run = {
        "run_id": run_id,
        "job": "backfill",
        "started_at": STARTED_AT.isoformat(),
        "encoder": "gold",
        "embedder": embedder.profile.fingerprint,
        "embedder_profile": embedder.profile.model_dump_json(),
        "config": "{}",
        "summary": "{}",
    }
    inserts = {name: [f"{run_id}/{name}.parquet"] for name in ("records", "segments")}
    if with_turns:
        turns = list({row["turn_id"]: row for row in map(turn_of, memories)}.values())
        for turn, vector in zip(turns, embedder.embed([row["content"] for row in turns]), strict=True):
            turn["vector"] = vector
        known = pa.schema([field for field in turns_schema(embedder.dim) if field.name in turns[0]])
        staging.put_rows(path := f"{run_id}/turns.parquet", turns, known)
        inserts["turns"] = [path]
    store.commit(run, embedder.dim, inserts=inserts, closed_segments=closed_segments)
    staging.delete(staging.paths(run_id))


def load_embedder():
    """The fastest embedder that comes as a package."""
    from cluster.embed.embedder import Embedder
    from cluster.models.resolve import resolve_embedder
    from jobs.common.run import load_profile
    from schemas.profiles.embedder import EmbedderProfile

    return Embedder(resolve_embedder(load_profile("embedders", "minilm", EmbedderProfile)))


def gold_pairs(gold: list[dict], vectors) -> tuple[list, list]:
    """Gold rows and their vectors -> memories and candidate pairs, everything new."""
    from cluster.consolidate.attribute_reader import read_attributes
    from cluster.consolidate.attributes import binding_keys, keys
    from cluster.consolidate.candidates import similar_pairs, slot_pairs, union
    from cluster.consolidate.fold import Memory, Pair

    memories, pairs = [], []
    for user in sorted({row["user_id"] for row in gold}):
        rows = [n for n, row in enumerate(gold) if row["user_id"] == user]
        mine = [
            Memory(
                gold[n]["memory_id"], 1, user, gold[n]["session_time"], gold[n]["session_id"],
                max(gold[n]["evidence_turns"]), gold[n]["semantic_text"], gold[n]["memory_type"],
                tags=tuple(gold[n]["tags"]),
            )
            for n in rows
        ]  # fmt: skip
        order = sorted(range(len(mine)), key=lambda n: mine[n].order)
        mine, vector = [mine[n] for n in order], vectors[[rows[n] for n in order]]
        is_new, said = np.ones(len(mine), bool), [read_attributes(memory.text) for memory in mine]
        found = union(
            similar_pairs(vector, is_new, top_k=10, min_similarity=0.5),
            slot_pairs(vector, is_new, [keys(one) for one in said], [binding_keys(one) for one in said]),
        )
        memories += mine
        edges = zip(found.targets.tolist(), found.sources.tolist(), found.scores.tolist(), strict=True)
        pairs += [Pair(mine[t].record_id, mine[s].record_id, score) for t, s, score in edges]
    return memories, pairs


def consolidated_world(archive: Path, embedder, **sample_options) -> dict[str, set]:
    """Make a sample world, fold its gold memories by rules, and name what came out: sets of memory ids, and
    of facts (user, fact).

    `old_values`: all that a newer value took the place of; `old_values_active`: those of them that still are;
    `current_facts_lost`: without an active current value; `unrelated_touched`: changed, though nothing was
    ever said to their fact again.
    """
    from cluster.consolidate.fold import fold
    from cluster.consolidate.rules import Rules
    from jobs.sample.__main__ import SampleConfig
    from jobs.sample.__main__ import run as make_sample

    make_sample(SampleConfig(archive=archive, **sample_options))
    gold = gold_rows(archive)
    vectors = embedder.embed([row["semantic_text"] for row in gold])
    folded = fold(*gold_pairs(gold, vectors), Rules().decide, decider="rules")
    closed = {change.memory.record_id for change in folded.changes if change.closed_reason}
    touched = {change.memory.record_id for change in folded.changes}
    old = {
        row["memory_id"]
        for row in gold
        if row["status"] == "superseded" and not row["fact_key"].endswith(STAND_BESIDE)
    }
    current: dict[tuple, set[str]] = {}
    for row in gold:
        if row["status"] != "superseded":
            current.setdefault((row["user_id"], row["fact_key"]), set()).add(row["memory_id"])
    moved = {(row["user_id"], row["fact_key"]) for row in gold if row["supersedes"] or row["repeat_of"]}
    still = {row["memory_id"] for row in gold if (row["user_id"], row["fact_key"]) not in moved}
    return {
        "memories": {row["memory_id"] for row in gold},
        "old_values": old,
        "old_values_active": old - closed,
        "current_facts_lost": {fact for fact, ids in current.items() if ids <= closed},
        "unrelated_touched": touched & still,
    }
