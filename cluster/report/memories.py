"""The memories of one user, for their page: each with its revisions along two axes, and what was said."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.backfill.redact import shown_rows
from cluster.consolidate.history import lives
from cluster.report.runs import RunEntry, runs_of
from cluster.store.errors import StoreError
from cluster.store.sql import quote
from cluster.store.store import Store
from cluster.store.validity import Period, periods


@dataclass(frozen=True)
class Revision:
    """A state of a memory: when it was true, and when it was known."""

    row: dict
    """As cluster.consolidate.history.lives has it, with evidence and the decision that made it."""
    true: Period
    known_from: RunEntry | None
    """The run that wrote it; None where it is no longer listed."""
    known_to: RunEntry | None
    """The run that closed it; None while it is open."""


@dataclass(frozen=True)
class Memory:
    """A memory with its revisions, first to last, and all decisions in which it took part."""

    record_id: str
    is_active: bool
    is_pinned: bool
    """By hand."""
    revisions: tuple[Revision, ...]
    decisions: tuple[dict, ...]

    @property
    def text(self) -> str:
        """What it says, or said last."""
        return self.revisions[-1].row["semantic_text"] or "(not kept)"


@dataclass(frozen=True)
class UserPage:
    """What a user's page tells. Rows are as they are shown: ids that look like secrets are hidden."""

    user_id: str
    shown_id: str
    made_at: dt.datetime
    run_id: str
    """The run whose view it is."""
    memories: tuple[Memory, ...]
    runs: tuple[RunEntry, ...]
    """Published runs, in their order."""


def user_page(uri: str, user_id: str, *, now: dt.datetime | None = None) -> UserPage:
    """Everything that the newest view has of a user's memories. StoreError where it has none."""
    store = Store(uri).snapshot()
    newest = store.view()
    where = f"user_id = {quote(user_id)}"
    found = lives(store, where=where)
    if not found:
        raise StoreError(
            f"--user-id {user_id}: run {newest.run_id} of {uri} has no memory of this user; list the "
            "users with jobs.history --users"
        )
    true = _periods(store, where)
    runs = {entry.run_id: entry for entry in runs_of(store) if entry.is_published}
    return UserPage(
        user_id=user_id,
        shown_id=shown_rows({"user_id": user_id})["user_id"],
        made_at=now or dt.datetime.now(dt.UTC),
        run_id=newest.run_id,
        memories=tuple(_memory(life, true, runs) for life in shown_rows(found)),
        runs=tuple(runs.values()),
    )


def _memory(life: dict, true: dict[tuple[str, int], Period], runs: dict[str, RunEntry]) -> Memory:
    return Memory(
        record_id=life["record_id"],
        is_active=life["active"],
        is_pinned=life["is_pinned"],
        revisions=tuple(
            Revision(
                row=row,
                true=true.get((row["record_id"], row["revision"]), Period()),
                known_from=runs.get(row["run_id"]),
                known_to=runs.get(row["closed_run_id"] or ""),
            )
            for row in life["revisions"]
        ),
        decisions=tuple(life["decisions"]),
    )


def _periods(store: Store, where: str) -> dict[tuple[str, int], Period]:
    """(record id, revision) -> days on which it was true."""
    columns = [
        *("record_id", "revision", "session_time", "temporal", "active", "closed_reason", "decision_id"),
        "vector",
    ]
    rows = store.rows("records", columns, where).to_pylist()
    decisions = store.rows(
        "decisions", ["decision_id", "target_id", "source_ids", "action", "outcome"], where
    ).to_pylist()
    return periods(rows, decisions)


def days_of(memories: Sequence[Memory]) -> set[dt.date]:
    """All days on which anything began or ended to be true."""
    true = [revision.true for memory in memories for revision in memory.revisions]
    return {day for period in true for day in (period.since, period.until) if day}
