"""Views of a store without some rows: each version of a table that a run names is written anew.

LanceDB deletes by marking, so a version is restored, its rows deleted, its files compacted until none has a
marked row, and its indexes, which hold the words, built anew.
"""

from collections.abc import Iterator

import pyarrow as pa

from cluster.forget.rules import Erasure
from cluster.store.runs import run_row
from cluster.store.sql import quote
from cluster.store.tables import Table, alone, make_indexes, settled
from cluster.store.writer import Writer
from schemas.store import TABLE_KEYS

LARGE = ("vector", "latents")
"""Columns that no rule needs."""


def versions_of(store: Writer, name: str) -> list[int]:
    """Versions of a table that runs still name, oldest run first."""
    return list(dict.fromkeys(run.versions[name] for run in store.openable()))


def rows_of(
    store: Writer, name: str, version: int, where: str | None, columns: list[str] | None = None
) -> list[dict]:
    """Rows of a version, by default with all columns but LARGE."""
    table = store.head(name)
    table.checkout(version)
    columns = columns or [column for column in table.schema.names if column not in LARGE]
    query = table.search().select(columns)
    return (query.where(where) if where else query).limit(None).to_arrow().to_pylist()


def rewrite_all(store: Writer, name: str, erasures: dict[int, Erasure]) -> dict[int, int]:
    """Write the table's views anew where something goes; old version -> new version."""
    moved: dict[int, int] = {}
    for version, erasure in erasures.items():
        is_newest = version == list(erasures)[-1]
        if erasure.deleted or erasure.changed or (moved and is_newest):
            moved[version] = _rewrite(store, name, version, erasure)
    return moved


def _rewrite(store: Writer, name: str, version: int, erasure: Erasure) -> int:
    table = store.head(name)
    with alone(table):
        table.checkout(version)
        changed = _changed_rows(table, name, erasure.changed)
        table.restore()
    with settled(table):
        # Compaction would carry the words of erased rows over into the new indexes.
        for existing in table.list_indices():
            table.drop_index(existing.name)
    for where in _conditions(name, erasure.deleted):
        with alone(table):
            table.delete(where)
    if changed.num_rows:
        with alone(table):
            merge = table.merge_insert(TABLE_KEYS[name]).when_matched_update_all()
            merge.execute(changed, on_bad_vectors="null")
    with settled(table):
        dataset = table.to_lance()
        files = [fragment.metadata for fragment in dataset.get_fragments()]
        # What has no marked row stays, so that views go on sharing it.
        clean = [one.id for one in files if not one.num_deletions]
        dataset.optimize.compact_files(materialize_deletions_threshold=0.0, excluded_fragment_ids=clean)
        table.checkout_latest()
        make_indexes(table, name)
    return table.version


def _conditions(name: str, rows: list[dict], at_most: int = 500) -> Iterator[str]:
    """SQL conditions on the table's keys that together hold for these rows."""
    keys = TABLE_KEYS[name]
    for start in range(0, len(rows), at_most):
        part = rows[start : start + at_most]
        first = ", ".join(sorted({quote(row[keys[0]]) for row in part}))
        if len(keys) == 1:
            yield f"{keys[0]} IN ({first})"
        else:
            yield " OR ".join(
                f"({keys[0]} = {quote(row[keys[0]])} AND {keys[1]} = {int(row[keys[1]])})" for row in part
            )


def _changed_rows(table: Table, name: str, rows: list[dict]) -> pa.Table:
    """Complete rows, each with the vector that it has in the table, unless it is to have none."""
    full = []
    by_key = {tuple(row[key] for key in TABLE_KEYS[name]): row for row in rows}
    for where in _conditions(name, rows):
        for row in table.search().where(where).limit(None).to_arrow().to_pylist():
            full.append(row | by_key[tuple(row[key] for key in TABLE_KEYS[name])])
    return pa.Table.from_pylist(full, schema=table.schema)


def publish(store: Writer, run: dict, moved: dict[str, dict[int, int]]) -> None:
    """Point every run to its rewritten views (of each table old version -> new version), and add `run`."""
    changed = []
    for kept in store.openable():
        versions = {name: moved[name].get(version, version) for name, version in kept.versions.items()}
        changed.append(kept.with_columns(versions=versions))
    store.publish([run_row(run, changed[-1].versions)], changed)
