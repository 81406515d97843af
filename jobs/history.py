"""History: shows the runs, what became of a memory and why, and what changed between two runs.

    python -m jobs.history --store URI                              # every run, also those that failed
    python -m jobs.history --store URI --since 2026-03-01 --rejections  # what was rejected, and why
    python -m jobs.history --store URI --users                      # of each user: how much, how recent
    python -m jobs.history --store URI --memory ID                  # one memory's life
    python -m jobs.history --store URI --user-id U                  # the lives of all memories of a user
    python -m jobs.history --store URI --run A --against B          # the changes from run B to run A
    python -m jobs.history --store URI --run A --against B --user-id U --json

A run or a memory is named by its id, or by the beginning of it if no other id begins so. A life shows each
revision with the decision that made it and the turns that it is based on, so that it can be checked against
what was said. Reads only; needs no Ray and no model.
"""

import datetime as dt
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from cluster.report.words import day
from cluster.runtime.shown import one_line
from jobs.common.cli import JobError, main, show
from jobs.common.run import StoreConfig, absolute
from schemas.archive import who
from schemas.record import shown_extra
from schemas.store import BY_HAND

if TYPE_CHECKING:
    from cluster.report.contents import Rejected, UserState
    from cluster.report.runs import RunEntry
    from cluster.store.store import Store


class HistoryConfig(StoreConfig):
    """Settings of a look into a store's history."""

    memory: str | None = None
    """Id of one memory."""
    user_id: str | None = None
    """All memories of this user; with `run`, only changes of this user's memories."""
    as_of: str | None = None
    """With `memory` or `user_id`: as this run left them."""
    run: str | None = None
    """Show the changes up to this run's view ..."""
    against: str | None = None
    """... from this run's view. Not given: the run before it."""
    since: dt.date | None = None
    """Only runs that began on this day (YYYY-MM-DD, UTC) or later."""
    rejections: bool = False
    """What the runs rejected: reasons with counts, and some examples of each."""
    users: bool = False
    """For every user: active memories and turns, the newest session, and when a run last wrote one of
    them."""
    as_json: bool = Field(False, json_schema_extra={"short": "--json"})
    """Put everything into the summary instead of writing text."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.memory and (self.user_id or self.run):
            raise ValueError(f"memory={self.memory!r}: give it alone, without user_id and run")
        if self.against and not self.run:
            raise ValueError(f"against={self.against!r}: give run too, the later of the two")
        if self.as_of and (self.run or not (self.memory or self.user_id)):
            raise ValueError(f"as_of={self.as_of!r}: goes with memory or user_id, without run")
        asked = [name for name in ("memory", "user_id", "run", "rejections", "users") if getattr(self, name)]
        if (self.rejections or self.users) and len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)}: give rejections, or users, without the others")
        if self.since and asked not in ([], ["rejections"]):
            raise ValueError(f"since={self.since}: goes with the list of runs, or with rejections")
        return self


def run(config: HistoryConfig) -> dict:
    """Print what was asked for on stdout and return the summary."""
    from cluster.store.errors import StoreError
    from cluster.store.store import Store

    try:
        store = Store(absolute(config.store)).snapshot()
        if config.run:
            found, lines = changes(store, config)
        elif config.memory or config.user_id:
            found, lines = memories(store, config)
        elif config.rejections:
            found, lines = rejected(store, config.since)
        elif config.users:
            found, lines = of_users(store)
        else:
            found, lines = all_runs(store, config.since)
    except StoreError as error:
        raise JobError(str(error)) from error
    if not config.as_json:
        show("\n".join(map(one_line, lines)))
    counts = {f"num_{name}": len(items) for name, items in found.items()}
    return {"status": "done", "store": config.store, **counts, **(found if config.as_json else {})}


def all_runs(store: "Store", since: dt.date | None = None) -> tuple[dict, list[str]]:
    """The list of runs, however they ended."""
    from cluster.report.runs import runs_of

    found = runs_of(store, since)
    return {"runs": [run_row(entry) for entry in found]}, [run_line(entry) for entry in found]


def rejected(store: "Store", since: dt.date | None) -> tuple[dict, list[str]]:
    """What the runs rejected, by reason."""
    from cluster.report.contents import rejections
    from cluster.report.runs import runs_of

    found = rejections(store, {entry.run_id for entry in runs_of(store, since)})
    return {"rejections": [vars(one) for one in found]}, [line for one in found for line in reason_lines(one)]


def of_users(store: "Store") -> tuple[dict, list[str]]:
    """How much there is of each user and how recent; the user without news for longest comes first."""
    from cluster.backfill.redact import shown_rows
    from cluster.report.contents import users

    found = sorted(users(store), key=lambda user: (user.last_said is not None, user.last_said, user.user_id))
    return {"users": shown_rows([vars(user) for user in found])}, [user_line(user) for user in found]


def memories(store: "Store", config: HistoryConfig) -> tuple[dict, list[str]]:
    """The lives of one memory or of a user's memories."""
    from cluster.backfill.redact import shown_rows
    from cluster.consolidate.history import lives, memory_id
    from cluster.store.sql import quote

    column, value = "user_id", config.user_id or ""
    if config.memory:
        column, value = "record_id", memory_id(store, config.memory, config.as_of) or config.memory
    found = shown_rows(lives(store, where=f"{column} = {quote(value)}", as_of=config.as_of))
    if not found:
        option = "--memory" if config.memory else "--user-id"
        raise JobError(
            f"{option} {value}: not in run {store.view(config.as_of).run_id}; it may be forgotten, "
            "or stand in another run's view: list the runs with jobs.history, and name one with --as-of"
        )
    return {"memories": found}, [line for item in found for line in life_lines(item)]


