"""Staged rows as a commit takes them: which rows of a file count, and with all columns that their table has.

A commit does not hold the keys of its rows: it compares hashes of them, 8 bytes a row, and reads the keys
themselves only where a hash comes twice.
"""

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.store.files import Files
from cluster.store.tables import Table

if TYPE_CHECKING:
    import numpy as np

Key = tuple[Any, ...]
"""Of a row: its values in the key columns of its table."""


@dataclass(frozen=True)
class StagedFile:
    """A staged Parquet file, and what a commit takes of it. Rows are meant by their numbers in the file."""

    path: str
    num_rows: int
    num_before: int = 0
    """Rows of the files before it."""
    left_out: tuple[int, ...] = ()
    """Rows that do not count: a later one has their key, or a person edited what they would bring back."""
    known: tuple[int, ...] = ()
    """Rows that take the place of one that the table has."""

    @property
    def num_new(self) -> int:
        return self.num_rows - len(self.left_out) - len(self.known)


def staged_files(
    files: Files,
    paths: Sequence[str],
    keys: Sequence[pa.Field],
    table: Table,
    *,
    held: Collection[str] = (),
    inserted: Collection[str] = (),
) -> tuple[list[StagedFile], set[Key]]:
    """What a commit takes of each file, and which rows of the table it replaces.

    Each key comes once, from the last row that has it. Rows whose first key is `held` do not come out of
    files that are `inserted`.
    """
    import numpy as np

    num_rows, hashes, left_out = [], [], [set[int]() for _ in paths]
    for path, left in zip(paths, left_out, strict=True):
        staged = _keys(files, path, keys)
        num_rows.append(staged.num_rows)
        hashes.append(_hashes(staged))
        if held and path in inserted:
            is_held = pc.is_in(staged.column(0), pa.array(sorted(held))).to_numpy(zero_copy_only=False)
            left.update(np.flatnonzero(is_held).tolist())
    every = np.sort(np.concatenate([np.empty(0, np.uint64), *hashes]))
    replaced = dict(_keys_among(every, table, keys))
    twice = every[1:][every[1:] == every[:-1]]
    suspects = np.union1d(twice, np.array(list(replaced.values()), np.uint64))
    last: dict[Key, tuple[int, int]] = {}
    for number, path in enumerate(paths):
        rows = np.flatnonzero(_are_among(suspects, hashes[number]))
        if not len(rows):
            continue
        for row, key in zip(rows.tolist(), rows_of(_keys(files, path, keys).take(rows)), strict=True):
            if row not in left_out[number]:
                if key in last:
                    before, earlier = last[key]
                    left_out[before].add(earlier)
                last[key] = number, row
    known: list[list[int]] = [[] for _ in paths]
    for number, row in (place for key, place in last.items() if key in replaced):
        known[number].append(row)
    num_before = np.cumsum([0, *num_rows]).tolist()
    found = [
        StagedFile(path, num, before, tuple(sorted(left)), tuple(sorted(again)))
        for path, num, before, left, again in zip(
            paths, num_rows, num_before[:-1], left_out, known, strict=True
        )
    ]
    return found, last.keys() & replaced.keys()


def _keys(files: Files, path: str, keys: Sequence[pa.Field]) -> pa.Table:
    names = [key.name for key in keys]
    return files.get_table(path, columns=names).select(names).cast(pa.schema(keys))


def _keys_among(hashes: "np.ndarray", table: Table, keys: Sequence[pa.Field]) -> Iterator[tuple[Key, int]]:
    """Keys of a table that have one of these hashes, which are sorted, each with its hash."""
    if not len(hashes) or not table.count_rows():
        return
    for batch in table.to_lance().scanner(columns=[key.name for key in keys]).to_batches():
        found = pa.Table.from_batches([batch]).select([key.name for key in keys])
        hashed = _hashes(found)
        is_one = _are_among(hashes, hashed)
        yield from zip(rows_of(found.filter(pa.array(is_one))), hashed[is_one].tolist(), strict=True)


