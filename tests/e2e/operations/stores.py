"""Small stores, made directly by commits, as a backfill and a consolidation make them."""

import datetime as dt
import shutil

from cluster.backfill.ledger import Ledger
from cluster.store.files import Files, everything
from cluster.store.store import Store
from schemas.store import DECISIONS_SCHEMA, records_schema
from tests.unit.cluster.store.stores import DIM, SCHEMAS, digest, run_row, segment

SECRET = "zanzibarine"
"""A word that only ann says, once, in session s1."""

LYON = segment(
    "lyon",
    f"I live in Lyon with my {SECRET} parrot",
    "How nice",
    session="s1-of-ann",
    user="ann-of-the-hill",
    records=["User lives in Lyon.", f"User has a {SECRET} parrot."],
)
TEA = segment(
    "tea",
    "I drink green tea",
    session="s2-of-ann",
    user="ann-of-the-hill",
    records=["User drinks green tea."],
)
OSLO = segment(
    "oslo",
    "We moved to Oslo last week",
    session="s3-of-ann",
    user="ann-of-the-hill",
    records=["User lives in Oslo."],
)
MOON = segment("moon", "I saw the moon", user="bob", session="s1", records=["User saw the moon."])
ANN = "ann-of-the-hill"


def record_id(segment_id, text):
    return digest(segment_id, text)


def read(store, name, where=None):
    return store.rows(name, SCHEMAS[name].names, where).to_pylist()


def consolidate(store, run_id, *, target, source, action, text=None):
    """One applied decision, committed as a consolidation commits it."""
    rows = {row["record_id"]: row for row in read(store, "records", "active")}
    old, new = rows[target], rows[source]
    decision = {
        "decision_id": digest(run_id, target),
        "user_id": old["user_id"],
        "target_id": target,
        "target_revision": old["revision"],
        "source_ids": [source],
        "source_revisions": [new["revision"]],
        "decider": "rules",
        "action": action,
        "text": text or "",
        "outcome": "applied",
        "reason": "newer",
        "raw": "",
        "prompt_tokens": 0,
        "cached_tokens": 0,
        "output_tokens": 0,
        "decided_at": dt.datetime(2026, 1, 3, tzinfo=dt.UTC),
        "run_id": run_id,
    }
    closed = {"active": False, "closed_run_id": run_id, "closed_reason": action}
    made = {"decision_id": decision["decision_id"], "run_id": run_id}
    changed = [old | closed]
    both = sorted([*old["evidence"], *new["evidence"]], key=str)
    if action == "update":
        changed.append(
            old | made | {"revision": old["revision"] + 1, "semantic_text": text, "evidence": both}
        )
    if action == "unite":
        changed.append(new | {"active": False, "closed_run_id": run_id, "closed_reason": "update"})
        changed.append(new | made | {"revision": new["revision"] + 1, "evidence": both})
    files = Files(store.uri, "staging")
    files.put_rows(f"{run_id}-records.parquet", changed, records_schema(DIM))
    files.put_rows(f"{run_id}-decisions.parquet", [decision], DECISIONS_SCHEMA)
    store.commit(
        run_row(run_id) | {"job": "consolidate"},
        DIM,
        inserts={"decisions": [f"{run_id}-decisions.parquet"]},
        replaces={"records": [f"{run_id}-records.parquet"]},
    )
    files.delete(files.paths())


def copy_of(template, folder) -> Store:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    return Store(str(folder))


def ops_row(run_id, name):
    return run_row(run_id) | {"job": name}


def tables(shown):
    """A view without the list of runs."""
    return {name: shown[name] for name in SCHEMAS}


def texts(store, name="records", as_of=None, where="active"):
    column = {"records": "semantic_text", "turns": "content"}[name]
    return sorted(store.rows(name, [column], where, as_of).column(column).to_pylist())


def files_with(uri, *needles: str) -> list[str]:
    return [path for path, data in everything(uri) if any(needle.encode() in data for needle in needles)]


def ledger_of(store, **options) -> Ledger:
    names = ["user_id", "session_id", "segment_id", "encoder", "outcome"]
    return Ledger.of(store.rows("segments", names, where="active"), **options)


def ids(store):
    return [row["run_id"] for row in store.runs()]