def changes(store: "Store", config: HistoryConfig) -> tuple[dict, list[str]]:
    """What changed from run `against` to run `run`."""
    from cluster.backfill.redact import shown_rows
    from cluster.consolidate.history import CLOSING, COMPARED, diff
    from cluster.store.sql import quote

    run_id = store.view(config.run, "--run").run_id
    against = store.view(config.against or run_before(store, run_id), "--against").run_id
    where = f"user_id = {quote(config.user_id)}" if config.user_id else None
    before, after = (store.rows("records", COMPARED, where, as_of) for as_of in (against, run_id))
    decisions = store.rows("decisions", CLOSING, where, run_id)
    found = shown_rows(diff(before, after, decisions))
    lines = [f"run {run_id} against {against}"]
    for kind, entries in found.items():
        lines += [f"{kind}: {len(entries)}"] + [
            line for entry in entries for line in change_lines(kind, entry)
        ]
    return found, lines


def run_before(store: "Store", run_id: str) -> str:
    ids = [row.run_id for row in store.runs()]
    if run_id == ids[0]:
        raise JobError(f"--run {run_id}: is the first run; give --against")
    return ids[ids.index(run_id) - 1]


# --- as text ------------------------------------------------------------------------------------------

COUNTED = {
    "num_segments_encoded": "segments encoded",
    "num_records": "records",
    "num_deleted": "closed",
    "num_rewritten": "rewritten",
    "num_united": "united",
    "num_refused": "refused",
    "num_failed": "failed",
    "num_rejections": "rejected",
    "num_restored": "restored",
    "num_corrected": "corrected",
    "num_added": "added",
    "num_pinned": "pinned",
    "num_unpinned": "unpinned",
    "num_rows_embedded": "rows embedded",
    "num_records_removed": "records removed",
    "num_turns_removed": "turns removed",
    "num_runs_expired": "views given up",
    "prompt_tokens": "tokens read",
    "output_tokens": "tokens written",
}
"""Counts of a summary that the list of runs shows, where there are any, and what they are called."""


def run_row(entry: "RunEntry") -> dict:
    """A run for --json."""
    names = (
        *("run_id", "job", "status", "started_at", "finished_at", "seconds", "reason", "cost"),
        *("is_published", "has_view", "undone_by", "encoder", "embedder"),
    )
    return {name: getattr(entry, name) for name in names} | {"summary": entry.counts}


def run_line(entry: "RunEntry") -> str:
    """A run for a person: which, how it ended, when, how long it took, what it did, what it cost, and why."""
    parts = [f"{entry.run_id}  {entry.job:12} {entry.status:11} {entry.ended_at:%Y-%m-%d %H:%M:%S}"]
    parts += [] if entry.seconds is None else [f"{entry.seconds:,.0f} s"]
    counts = [f"{value:,} {word}" for name, word in COUNTED.items() if (value := entry.counts.get(name))]
    parts += [", ".join(counts)] if counts else []
    parts += [f"to {entry.counts['to']}"] if entry.job == "rollback" and "to" in entry.counts else []
    parts += [] if entry.cost is None else [f"cost {entry.cost:,.4f}"]
    parts += [f"(undone by {entry.undone_by})"] if entry.undone_by else []
    parts += ["(view expired)"] if entry.is_published and not entry.has_view else []
    parts += [f"({short(entry.reason)})"] if entry.reason else []
    return "  ".join(parts)


