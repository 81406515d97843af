"""What stands in a store, counted: rejections by reason, users by freshness, what views and tables take."""

import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from cluster.report.runs import Night, RunEntry
from cluster.store.files import HOME, Files, sizes_below
from cluster.store.maintenance import files_of
from cluster.store.sql import quote
from cluster.store.store import Store
from schemas.store import REJECTIONS_SCHEMA, TABLE_KEYS

NUM_SAMPLES = 3
"""Rejections of one reason that are shown."""

MAX_VIEWS = 60
"""Newest views that are measured: each is opened."""

USERS_AT_ONCE = 1000
"""Users whose memories are compared at once, so that a large night fits into memory."""


# --- rejections -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rejected:
    """Rejections of one stage for one reason. `samples` are rows of REJECTIONS_SCHEMA, as they are shown."""

    stage: str
    reason: str
    num: int
    samples: tuple[dict, ...]


def rejections(store: Store, runs: Collection[str]) -> list[Rejected]:
    """What these runs rejected, the most frequent reason first: what the newest view has of it, and what runs
    that failed for it have left."""
    from cluster.backfill.redact import shown_rows

    found = [store.rows("rejections", REJECTIONS_SCHEMA.names)]
    files = Files(store.uri, "runs")
    for path in files.paths():
        if path.endswith("-rejections.parquet") and path.removesuffix("-rejections.parquet") in runs:
            left = files.get_table(path).select(REJECTIONS_SCHEMA.names)
            run_id = pa.array([path.removesuffix("-rejections.parquet")] * len(left), pa.string())
            found.append(left.set_column(left.schema.get_field_index("run_id"), "run_id", run_id))
    rows = pa.concat_tables([table.cast(REJECTIONS_SCHEMA) for table in found if table.num_columns])
    rows = rows.filter(pc.is_in(rows.column("run_id"), pa.array(sorted(runs), pa.string())))
    groups: dict[tuple[str, str], list[int]] = {}
    names = zip(rows.column("stage").to_pylist(), rows.column("reason").to_pylist(), strict=True)
    for number, key in enumerate(names):
        groups.setdefault(key, []).append(number)
    return sorted(
        (
            Rejected(
                stage, reason, len(places), tuple(shown_rows(rows.take(places[:NUM_SAMPLES]).to_pylist()))
            )
            for (stage, reason), places in groups.items()
        ),
        key=lambda one: (-one.num, one.stage, one.reason),
    )


# --- users ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UserState:
    """What the newest view has of a user, in counts. Times are UTC."""

    user_id: str
    num_memories: int
    num_turns: int
    last_said: dt.datetime | None
    """Time of the newest session; None where nobody knows one."""
    last_changed: dt.datetime | None
    """When the last run ended that wrote anything of this."""


def users(store: Store) -> list[UserState]:
    """All users of whom something is active, by their ids."""
    ends = {run.run_id: run.finished_at for run in store.runs()}
    runs, times = pa.array(ends, pa.string()), pa.array(ends.values(), pa.timestamp("us", tz="UTC"))
    found: dict[str, dict[str, dict]] = {}
    for name in ("records", "turns"):
        rows = store.rows(name, ["user_id", "session_time", "run_id"], "active")
        if not rows.num_columns:
            continue
        changed = times.take(pc.index_in(rows.column("run_id").combine_chunks(), runs))
        rows = rows.drop_columns("run_id").append_column("changed", changed)
        sums = rows.group_by("user_id").aggregate(
            [("user_id", "count"), ("session_time", "max"), ("changed", "max")]
        )
        for row in sums.to_pylist():
            found.setdefault(row["user_id"], {})[name] = row

    def count(of_user: dict[str, dict], name: str) -> int:
        return of_user[name]["user_id_count"] if name in of_user else 0

    def latest(of_user: dict[str, dict], column: str) -> dt.datetime | None:
        return max((row[column] for row in of_user.values() if row[column]), default=None)

    return [
        UserState(
            user_id=user_id,
            num_memories=count(of_user, "records"),
            num_turns=count(of_user, "turns"),
            last_said=latest(of_user, "session_time_max"),
            last_changed=latest(of_user, "changed_max"),
        )
        for user_id, of_user in sorted(found.items())
    ]


