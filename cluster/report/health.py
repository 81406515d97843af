"""Is a store well? What a probe asks, from what lies in it alone. Writes nothing and takes no lease."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.report.contents import Usage, by_folder, disk, sizes_of, view_size
from cluster.report.runs import RunEntry, runs_of
from cluster.store.errors import StoreError
from cluster.store.files import HOME, local_path
from cluster.store.lease import Holder, holder
from cluster.store.maintenance import num_versions
from cluster.store.store import Store
from schemas.intent import read_intent
from schemas.store import STORE_VERSION

WATCHED = ("backfill", "consolidate", "compact", "forget")
"""Jobs whose failure makes a store unwell until one of them ends well. Others are run by hand, and seen."""

MAX_OLD_SHARE = 0.5
"""A compaction is due when a larger share of the tables' bytes is of earlier views alone, ..."""

MIN_OLD_BYTES = 64 << 20
"""... and more than this."""

MAX_VIEWS = 90
"""It also is when more views than this are kept: each is a tag and a version of every table."""


@dataclass(frozen=True)
class Health:
    """What was found. Times are UTC."""

    problems: tuple[str, ...]
    """Why it is not well; none where it is."""
    notes: tuple[str, ...]
    """What somebody should do some day."""
    newest: RunEntry | None
    """The run that readers see."""
    last_good: RunEntry | None
    """The last backfill that did what it was asked for, be it that nothing was new."""
    last_bad: RunEntry | None
    """The last run of WATCHED jobs that did not; None where one of its job has ended well since."""
    lease: Holder | None
    intent: str | None
    """What was decided and is not finished, in words."""
    disk: dict[str, Usage]
    num_old_bytes: int
    """Of tables, that the newest view does not need."""
    num_views: int
    num_versions: int
    is_compaction_due: bool
    store_version: int


def health(uri: str, *, max_age_h: float | None = None, now: dt.datetime | None = None) -> Health:
    """Look at a store. `max_age_h`: hours after which the last good night is too long ago. StoreError where
    there is none, or where this release cannot read it."""
    if (folder := local_path(uri)) is not None and not (folder / HOME).is_dir():
        raise StoreError(f"--store {uri}: no such store; run jobs.backfill first, or check the path")
    store = Store(uri, must_exist=False).snapshot()
    return health_of(store, runs_of(store), sizes_of(store), max_age_h=max_age_h, now=now)


def health_of(
    store: Store,
    entries: Sequence[RunEntry],
    sizes: dict[str, int],
    *,
    max_age_h: float | None = None,
    now: dt.datetime | None = None,
) -> Health:
    """The same of a store whose runs, and the bytes of whose files by path, are known."""
    now, held = now or dt.datetime.now(dt.UTC), holder(store.uri)
    newest = next((entry for entry in reversed(entries) if entry.is_published), None)
    good = [entry for entry in entries if entry.job == "backfill" and entry.status in ("done", "unchanged")]
    last_good, last_bad = (good[-1] if good else None), _last_bad(entries)
    intent = _intent(store)
    in_tables = sum(size for path, size in sizes.items() if ".lance/" in path)
    needed = view_size(store, newest.run_id, by_folder(sizes)).num_bytes if newest else 0
    num_old, num_views = max(0, in_tables - needed), len(store.openable())
    is_due = num_views > MAX_VIEWS or num_old > max(MIN_OLD_BYTES, MAX_OLD_SHARE * in_tables)
    used = disk(sizes)

    problems, notes = [], []
    if newest is None:
        problems.append("no run has been published yet")
    if last_bad:
        problems.append(f"the last {last_bad.job} is {last_bad.status}: {last_bad.reason or 'see its run'}")
    if max_age_h is not None and (
        last_good is None or now - last_good.ended_at > dt.timedelta(hours=max_age_h)
    ):
        problems.append(f"max_age_h={max_age_h:g}: no good night ended within these hours")
    if intent and (held is None or held.is_alive is False):
        problems.append(f"{intent} is not finished, and nobody is at it; run the night's command again")
    if held and held.is_alive is False:
        notes.append("the lease was left by a process that is gone; the next job takes it")
    if "staging" in used and held is None:
        notes.append("staged files wait for the run that goes on from them")
    if is_due:
        notes.append("a compaction is due: python -m jobs.compact")
    if store.version_found < STORE_VERSION:
        notes.append(f"the store has version {store.version_found}; the next job brings it up to date")
    return Health(
        problems=tuple(problems),
        notes=tuple(notes),
        newest=newest,
        last_good=last_good,
        last_bad=last_bad,
        lease=held,
        intent=intent,
        disk=used,
        num_old_bytes=num_old,
        num_views=num_views,
        num_versions=num_versions(store) if newest else 0,
        is_compaction_due=is_due,
        store_version=store.version_found,
    )


def _last_bad(entries: Sequence[RunEntry]) -> RunEntry | None:
    """The newest bad run that is the last of a watched job; dry runs and one that still runs do not count."""
    ended = {entry.job: entry for entry in entries if entry.status not in ("running", "dry_run")}
    bad = [ended[job] for job in WATCHED if job in ended and ended[job].is_bad]
    return max(bad, key=lambda entry: entries.index(entry), default=None)


def _intent(store: Store) -> str | None:
    """The oldest unfinished intent, without whom it may name."""
    for path in store.intents():
        written = store.files.get_json(path)
        if not written:
            return "an intent that is empty or cut off"
        try:
            kind: str = read_intent(written).kind
        except ValueError:
            kind = "intent of another release"
        return f"the {kind} of run {(written.get('run') or {}).get('run_id', 'unknown')}"
    return None
