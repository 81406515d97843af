"""What happened to memories: the life of one, and what one run has over another. Rows in, plain dicts out."""

import json

from cluster.consolidate.fold import UNITE
from cluster.store.store import Store, quote
from schemas.store import DECISIONS_SCHEMA, records_schema

RECORD_COLUMNS = [name for name in records_schema(1).names if name != "vector"]
_SHOWN = ("role", "speaker", "content", "time", "session_time")
TURN_COLUMNS = ["user_id", "session_id", "turn_index", *_SHOWN, "active"]

DECISION_COLUMNS = [
    *("decision_id", "decider", "model", "prompt", "action", "outcome", "reason", "text", "raw"),
    *("prompt_tokens", "cached_tokens", "output_tokens", "decided_at", "run_id"),
]

CHANGES = ("added", "returned", "rewritten", "supported", "superseded", "removed")
"""Kinds of changes between two runs, see `diff`."""

BY_DECISION = ("delete", "update", UNITE)
"""Values of `closed_reason` that name the action of a decision."""


def runs(store: Store) -> list[dict]:
    """The store's runs, oldest first, each with `has_view`: whether its view is still kept."""
    names = ("run_id", "job", "started_at", "finished_at", "encoder", "embedder")
    return [
        {name: row[name] for name in names}
        | {"has_view": bool(json.loads(row["versions"])), "summary": json.loads(row["summary"] or "{}")}
        for row in store.runs()
    ]


def lives(store: Store, *, where: str, as_of: str | None = None) -> list[dict]:
    """Lives of the memories that have a row for which the SQL condition `where` holds, oldest first.

    A life has `record_id`, `user_id`, `active`, `revisions` (first to last, each with the decision that made
    it and the evidence turns behind it, text included) and `decisions` (all in which the memory took part,
    with the texts of the other side). A text that was erased is None.
    """
    ids = set(store.rows("records", ["record_id"], where, as_of).to_pydict().get("record_id", []))
    if not ids:
        return []
    users = set(store.rows("records", ["user_id"], where, as_of).column("user_id").to_pylist())
    of_user = f"user_id IN ({', '.join(map(quote, sorted(users)))})"
    rows = store.rows("records", RECORD_COLUMNS, of_user, as_of).to_pylist()
    turns = store.rows("turns", TURN_COLUMNS, of_user, as_of).to_pylist()
    decisions = store.rows("decisions", DECISIONS_SCHEMA.names, of_user, as_of).to_pylist()
    texts = {(row["record_id"], row["revision"]): row["semantic_text"] for row in rows}
    said = {(turn["user_id"], turn["session_id"], turn["turn_index"]): turn for turn in turns}
    found = []
    for record_id in ids:
        revisions = sorted(
            (row for row in rows if row["record_id"] == record_id), key=lambda row: row["revision"]
        )
        part = [row for row in decisions if record_id in (row["target_id"], *row["source_ids"])]
        found.append(life(revisions, part, texts=texts, said=said))
    return sorted(found, key=lambda item: (str(item["revisions"][0]["session_time"]), item["record_id"]))


def life(revisions: list[dict], decisions: list[dict], *, texts: dict, said: dict) -> dict:
    """One memory's life. `texts`: (record id, revision) -> text; `said`: (user, session, turn) -> turn."""
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
        "revisions": [
            row
            | {"evidence": evidence(row)}
            | {"decision": decided(by_id[row["decision_id"]]) if row["decision_id"] in by_id else None}
            for row in revisions
        ],
        "decisions": [decided(row) for row in sorted(decisions, key=lambda row: str(row["decided_at"]))],
    }


def diff(before: list[dict], after: list[dict], decisions: list[dict] = ()) -> dict[str, list[dict]]:
    """What the view `after` has over the view `before`; rows with RECORD_COLUMNS, closed ones included.

    added: active memories that `before` did not know; returned: known there, but closed; rewritten: active
    in both, the text is another; supported: same text, other evidence; superseded: closed by a decision, with
    the memories (`by`) for which it was, as far as `decisions` (those of `after`) tell; removed: closed
    because its segment was replaced (`closed_reason`), or gone with its row (None).
    """
    closing = {
        (row["target_id"], row["target_revision"]): row
        for row in decisions
        if row["outcome"] == "applied" and row["action"] != "ignore"
    }
    texts = {(row["record_id"], row["revision"]): row["semantic_text"] for row in after}
    old_ids = {row["record_id"] for row in before}
    old = {row["record_id"]: row for row in before if row["active"]}
    new = {row["record_id"]: row for row in after if row["active"]}
    last: dict[str, dict] = {}
    for row in after:
        if row["record_id"] not in last or row["revision"] > last[row["record_id"]]["revision"]:
            last[row["record_id"]] = row
    changes: dict[str, list[dict]] = {kind: [] for kind in CHANGES}
    for record_id in sorted(old.keys() | new.keys()):
        was, now = old.get(record_id), new.get(record_id)
        entry = {
            "record_id": record_id,
            "user_id": (was or now)["user_id"],
            "session_time": (was or now)["session_time"],
            "before": was and was["semantic_text"],
            "after": now and now["semantic_text"],
        }
        if was is None:
            changes["returned" if record_id in old_ids else "added"].append(entry)
        elif now is None:
            end = last.get(record_id, {})
            entry |= {name: end.get(name) for name in ("closed_reason", "closed_run_id")}
            if end.get("closed_reason") in BY_DECISION:
                decision = closing.get(
                    (record_id, end["revision"]), {"source_ids": [], "source_revisions": []}
                )
                sources = zip(decision["source_ids"], decision["source_revisions"], strict=True)
                by = [{"record_id": one[0], "revision": one[1], "text": texts.get(one)} for one in sources]
                changes["superseded"].append(entry | {"by": by})
            else:
                changes["removed"].append(entry)
        elif was["semantic_text"] != now["semantic_text"]:
            changes["rewritten"].append(entry | {"decision_id": now["decision_id"]})
        elif was["evidence"] != now["evidence"]:
            changes["supported"].append(entry | {"decision_id": now["decision_id"]})
    for entries in changes.values():
        entries.sort(key=lambda entry: (entry["user_id"], str(entry["session_time"]), entry["record_id"]))
    return changes
