"""Operations on a whole store: go back to a run, change the embedder, give up old runs.

Each is written down as an intent and then applied by steps that can all be repeated, as every commit is
(see cluster.store.writer). The next head is the commit point here too.
"""

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.store.errors import StoreError
from cluster.store.files import Files, delete_below, sizes_below
from cluster.store.runs import FinishedRun, run_row, run_rows, view_versions
from cluster.store.staged_rows import Filling, all_rows
from cluster.store.tables import Table, alone, bring_up, drop_old_versions, retag, settle, settled, tag
from cluster.store.writer import Operations, Writer
from schemas.intent import Compact, Reembed, Rollback
from schemas.store import RESTORED, ROLLED_BACK, SEGMENTS_SCHEMA, TABLE_KEYS, table_schemas


def tidy(table: Table, store: Writer) -> dict:
    """Remove every version of a table that has no tag, with its files, and files of no version. Returns
    counts.

    Files are listed, then the lease is checked, then those of the list go that no version has: what another
    writer makes, should this one be stopped here and go on after it, is not on the list.
    """
    folder = table.to_lance().uri
    listed = {path: size for path, size in sizes_below(folder).items() if path.startswith(OF_VERSIONS)}
    store.fence()
    stats = table.to_lance().cleanup_old_versions(timedelta(0), error_if_tagged_old_versions=False)
    kept, there = needed(table), sizes_below(folder)
    left = {path for path in listed if path in there and "/".join(path.split("/")[:2]) not in kept}
    delete_below(folder, left)
    num_bytes = stats.bytes_removed + sum(listed[path] for path in left)
    return {"num_versions": stats.old_versions, "num_bytes": num_bytes}


OF_VERSIONS = ("data/", "_deletions/", "_indices/", "_transactions/")
"""Where a table's versions have their files. Transactions are of use only while others write: a manifest
holds its own."""


def needed(table: Table) -> set[str]:
    """What versions of a table have of its folder, see `files_of`."""
    found = set()
    for version in [item["version"] for item in table.list_versions()]:
        table.checkout(version)
        found |= files_of(table)
    table.checkout_latest()
    return found


def files_of(table: Table) -> set[str]:
    """What a table, as it is checked out, has of its folder: data files, lists of deleted rows, folders of
    indexes."""
    dataset, found = table.to_lance(), set()
    for fragment in dataset.get_fragments():
        found |= {f"data/{file.path}" for file in fragment.data_files()}
        if deleted := fragment.deletion_file():
            found.add(deleted)
    segments = [segment for item in dataset.describe_indices() for segment in item.segments]
    return found | {f"_indices/{segment.uuid}" for segment in segments}


# --- rollback -----------------------------------------------------------------------------------------


def rollback(store: Writer, run: dict, to: str) -> None:
    """A new run whose view is that of run `to`. StoreError when that run is unknown or has expired.

    `run` is a row of RUNS_SCHEMA without `versions` and `finished_at`.
    """
    if to not in (left := [run.run_id for run in store.openable()]):
        expired = to in [run.run_id for run in store.runs()]
        problem = "its view has expired (jobs.compact keeps only the newest)" if expired else "no such run"
        raise StoreError(f"--to {to}: {problem} in {store.uri}; choose one of {left}")
    store.begin(Rollback(run=run, to=to), _rollback)


def _rollback(store: Writer, intent: Rollback) -> None:
    if store.is_published(intent):
        return
    run, versions, runs = intent.run, {}, store.runs()
    schemas = table_schemas(store.dim(), store.turn_dim())
    # Both views are pinned by version, so what a killed attempt did to the tables does not change the marks.
    marks = rollback_marks(
        now=store.rows("segments", SEGMENTS_SCHEMA.names),
        then=store.rows("segments", SEGMENTS_SCHEMA.names, as_of=intent.to),
        run_id=run["run_id"],
    )
    for name in TABLE_KEYS:
        table = store.writable(name)
        with alone(table):
            table.checkout(view_versions(runs, name)[intent.to])
            table.restore()
        restored = table.version
        # The view may be of an earlier release, and what is seen from here on is this one's.
        bring_up(table, name, schemas[name])
        if name == "segments" and marks.num_rows:
            with alone(table):
                merge = table.merge_insert(TABLE_KEYS[name])
                merge.when_matched_update_all().when_not_matched_insert_all().execute(marks)
        if table.version != restored:
            settle(table, name)
            drop_old_versions(table, view_versions(runs, name))
        tag(table, run["run_id"])
        versions[name] = table.version
    store.publish([run_row(run, versions)], [])


def rollback_marks(*, now: pa.Table, then: pa.Table, run_id: str) -> pa.Table:
    """Rows of SEGMENTS_SCHEMA that a rollback leaves for later backfills, see ROLLED_BACK and RESTORED.

    `now` and `then` are the segments of the newest run and of the run gone back to.
    """
    now, then = (table.select(SEGMENTS_SCHEMA.names).filter(table.column("active")) for table in (now, then))
    undone = now.filter(pc.invert(pc.is_in(now.column("segment_id"), then.column("segment_id"))))
    undone = _filled(undone, outcome=ROLLED_BACK, run_id=run_id, num_records=0)
    standing = now.filter(pc.not_equal(now.column("outcome"), RESTORED)).column("segment_id")
    reopened = then.filter(pc.invert(pc.is_in(then.column("segment_id"), standing)))
    return pa.concat_tables([undone, _filled(reopened, outcome=RESTORED)]).cast(SEGMENTS_SCHEMA)


