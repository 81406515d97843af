"""The memory store in LanceDB: views, the commit protocol, search. The only module that knows lancedb.

Commit protocol. A run is prepared in staged files, written down as one *intent*, and then applied table by
table; each table changes in one Lance commit. The row in `runs`, which names the version of every table, is
the commit point: a reader takes the versions of the newest row and so sees all of a run or nothing of it. A
writer that finds an intent finishes it before it does anything else, and every step can be repeated: what a
killed process left is rolled forward, never half visible.
"""

import datetime as dt
import importlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import FTS, BTree

from cluster.files import Files
from schemas.store import RUNS_SCHEMA, STORE_VERSION, TABLE_KEYS, table_schemas

INDEXES = {
    "segments": {"segment_id": BTree()},
    "rejections": {},
    "decisions": {"target_id": BTree()},
    "states": {},
    "turns": {"user_id": BTree(), "content": FTS()},
    "records": {"user_id": BTree(), "semantic_text": FTS()},
}

INTENT = "intent.json"

WORDS_WEIGHT = 0.05
"""What shared words add to a cosine. Measured, as the next two, on 234 questions of LongMemEval, where
reciprocal ranks of words and vectors find less."""

RECORD_BONUS = 0.1
"""What a record is preferred by: short, and made of what is worth keeping."""

REPEAT_PENALTY = 1.0
"""Takes a hit whose turns all stand further up behind those that bring something new."""

RANK_OFFSET = 60
"""Of reciprocal ranks (Cormack et al., SIGIR 2009)."""

KEEP_UNNAMED = dt.timedelta(days=7)
"""How long versions stay that are no run's: a reader may have just opened one with plain lancedb."""

_NEVER = dt.timedelta(days=36_500)

OPERATIONS = {
    "rollback": "cluster.maintenance",
    "reembed": "cluster.maintenance",
    "compact": "cluster.maintenance",
    "forget": "cluster.erasure.forget",
}
"""Where the intents of other kinds than a commit are applied: kind -> module with `apply(store, intent)`."""


class StoreError(Exception):
    """The store cannot do what was asked. The message names the store and the remedy."""


