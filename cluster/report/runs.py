"""Every run of a store: what its table `runs` has, joined with the manifests beside the tables.

A run that published nothing (failed, stopped by its cap, dry, unchanged) stands in its manifest alone, and so
does a compaction. Of a run whose manifest is gone, the table has the counts.
"""

import datetime as dt
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.store.files import Files
from cluster.store.lease import holder
from cluster.store.runs import FinishedRun
from cluster.store.store import Store
from schemas.manifest import RunManifest, RunStatus, read_manifest

GONE = "its process ended without a word (killed, out of memory, or its machine went)"

BAD = (RunStatus.FAILED, RunStatus.INTERRUPTED, RunStatus.STOPPED)
"""Statuses of a run that did not do what it was asked for."""


@dataclass(frozen=True)
class RunEntry:
    """One run of a job on the store, however it ended. Times are UTC."""

    run_id: str
    job: str
    status: str
    """running | done | unchanged | dry_run | stopped | failed | interrupted"""
    started_at: dt.datetime
    finished_at: dt.datetime | None
    """None while it runs."""
    seconds: float | None
    reason: str | None
    """Why it failed, was stopped or interrupted; None of others."""
    counts: dict[str, Any]
    """What its summary counts."""
    stages: dict[str, dict[str, Any]]
    """Stage -> `seconds`, and what else is known of it."""
    cost: float | None
    """As its summary has it, with what runs before it paid in vain; None where no endpoint was paid."""
    is_published: bool
    """Whether it stands in the table `runs`."""
    has_view: bool
    encoder: str | None = None
    """Fingerprints; None of a run that published nothing."""
    embedder: str | None = None
    sequence: int | None = None
    """Its place among the published ones."""
    undone_by: str | None = None
    """The rollback that took it out of what readers see."""
    paying: str = ""
    """Which ledger of paid answers it used: its job and model."""

    @property
    def is_bad(self) -> bool:
        return self.status in BAD

    @property
    def ended_at(self) -> dt.datetime:
        """`finished_at`, or the beginning of one that still runs."""
        return self.finished_at or self.started_at

    def stage_count(self, name: str) -> int:
        """A count that stands with the stages, such as `num_refused` of the gates."""
        return sum(int(stage.get(name) or 0) for stage in self.stages.values())


def runs_of(store: Store, since: dt.date | None = None) -> list[RunEntry]:
    """All runs that began on the day `since` (UTC) or later, in the order in which they happened."""
    manifests = _manifests(store.uri, since)
    runs = {run.run_id: run for run in store.runs()}
    undone = _undone(runs.values())
    published = [_published(run, manifests.get(name), undone.get(name)) for name, run in runs.items()]
    others = [_unpublished(name, manifests[name]) for name in manifests.keys() - runs.keys()]
    return [
        entry
        for entry in _in_order(published, _settled(others, store.uri))
        if since is None or entry.started_at.date() >= since
    ]


# --- manifests and rows ---------------------------------------------------------------------------------


def _manifests(uri: str, since: dt.date | None) -> dict[str, RunManifest]:
    """Run -> its manifest, where this release can read it. Ids begin with the day: those before `since` need
    not be read."""
    files, found = Files(uri, "runs"), {}
    for path in files.paths():
        name, dot, kind = path.rpartition(".")
        day = re.match(r"\d{8}(?=T\d{6}-)", name)
        if kind != "json" or not dot or (since and day and day[0] < f"{since:%Y%m%d}"):
            continue
        try:
            manifest = read_manifest(files.get_json(path), path)
        except ValueError:
            continue
        if manifest.started_at:
            found[name] = manifest
    return found


def _published(run: FinishedRun, manifest: RunManifest | None, undone_by: str | None) -> RunEntry:
    manifest = manifest or RunManifest()
    counts = run.summary | manifest.summary
    took = (run.finished_at - run.started_at).total_seconds()
    # What ended behind its commit is finished by the next writer, and is as good as done.
    is_done = manifest.status in (RunStatus.RUNNING, RunStatus.INTERRUPTED)
    return RunEntry(
        run_id=run.run_id,
        job=run.job,
        status=RunStatus.DONE if is_done else manifest.status,
        started_at=run.started_at,
        finished_at=run.finished_at,
        seconds=round(took, 2) if manifest.seconds is None else manifest.seconds,
        reason=None if is_done else _reason(manifest),
        counts=counts,
        stages=manifest.stages,
        cost=_number(counts.get("cost")),
        is_published=True,
        has_view=run.has_view,
        encoder=run.encoder,
        embedder=run.embedder,
        sequence=run.sequence,
        undone_by=undone_by,
        paying=_paying(run.job, manifest),
    )