def _filled(table: pa.Table, **values: Any) -> pa.Table:
    for name, value in values.items():
        position = table.schema.get_field_index(name)
        field = table.schema.field(position)
        table = table.set_column(position, field, pa.repeat(pa.scalar(value, field.type), table.num_rows))
    return table


# --- reembed ------------------------------------------------------------------------------------------


def reembed(
    store: Writer, run: dict, dim: int, staged: dict[str, list[str]], turn_dim: int | None = None
) -> None:
    """A new run in which the tables of `staged` consist of these staged files (complete rows) alone.

    The other tables keep their versions. `dim` is the length of the new vectors, which may be another, and
    `turn_dim` that of the turns' vectors, if they differ.
    """
    store.begin(Reembed(run=run, dim=dim, turn_dim=turn_dim, staged=staged), _reembed)


def _reembed(store: Writer, intent: Reembed) -> None:
    if store.is_published(intent):
        return
    run, staging = intent.run, Files(store.uri, "staging")
    versions = dict(store.view().versions)
    for name in TABLE_KEYS:
        table = store.writable(name)
        paths = intent.staged.get(name)
        if paths is not None:
            schema = table_schemas(intent.dim, intent.turn_dim)[name]
            batches = all_rows(staging, paths, Filling.of(schema, run))
            # One Lance commit takes the rows, the schema and the indexes of the old generation away.
            with alone(table):
                table.to_lance().insert(pa.RecordBatchReader.from_batches(schema, batches), mode="overwrite")
                table.checkout_latest()
            settle(table, name)
        versions[name] = table.version
        tag(table, run["run_id"])
    store.publish([run_row(run, versions)], [])


# --- compact ------------------------------------------------------------------------------------------


def expiring(runs: list[FinishedRun], keep_runs: int, keep_months: int) -> list[FinishedRun]:
    """Of these runs, oldest first, those whose views are to go: all but the newest `keep_runs` and, of the
    months before these, the last one of each of the newest `keep_months`. Months are of UTC."""
    older = runs[:-keep_runs]
    last = {(run.finished_at.year, run.finished_at.month): run.run_id for run in older}
    stay = list(last.values())[-keep_months:] if keep_months else []
    return [run for run in older if run.run_id not in stay]


def compact(store: Writer, run: dict, keep_runs: int, keep_months: int = 0) -> dict:
    """Keep the views that `expiring` leaves; returns counts. Rows of `runs` stay, as history.

    `run` is not added to `runs`, because no view changes; the newest run's view moves to the compacted files.
    """
    expired = [run.run_id for run in expiring(store.openable(), keep_runs, keep_months)]
    before = num_versions(store)
    store.begin(Compact(run=run, expired=expired), _compact)
    return {
        "num_runs_expired": len(expired),
        "num_runs_kept": len(store.openable()),
        "num_versions_before": before,
        "num_versions": num_versions(store),
    }


def num_versions(store: Writer) -> int:
    """Lance versions of all tables."""
    return sum(len(store.head(name).list_versions()) for name in (*TABLE_KEYS, "runs"))


def _compact(store: Writer, intent: Compact) -> None:
    runs = {run.run_id: run for run in store.runs()}
    newest, versions = store.view(), {}
    for name in TABLE_KEYS:
        table = store.writable(name)
        settle(table, name)
        drop_old_versions(table, view_versions(runs.values(), name))
        versions[name] = table.version
    # Tags only after the commit point: until then, the old versions are what readers look at.
    changed = [newest.with_columns(versions=versions)]
    changed += [runs[run_id].with_columns(versions={}) for run_id in intent.expired]
    store.publish([], changed)
    for name in TABLE_KEYS:
        table = store.head(name)
        for run_id in set(table.tags.list()) & set(intent.expired):
            table.tags.delete(run_id)
        retag(table, view_versions(store.runs(), name))
        tidy(table, store)
    settle_runs(store)


def settle_runs(store: Writer, changed: list[FinishedRun] | None = None) -> None:
    """Compact `runs`, with these runs in place of those of their ids, and remove every version of it but the
    one that readers see from now on."""
    head, runs = store.head_now(), store.writable("runs")
    if changed:
        with alone(runs):
            runs.merge_insert(["run_id"]).when_matched_update_all().execute(run_rows(changed))
    with settled(runs):
        # `optimize` leaves rows that are marked as deleted in their files when they are few.
        runs.to_lance().optimize.compact_files(materialize_deletions_threshold=0.0)
        runs.checkout_latest()
    assert head is not None
    if runs.version != head.versions["runs"]:
        store.put_head(head.versions | {"runs": runs.version}, store.by)
    tidy(runs, store)


OPERATIONS: Operations = {Rollback: _rollback, Reembed: _reembed, Compact: _compact}
