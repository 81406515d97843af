"""New rows of a table: workers write them as fragments, and the commit makes all of them one change.

A fragment of Lance is files that no version names yet. What a killed writer leaves of them nobody sees, and
it goes as all files do that no version has (`tidy` of cluster.store.maintenance). The driver holds no row: it
gets a description of each fragment, and commits these beside the rows that it replaces.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from cluster.runtime import Progress, Stage, run_stage
from cluster.store.clients import lance_options
from cluster.store.files import Files
from cluster.store.staged_rows import Filling, StagedFile, known_rows, new_rows
from cluster.store.tables import MAX_ROWS, Table

if TYPE_CHECKING:
    from lance import LanceDataset
    from lance.fragment import FragmentMetadata


@dataclass(frozen=True)
class FragmentRows:
    """Staged files whose new rows become one fragment."""

    files: tuple[StagedFile, ...]

    @property
    def num_rows(self) -> int:
        return sum(file.num_new for file in self.files)


@dataclass(frozen=True)
class WrittenFragment:
    """A fragment that no version names yet."""

    described: tuple[str, ...]
    """By Lance, in its own JSON."""
    num_rows: int


def write_fragment(
    rows: FragmentRows, *, uri: str, version: int, files: Files, filling: Filling
) -> WrittenFragment:
    """Write new rows beside this version of the table at `uri`."""
    import lance

    table = lance.dataset(uri, version=version, storage_options=lance_options(uri) or None)
    return _write(table, rows, files, filling)


def _write(table: "LanceDataset", rows: FragmentRows, files: Files, filling: Filling) -> WrittenFragment:
    from lance.fragment import write_fragments

    reader = pa.RecordBatchReader.from_batches(filling.schema, new_rows(files, rows.files, filling))
    fragments = write_fragments(reader, table, max_rows_per_file=rows.num_rows)
    return WrittenFragment(tuple(json.dumps(one.to_json()) for one in fragments), rows.num_rows)


MIN_ROWS = MAX_ROWS
"""Of each fragment but the last one: those of that size are not joined later."""


def split(staged: Sequence[StagedFile]) -> list[FragmentRows]:
    """Files in their order, so many together that each fragment has MIN_ROWS or more; the last one what is
    left."""
    found: list[FragmentRows] = []
    group: list[StagedFile] = []
    num_rows = 0
    for file in staged:
        if file.num_new:
            group.append(file)
            num_rows += file.num_new
        if num_rows >= MIN_ROWS:
            found.append(FragmentRows(tuple(group)))
            group, num_rows = [], 0
    return [*found, FragmentRows(tuple(group))] if group else found


def write_rows(
    table: Table,
    keys: list[str],
    staged: Sequence[StagedFile],
    files: Files,
    filling: Filling,
    replacing: Sequence[pa.RecordBatch] = (),
) -> None:
    """Bring rows into a table as one version: none shows both what is replaced and what replaces it, or
    neither. New ones come out of the staged files; known ones, and `replacing`, take the place of those that
    have their keys."""
    from lance import LanceDataset, LanceOperation

    dataset = table.to_lance()
    fragments = _written(dataset, table.name, staged, files, filling)
    operation: LanceOperation.Update | LanceOperation.Append = LanceOperation.Append(fragments)
    if replacing or any(file.known for file in staged):
        rows = pa.RecordBatchReader.from_batches(
            filling.schema,
            (batch for part in (known_rows(files, staged, filling), replacing) for batch in part),
        )
        merge = dataset.merge_insert(keys).when_matched_update_all().when_not_matched_insert_all()
        transaction, _ = merge.execute_uncommitted(rows)
        operation = transaction.operation
        operation.new_fragments = [*operation.new_fragments, *fragments]
    LanceDataset.commit(dataset, operation, read_version=dataset.version)
    table.checkout_latest()


def _written(
    table: "LanceDataset", name: str, staged: Sequence[StagedFile], files: Files, filling: Filling
) -> "list[FragmentMetadata]":
    """The new rows as fragments, in the order of staging: by workers, where there are enough of them."""
    from lance.fragment import FragmentMetadata

    parts = split(staged)
    if len(parts) > 1:
        arguments = {"uri": table.uri, "version": table.version, "files": files, "filling": filling}
        done = run_stage(
            parts,
            Stage(write_fragment, arguments),
            progress=Progress(f"publish {name}", "rows", sum(part.num_rows for part in parts)),
            count=lambda written: written.num_rows,
            in_order=True,
        )
    else:
        done = (_write(table, part, files, filling) for part in parts)
    return [FragmentMetadata.from_json(one) for written in done for one in written.described]