# --- sizes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """Files of one kind."""

    num_files: int
    num_bytes: int


def disk(sizes: dict[str, int]) -> dict[str, Usage]:
    """Table, `staging` or `beside` (the rest of `_slowwave`) -> what it takes. `sizes`: path -> bytes."""
    files: Counter[str] = Counter()
    num_bytes: Counter[str] = Counter()
    for path, size in sizes.items():
        folder = path.partition("/")[0]
        place = folder.removesuffix(".lance") if folder.endswith(".lance") else "beside"
        if path.startswith(f"{HOME}/staging/"):
            place = "staging"
        files[place] += 1
        num_bytes[place] += size
    order = [*TABLE_KEYS, "runs", "staging", "beside"]
    return {
        name: Usage(files[name], num_bytes[name])
        for name in sorted(files, key=lambda one: order.index(one) if one in order else len(order))
    }


@dataclass(frozen=True)
class ViewSize:
    """What one run's view holds."""

    run_id: str
    num_records: int
    num_turns: int
    num_bytes: int
    """Of all files that its tables need, shared ones included."""


def view_size(store: Store, run_id: str, folders: Mapping[str, int]) -> ViewSize:
    """Active records and turns of a view, and what it takes. `folders`: bytes, see `by_folder`."""
    counts, num_bytes = {}, 0
    for name in TABLE_KEYS:
        table = store.table(name, run_id)
        assert table is not None, "a run that is named has a view, or StoreError"
        if name in ("records", "turns"):
            counts[name] = table.count_rows("active")
        num_bytes += sum(folders.get(f"{name}.lance/{path}", 0) for path in files_of(table))
    return ViewSize(run_id, counts["records"], counts["turns"], num_bytes)


def by_folder(sizes: dict[str, int]) -> Counter[str]:
    """Bytes of a store by the first three parts of the paths: files of data, and folders of indexes."""
    found: Counter[str] = Counter()
    for path, size in sizes.items():
        found["/".join(path.split("/")[:3])] += size
    return found


def growth(store: Store, entries: Sequence[RunEntry], sizes: dict[str, int]) -> list[ViewSize]:
    """The newest views that are kept, oldest first."""
    kept, folders = [entry.run_id for entry in entries if entry.has_view], by_folder(sizes)
    return [view_size(store, run_id, folders) for run_id in kept[-MAX_VIEWS:]]


def sizes_of(store: Store) -> dict[str, int]:
    """Path -> bytes of every file of a store."""
    return sizes_below(store.uri)


# --- what a night changed ---------------------------------------------------------------------------------


def view_before(night: Night, entries: Sequence[RunEntry]) -> RunEntry | None:
    """The run whose view the night found. None where it published nothing, or that view is not kept."""
    published = [entry for entry in entries if entry.is_published]
    own = [entry for entry in night.runs if entry.is_published]
    place = published.index(own[0]) if own else 0
    return published[place - 1] if place and published[place - 1].has_view else None


def changes(store: Store, night: Night, entries: Sequence[RunEntry]) -> dict[str, int] | None:
    """Kind of change, see cluster.consolidate.history.diff, -> how many memories: what the view after the
    night has over that before it. None where a view that is needed is not kept, or is none.

    Only users whose memories the night touched are read.
    """
    from cluster.consolidate.history import CHANGES, CLOSING, COMPARED, diff

    before, own = view_before(night, entries), [entry for entry in night.runs if entry.is_published]
    if before is None or not (after := own[-1]).has_view:
        return None
    ids = ", ".join(quote(entry.run_id) for entry in own)
    touched = store.rows(
        "records", ["user_id"], f"run_id IN ({ids}) OR closed_run_id IN ({ids})", after.run_id
    )
    names = sorted(set(touched.column("user_id").to_pylist()))
    counts = dict.fromkeys(CHANGES, 0)
    for start in range(0, len(names), USERS_AT_ONCE):
        where = f"user_id IN ({', '.join(map(quote, names[start : start + USERS_AT_ONCE]))})"
        was, now = (store.rows("records", COMPARED, where, view.run_id) for view in (before, after))
        found = diff(was, now, store.rows("decisions", CLOSING, where, after.run_id))
        for kind, items in found.items():
            counts[kind] += len(items)
    return counts