def _unpublished(run_id: str, manifest: RunManifest) -> RunEntry:
    assert manifest.started_at is not None, "_manifests has looked"
    started, job = _utc(manifest.started_at), manifest.job or "unknown"
    finished = manifest.finished_at and _utc(manifest.finished_at)
    if finished is None and manifest.status != RunStatus.RUNNING:
        # Of a release whose manifests did not say when.
        finished = started + dt.timedelta(seconds=manifest.seconds or 0)
    return RunEntry(
        run_id=run_id,
        job=job,
        status=manifest.status,
        started_at=started,
        finished_at=finished,
        seconds=manifest.seconds,
        reason=_reason(manifest),
        counts=manifest.summary,
        stages=manifest.stages,
        cost=_number(manifest.summary.get("cost")),
        is_published=False,
        has_view=False,
        paying=_paying(job, manifest),
    )


def _paying(job: str, manifest: RunManifest) -> str:
    return f"{job} {json.dumps(manifest.profiles, sort_keys=True, default=str)}"


def _reason(manifest: RunManifest) -> str | None:
    if manifest.error:
        return manifest.error
    status, config, summary = manifest.status, manifest.config, manifest.summary
    if status == RunStatus.STOPPED:
        return f"max_cost={config.get('max_cost')}: reached; a higher cap goes on"
    if status == RunStatus.FAILED and summary.get("num_failed"):
        return (
            f"max_failed_fraction={config.get('max_failed_fraction')}: {summary['num_failed']} of "
            f"{summary.get('num_decisions')} decisions failed"
        )
    if status == RunStatus.FAILED and summary.get("is_clean") is False:
        return "the search still found traces; its receipt says where"
    return None


def _utc(time: dt.datetime) -> dt.datetime:
    return time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def _settled(entries: list[RunEntry], uri: str) -> list[RunEntry]:
    """Runs whose manifest is open, told apart: at most the newest one still runs, and only under a lease."""
    open_ones = [entry for entry in entries if entry.status == "running"]
    if not open_ones:
        return entries
    held_by = holder(uri)
    newest = max(open_ones, key=lambda entry: (entry.started_at, entry.run_id))
    runs_on = newest.run_id if held_by and held_by.is_alive is not False else None
    return [
        replace(entry, status="interrupted", reason=GONE)
        if entry.status == "running" and entry.run_id != runs_on
        else entry
        for entry in entries
    ]


def _in_order(published: list[RunEntry], others: list[RunEntry]) -> list[RunEntry]:
    """Published ones by their places, whatever their clocks said, and the others between them by time."""
    keyed, latest = [], dt.datetime.min.replace(tzinfo=dt.UTC)
    for entry in published:
        latest = max(latest, entry.started_at)
        keyed.append(((latest, 1, entry.sequence or 0, entry.run_id), entry))
    keyed += [((entry.started_at, 0, 0, entry.run_id), entry) for entry in others]
    return [entry for _, entry in sorted(keyed, key=lambda item: item[0])]


def _undone(runs: Iterable[FinishedRun]) -> dict[str, str]:
    """Run -> the rollback that took it out, for published runs that what readers see does not rest on."""
    before: dict[str, str | None] = {}
    found: dict[str, str] = {}
    last = None
    for run in runs:
        to = run.summary.get("to") if run.job == "rollback" else None
        before[run.run_id] = to if to in before else last
        if to in before:
            # Another rollback may have brought back what this one takes out, and the other way round.
            kept = set(_chain(run.run_id, before))
            for other in before.keys() - kept:
                found.setdefault(other, run.run_id)
            found = {other: by for other, by in found.items() if other not in kept}
        last = run.run_id
    return found


def _chain(name: str | None, before: dict[str, str | None]) -> Iterable[str]:
    """A run and those on which its view rests."""
    while name is not None:
        yield name
        name = before[name]