def reason_lines(found: "Rejected") -> list[str]:
    """Rejections of one reason for a person."""
    lines = [f"{found.num:,}  {found.stage}: {found.reason}"]
    for row in found.samples:
        lines.append(f"  {row['source']}, run {row['run_id']}: {short(row['detail'])}")
        lines += [f"    {short(row['raw'])}"] if row["raw"] else []
    return lines


def user_line(user: "UserState") -> str:
    """A user for a person."""
    from cluster.backfill.redact import shown_id

    changed = f", written {day(user.last_changed)}" if user.last_changed else ""
    return (
        f"{shown_id(user.user_id)}  {user.num_memories:,} memories, {user.num_turns:,} turns, "
        f"last said {day(user.last_said)}{changed}"
    )


def life_lines(life: dict) -> list[str]:
    """A memory's life for a person."""
    lines = [f"memory {life['record_id']} of {life['user_id']}"]
    for row in life["revisions"]:
        state = "active" if row["active"] else f"closed by {row['closed_run_id']}: {row['closed_reason']}"
        state += ", pinned" if row["active"] and life["is_pinned"] else ""
        lines.append(f"  revision {row['revision']}: {row['semantic_text']}")
        lines.append(f"    {day(row['session_time'])}, {row['memory_type']}, by run {row['run_id']}; {state}")
        if row.get("extra"):
            lines.append(f"    {shown_extra(row['extra'])}")
        if row["decision"]:
            lines.append(f"    made by {decision_line(row['decision'])}")
        elif row["decision_id"]:
            lines.append(f"    made by decision {row['decision_id']}, which is no longer kept")
        for turn in row["evidence"]:
            text = "(not kept)" if turn["content"] is None else f"{who(turn)}: {short(turn['content'])}"
            lines.append(f"    from {turn['session_id']}#{turn['turn_index']}  {text}")
    made = {row["decision_id"] for row in life["revisions"]}
    for decision in life["decisions"]:
        if decision["decision_id"] not in made:
            lines.append(f"  took part in {decision_line(decision)}")
    return lines


def decision_line(decision: dict) -> str:
    """A decision in one line: what was done to what, because of what."""
    target, outcome = decision["target"], decision["outcome"]
    if decision["decider"] == BY_HAND:
        return (
            f"decision {decision['decision_id'][:8]} (by hand, {decision['model']}, run "
            f"{decision['run_id']}): {decision['action']} {parties([target])}: {short(decision['reason'])}"
        )
    why = f", {outcome}: {decision['reason']}" if outcome != "applied" else ""
    by = decision["decider"]
    if decision["model"]:
        by = f"{decision['model']}, prompt {decision['prompt']}"
    return (
        f"decision {decision['decision_id'][:8]} ({by}, run {decision['run_id']}{why}): "
        f"{decision['action']} {parties([target])} because of {parties(decision['sources'])}"
    )


def parties(items: list[dict]) -> str:
    """Memories with their texts, in one line."""
    return "; ".join(f"{short(item['text'])} [{item['record_id'][:8]}]" for item in items)


def change_lines(kind: str, entry: dict) -> list[str]:
    """One change of a memory for a person."""
    head = f"{entry['user_id']} {day(entry['session_time'])} [{entry['record_id'][:8]}]"
    if kind in ("added", "returned"):
        return [f"  + {head} {entry['after']}"]
    if kind == "rewritten":
        return [f"  - {head} {entry['before']}", f"  + {head} {entry['after']}"]
    if kind == "supported":
        return [f"  = {head} {entry['after']}"]
    why = entry["closed_reason"] or "not in this view"
    if by := entry.get("by"):
        why += f" because of {parties(by)}"
    return [f"  - {head} {entry['before']}  ({why})"]


def short(text: str | None) -> str:
    text = "(not kept)" if text is None else " ".join(text.split())
    return text if len(text) <= 100 else text[:97] + "..."


if __name__ == "__main__":
    main(HistoryConfig, run, __doc__)
