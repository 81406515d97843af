"""Small stores: rows as the stages leave them, committed as runs, and what readers see of them."""

import datetime as dt
import hashlib
import itertools

import lance
import lancedb
import pyarrow as pa
from lance import fragment
from lance.dataset import MergeInsertBuilder
from lancedb.merge import LanceMergeInsertBuilder
from lancedb.table import LanceTable, Tags

from cluster.store.files import Files
from schemas.store import table_schemas

DIM = 4
SCHEMAS = table_schemas(DIM)


def digest(*parts):
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def vector(text):
    values = [byte / 255 + 0.01 for byte in hashlib.sha256(text.encode()).digest()[:DIM]]
    length = sum(value * value for value in values) ** 0.5
    return [value / length for value in values]


def segment(segment_id, *turns, user="ann", session="s", first_turn=0, records=()):
    """Rows of the tables that one encoded segment gives, as the embed stage stages them."""
    keys = {
        "segment_id": segment_id,
        "user_id": user,
        "conversation_id": None,
        "session_id": session,
        "session_time": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    }
    ledger = {
        "first_turn": first_turn,
        "last_turn": first_turn + len(turns) - 1,
        "start_char": 0,
        "end_char": 1,
        "outcome": "complete",
        "num_records": len(records),
        "num_calls": 1,
        "prompt_tokens": 1,
        "cached_tokens": 0,
        "output_tokens": 1,
    }
    return {
        "segments": [keys | ledger],
        "turns": [
            {"turn_id": digest(user, session, index), **keys, "turn_index": index, "role": "user"}
            | {"speaker": None, "time": None, "content": text, "vector": vector(text)}
            for index, text in enumerate(turns, first_turn)
        ],
        "records": [
            {"record_id": digest(segment_id, text), "revision": 1, **keys, "memory_type": "fact"}
            | {"semantic_text": text, "normalized_text": f"fact: {text}", "entities": [], "tags": []}
            | {"temporal": {"t_ref": "2026-01-01", "t_valid_from": "", "t_valid_to": ""}}
            | {"evidence": [{"session_id": session, "turn_index": first_turn}], "source_role": "user"}
            | {"vector": vector(text)}
            for text in records
        ],
    }


def rejection(source):
    row = {"rejection_id": digest(source), "stage": "archive", "source": source, "user_id": None}
    return {"rejections": [row | {"session_id": None, "reason": "bad", "detail": "bad", "raw": ""}]}


def memory(user, num_turns):
    """A row of `states`, as an evolvable embedder leaves it."""
    row = {"user_id": user, "num_turns": num_turns, "hashes": b"12345678" * num_turns}
    return {"states": [row | {"open_ids": [[1, 2]], "hidden_size": 2, "latents": [0.5] * 2 * num_turns}]}


def run_row(run_id):
    return {
        "run_id": run_id,
        "job": "backfill",
        "started_at": "2026-01-02T03:04:05+00:00",
        "encoder": "encoder-1",
        "embedder": "embedder-1",
        "embedder_profile": "{}",
        "config": "{}",
        "summary": "{}",
    }


def commit(store, run_id, *parts, closed=(), **columns):
    """Stage rows as the stages do, one file a part, and commit them as a run with these `columns`."""
    files, inserts, replaces = Files(store.uri, "staging"), {}, {}
    for (number, part), (name, schema) in itertools.product(enumerate(parts), SCHEMAS.items()):
        if rows := part.get(name):
            path = f"tables/{name}/{run_id}-{number}.parquet"
            files.put_rows(path, rows, pa.schema([field for field in schema if field.name in rows[0]]))
            (replaces if name == "states" else inserts).setdefault(name, []).append(path)
    store.commit(
        run_row(run_id) | columns, DIM, inserts=inserts, replaces=replaces, closed_segments=list(closed)
    )


def view(store, as_of=None):
    """Everything that a reader of a run sees."""
    return {
        name: sorted(store.rows(name, schema.names, as_of=as_of).to_pylist(), key=str)
        for name, schema in SCHEMAS.items()
    } | {"runs": [row["run_id"] for row in store.runs()]}


def active(store, name, column, as_of=None):
    return sorted(store.rows(name, [column], where="active", as_of=as_of).column(column).to_pylist())


TEA = segment("tea", "I drink tea", "Green tea", records=["Ann drinks tea"])
MOON = segment("moon", "I saw the moon", user="bob", records=["Bob saw the moon"])


def tags_of(store, run_id):
    db = lancedb.connect(store.uri)
    return {name: db.open_table(name).tags.list()[run_id]["version"] for name in SCHEMAS}


STEPS = [
    (Files, "put"),
    (Files, "create"),
    (Files, "delete"),
    (lancedb.db.LanceDBConnection, "create_table"),
    (fragment, "write_fragments"),
    (MergeInsertBuilder, "execute_uncommitted"),
    (lance.LanceDataset, "commit"),
    (LanceMergeInsertBuilder, "execute"),
    (LanceTable, "restore"),
    (LanceTable, "create_index"),
    (LanceTable, "optimize"),
    (Tags, "create"),
    (Tags, "update"),
]
"""Every call of a commit that changes something on disk. Dying before one is dying behind the one before."""


def nightly_run(store):
    grown = segment("tea2", "I drink tea", "Black tea", "And coffee", records=["Ann drinks tea"])
    commit(store, "run2", grown, rejection("a.parquet:1"), memory("ann", 2), closed=["tea"])


FOREIGN = [".nfs00000000a1b2c3", ".DS_Store", "._000000000001.json", "000000000001 copy.json"]
"""What file systems, desktops and tools that copy leave in any folder."""
