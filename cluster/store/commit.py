"""`Store.commit`: merges the staged rows of a run into the tables, and closes the rows that they replace."""

import datetime as dt
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.store.files import Files
from cluster.store.runs import run_row, view_versions
from cluster.store.sql import in_lists, quote
from cluster.store.tables import Table, alone, drop_old_versions, settle, tag
from cluster.store.writer import Operations, Writer
from schemas.intent import Commit
from schemas.store import BY_HAND, TABLE_KEYS, table_schemas


def commit(
    store: Writer,
    run: dict,
    dim: int = 0,
    *,
    inserts: dict[str, list[str]] | None = None,
    replaces: dict[str, list[str]] | None = None,
    closed_segments: list[str] | None = None,
    turn_dim: int | None = None,
) -> None:
    """Make a run visible, whole. `run` is a row of RUNS_SCHEMA without `versions` and `finished_at`.

    `inserts` and `replaces` name for each table staged Parquet files (under `_slowwave/staging`).
    Inserted rows are new: the columns of a row's life are filled in here. Replacing rows are complete
    and take the place of the rows that have their key. Active rows of `closed_segments` are closed,
    unless a new row has their key and takes their place. What a person made of a memory (BY_HAND) stays: it
    is not closed with its segment, and an inserted row does not bring back an earlier revision of it. `dim`
    and `turn_dim` are the lengths of the vectors of records and of turns; not given, those of the store.
    """
    intent = Commit(
        run=run,
        dim=dim or store.dim(),
        turn_dim=turn_dim or store.turn_dim() or dim,
        inserts=inserts or {},
        replaces=replaces or {},
        closed_segments=sorted(closed_segments or []),
    )
    store.begin(intent, apply)


def apply(store: Writer, intent: Commit) -> None:
    """Finish a commit, however much of it is done already."""
    if store.is_published(intent):
        return
    run, versions, runs = intent.run, {}, store.runs()
    for name, schema in table_schemas(intent.dim, intent.turn_dim).items():
        table = store.writable(name, schema)
        _apply_table(store, table, name, schema, intent)
        settle(table, name)
        drop_old_versions(table, view_versions(runs, name))
        # The tag keeps this version from every later clean-up, and gives plain lancedb users its name.
        tag(table, run["run_id"])
        versions[name] = table.version
    store.publish([run_row(run, versions)], [])


OPERATIONS: Operations = {Commit: apply}


def _apply_table(store: Writer, table: Table, name: str, schema: pa.Schema, intent: Commit) -> None:
    run, staging, keys = intent.run, Files(store.uri, "staging"), TABLE_KEYS[name]
    paths = list(dict.fromkeys(intent.inserts.get(name, []) + intent.replaces.get(name, [])))
    closed = intent.closed_segments if "closed_run_id" in schema.names else []
    new_keys = staged_keys(staging, paths, keys)
    if name == "records" and (inserted := set(intent.inserts.get(name, []))):
        held = _held_by_hand(table)
        new_keys = {key: path for key, path in new_keys.items() if path not in inserted or key[0] not in held}
    old = _closed_rows(table, schema, closed, run) if closed else schema.empty_table()
    old = old.filter(pa.array([row not in new_keys for row in _rows_of(old.select(keys))], pa.bool_()))
    if not (new_keys or old.num_rows):
        return
    # One change closes the old rows and brings the new ones, so that no version shows both or neither.
    new = staged_rows(staging, paths, schema, run, new_keys, keys, after=_last_created(table))
    rows = itertools.chain(new, old.to_batches())
    with alone(table):
        if not table.count_rows():
            table.add(_reader(schema, rows))
        else:
            # Always by the key: what was inserted before, for whatever reason, must not stand twice.
            merge = table.merge_insert(keys).when_matched_update_all().when_not_matched_insert_all()
            # Turns that could not be embedded come without a vector.
            merge.execute(_reader(schema, rows), on_bad_vectors="null")


