"""Operations on a whole store: go back to a run, change the embedder, give up old runs.

Each is written down as an intent and then applied by steps that can all be repeated, as every commit is
(see cluster.store). The row in `runs` is the commit point here too.
"""

import json
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from cluster.files import Files
from cluster.store import INDEXES, INTENT, Store, StoreError, optimize, run_row, run_rows, staged_rows, tag
from schemas.store import RESTORED, ROLLED_BACK, SEGMENTS_SCHEMA, TABLE_KEYS, table_schemas


def apply(store: Store, intent: dict) -> None:
    """Bring an intent of this module to its end, whatever of it is done already."""
    {"rollback": _rollback, "reembed": _reembed, "compact": _compact}[intent["kind"]](store, intent)
    store.files.delete([INTENT])


def publish(store: Store, new: list[dict], changed: list[dict]) -> None:
    """The commit point: new rows of `runs`, and changed ones, in one Lance commit."""
    rows = run_rows([*changed, *new])
    merge = store.head("runs").merge_insert(["run_id"])
    merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)


def is_published(store: Store, intent: dict) -> bool:
    return any(row["run_id"] == intent["run"]["run_id"] for row in store.runs())


def openable(store: Store) -> list[dict]:
    """Runs whose views are kept, oldest first."""
    return [row for row in store.runs() if json.loads(row["versions"])]


def tidy(table) -> dict:
    """Remove every version of a table that has no tag, with its files. Returns counts.

    Files that no version knows go too, however new: the lease says that nobody is writing them.
    """
    stats = table.to_lance().cleanup_old_versions(
        timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False
    )
    return {"num_versions": stats.old_versions, "num_bytes": stats.bytes_removed}


def index(table, name: str) -> None:
    """Index what has no index yet."""
    for column, config in INDEXES[name].items():
        if not any(column in existing.columns for existing in table.list_indices()):
            table.create_index(column, config=config)


# --- rollback -----------------------------------------------------------------------------------------


def rollback(store: Store, run: dict, to: str) -> None:
    """A new run whose view is that of run `to`. StoreError when that run is unknown or has expired.

    `run` is a row of RUNS_SCHEMA without `versions` and `finished_at`.
    """
    if to not in (left := [row["run_id"] for row in openable(store)]):
        expired = to in [row["run_id"] for row in store.runs()]
        problem = "its view has expired (jobs.compact keeps only the newest)" if expired else "no such run"
        raise StoreError(f"--to {to}: {problem} in {store.uri}; choose one of {left}")
    store.begin({"kind": "rollback", "run": run, "to": to})


def _rollback(store: Store, intent: dict) -> None:
    if is_published(store, intent):
        return
    run, versions = intent["run"], {}
    # Both views are pinned by version, so what a killed attempt did to the tables does not change the marks.
    marks = rollback_marks(
        now=store.rows("segments", SEGMENTS_SCHEMA.names),
        then=store.rows("segments", SEGMENTS_SCHEMA.names, as_of=intent["to"]),
        run_id=run["run_id"],
    )
    for name in TABLE_KEYS:
        table = store.table(name, intent["to"])
        table.restore()
        if name == "segments" and marks.num_rows:
            merge = table.merge_insert(TABLE_KEYS[name])
            merge.when_matched_update_all().when_not_matched_insert_all().execute(marks)
            optimize(table)
        tag(table, run["run_id"])
        versions[name] = table.version
    publish(store, [run_row(run, versions)], [])


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


def _filled(table: pa.Table, **values) -> pa.Table:
    for name, value in values.items():
        position = table.schema.get_field_index(name)
        field = table.schema.field(position)
        table = table.set_column(position, field, pa.repeat(pa.scalar(value, field.type), table.num_rows))
    return table


# --- reembed ------------------------------------------------------------------------------------------


def reembed(
    store: Store, run: dict, dim: int, staged: dict[str, list[str]], turn_dim: int | None = None
) -> None:
    """A new run in which the tables of `staged` consist of these staged files (complete rows) alone.

    The other tables keep their versions. `dim` is the length of the new vectors, which may be another, and
    `turn_dim` that of the turns' vectors, if they differ.
    """
    store.begin({"kind": "reembed", "run": run, "dim": dim, "turn_dim": turn_dim, "staged": staged})


def _reembed(store: Store, intent: dict) -> None:
    if is_published(store, intent):
        return
    run, staging = intent["run"], Files(store.uri, "staging")
    versions = json.loads(store.run()["versions"])
    for name in TABLE_KEYS:
        table = store.head(name)
        paths = intent["staged"].get(name)
        if paths is not None:
            schema = table_schemas(intent["dim"], intent["turn_dim"])[name]
            batches = staged_rows(staging, paths, schema, run)
            # One Lance commit takes the rows, the schema and the indexes of the old generation away.
            table.to_lance().insert(pa.RecordBatchReader.from_batches(schema, batches), mode="overwrite")
            table.checkout_latest()
            index(table, name)
            versions[name] = table.version
        table.checkout(versions[name])
        tag(table, run["run_id"])
    publish(store, [run_row(run, versions)], [])


# --- compact ------------------------------------------------------------------------------------------


def compact(store: Store, run: dict, keep_runs: int) -> dict:
    """Keep the views of the newest `keep_runs` runs; returns counts. Rows of `runs` stay, as history.

    `run` is not added to `runs`, because no view changes; the newest run's view moves to the compacted files.
    """
    expired = [row["run_id"] for row in openable(store)[:-keep_runs]]
    before = num_versions(store)
    store.begin({"kind": "compact", "run": run, "expired": expired})
    return {
        "num_runs_expired": len(expired),
        "num_runs_kept": len(openable(store)),
        "num_versions_before": before,
        "num_versions": num_versions(store),
    }


def num_versions(store: Store) -> int:
    """Lance versions of all tables."""
    return sum(len(store.head(name).list_versions()) for name in (*TABLE_KEYS, "runs"))


def _compact(store: Store, intent: dict) -> None:
    rows = {row["run_id"]: row for row in store.runs()}
    newest, versions = store.run(), {}
    for name in TABLE_KEYS:
        table = store.head(name)
        index(table, name)
        optimize(table)
        versions[name] = table.version
    # Tags only after the commit point: until then, the old versions are what readers look at.
    changed = [newest | {"versions": json.dumps(versions)}]
    changed += [rows[run_id] | {"versions": "{}"} for run_id in intent["expired"]]
    publish(store, [], changed)
    for name in TABLE_KEYS:
        table = store.head(name)
        for run_id in set(table.tags.list()) & set(intent["expired"]):
            table.tags.delete(run_id)
        table.checkout(versions[name])
        tag(table, newest["run_id"])
        table.checkout_latest()
        tidy(table)
    runs = store.head("runs")
    optimize(runs)
    tidy(runs)
