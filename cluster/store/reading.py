"""What readers see: the tables as the newest head, or a run that is named, has them."""

import copy
from collections.abc import Iterator
from typing import Self

import pyarrow as pa

from cluster.store.errors import StoreError
from cluster.store.files import HOME, Files, Numbered, local_path, unusable
from cluster.store.heads import Head, Heads
from cluster.store.runs import FinishedRun, in_order, meant
from cluster.store.tables import Table, connect
from schemas.store import RUNS_SCHEMA, STORE_VERSION, TABLE_KEYS, table_schemas

INTENT = "intent.json"
"""What is to be done, as releases before heads wrote it down. Now it is `intent-NUMBER.json`, with the number
of the head that it leads to: nobody deletes or overwrites another writer's."""

INTENTS = Numbered("intent-")
"""Names of intents, each with the number of the head that it leads to."""

READ_AHEAD = 4
"""Batches that are read while one is being worked on."""


class Reader:
    """A store for those who read it; `must_exist` unless a backfill may create it. Writes nothing."""

    def __init__(self, uri: str, *, must_exist: bool = True):
        self.uri, self._root = uri, local_path(uri)
        if problem := unusable(uri):
            raise StoreError(f"--store {uri!r}: {problem}")
        if self._root is not None:
            if must_exist and not self._root.is_dir():
                raise StoreError(f"--store {uri}: no such store; run jobs.backfill first, or check the path")
            # A relative path must mean the same on every worker, and LanceDB takes the escapes of a file://
            # URI as they stand: its tables would lie in another folder than the files beside them.
            self.uri = str(self._root)
        self._db = connect(self.uri)
        self.files = Files(self.uri, "commit")
        self.heads = Heads(self.uri)
        self._frozen: Head | None = None
        self._known_runs: tuple[int, list[FinishedRun]] | None = None
        """A version of `runs`, and its rows: every table of a view is looked up in them."""
        head = self.head_now()
        self.version_found = head.store_version if head else STORE_VERSION
        """STORE_VERSION of the release that last wrote it."""
        if head is None and must_exist:
            raise StoreError(
                f"--store {uri}: holds no finished run; run jobs.backfill first, or check the path"
            )
        if head is not None:
            self._check_release(uri, head)

    def _check_release(self, uri: str, head: Head) -> None:
        if head.store_version > STORE_VERSION:
            raise StoreError(
                f"--store {uri}: has version {head.store_version} and this release writes and reads version "
                f"{STORE_VERSION}; use the newer release that wrote it"
            )
        if lacking := TABLE_KEYS.keys() - set(self._db.list_tables(limit=1000).tables):
            raise StoreError(
                f"--store {uri}: lacks the tables {sorted(lacking)}, because another release wrote it; use "
                "that release, or write a new store"
            )

    def head_now(self) -> Head | None:
        """The newest published state; None in an empty store."""
        return self._frozen or self.heads.newest() or self._head_of_version_2()

    def _head_of_version_2(self) -> Head | None:
        """What the newest row of `runs` says, for a store of a release before heads."""
        table = self._open("runs")
        if table is None:
            return None
        if "sequence" in table.schema.names:
            return self._head_of_first_commit(table.count_rows())
        runs = in_order(table.to_arrow().to_pylist())
        if not runs:
            return None
        versions = runs[-1].versions | {"runs": table.version}
        return Head(len(runs), runs[-1].run_id, versions, store_version=2)

    def _head_of_first_commit(self, num_runs: int) -> Head | None:
        """None where the first commit of all goes on, or was killed and left rows in `runs`. StoreError
        where a store has lost its heads: a writer would take it for an empty one, and overwrite it."""
        if num_runs and not self.intents() and self.heads.newest() is None:
            raise StoreError(
                f"store {self.uri}: its table `runs` has runs, but {HOME}/heads, which says which of them "
                f"are finished, is not there; copy or restore the whole store, the folder {HOME} included, "
                "or delete what is left of it to begin anew"
            )
        return self.heads.newest()

    def _open(self, name: str) -> Table | None:
        """A table; None where there is none, be it that a killed writer has left a folder of its name."""
        try:
            return self._db.open_table(name)
        except (ValueError, FileNotFoundError):
            return None

    def snapshot(self) -> Self:
        """The store as it is now, for a reader that asks more than once and wants answers that belong
        together, whatever is published meanwhile."""
        frozen = copy.copy(self)
        frozen._frozen = self.head_now()
        return frozen

    def runs(self) -> list[FinishedRun]:
        """Finished runs, oldest first."""
        if (head := self.head_now()) is None:
            return []
        version, known = head.versions["runs"], self._known_runs
        if known is None or known[0] != version:
            known = self._known_runs = version, in_order(self._at("runs", version).to_arrow().to_pylist())
        return list(known[1])

    def _at(self, name: str, version: int) -> Table:
        """A table as it was at a version that a head or a run names, read-only."""
        table = self._db.open_table(name)
        try:
            table.checkout(version)
        except ValueError:
            raise StoreError(
                f"store {self.uri}: version {version} of {name!r} was taken away while it was being read, by "
                "jobs.compact or jobs.forget; ask again"
            ) from None
        return table

    def run(self, as_of: str | None = None, option: str = "--as-of") -> FinishedRun | None:
        """The named run, or the newest; None in an empty store. `as_of` is an id, or as much of its beginning
        as no other run has. StoreError, which names the `option`, for an unknown name and for the beginning
        of several."""
        runs = self.runs()
        if as_of is None:
            return runs[-1] if runs else None
        known = {run.run_id: run for run in runs}
        found = meant(as_of, known)
        if len(found) == 1:
            return known[found[0]]
        if found:
            raise StoreError(f"{option} {as_of}: several runs of {self.uri} begin so; name one of {found}")
        raise StoreError(f"{option} {as_of}: no such run in {self.uri}; it has {list(known)}")

    def view(self, as_of: str | None = None, option: str = "--as-of") -> FinishedRun:
        """`run` of a store that has one, as every store does that `must_exist`."""
        run = self.run(as_of, option)
        assert run is not None, "a store that exists has a run"
        return run

    def table(self, name: str, as_of: str | None = None) -> Table | None:
        """A table as the named run (or the newest) left it, read-only; None where no run has ended."""
        run = self.run(as_of)
        if run is None:
            return None
        if name not in run.versions:
            openable = [other.run_id for other in self.openable()]
            raise StoreError(
                f"--as-of {run.run_id}: the view of this run has expired (jobs.compact keeps only "
                f"the newest); {self.uri} still has {openable}"
            )
        return self._at(name, run.versions[name])

    def rows(
        self, name: str, columns: list[str], where: str | None = None, as_of: str | None = None
    ) -> pa.Table:
        """Rows of a view, all of them. A column that an older view does not have is null."""
        table = self.table(name, as_of)
        if table is None:
            return pa.schema([]).empty_table()
        query = table.search().select([column for column in columns if column in table.schema.names])
        found = (query.where(where) if where else query).limit(None).to_arrow()
        schema = RUNS_SCHEMA if name == "runs" else table_schemas(1)[name]
        for column in columns:
            if column not in found.column_names and column in schema.names:
                found = found.append_column(
                    schema.field(column), pa.nulls(len(found), schema.field(column).type)
                )
        return found.select(columns)

    def batches(
        self, name: str, columns: list[str], where: str | None = None, as_of: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rows of a view, some at a time: for who must not have all of them in memory. A column that an older
        view does not have is left out."""
        table = self.table(name, as_of)
        if table is not None:
            there = [column for column in columns if column in table.schema.names]
            scanner = table.to_lance().scanner(columns=there, filter=where, batch_readahead=READ_AHEAD)
            yield from scanner.to_batches()

    def dim(self) -> int:
        """Length of the records' vectors; 0 in an empty store."""
        return self._dim("records")

    def turn_dim(self) -> int:
        """Length of the turns' vectors, which an evolvable embedder makes apart; 0 in an empty store."""
        return self._dim("turns")

    def _dim(self, name: str) -> int:
        table = self.table(name)
        return 0 if table is None else table.schema.field("vector").type.list_size

    def openable(self) -> list[FinishedRun]:
        """Runs whose views are kept, oldest first."""
        return [run for run in self.runs() if run.has_view]

    def intents(self) -> list[str]:
        """Paths in `files` of what was decided and is not done, oldest first."""
        return [path for path in self.files.paths() if path == INTENT or INTENTS.number(path) is not None]