def _reader(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(schema, batches)


def staged_keys(files: Files, paths: Iterable[str], keys: list[str]) -> dict[tuple, str]:
    """Key of a staged row -> the last file that has it: there it counts, and nowhere else."""
    return {row: path for path in paths for row in _rows_of(files.get_table(path, columns=keys).select(keys))}


def staged_rows(
    files: Files,
    paths: list[str],
    schema: pa.Schema,
    run: dict,
    places: dict[tuple, str] | None = None,
    keys: list[str] | None = None,
    after: dt.datetime | None = None,
) -> Iterator[pa.RecordBatch]:
    """Staged rows, one file in memory at a time, with the columns that only the run knows filled in.

    With `places`, as `staged_keys` gives them, each of its keys comes once, from its last file, and other
    keys do not come. `created_at` counts up by a microsecond from row to row, so that it follows the order of
    staging, which is that of the archive. It begins after `after`, so that rows of a later run are later
    whatever the clocks of the two say.
    """
    written_at = dt.datetime.fromisoformat(str(run["started_at"]))
    first = max(written_at, after + dt.timedelta(microseconds=1)) if after else written_at
    known = {
        "active": True,
        "run_id": run["run_id"],
        "closed_run_id": None,
        "updated_at": written_at,
        "encoder": run["encoder"],
        "embedder": run["embedder"],
        "decision_id": None,
        "closed_reason": None,
        # Of rows that an earlier release has staged, or that no encoder wrote.
        "extra": None,
    }

    num_rows = 0
    for path in paths:
        staged = files.get_table(path)
        if places is not None:
            found = list(_rows_of(staged.select(keys)))
            last = {row: number for number, row in enumerate(found) if places.get(row) == path}
            if len(last) < len(found):
                staged = staged.take(pa.array(sorted(last.values()), pa.int64()))
        if "created_at" in schema.names and "created_at" not in staged.column_names:
            started = np.datetime64(first.astimezone(dt.UTC).replace(tzinfo=None), "us")
            staged = staged.append_column(
                "created_at", pa.array(started + np.arange(num_rows, num_rows + staged.num_rows))
            )
        num_rows += staged.num_rows
        columns = [
            staged.column(field.name).cast(field.type)
            if field.name in staged.column_names
            else pa.repeat(pa.scalar(known[field.name], field.type), staged.num_rows)
            for field in schema
        ]
        yield from pa.table(columns, schema=schema).to_batches()


def _held_by_hand(table: Table) -> set[str]:
    """Memories whose newest revision a person made."""
    columns = ["record_id", "revision", "encoder"]
    edited = table.to_lance().to_table(filter=f"encoder = {quote(BY_HAND)}", columns=columns[:1])
    newest: dict[str, tuple[int, str]] = {}
    for where in in_lists("record_id", edited.column("record_id").unique().to_pylist()):
        rows = table.to_lance().to_table(filter=where, columns=columns)
        for record_id, *revision in _rows_of(rows.select(columns)):
            newest[record_id] = max(newest.get(record_id, (0, "")), tuple(revision))
    return {record_id for record_id, (_, encoder) in newest.items() if encoder == BY_HAND}


def _last_created(table: Table) -> dt.datetime | None:
    """When the newest memory of a table was written; None in other tables, and in an empty one."""
    if "created_at" not in table.schema.names:
        return None
    newest = (
        pc.max(batch.column("created_at"))
        for batch in table.to_lance().scanner(columns=["created_at"]).to_batches()
    )
    return max((one.as_py() for one in newest if one.is_valid), default=None)


def _closed_rows(table: Table, schema: pa.Schema, segment_ids: list[str], run: dict) -> pa.Table:
    """Active rows of these segments, as they are to stand from this run on."""
    if not segment_ids:
        return schema.empty_table()
    found = []
    not_by_hand = f" AND encoder != {quote(BY_HAND)}" if "decision_id" in schema.names else ""
    # Filtered in the scan, some at a time: vectors are then read only of rows that are wanted.
    for start in range(0, len(segment_ids), 5_000):
        wanted = ", ".join(map(quote, segment_ids[start : start + 5_000]))
        found.append(
            table.to_lance().to_table(
                filter=f"active AND segment_id IN ({wanted}){not_by_hand}", columns=schema.names
            )
        )
    rows = pa.concat_tables([schema.empty_table(), *(part.cast(schema) for part in found)])
    changes = {"active": False, "closed_run_id": run["run_id"]}
    if "closed_reason" in schema.names:
        changes["closed_reason"] = "segment_replaced"
    if "updated_at" in schema.names:
        changes["updated_at"] = dt.datetime.fromisoformat(str(run["started_at"]))
    for name, value in changes.items():
        index = schema.get_field_index(name)
        rows = rows.set_column(
            index, schema.field(index), pa.repeat(pa.scalar(value, schema.field(index).type), rows.num_rows)
        )
    return rows


def _rows_of(table: pa.Table) -> Iterator[tuple]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