# --- nights ---------------------------------------------------------------------------------------------

_GOES_ON = ("restore", "consolidate", "compact")
"""Jobs that go on with the night that a backfill has begun."""

_APART = dt.timedelta(hours=12)
"""A run that begins this long after a night's last run belongs to another night."""

_WORST = ("failed", "interrupted", "stopped", "running", "done", "dry_run", "unchanged")


@dataclass(frozen=True)
class Night:
    """A backfill with what went on from it, or another operation by itself."""

    runs: tuple[RunEntry, ...] = field(repr=False)

    @property
    def job(self) -> str:
        """`night`, `dry run`, or the job of an operation."""
        first = self.runs[0]
        if first.job != "backfill":
            return first.job
        return "dry run" if first.status == "dry_run" else "night"

    @property
    def status(self) -> str:
        """The worst of its runs'; `done` where one of them changed something and none failed."""
        found = [entry.status for entry in self.runs]
        return min(found, key=lambda one: _WORST.index(one) if one in _WORST else 0)

    @property
    def is_bad(self) -> bool:
        return self.status in BAD

    @property
    def is_good(self) -> bool:
        """Whether it did what it was asked for, be it that nothing was new."""
        return self.status in (RunStatus.DONE, RunStatus.UNCHANGED)

    @property
    def started_at(self) -> dt.datetime:
        return self.runs[0].started_at

    @property
    def seconds(self) -> float:
        return sum(entry.seconds or 0 for entry in self.runs)

    @property
    def label(self) -> str:
        """Its day, and what it was if no night."""
        day = f"{self.started_at:%Y-%m-%d}"
        return day if self.job == "night" else f"{day} {self.job}"

    def total(self, *names: str) -> int:
        """Sum of these counts of its runs."""
        return sum(int(entry.counts.get(name) or 0) for entry in self.runs for name in names)

    def stage_total(self, name: str) -> int:
        return sum(entry.stage_count(name) for entry in self.runs)


def nights_of(entries: Sequence[RunEntry]) -> list[Night]:
    """All runs in nights and operations, in their order. A dry run is an operation of its own."""
    groups: list[list[RunEntry]] = []
    for entry in entries:
        last = groups[-1] if groups else None
        goes_on = (
            last is not None
            and last[0].job == "backfill"
            and last[0].status != "dry_run"
            and entry.job in _GOES_ON
            and entry.started_at - last[-1].ended_at < _APART
        )
        if last is not None and goes_on:
            last.append(entry)
        else:
            groups.append([entry])
    return [Night(tuple(group)) for group in groups]


# --- costs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """What a run itself has spent, without what its summary repeats of runs before it."""

    cost: float | None
    prompt_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens


def _tokens(entry: RunEntry, prefix: str = "") -> tuple[int, int]:
    prompt, output = (int(entry.counts.get(f"{prefix}{name}_tokens") or 0) for name in ("prompt", "output"))
    return prompt, output


def spending(entries: Sequence[RunEntry]) -> dict[str, Spent]:
    """Run -> what it spent itself.

    A run that pays an endpoint sums up all answers that no run has published yet, so one that goes on from a
    stopped one repeats what that paid. A forgetting deletes these answers, and the sum begins anew.
    """
    carried: dict[str, tuple[float, int, int]] = {}
    found = {}
    for entry in entries:
        cost, (prompt, output) = entry.cost, _tokens(entry)
        if cost is not None:
            old_cost, old_prompt, old_output = carried.pop(entry.paying, (0.0, 0, 0))
            if counts_paid := "paid_prompt_tokens" in entry.counts:
                prompt, output = _tokens(entry, "paid_")
            if not entry.is_published:
                carried[entry.paying] = cost, prompt, output
            elif not counts_paid:
                # Of an earlier release: beside the cost of all it counts the tokens of what it made itself.
                old_prompt = old_output = 0
            cost = max(0.0, cost - old_cost)
            prompt, output = max(0, prompt - old_prompt), max(0, output - old_output)
        if entry.job == "forget":
            carried.clear()
        found[entry.run_id] = Spent(None if cost is None else round(cost, 6), prompt, output)
    return found
