"""What stands in a store, counted: rejections by reason, users by freshness, what views and tables take."""

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import pyarrow as pa
import pyarrow.compute as pc

from cluster.report.runs import Night, RunEntry
from cluster.store.files import HOME, Files, sizes_below
from cluster.store.maintenance import files_of
from cluster.store.sql import quote
from cluster.store.store import Store
from schemas.store import REJECTIONS_SCHEMA, TABLE_KEYS, records_schema

NUM_SAMPLES = 3
"""Rejections of one reason that are shown."""

MAX_VIEWS = 60
"""Newest views that are measured: each is opened."""

RECORDS_AT_ONCE = 100_000
"""Memories that are compared at once, so that a large night fits into memory, ..."""

USERS_AT_ONCE = 1000
"""... and users, whom a filter names."""


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

    num: Counter[tuple[str, str]] = Counter()
    samples: dict[tuple[str, str], list[dict]] = {}
    for batch in _rejected(store, runs):
        places: dict[tuple[str, str], list[int]] = {}
        names = zip(batch.column("stage").to_pylist(), batch.column("reason").to_pylist(), strict=True)
        for place, key in enumerate(names):
            places.setdefault(key, []).append(place)
        for key, its_own in places.items():
            num[key] += len(its_own)
            known = samples.setdefault(key, [])
            known += batch.take(pa.array(its_own[: NUM_SAMPLES - len(known)], pa.int64())).to_pylist()
    return sorted(
        (Rejected(*key, count, tuple(shown_rows(samples[key]))) for key, count in num.items()),
        key=lambda one: (-one.num, one.stage, one.reason),
    )


def _rejected(store: Store, runs: Collection[str]) -> Iterator[pa.RecordBatch]:
    """Rejections of these runs, some at a time: what was rejected may be long."""
    wanted = pa.array(sorted(runs), pa.string())
    for batch in store.batches("rejections", REJECTIONS_SCHEMA.names):
        yield batch.filter(pc.is_in(batch.column("run_id"), wanted))
    files = Files(store.uri, "runs")
    for path in files.paths():
        run_id = path.removesuffix("-rejections.parquet")
        if run_id != path and run_id in runs:
            left = files.get_table(path).select(REJECTIONS_SCHEMA.names)
            place = left.schema.get_field_index("run_id")
            yield from left.set_column(place, "run_id", pa.array([run_id] * len(left))).to_batches()


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
    night has over that before it. None if a view that is needed is not kept, or does not exist.

    Only memories that the night touched are compared, RECORDS_AT_ONCE of them at a time.
    """
    from cluster.consolidate.history import CHANGES, CLOSING, COMPARED, diff

    before, own = view_before(night, entries), [entry for entry in night.runs if entry.is_published]
    if before is None or not (after := own[-1]).has_view:
        return None
    ids = ", ".join(quote(entry.run_id) for entry in own)
    touched = store.rows(
        "records", ["user_id", "record_id"], f"run_id IN ({ids}) OR closed_run_id IN ({ids})", after.run_id
    )
    counts = dict.fromkeys(CHANGES, 0)
    for names in users_at_once(touched.column("user_id")):
        where = f"user_id IN ({', '.join(map(quote, names))})"
        its_own = touched.filter(pc.is_in(touched.column("user_id"), pa.array(names)))
        was, now = (
            rows_of(store, COMPARED, where, view.run_id, its_own.column("record_id"))
            for view in (before, after)
        )
        decisions = store.rows("decisions", CLOSING, f"run_id IN ({ids}) AND {where}", after.run_id)
        for kind, items in diff(was, now, decisions).items():
            counts[kind] += len(items)
    return counts


def users_at_once(of_rows: pa.ChunkedArray) -> Iterator[list[str]]:
    """The users of rows, in groups with at most RECORDS_AT_ONCE rows, or of one user."""
    names: list[str] = []
    num = 0
    for found in sorted(pc.value_counts(of_rows).to_pylist(), key=itemgetter("values")):
        if names and (num + found["counts"] > RECORDS_AT_ONCE or len(names) == USERS_AT_ONCE):
            yield names
            names, num = [], 0
        names.append(found["values"])
        num += found["counts"]
    if names:
        yield names


def rows_of(
    store: Store, columns: list[str], where: str, as_of: str, record_ids: pa.ChunkedArray
) -> pa.Table:
    """Revisions of these memories, as a view has them; others are dropped batch by batch."""
    schema, wanted = records_schema(1), record_ids.combine_chunks()
    schema = pa.schema([schema.field(name) for name in columns])
    found = [
        batch.filter(pc.is_in(batch.column("record_id"), wanted))
        for batch in store.batches("records", columns, where, as_of)
    ]
    tables = [pa.Table.from_batches([batch]) for batch in found if batch.num_rows]
    return pa.concat_tables([schema.empty_table(), *tables], promote_options="permissive").select(columns)
