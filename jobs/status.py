"""Status: says whether a store is healthy, and what an operator has to do.

    python -m jobs.status --store URI                   # exit code 0: healthy; 1: unhealthy
    python -m jobs.status --store URI --max-age-h 36    # also unhealthy if no good night ended in 36 hours

Shows the last good night, the job that has the lease, an unfinished commit, staged files, disk, views and
versions. A store is unhealthy if its last backfill, consolidation, compaction or forgetting failed, was
interrupted or was stopped by its cap; if a commit is unfinished and no job is working on it; if no run has
been published; or if the last good night is too long ago. Writes nothing, takes no lease.
"""

import dataclasses
from typing import TYPE_CHECKING

from pydantic import Field

from cluster.report.words import size
from cluster.runtime.shown import one_line
from jobs.common.cli import JobError, main, show
from jobs.common.run import StoreConfig, absolute

if TYPE_CHECKING:
    from cluster.report.contents import Usage
    from cluster.report.health import Health
    from cluster.report.runs import RunEntry


class StatusConfig(StoreConfig):
    """Settings of a look at a store."""

    max_age_h: float | None = Field(None, gt=0)
    """Hours after which the last good night is too long ago. Not given: no limit."""


def run(config: StatusConfig) -> dict:
    """Print what was found and return the summary."""
    from cluster.report.health import health
    from cluster.store.errors import StoreError

    try:
        found = health(absolute(config.store), max_age_h=config.max_age_h)
    except StoreError as error:
        raise JobError(str(error)) from error
    show("\n".join(map(one_line, lines(found))))
    return {"status": "unhealthy" if found.problems else "healthy", "store": config.store, **summary(found)}


def summary(found: "Health") -> dict:
    """What was found, for programs."""
    names = ("problems", "notes", "intent", "num_views", "num_versions", "is_compaction_due", "num_old_bytes")
    return {
        **{name: getattr(found, name) for name in names},
        **{name: _run(getattr(found, name)) for name in ("newest", "last_good", "last_bad")},
        "lease": found.lease and dataclasses.asdict(found.lease),
        "num_bytes": sum(used.num_bytes for used in found.disk.values()),
        "disk": {name: dataclasses.asdict(used) for name, used in found.disk.items()},
        "store_version": found.store_version,
    }


def _run(entry: "RunEntry | None") -> dict | None:
    names = ("run_id", "job", "status", "finished_at", "reason")
    return None if entry is None else {name: getattr(entry, name) for name in names}


def lines(found: "Health") -> list[str]:
    """What was found, for a person."""
    lease, staged = found.lease, found.disk.get("staging")
    held = "nobody has it"
    if lease:
        since = f", since {lease.taken_at:%Y-%m-%d %H:%M:%S}" if lease.taken_at else ""
        state = {True: "", False: "; that process is gone", None: "; whether it lives is not seen from here"}
        held = f"{lease.job} on {lease.host}, pid {lease.pid}{since}{state[lease.is_alive]}"
    old = f"{size(found.num_old_bytes)} of the tables only for earlier views"
    return [
        "the store is not well" if found.problems else "the store is well",
        *(f"  problem: {problem}" for problem in found.problems),
        *(f"  note: {note}" for note in found.notes),
        f"newest run       {_told(found.newest)}",
        f"last good night  {_told(found.last_good)}",
        f"lease            {held}",
        f"unfinished       {found.intent or 'nothing'}",
        f"staged           {usage(staged) if staged else 'nothing'}",
        f"views            {found.num_views:,} kept, {found.num_versions:,} versions of tables",
        f"disk             {size(sum(used.num_bytes for used in found.disk.values()))}, {old}",
        *(f"  {name:14} {usage(used)}" for name, used in found.disk.items()),
    ]


def usage(used: "Usage") -> str:
    return f"{size(used.num_bytes)}, {used.num_files:,} files"


def _told(entry: "RunEntry | None") -> str:
    if entry is None:
        return "none"
    return f"{entry.run_id}, {entry.job}, {entry.status}, {entry.ended_at:%Y-%m-%d %H:%M:%S}"


if __name__ == "__main__":
    main(StatusConfig, run, __doc__)