class Store:
    """A store; `must_exist` is for readers, a backfill may create it."""

    def __init__(self, uri: str, *, must_exist: bool = True):
        self.uri = uri
        if "://" not in uri:
            if must_exist and not Path(uri).is_dir():
                raise StoreError(f"--store {uri}: no such store; run jobs.backfill first, or check the path")
            # A relative path must mean the same on every worker.
            self.uri = str(Path(uri).absolute())
        self._db = lancedb.connect(self.uri)
        self.files = Files(self.uri, "commit")
        tables = self._tables()
        if must_exist and "runs" not in tables:
            raise StoreError(
                f"--store {uri}: holds no finished run; run jobs.backfill first, or check the path"
            )
        if "runs" in tables and (lacking := TABLE_KEYS.keys() - tables):
            raise StoreError(
                f"--store {uri}: lacks the tables {sorted(lacking)}, because another release wrote it; use "
                "that release, or write a new store"
            )

    def _tables(self) -> set[str]:
        return set(self._db.list_tables(limit=1000).tables)

    # --- views ----------------------------------------------------------------------------------------

    def runs(self) -> list[dict]:
        """Finished runs, oldest first."""
        if "runs" not in self._tables():
            return []
        rows = self._db.open_table("runs").to_arrow().to_pylist()
        return sorted(rows, key=lambda row: (row["finished_at"], row["run_id"]))

    def run(self, as_of: str | None = None) -> dict | None:
        """The named run, or the newest; None in an empty store. StoreError for an unknown name."""
        runs = self.runs()
        if as_of is None:
            return runs[-1] if runs else None
        for row in runs:
            if row["run_id"] == as_of:
                return row
        raise StoreError(
            f"--as-of {as_of}: no such run in {self.uri}; it has {[row['run_id'] for row in runs]}"
        )

    def table(self, name: str, as_of: str | None = None) -> lancedb.table.Table | None:
        """A table as the named run (or the newest) left it, read-only; None where no run has ended."""
        run = self.run(as_of)
        if run is None:
            return None
        versions = json.loads(run["versions"])
        if name not in versions:
            openable = [row["run_id"] for row in self.runs() if json.loads(row["versions"])]
            raise StoreError(
                f"--as-of {run['run_id']}: the view of this run has expired (jobs.compact keeps only "
                f"the newest); {self.uri} still has {openable}"
            )
        table = self.head(name)
        table.checkout(versions[name])
        return table

    def head(self, name: str) -> lancedb.table.Table:
        """A table as it stands, be it published or not: for writers, under the lease."""
        return self._db.open_table(name)

    def rows(
        self, name: str, columns: list[str], where: str | None = None, as_of: str | None = None
    ) -> pa.Table:
        """Rows of a view, all of them."""
        table = self.table(name, as_of)
        if table is None:
            return pa.schema([]).empty_table()
        query = table.search().select(columns)
        return (query.where(where) if where else query).limit(None).to_arrow()

    def dim(self) -> int | None:
        """Length of the records' vectors; None in an empty store."""
        return self._dim("records")

    def turn_dim(self) -> int | None:
        """Length of the turns' vectors, which an evolvable embedder makes apart; None in an empty store."""
        return self._dim("turns")

    def _dim(self, name: str) -> int | None:
        table = self.table(name)
        return None if table is None else table.schema.field("vector").type.list_size

    # --- search ---------------------------------------------------------------------------------------

    def search(
        self,
        user_id: str,
        text: str,
        vector,
        k: int,
        as_of: str | None = None,
        *,
        turn_vector=None,
        kind: str | None = None,
    ) -> list[dict]:
        """The user's `k` best rows of records and turns together, each with `kind` and `score`.

        With `kind` only records (`record`) or only turns (`turn`). `vector` float32 [dim] of norm 1. The
        score is the cosine, which puts records and turns on one scale, plus up to WORDS_WEIGHT for the words
        that text and row share (BM25, as a share of its table's best), plus RECORD_BONUS for a record. What
        only repeats turns of better hits comes last.
        `turn_vector` float32 [turn_dim] is given where another model embeds the turns: cosines of two models
        have no common scale, so each table's rows are ranked apart, and merged by `reciprocal_ranks`.
        Never returns a row of another user: the filter comes first.
        """
        mine, hits = f"user_id = {quote(user_id)} AND active", []
        vectors = {"records": vector, "turns": vector if turn_vector is None else turn_vector}
        for name, asked in vectors.items():
            if kind and name != f"{kind}s":
                continue
            table = self.table(name, as_of)
            if table is None or not table.count_rows():
                continue
            by_vector = table.search(asked, query_type="vector").where(mine, prefilter=True).limit(3 * k)
            by_words = table.search(text or " ", query_type="fts").where(mine, prefilter=True).limit(3 * k)
            found = {}
            for row in [*by_words.to_arrow().to_pylist(), *by_vector.to_arrow().to_pylist()]:
                found.setdefault(tuple(row[key] for key in TABLE_KEYS[name]), row)
            best, of_table = max((row.get("_score", 0.0) for row in found.values()), default=0.0), []
            for row in found.values():
                row.pop("_distance", None)
                words = row.pop("_score", 0.0) / best if best else 0.0
                own = row.pop("vector")
                score = WORDS_WEIGHT * words + (0.0 if own is None else float(np.dot(own, asked)))
                score += RECORD_BONUS * (name == "records")
                of_table.append({"kind": name.removesuffix("s"), "score": score, **row})
            if turn_vector is not None:
                ranks = reciprocal_ranks([hit["score"] for hit in of_table])
                of_table = [hit | {"score": rank} for hit, rank in zip(of_table, ranks, strict=True)]
            hits += of_table
        # Stable: of a record and a turn with one score, the record comes first.
        hits.sort(key=lambda hit: -hit["score"])
        shown = set()
        for hit in hits:
            turns = {(turn["session_id"], turn["turn_index"]) for turn in hit.get("evidence") or [hit]}
            hit["score"] -= REPEAT_PENALTY * (turns <= shown)
            shown |= turns
        hits.sort(key=lambda hit: -hit["score"])
        return hits[:k]

    # --- writing (under a lease) ----------------------------------------------------------------------

    def recover(self) -> str | None:
        """Finish the run that a killed writer had decided to commit; its id, or None. Needs the lease."""
        intent = self.files.get_json(INTENT)
        if intent is None:
            return None
        self._finish(intent)
        return intent["run"]["run_id"]

    def begin(self, intent: dict) -> None:
        """Write down what is to be done, and do it. `intent` has `run`, and `kind` unless it is a commit."""
        if self.files.exists(INTENT):
            raise StoreError(f"store {self.uri}: an interrupted commit is not finished; call recover() first")
        self.files.put_json(INTENT, intent)
        self._finish(intent)

    def _finish(self, intent: dict) -> None:
        if kind := intent.get("kind"):
            # Operations build on the store, so the store can only import them when it needs one.
            importlib.import_module(OPERATIONS[kind]).apply(self, intent)
        else:
            self._apply(intent)

    def commit(
        self,
        run: dict,
        dim: int,
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
        unless a new row has their key and takes their place. `dim` is the length of the vectors; turns keep
        theirs unless `turn_dim` says that they have another.
        """
        intent = {
            "run": run,
            "dim": dim,
            "turn_dim": turn_dim or self.turn_dim() or dim,
            "store_version": STORE_VERSION,
            "inserts": inserts or {},
            "replaces": replaces or {},
            "closed_segments": sorted(closed_segments or []),
        }
        self.begin(intent)

    def _apply(self, intent: dict) -> None:
        run, versions = intent["run"], {}
        if any(row["run_id"] == run["run_id"] for row in self.runs()):
            # Killed behind the commit point: the versions that the run names, and their tags, must not move.
            self.files.delete([INTENT])
            return
        for name, schema in table_schemas(intent["dim"], intent["turn_dim"]).items():
            table = self._open_or_create(name, schema)
            if not _has_run(table, run["run_id"]):
                self._apply_table(table, name, schema, intent)
            for column, index in INDEXES[name].items():
                if not any(column in existing.columns for existing in table.list_indices()):
                    table.create_index(column, config=index)
            optimize(table)
            # The tag keeps this version from every later clean-up, and gives plain lancedb users its name.
            tag(table, run["run_id"])
            versions[name] = table.version
        self._open_or_create("runs", RUNS_SCHEMA).add(run_rows([run_row(run, versions)]))
        self.files.delete([INTENT])

    def _apply_table(self, table, name: str, schema: pa.Schema, intent: dict) -> None:
        run, staging = intent["run"], Files(self.uri, "staging")
        inserts, replaces = intent["inserts"].get(name, []), intent["replaces"].get(name, [])
        closed = intent["closed_segments"] if "closed_run_id" in schema.names else []
        # A segment that was closed may come back, and its keys with it: they must not stand twice.
        may_return = bool(inserts) and "active" in schema.names and table.count_rows("NOT active") > 0
        if not (closed or replaces or may_return):
            if inserts:
                table.add(_reader(schema, staged_rows(staging, inserts, schema, run)))
            return
        # One merge closes the old rows and brings the new ones, so that no version shows both or neither.
        keys, paths = TABLE_KEYS[name], inserts + replaces
        old = schema.empty_table()
        if closed:
            new_keys = {row for path in paths for row in _rows_of(staging.get_table(path, columns=keys))}
            old = _closed_rows(table, schema, closed, run)
            old = old.filter(
                pa.array([row not in new_keys for row in _rows_of(old.select(keys))], pa.bool_())
            )
        if old.num_rows or paths:
            new = staged_rows(staging, paths, schema, run)
            rows = _reader(schema, itertools.chain(new, old.to_batches()))
            merge = table.merge_insert(keys).when_matched_update_all().when_not_matched_insert_all()
            # Turns that could not be embedded come without a vector.
            merge.execute(rows, on_bad_vectors="null")

    def _open_or_create(self, name: str, schema: pa.Schema):
        if name not in self._tables():
            return self._db.create_table(name, schema=schema, exist_ok=True)
        table = self._db.open_table(name)
        if table.schema.names != schema.names or table.schema.types != schema.types:
            raise StoreError(
                f"table {name!r} of {self.uri} has another schema.\nfound:\n{table.schema}\n"
                f"expected:\n{schema}\n"
                "use the release that wrote it, or write a new store"
            )
        return table


def quote(value: str) -> str:
    """A SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


MAX_IN = 500
"""Values in one IN list of a query."""


def reciprocal_ranks(scores) -> list[float]:
    """1 / (RANK_OFFSET + rank) of each score, the highest of which has rank 1."""
    ranks = np.argsort(np.argsort(-np.asarray(scores, np.float64), kind="stable"), kind="stable") + 1
    return (1 / (RANK_OFFSET + ranks)).tolist()


def in_lists(column: str, values: list[str]) -> list[str]:
    """Conditions that together hold where the column has one of the values."""
    return [
        f"{column} IN ({', '.join(map(quote, values[start : start + MAX_IN]))})"
        for start in range(0, len(values), MAX_IN)
    ]


def run_row(run: dict, versions: dict[str, int]) -> dict:
    """A run of an intent as a row of RUNS_SCHEMA, finished now."""
    return run | {
        "versions": json.dumps(versions),
        "started_at": dt.datetime.fromisoformat(str(run["started_at"])),
        "finished_at": dt.datetime.now(dt.UTC),
    }


def run_rows(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=RUNS_SCHEMA)


def optimize(table) -> None:
    """Compact a table and index its new rows; versions that no tag names go when they are a week old.

    Left to itself, LanceDB's optimize cleans up too, and fails as soon as a tag is a week old.
    """
    table.optimize(cleanup_older_than=_NEVER)
    table.to_lance().cleanup_old_versions(KEEP_UNNAMED, error_if_tagged_old_versions=False)


def tag(table, run_id: str) -> None:
    """Give the table's version the run's name, or move the name to it."""
    if run_id in table.tags.list():
        table.tags.update(run_id, table.version)
    else:
        table.tags.create(run_id, table.version)


def _has_run(table, run_id: str) -> bool:
    where = f"run_id = {quote(run_id)}"
    if "closed_run_id" in table.schema.names:
        where += f" OR closed_run_id = {quote(run_id)}"
    return table.count_rows(where) > 0


def _reader(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(schema, batches)


def staged_rows(files: Files, paths: list[str], schema: pa.Schema, run: dict) -> Iterator[pa.RecordBatch]:
    """Staged rows, one file in memory at a time, with the columns that only the run knows filled in."""
    written_at = dt.datetime.fromisoformat(str(run["started_at"]))
    known = {
        "active": True,
        "run_id": run["run_id"],
        "closed_run_id": None,
        "created_at": written_at,
        "updated_at": written_at,
        "encoder": run["encoder"],
        "embedder": run["embedder"],
        "decision_id": None,
        "closed_reason": None,
    }

    for path in paths:
        staged = files.get_table(path)
        columns = [
            staged.column(field.name).cast(field.type)
            if field.name in staged.column_names
            else pa.repeat(pa.scalar(known[field.name], field.type), staged.num_rows)
            for field in schema
        ]
        yield from pa.table(columns, schema=schema).to_batches()


def _closed_rows(table, schema: pa.Schema, segment_ids: list[str], run: dict) -> pa.Table:
    """Active rows of these segments, as they are to stand from this run on."""
    if not segment_ids:
        return schema.empty_table()
    found = []
    # Filtered in the scan, some at a time: vectors are then read only of rows that are wanted.
    for start in range(0, len(segment_ids), 5_000):
        wanted = ", ".join(map(quote, segment_ids[start : start + 5_000]))
        found.append(
            table.to_lance().to_table(filter=f"active AND segment_id IN ({wanted})", columns=schema.names)
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
