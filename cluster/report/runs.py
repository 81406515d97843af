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
from cluster.store.store import Store

GONE = "its process ended without a word (killed, out of memory, or its machine went)"

BAD = ("failed", "interrupted", "stopped")
"""Statuses of a run that did not do what it was asked for."""

TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")

_NO_COUNTS = {
    *("run_id", "status", "seconds", "stages", "store", "job", "started_at", "config", "packages", "error"),
    *("cost", "encoder", "embedder", "decider"),
}
"""Keys of a manifest that are no counts."""


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
    rows = {row["run_id"]: row for row in store.runs()}
    undone = _undone(list(rows.values()))
    published = [_published(row, manifests.get(name, {}), undone.get(name)) for name, row in rows.items()]
    others = _settled([_unpublished(manifests[name]) for name in manifests.keys() - rows.keys()], store.uri)
    return [
        entry for entry in _in_order(published, others) if since is None or entry.started_at.date() >= since
    ]


# --- manifests and rows ---------------------------------------------------------------------------------


def _manifests(uri: str, since: dt.date | None) -> dict[str, dict]:
    """Run -> its manifest. Ids begin with the day, so that those before `since` need not be read."""
    files, found = Files(uri, "runs"), {}
    for path in files.paths():
        name, dot, kind = path.rpartition(".")
        day = re.match(r"\d{8}(?=T\d{6}-)", name)
        if kind != "json" or not dot or (since and day and day[0] < f"{since:%Y%m%d}"):
            continue
        manifest = files.get_json(path)
        if manifest and _time(manifest.get("started_at")) and "status" in manifest:
            found[name] = manifest | {"run_id": name}
    return found


def _published(row: dict, manifest: dict, undone_by: str | None) -> RunEntry:
    counts = json.loads(row["summary"] or "{}")
    # What ended behind its commit is finished by the next writer, and is as good as done.
    status = manifest.get("status", "done")
    if status in ("running", "interrupted"):
        manifest, status = {**manifest, "error": None}, "done"
    took = (row["finished_at"] - row["started_at"]).total_seconds()
    return RunEntry(
        run_id=row["run_id"],
        job=row["job"],
        status=status,
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        seconds=_number(manifest.get("seconds", round(took, 2))),
        reason=_reason(manifest),
        counts=counts | _counts(manifest),
        stages=_stages(manifest),
        cost=_number(manifest.get("cost", counts.get("cost"))),
        is_published=True,
        has_view=bool(json.loads(row["versions"])),
        encoder=row["encoder"],
        embedder=row["embedder"],
        sequence=row["sequence"],
        undone_by=undone_by,
        paying=_paying(row["job"], manifest),
    )


def _unpublished(manifest: dict) -> RunEntry:
    started, seconds = _time(manifest["started_at"]), _number(manifest.get("seconds"))
    assert started is not None, "_manifests has looked"
    status, job = str(manifest["status"]), str(manifest.get("job", "unknown"))
    is_over = status != "running" and seconds is not None
    return RunEntry(
        run_id=manifest["run_id"],
        job=job,
        status=status,
        started_at=started,
        finished_at=started + dt.timedelta(seconds=seconds or 0) if is_over else None,
        seconds=seconds,
        reason=_reason(manifest),
        counts=_counts(manifest),
        stages=_stages(manifest),
        cost=_number(manifest.get("cost")),
        is_published=False,
        has_view=False,
        paying=_paying(job, manifest),
    )


def _counts(manifest: dict) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name not in _NO_COUNTS}


def _stages(manifest: dict) -> dict[str, dict[str, Any]]:
    stages = manifest.get("stages")
    found = stages.items() if isinstance(stages, dict) else ()
    return {name: stage for name, stage in found if isinstance(stage, dict)}


def _paying(job: str, manifest: dict) -> str:
    profile = manifest.get("encoder") or manifest.get("decider") or ""
    return f"{job} {json.dumps(profile, sort_keys=True)}"


def _reason(manifest: dict) -> str | None:
    if error := manifest.get("error"):
        return str(error)
    status, config = manifest.get("status"), manifest.get("config") or {}
    if status == "stopped":
        return f"max_cost={config.get('max_cost')}: reached; a higher cap goes on"
    if status == "failed" and manifest.get("num_failed"):
        return (
            f"max_failed_fraction={config.get('max_failed_fraction')}: {manifest['num_failed']} of "
            f"{manifest.get('num_decisions')} decisions failed"
        )
    if status == "failed" and manifest.get("is_clean") is False:
        return "the search still found traces; its receipt says where"
    return None


def _time(text: object) -> dt.datetime | None:
    try:
        time = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


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


def _undone(rows: Sequence[dict]) -> dict[str, str]:
    """Run -> the rollback that took it out, for published runs that what readers see does not rest on."""
    before: dict[str, str | None] = {}
    found: dict[str, str] = {}
    last = None
    for row in rows:
        name, to = row["run_id"], None
        if row["job"] == "rollback":
            to = json.loads(row["summary"] or "{}").get("to")
        before[name] = to if to in before else last
        if to in before:
            # Another rollback may have brought back what this one takes out, and the other way round.
            kept = set(_chain(name, before))
            for other in before.keys() - kept:
                found.setdefault(other, name)
            found = {other: by for other, by in found.items() if other not in kept}
        last = name
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
"""What begins this long behind a night's last run is none of it."""

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


def spending(entries: Sequence[RunEntry]) -> dict[str, Spent]:
    """Run -> what it spent itself.

    A run that pays an endpoint sums up all answers that no run has published yet, so one that goes on from a
    stopped one repeats what that paid. A forgetting deletes these answers, and the sum begins anew.
    """
    carried: dict[str, tuple[float, int, int]] = {}
    found = {}
    for entry in entries:
        prompt, output = (int(entry.counts.get(name) or 0) for name in ("prompt_tokens", "output_tokens"))
        cost, pays = entry.cost, entry.cost is not None
        if pays and not entry.is_published:
            old = carried.get(entry.paying, (0.0, 0, 0))
            carried[entry.paying] = (cost or 0.0, prompt, output)
            prompt, output = max(0, prompt - old[1]), max(0, output - old[2])
            cost = max(0.0, (cost or 0.0) - old[0])
        elif pays:
            # Its tokens are its own: an answer that was known counts none.
            cost = max(0.0, (cost or 0.0) - carried.pop(entry.paying, (0.0, 0, 0))[0])
        if entry.job == "forget":
            carried.clear()
        found[entry.run_id] = Spent(None if cost is None else round(cost, 6), prompt, output)
    return found
