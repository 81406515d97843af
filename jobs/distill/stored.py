"""What the tasks that learn from a store share: its rows, and sessions that must not be learned from."""

from typing import TYPE_CHECKING

from jobs.common.cli import JobError
from jobs.distill.leaks import Leaks

if TYPE_CHECKING:
    from cluster.store.store import Store


def open_store(uri: str) -> "Store":
    """The store, for reading. JobError when there is none."""
    from cluster.store.errors import StoreError
    from cluster.store.store import Store

    try:
        store = Store(uri)
        if store.run() is None:
            raise StoreError(f"--store {uri}: has no finished run; fill it with jobs.backfill")
    except StoreError as error:
        raise JobError(str(error)) from error
    return store


def memories(store: "Store") -> dict[tuple[str, int], dict]:
    """All revisions, closed ones included: (record id, revision) -> row, with `date` as text."""
    columns = [
        "record_id",
        "revision",
        "user_id",
        "session_id",
        "session_time",
        "memory_type",
        "semantic_text",
    ]
    columns += ["entities", "temporal", "evidence", "active", "closed_reason"]
    return {(row["record_id"], row["revision"]): row for row in store.rows("records", columns).to_pylist()}


def decisions(store: "Store") -> list[dict]:
    """Applied decisions, by id."""
    columns = ["decision_id", "user_id", "target_id", "target_revision", "source_ids", "source_revisions"]
    columns += ["decider", "action", "text", "raw", "outcome"]
    rows = store.rows("decisions", columns, "outcome = 'applied'").to_pylist()
    return sorted(rows, key=lambda row: row["decision_id"])


def leaked(store: "Store", leaks: Leaks) -> dict[tuple[str, str], str]:
    """(user, session) -> why nothing may be learned from it, by its turns as the store has them."""
    sessions: dict[tuple[str, str], list[dict]] = {}
    for turn in store.rows("turns", ["user_id", "session_id", "content"]).to_pylist():
        sessions.setdefault((turn["user_id"], turn["session_id"]), []).append(turn)
    found = {}
    for (user_id, session_id), turns in sessions.items():
        if reason := leaks({"user_id": user_id, "session_id": session_id, "turns": turns}):
            found[user_id, session_id] = reason
    return found


def leak_of(row: dict, leaking: dict[tuple[str, str], str]) -> str:
    """The reason why a memory may not be learned from: any session that it rests on."""
    sessions = {row["session_id"], *(turn["session_id"] for turn in row["evidence"] or ())}
    return next((leaking[key] for name in sorted(sessions) if (key := (row["user_id"], name)) in leaking), "")
