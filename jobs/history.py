"""History: which runs there are, what became of a memory and why, and what changed between two runs.

    python -m jobs.history --store URI                              # the runs
    python -m jobs.history --store URI --memory ID                  # one memory's life
    python -m jobs.history --store URI --user-id U                  # the lives of all memories of a user
    python -m jobs.history --store URI --run A --against B          # what run A has over run B
    python -m jobs.history --store URI --run A --against B --user-id U --json

A life is told with the decisions that made each revision and the turns that it rests on, so that it can be
checked against what was said. Reads only; needs no Ray and no model.
"""

import datetime as dt
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from jobs.common.cli import JobConfig, JobError, main, show
from jobs.common.run import absolute
from jobs.common.terminal import one_line
from schemas.archive import who

if TYPE_CHECKING:
    from cluster.store.store import Store


class HistoryConfig(JobConfig):
    """Settings of a look into a store's history."""

    store: str
    """Folder or object-store URI of the store."""
    memory: str | None = None
    """Id of one memory."""
    user_id: str | None = None
    """All memories of this user; with `run`, only changes of this user's memories."""
    as_of: str | None = None
    """With `memory` or `user_id`: as this run left them."""
    run: str | None = None
    """Show what this run's view has ..."""
    against: str | None = None
    """... over this run's view. Not given: the run before it."""
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
        else:
            found, lines = all_runs(store)
    except StoreError as error:
        raise JobError(str(error)) from error
    if not config.as_json:
        show("\n".join(map(one_line, lines)))
    counts = {f"num_{name}": len(items) for name, items in found.items()}
    return {"status": "done", "store": config.store, **counts, **(found if config.as_json else {})}


def all_runs(store: "Store") -> tuple[dict, list[str]]:
    """The list of runs."""
    from cluster.consolidate.history import runs

    found = runs(store)
    lines = [
        f"{row['run_id']}  {row['job']:12} {row['finished_at']:%Y-%m-%d %H:%M:%S}"
        + ("" if row["has_view"] else "  (view expired)")
        for row in found
    ]
    return {"runs": found}, lines


def memories(store: "Store", config: HistoryConfig) -> tuple[dict, list[str]]:
    """The lives of one memory or of a user's memories."""
    from cluster.backfill.redact import shown_rows
    from cluster.consolidate.history import lives
    from cluster.store.sql import quote

    column, value = ("record_id", config.memory) if config.memory else ("user_id", config.user_id or "")
    found = shown_rows(lives(store, where=f"{column} = {quote(value)}", as_of=config.as_of))
    if not found:
        option = "--memory" if config.memory else "--user-id"
        view = store.run(config.as_of)
        assert view is not None
        raise JobError(
            f"{option} {value}: not in run {view.run_id}; it may be forgotten, "
            "or stand in another run's view: list the runs with jobs.history, and name one with --as-of"
        )
    return {"memories": found}, [line for item in found for line in life_lines(item)]


def changes(store: "Store", config: HistoryConfig) -> tuple[dict, list[str]]:
    """What changed from run `against` to run `run`."""
    from cluster.backfill.redact import shown_rows
    from cluster.consolidate.history import CLOSING, COMPARED, diff
    from cluster.store.sql import quote

    against = config.against or run_before(store, config.run)
    where = f"user_id = {quote(config.user_id)}" if config.user_id else None
    before, after = (store.rows("records", COMPARED, where, as_of) for as_of in (against, config.run))
    decisions = store.rows("decisions", CLOSING, where, config.run)
    found = shown_rows(diff(before, after, decisions))
    lines = [f"run {config.run} against {against}"]
    for kind, entries in found.items():
        lines += [f"{kind}: {len(entries)}"] + [
            line for entry in entries for line in change_lines(kind, entry)
        ]
    return found, lines


def run_before(store: "Store", run_id: str | None) -> str:
    ids = [run.run_id for run in store.runs()]
    if run_id in ids[1:]:
        return ids[ids.index(run_id) - 1]
    problem = "is the first run; give --against" if run_id in ids else f"no such run; the store has {ids}"
    raise JobError(f"--run {run_id}: {problem}")


# --- as text ------------------------------------------------------------------------------------------


def life_lines(life: dict) -> list[str]:
    """A memory's life for a person."""
    lines = [f"memory {life['record_id']} of {life['user_id']}"]
    for row in life["revisions"]:
        state = "active" if row["active"] else f"closed by {row['closed_run_id']}: {row['closed_reason']}"
        lines.append(f"  revision {row['revision']}: {row['semantic_text']}")
        lines.append(f"    {day(row['session_time'])}, {row['memory_type']}, by run {row['run_id']}; {state}")
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


def day(time: dt.datetime | None) -> str:
    return time.date().isoformat() if time else "no date"


def short(text: str | None) -> str:
    text = "(not kept)" if text is None else " ".join(text.split())
    return text if len(text) <= 100 else text[:97] + "..."


if __name__ == "__main__":
    main(HistoryConfig, run, __doc__)