def _hashes(keys: pa.Table) -> "np.ndarray":
    """Of each row, 64 bits. The same in one process; two keys may have the same."""
    import polars as pl

    frame = pl.from_arrow(keys)
    assert isinstance(frame, pl.DataFrame)
    return frame.hash_rows().to_numpy()


def _are_among(known: "np.ndarray", hashes: "np.ndarray") -> "np.ndarray":
    """Which of these stand in `known`, which is sorted."""
    import numpy as np

    if not len(known):
        return np.zeros(len(hashes), bool)
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return known[places] == hashes


def rows_of(table: pa.Table) -> Iterator[Key]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


# --- their columns --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filling:
    """The columns that no stage knows, but the commit."""

    schema: pa.Schema
    known: dict[str, object]
    first_created: dt.datetime
    """`created_at` of the first row. It counts up by a microsecond from row to row, in the order of staging,
    which is that of the archive."""

    @classmethod
    def of(cls, schema: pa.Schema, run: dict, after: dt.datetime | None = None) -> "Filling":
        """For rows that this run writes, a row of RUNS_SCHEMA. `after`: when the newest row of the table was
        created; those of a later run are later, whatever the clocks of the two say."""
        written_at = dt.datetime.fromisoformat(str(run["started_at"]))
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
        first = max(written_at, after + dt.timedelta(microseconds=1)) if after else written_at
        return cls(schema, known, first)

    def filled(self, files: Files, file: StagedFile) -> pa.Table:
        """All rows of a file, with all columns."""
        import numpy as np

        staged = files.get_table(file.path)
        names = staged.column_names
        if "created_at" in self.schema.names and "created_at" not in names:
            first = np.datetime64(self.first_created.astimezone(dt.UTC).replace(tzinfo=None), "us")
            numbers = file.num_before + np.arange(staged.num_rows)
            staged = staged.append_column("created_at", pa.array(first + numbers))
            names = staged.column_names
        columns = [
            _sound(staged.column(field.name).cast(field.type))
            if field.name in names
            else pa.repeat(pa.scalar(self.known[field.name], field.type), staged.num_rows)
            for field in self.schema
        ]
        return pa.table(columns, schema=self.schema)


def _sound(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as it is; of vectors those that have no number somewhere are null, as those are that could not
    be made."""
    import numpy as np

    if not pa.types.is_fixed_size_list(column.type):
        return column
    vectors = column.combine_chunks()
    numbers = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    is_bad = np.isnan(numbers).any(axis=1)
    if not is_bad.any():
        return column
    valid = np.flatnonzero(vectors.is_valid().to_numpy(zero_copy_only=False))
    kept = np.where(np.isin(np.arange(len(vectors)), valid[~is_bad]), np.arange(len(vectors)), -1)
    return pa.chunked_array([vectors.take(pa.array(kept, mask=kept < 0))])


def all_rows(files: Files, paths: Sequence[str], filling: Filling) -> Iterator[pa.RecordBatch]:
    """Rows of staged files, one in memory at a time."""
    num_before = 0
    for path in paths:
        table = filling.filled(files, StagedFile(path, 0, num_before))
        num_before += table.num_rows
        yield from table.to_batches()


def new_rows(files: Files, staged: Sequence[StagedFile], filling: Filling) -> Iterator[pa.RecordBatch]:
    """Rows that the table does not have, one file in memory at a time."""
    import numpy as np

    for file in staged:
        table = filling.filled(files, file)
        if others := [*file.left_out, *file.known]:
            table = table.take(np.setdiff1d(np.arange(table.num_rows), others))
        yield from table.to_batches()


def known_rows(files: Files, staged: Sequence[StagedFile], filling: Filling) -> Iterator[pa.RecordBatch]:
    """Rows that take the place of one that the table has, one file in memory at a time."""
    for file in staged:
        if file.known:
            yield from filling.filled(files, file).take(list(file.known)).to_batches()
