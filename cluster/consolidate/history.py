"""Lives of memories, and changes between two runs, as jobs.history and cluster.memory show them.

Rows in, plain dicts out. It takes no part in a consolidation.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from cluster.consolidate.fold import UNITE
from cluster.consolidate.pins import pinned_by
from cluster.store.errors import StoreError
from cluster.store.sql import quote
from cluster.store.store import Store
from schemas.audit import DISCARD
from schemas.record import extra_of
from schemas.store import DECISIONS_SCHEMA, records_schema

if TYPE_CHECKING:
    import polars as pl

Rows: TypeAlias = pa.Table | Sequence[dict]
"""Rows of a table of the store, as the store gives them or one by one."""

RECORD_COLUMNS = [name for name in records_schema(1).names if name != "vector"]
_SHOWN = ("role", "speaker", "content", "time", "session_time")
TURN_COLUMNS = ["user_id", "session_id", "turn_index", *_SHOWN, "active"]

DECISION_COLUMNS = [
    *("decision_id", "decider", "model", "prompt", "action", "outcome", "reason", "text", "raw"),
    *("prompt_tokens", "cached_tokens", "output_tokens", "decided_at", "run_id"),
]

COMPARED = [
    *("record_id", "revision", "user_id", "session_time", "semantic_text", "evidence", "active"),
    *("decision_id", "closed_reason", "closed_run_id"),
]
CLOSING = ["target_id", "target_revision", "source_ids", "source_revisions", "action", "outcome"]
"""Columns of records and of decisions that `diff` reads."""

CHANGES = {
    "added": (),
    "returned": (),
    "rewritten": ("decision_id",),
    "supported": ("decision_id",),
    "superseded": ("closed_reason", "closed_run_id", "by"),
    "removed": ("closed_reason", "closed_run_id"),
}
"""Kinds of changes between two runs, see `diff`, and what each says beside memory and texts."""

BY_DECISION = ("delete", "update", UNITE, DISCARD)
"""Values of `closed_reason` that name the action of a decision."""


def memory_id(store: Store, given: str, as_of: str | None = None) -> str | None:
    """The id of a memory of a view: the one that is given, or of which it is the beginning. None where there
    is none; StoreError where several begin so."""
    for where in (f"record_id = {quote(given)}", f"starts_with(record_id, {quote(given)})"):
        found = store.rows("records", ["record_id"], where, as_of).column("record_id").unique().to_pylist()
        if len(found) > 1:
            raise StoreError(
                f"memory {given}: {len(found)} memories of {store.uri} begin so; give more of one of "
                f"{sorted(found)[:MAX_NAMED]}"
            )
        if found:
            return found[0]
    return None


MAX_NAMED = 10
"""Ids that are named where several may be meant."""


def lives(store: Store, *, where: str, as_of: str | None = None) -> list[dict]:
    """Lives of the memories that have a row for which the SQL condition `where` holds, oldest first.

    A life has `record_id`, `user_id`, `active`, `is_pinned`, `revisions` (first to last, each with the
    decision that made it and the evidence turns behind it, text included) and `decisions` (all in which the
    memory took part, with the texts of the other side). A text that was erased is None.
    """
    ids = set(store.rows("records", ["record_id"], where, as_of).to_pydict().get("record_id", []))
    if not ids:
        return []
    users = set(store.rows("records", ["user_id"], where, as_of).column("user_id").to_pylist())
    of_user = f"user_id IN ({', '.join(map(quote, sorted(users)))})"
    rows = store.rows("records", RECORD_COLUMNS, of_user, as_of).to_pylist()
    turns = store.rows("turns", TURN_COLUMNS, of_user, as_of).to_pylist()
    decisions = store.rows("decisions", DECISIONS_SCHEMA.names, of_user, as_of).to_pylist()
    place = {run.run_id: run.sequence for run in store.runs()}
    decisions.sort(key=lambda row: place.get(row["run_id"], 0))
    texts = {(row["record_id"], row["revision"]): row["semantic_text"] for row in rows}
    said = {(turn["user_id"], turn["session_id"], turn["turn_index"]): turn for turn in turns}
    revisions, part = defaultdict(list), defaultdict(list)
    for row in sorted(rows, key=lambda row: row["revision"]):
        revisions[row["record_id"]].append(row)
    for row in decisions:
        for record_id in {row["target_id"], *row["source_ids"]}:
            part[record_id].append(row)
    found = [life(revisions[record_id], part[record_id], texts=texts, said=said) for record_id in ids]
    return sorted(found, key=lambda item: (str(item["revisions"][0]["session_time"]), item["record_id"]))


def life(revisions: list[dict], decisions: list[dict], *, texts: dict, said: dict) -> dict:
    """One memory's life; its revisions and decisions come oldest first.

    `texts`: (record id, revision) -> text; `said`: (user, session, turn) -> turn.
    """
    by_id = {row["decision_id"]: row for row in decisions}
    first = revisions[0]

    def party(record_id: str, revision: int) -> dict:
        return {"record_id": record_id, "revision": revision, "text": texts.get((record_id, revision))}

    def decided(row: dict) -> dict:
        sources = zip(row["source_ids"], row["source_revisions"], strict=True)
        return {name: row[name] for name in DECISION_COLUMNS} | {
            "target": party(row["target_id"], row["target_revision"]),
            "sources": [party(*source) for source in sources],
        }

    def evidence(row: dict) -> list[dict]:
        turns = []
        for item in row["evidence"] or []:
            turn = said.get((row["user_id"], item["session_id"], item["turn_index"])) or {}
            turns.append(item | {name: turn.get(name) for name in _SHOWN})
        return turns

    return {
        "record_id": first["record_id"],
        "user_id": first["user_id"],
        "active": any(row["active"] for row in revisions),
        "is_pinned": first["record_id"] in pinned_by(decisions),
        "revisions": [
            row
            | {"evidence": evidence(row), "extra": extra_of(row.get("extra"))}
            | {"decision": decided(by_id[row["decision_id"]]) if row["decision_id"] in by_id else None}
            for row in revisions
        ],
        "decisions": [decided(row) for row in decisions],
    }


def diff(before: Rows, after: Rows, decisions: Rows = ()) -> dict[str, list[dict]]:
    """What the view `after` has over the view `before`: rows with COMPARED, closed ones included, and
    decisions with CLOSING. Give tables: to make dicts of rows takes longer than to compare them.

    added: active memories that `before` did not know; returned: known there, but closed; rewritten: active
    in both, the text is another; supported: same text, other evidence; superseded: closed by a decision, with
    the memories (`by`) for which it was, as far as `decisions` (those of `after`) tell; removed: closed
    because its segment was replaced (`closed_reason`), or gone with its row (None).
    """
    import polars as pl

    old, new = (_frame(rows, records_schema(1), COMPARED) for rows in (before, after))
    was, now = (rows.filter("active").unique("record_id", keep="last") for rows in (old, new))
    newest = new.sort("revision", descending=True, maintain_order=True).unique("record_id", keep="first")
    known = ("record_id", "user_id", "session_time", "evidence")
    both = (
        was.select(*known, before="semantic_text")
        .join(now.select(*known, "decision_id", after="semantic_text"), "record_id", "full", coalesce=True)
        .join(newest.select("record_id", "revision", "closed_reason", "closed_run_id"), "record_id", "left")
        .join(_reasons(new, decisions), ["record_id", "revision"], "left")
        .with_columns(pl.col("by").fill_null([]))
    )
    is_new, is_gone = pl.col("user_id").is_null(), pl.col("user_id_right").is_null()
    is_known = pl.col("record_id").is_in(old["record_id"].implode())
    is_decided = pl.col("closed_reason").is_in(BY_DECISION).fill_null(False)
    has_text = pl.col("before").eq_missing(pl.col("after"))
    has_evidence = pl.col("evidence").eq_missing(pl.col("evidence_right"))
    kinds = {
        "added": is_new & ~is_known,
        "returned": is_new & is_known,
        "rewritten": ~is_new & ~is_gone & ~has_text,
        "supported": ~is_new & ~is_gone & has_text & ~has_evidence,
        "superseded": is_gone & is_decided,
        "removed": is_gone & ~is_decided,
    }
    owner, time = (
        pl.when(is_new).then(f"{name}_right").otherwise(name).alias(name)
        for name in ("user_id", "session_time")
    )
    return {
        kind: both.filter(is_of_kind)
        .select("record_id", owner, time, "before", "after", *CHANGES[kind])
        .sort("user_id", "session_time", "record_id", nulls_last=True)
        .to_dicts()
        for kind, is_of_kind in kinds.items()
    }


def _reasons(records: "pl.DataFrame", decisions: Rows) -> "pl.DataFrame":
    """`by` for each `record_id` and `revision` that a decision has closed; frames of polars."""
    import polars as pl

    texts = records.unique(["record_id", "revision"], keep="last")
    return (
        _frame(decisions, DECISIONS_SCHEMA, CLOSING)
        .filter(pl.col("outcome") == "applied", pl.col("action") != "ignore")
        .unique(["target_id", "target_revision"], keep="last")
        .select("source_ids", "source_revisions", record_id="target_id", revision="target_revision")
        .filter(pl.col("source_ids").list.len() > 0)
        .explode("source_ids", "source_revisions")
        .join(
            texts.select(source_ids="record_id", source_revisions="revision", text="semantic_text"),
            ["source_ids", "source_revisions"],
            "left",
            maintain_order="left",
        )
        .group_by("record_id", "revision", maintain_order=True)
        .agg(by=pl.struct(record_id="source_ids", revision="source_revisions", text="text"))
    )


def _frame(rows: Rows, schema: pa.Schema, columns: list[str]) -> "pl.DataFrame":
    """These columns as a frame of polars. Where a store has no such table yet, its rows have no column."""
    import polars as pl

    if not isinstance(rows, pa.Table):
        rows = pa.Table.from_pylist(list(rows), pa.schema([schema.field(name) for name in columns]))
    return pl.from_arrow((rows if rows.num_columns else schema.empty_table()).select(columns))
