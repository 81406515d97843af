"""`Store.commit`: merges the staged rows of a run into the tables, and closes the rows that they replace."""

import datetime as dt

import pyarrow as pa
import pyarrow.compute as pc

from cluster.store.files import Files
from cluster.store.fragments import write_rows
from cluster.store.runs import run_row, view_versions
from cluster.store.sql import in_lists, quote
from cluster.store.staged_rows import Filling, rows_of, staged_files
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
    inserted = set(intent.inserts.get(name, []))
    paths = list(dict.fromkeys(intent.inserts.get(name, []) + intent.replaces.get(name, [])))
    # Always by the key: what was inserted before, for whatever reason, must not stand twice.
    staged, replaced = staged_files(
        staging,
        paths,
        [schema.field(key) for key in keys],
        table,
        held=_held_by_hand(table) if name == "records" and inserted else (),
        inserted=inserted,
    )
    closed = intent.closed_segments if "closed_run_id" in schema.names else []
    old = _closed_rows(table, schema, closed, run)
    old = old.filter(pa.array([row not in replaced for row in rows_of(old.select(keys))], pa.bool_()))
    if old.num_rows or any(file.num_new or file.known for file in staged):
        with alone(table):
            filling = Filling.of(schema, run, after=_last_created(table))
            write_rows(table, keys, staged, staging, filling, replacing=old.to_batches())


def _held_by_hand(table: Table) -> set[str]:
    """Memories whose newest revision a person made."""
    columns = ["record_id", "revision", "encoder"]
    edited = table.to_lance().to_table(filter=f"encoder = {quote(BY_HAND)}", columns=columns[:1])
    newest: dict[str, tuple[int, str]] = {}
    for where in in_lists("record_id", edited.column("record_id").unique().to_pylist()):
        rows = table.to_lance().to_table(filter=where, columns=columns)
        for record_id, *revision in rows_of(rows.select(columns)):
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
