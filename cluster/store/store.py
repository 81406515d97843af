"""The memory store in LanceDB: views, the commit protocol, search. The only module that knows lancedb.

Commit protocol. A run is prepared in staged files, written down as one *intent*, and then applied table by
table. The commit point is the creation of the next *head* (see cluster.store.heads), which names the
version of every table, `runs` included: a reader takes the versions of the newest head and so sees all of a
run or nothing of it. Runs are ordered by the number of the head that made them visible, and by no clock.

A writer that finds an intent finishes it before it does anything else. It begins anew at the versions of the
newest head: a table that has moved on since is restored first, so every step can be repeated, and what a
killed process left is rolled forward, never half visible. An intent that cannot be applied any more, because
its staged files are gone, is given up.

A writer may be stopped for minutes at any step, lose its lease, and go on while another one writes. It asks
for its lease before each table. What it still writes lands behind the versions that heads name, or between
two steps of the other, who notices (`alone`, `settled`) and begins anew. Its own head it cannot create: that
number is taken. Files that a new version may need are never deleted by their age (`tidy`).
"""

import contextlib
import copy
import dataclasses
import datetime as dt
import importlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.index import FTS, BTree
from lancedb.query import BooleanQuery, MatchQuery, Occur

from cluster.runtime import hide_in_dump
from cluster.store.files import (
    HOME,
    Files,
    Numbered,
    files_below,
    local_path,
    sweep_aside,
    sync_new,
    unusable,
)
from cluster.store.heads import Head, Heads
from cluster.store.lease import Lease, LeaseLost
from cluster.store.ranking import DEFAULT as RANKING
from cluster.store.ranking import RankingSettings, Rerank, rank, read_question
from cluster.store.validity import ENDED_BY_DECISION, periods
from schemas.store import RUNS_SCHEMA, STORE_VERSION, TABLE_KEYS, records_schema, table_schemas

STOP_WORDS = [
    *(
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
    ),
    *("have", "he", "her", "his", "i", "if", "in", "into", "is", "it", "its", "me", "my", "no", "not", "of"),
    *(
        "on",
        "or",
        "our",
        "she",
        "so",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
    ),
    *("to", "was", "we", "were", "what", "when", "where", "which", "who", "will", "with", "you", "your"),
]
"""English words that full text leaves out. The index's own list has words of other languages in it, such as
the Japanese for teacher."""

WORDS = FTS(base_tokenizer="icu/split", custom_stop_words=STOP_WORDS)
"""Full text of every script: Chinese, Japanese and Thai are cut into words by ICU's dictionaries, identifiers
at their punctuation. English is stemmed; what other languages put behind a word, the query allows for."""

INDEXES = {
    "segments": {"segment_id": BTree()},
    "rejections": {},
    "decisions": {"target_id": BTree()},
    "states": {},
    "turns": {"user_id": BTree(), "content": WORDS},
    "records": {"user_id": BTree(), "semantic_text": WORDS},
}

INTENT = "intent.json"
"""What is to be done, as releases before heads wrote it down. Now it is `intent-NUMBER.json`, with the number
of the head that it leads to: nobody deletes or overwrites another writer's."""

_INTENTS = Numbered("intent-")
"""Names of intents, each with the number of the head that it leads to."""

MIN_CANDIDATES = 30
"""Rows of each table that are ranked even for the shortest list of hits."""

REPLACED = f"closed_reason IN ({', '.join(repr(reason) for reason in ENDED_BY_DECISION)})"
"""Condition of rows of `records` that held until something else took their place."""

DECISION_COLUMNS = ["decision_id", "target_id", "source_ids", "action", "outcome"]

KEEP_UNNAMED = dt.timedelta(days=7)
"""How long versions stay that are no run's: a reader may have just opened one with plain lancedb."""

_NEVER = dt.timedelta(days=36_500)

OPERATIONS = {
    "rollback": "cluster.store.maintenance",
    "reembed": "cluster.store.maintenance",
    "compact": "cluster.store.maintenance",
    "forget": "cluster.forget.erase",
}
"""Where the intents of other kinds than a commit are applied: kind -> module with `apply(store, intent)`."""


MAX_BEGUN = 5
"""How often a writer begins a commit anew because another one, who lost the lease, wrote into it."""


class StoreError(Exception):
    """The store cannot do what was asked. The message names the store and the remedy."""


class Overtaken(Exception):
    """Another writer changed a table between two steps of this one."""


class Store:
    """A store; `must_exist` is for readers, a backfill may create it. `lease` is for writers."""

    def __init__(self, uri: str, *, must_exist: bool = True, lease: Lease | None = None):
        self.uri, self.lease = uri, lease
        if problem := unusable(uri):
            raise StoreError(f"--store {uri!r}: {problem}")
        if (folder := local_path(uri)) is not None:
            if must_exist and not folder.is_dir():
                raise StoreError(f"--store {uri}: no such store; run jobs.backfill first, or check the path")
            # A relative path must mean the same on every worker, and LanceDB takes the escapes of a file://
            # URI as they stand: its tables would lie in another folder than the files beside them.
            self.uri = str(folder)
        self._db = lancedb.connect(self.uri)
        self.files = Files(self.uri, "commit")
        self.heads = Heads(self.uri)
        self._frozen: Head | None = None
        self._frozen_runs: list[dict] | None = None
        """Runs of the frozen head, once they have been read: every table of a view is looked up in them."""
        self._planned: int | None = None
        """Number of the head that this writer's work builds on, from `recover` on."""
        self._number, self.by, self.intent = 0, "", ""
        """While an intent is applied: number of the newest head, the intent's run and its path in `files`."""
        self._root = local_path(self.uri)
        self._on_disk: set[Path] = set()
        """Files of tables that were there, and so on the disk, when this intent was begun."""
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

    # --- views ----------------------------------------------------------------------------------------

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
        runs = _in_order(table.to_arrow().to_pylist())
        if not runs:
            return None
        versions = json.loads(runs[-1]["versions"]) | {"runs": table.version}
        return Head(len(runs), runs[-1]["run_id"], versions, store_version=2)

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

    def _open(self, name: str) -> lancedb.table.Table | None:
        """A table; None where there is none, be it that a killed writer has left a folder of its name."""
        try:
            return self._db.open_table(name)
        except (ValueError, FileNotFoundError):
            return None

    def snapshot(self) -> "Store":
        """The store as it is now, for a reader that asks more than once and wants answers that belong
        together, whatever is published meanwhile."""
        frozen = copy.copy(self)
        frozen._frozen = self.head_now()
        return frozen

    def runs(self) -> list[dict]:
        """Finished runs, oldest first."""
        head = self.head_now()
        if head is None or self._frozen is None:
            return [] if head is None else self._runs(head)
        if self._frozen_runs is None:
            self._frozen_runs = self._runs(head)
        return list(self._frozen_runs)

    def _runs(self, head: Head) -> list[dict]:
        return _in_order(self._at("runs", head.versions["runs"]).to_arrow().to_pylist())

    def _at(self, name: str, version: int) -> lancedb.table.Table:
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
        return self._at(name, versions[name])

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
        at: dt.date | None = None,
        asked_on: dt.date | None = None,
        rerank: Rerank | None = None,
        settings: RankingSettings = RANKING,
    ) -> list[dict]:
        """The user's `k` best rows of records and turns together, each with `kind` and `score`.

        With `kind` only records (`record`) or only turns (`turn`). `vector` float32 [dim] of norm 1.
        `turn_vector` float32 [turn_dim] is given where another model embeds the turns.
        cluster.store.ranking says what counts for the order. `asked_on` is the day from which "last week"
        is seen, `at` the day that the answer is about, if not now: a record then counts for the days on
        which it was true, which `since`, `until` and `replaced_by` of its hit say. `rerank` reads the best
        hits once more. Never returns a row of another user: the filter comes first.
        """
        hits, seen = [], self.snapshot()
        vectors = {"records": vector, "turns": vector if turn_vector is None else turn_vector}
        for name, asked in vectors.items():
            if not kind or name == f"{kind}s":
                hits += seen._candidates(name, user_id, text, asked, k, as_of)
        hits = seen._with_periods(user_id, hits, vector, as_of)
        return rank(
            hits,
            read_question(text, asked_on or at),
            k,
            at=at,
            today=asked_on,
            has_one_scale=turn_vector is None,
            rerank=rerank,
            settings=settings,
        )

    def _candidates(
        self, name: str, user_id: str, text: str, asked: np.ndarray, k: int, as_of: str | None
    ) -> list[dict]:
        """Rows of a table that are near by vector or share words, as cluster.store.ranking takes them; of
        records also those that something else replaced."""
        table = self.table(name, as_of)
        if table is None or not table.count_rows():
            return []
        mine = f"user_id = {quote(user_id)} AND active"
        if "closed_reason" in table.schema.names:
            mine = f"user_id = {quote(user_id)} AND (active OR {REPLACED})"
        limit = max(3 * k, MIN_CANDIDATES)
        by_vector = table.search(asked, query_type="vector").where(mine, prefilter=True).limit(limit)
        column = next(column for column, index in INDEXES[name].items() if isinstance(index, FTS))
        by_words = table.search(words_query(text, column), query_type="fts")
        by_words = by_words.where(mine, prefilter=True).limit(limit)
        found = {}
        for row in [*by_words.to_arrow().to_pylist(), *by_vector.to_arrow().to_pylist()]:
            found.setdefault(tuple(row[key] for key in TABLE_KEYS[name]), row)
        best = max((row.get("_score", 0.0) for row in found.values()), default=0.0)
        return [
            {name: value for name, value in row.items() if name not in ("_distance", "_score")}
            | {
                "kind": name.removesuffix("s"),
                "cosine": 0.0 if row["vector"] is None else float(np.dot(row["vector"], asked)),
                "words": row.get("_score", 0.0) / best if best else 0.0,
            }
            for row in found.values()
        ]

    def _with_periods(
        self, user_id: str, hits: list[dict], asked: np.ndarray, as_of: str | None
    ) -> list[dict]:
        """Hits with the days on which records held, and with the records that took the place of others;
        without vectors."""
        records = {(hit["record_id"], hit["revision"]): hit for hit in hits if hit["kind"] == "record"}
        names = records_schema(1).names
        old, decisions, others = [], [], []
        of_user = f"user_id = {quote(user_id)}"
        if any(not hit["active"] or hit.get("decision_id") for hit in records.values()):
            old = self.rows("records", names, f"{of_user} AND NOT active AND {REPLACED}", as_of).to_pylist()
            applied = f"{of_user} AND outcome = 'applied'"
            decisions = self.rows("decisions", DECISION_COLUMNS, applied, as_of).to_pylist()
            sources = sorted({name for row in decisions for name in row["source_ids"]})
            for where in in_lists("record_id", sources):
                others += self.rows("records", names, f"{of_user} AND {where}", as_of).to_pylist()
        known = {(row["record_id"], row["revision"]): row for row in [*others, *old]} | records
        held = periods(known.values(), decisions)
        found = {key: records[key] for key in records if records[key]["active"] or held[key].replaced_by}
        newest = {record_id: (record_id, revision) for record_id, revision in sorted(known)}
        following = list(found)
        while following:
            key = newest.get(held[following.pop()].replaced_by)
            if key and key not in found and (known[key]["active"] or held[key].replaced_by):
                cosine = float(np.dot(known[key]["vector"], asked))
                found[key] = known[key] | {"kind": "record", "cosine": cosine, "words": 0.0}
                following.append(key)
        turns = [hit for hit in hits if hit["kind"] == "turn"]
        dated = [hit | dataclasses.asdict(held[key]) for key, hit in found.items()]
        return [{name: value for name, value in hit.items() if name != "vector"} for hit in [*dated, *turns]]

    # --- writing (under a lease) ----------------------------------------------------------------------

    def fence(self) -> None:
        """Raise LeaseLost unless this writer still holds the lease."""
        if self.lease:
            self.lease.check()

    def recover(self) -> str | None:
        """Finish the run that a killed writer had decided to commit; its id, or None. Needs the lease.

        Also brings a store of an earlier release up to this one, and takes back what writers have left
        in tables behind the published versions. What this writer commits from now on builds on the state
        that it finds here: once another one has published, it is refused.
        """
        self.fence()
        sweep_aside(self.uri)
        self._planned, finished = None, None
        if (self.files.get_json(INTENT) or {}).get("kind") == "forget":
            raise StoreError(
                f"store {self.uri}: a forgetting that an earlier release had begun is not finished; run any "
                "job of that release on it once, and nothing before that"
            )
        if self.head_now() is not None:
            self.upgrade()
        for path in self.intents():
            finished = self._recover(path) or finished
        for name in head.versions if (head := self.head_now()) else ():
            self.writable(name)
        self._planned = self.heads.number()
        return finished

    def intents(self) -> list[str]:
        """Paths in `files` of what was decided and is not done, oldest first."""
        return [path for path in self.files.paths() if path == INTENT or _INTENTS.number(path) is not None]

    def _recover(self, path: str) -> str | None:
        intent = self.files.get_json(path)
        if intent is None:
            return self._give_up(path, "a run", "what was to be done is empty or cut off")
        run_id = intent["run"]["run_id"]
        if intent.get("store_version", 0) > STORE_VERSION:
            raise StoreError(
                f"store {self.uri}: a newer release had begun to commit run {run_id}; finish it with that "
                f"release, or delete _slowwave/commit/{path} to give that run up"
            )
        if "config" in intent["run"] and intent.get("store_version", 0) < STORE_VERSION:
            intent["run"]["config"] = hide_in_dump(intent["run"]["config"])
        number, newest = _INTENTS.number(path), self.heads.number()
        if number is not None and number <= newest:
            head = self.heads.get(number)
            if head is None or head.by != run_id:
                return self._give_up(path, f"run {run_id}", "another run was published in its place")
        try:
            self._finish(path, intent, newest)
        except (StoreError, LeaseLost):
            raise
        except Exception:
            if not (damaged := self._damaged(intent)):
                raise
            Files(self.uri, "staging").delete(damaged)
            return self._give_up(path, f"run {run_id}", f"its staged files {damaged[:3]} are gone or damaged")
        return run_id

    def _give_up(self, path: str, what: str, why: str) -> None:
        if self.head_now() is None:
            # What a first commit has left in `runs` would pass for runs of a store that has lost its heads.
            self.writable("runs", RUNS_SCHEMA)
        self.files.delete([path])
        print(
            f"store {self.uri}: {what} was interrupted in its commit and cannot be finished ({why}); it was "
            "given up, and nothing of it is seen. Run its job again",
            flush=True,
        )

    def _damaged(self, intent: dict) -> list[str]:
        """Staged files of an intent that cannot be read."""
        staging, damaged = Files(self.uri, "staging"), []
        for kind in ("inserts", "replaces", "staged"):
            for path in itertools.chain(*intent.get(kind, {}).values()):
                try:
                    staging.get_table(path)
                except (OSError, pa.ArrowException):
                    damaged.append(path)
        return damaged

    def begin(self, intent: dict) -> None:
        """Write down what is to be done, and do it. `intent` has `run`, and `kind` unless it is a commit."""
        if self.head_now() is not None:
            self.upgrade()
        newest, path = self.heads.number(), _INTENTS.path(self.heads.number() + 1)
        self.fence()
        if self._planned not in (None, newest):
            raise StoreError(
                f"store {self.uri}: another job has published while this one was stopped, so what this one "
                "prepared is outdated; run the same command again"
            )
        content = json.dumps(intent | {"store_version": STORE_VERSION}, default=str)
        if self.files.exists(INTENT) or not self.files.create(path, content.encode()):
            raise StoreError(f"store {self.uri}: an interrupted commit is not finished; call recover() first")
        self._finish(path, json.loads(content), newest)

    def _finish(self, path: str, intent: dict, number: int) -> None:
        self._number, self.by, self.intent = number, intent["run"]["run_id"], path
        self._look()
        # Operations build on the store, so the store can only import them when it needs one.
        apply = (
            importlib.import_module(OPERATIONS[kind]).apply if (kind := intent.get("kind")) else Store._apply
        )
        try:
            self._until_alone(lambda: apply(self, intent))
        finally:
            self.by = ""
        self.files.delete([path])
        self.heads.tidy()

    def _until_alone(self, work: Callable[[], object]) -> None:
        """Do what can be repeated, and do it anew where another writer has written into it."""
        for left in reversed(range(MAX_BEGUN)):
            self.fence()
            try:
                work()
                return
            except Overtaken as error:
                if not left:
                    raise StoreError(
                        f"store {self.uri}: another job, which has lost its lease, goes on writing "
                        f"({error}); end it and run the same command again"
                    ) from None

    def _look(self) -> None:
        """Remember which files need no bringing to the disk: those of published versions are there."""
        if self._root is not None:
            folders = [self._root / f"{name}.lance" for name in (*TABLE_KEYS, "runs")]
            self._on_disk = set().union(*map(files_below, folders))

    def head(self, name: str) -> lancedb.table.Table:
        """A table as it stands, be it published or not: for writers, under the lease."""
        if self.by:
            self.fence()
        return self._db.open_table(name)

    def writable(self, name: str, schema: pa.Schema | None = None) -> lancedb.table.Table:
        """A table as the newest head has it, for a writer: what stands behind that version is taken back.

        With a `schema`, a table that no head has is made.
        """
        self.fence()
        head = self.head_now()
        version = head.versions.get(name) if head else None
        if version is None:
            # Whatever stands there was left by writers that published nothing.
            mode = "create" if self._open(name) is None else "overwrite"
            table = self._db.create_table(name, schema=schema, mode=mode)
            if table.count_rows():
                raise Overtaken(f"table {name!r}")
            return table
        table = self._db.open_table(name)
        if table.version != version:
            with alone(table):
                table.checkout(version)
                table.restore()
        if schema and dict(zip(table.schema.names, table.schema.types, strict=True)) != dict(
            zip(schema.names, schema.types, strict=True)
        ):
            raise StoreError(
                f"table {name!r} of {self.uri} has another schema.\nfound:\n{table.schema}\n"
                f"expected:\n{schema}\n"
                "use the release that wrote it, or write a new store"
            )
        return table

    def publish(self, new: list[dict], changed: list[dict]) -> None:
        """The commit point: new rows of `runs`, and changed ones, and with them the versions of the newest
        row's view, become what readers see. At once, and unless another writer was faster."""
        number, runs = self._number + 1, self.writable("runs", RUNS_SCHEMA)
        # The newest rows take the place of those with their ids.
        rows = {row["run_id"]: row for row in self.runs()}
        news = [*changed, *(row | {"sequence": number} for row in new)]
        rows |= {row["run_id"]: row for row in news}
        newest = max(rows.values(), key=lambda row: row["sequence"])
        if news:
            with alone(runs):
                merge = runs.merge_insert(["run_id"]).when_matched_update_all().when_not_matched_insert_all()
                merge.execute(run_rows(news))
        self.put_head(json.loads(newest["versions"]) | {"runs": runs.version}, self.by or newest["run_id"])

    def put_head(self, versions: dict[str, int], by: str, store_version: int = STORE_VERSION) -> None:
        """Make these versions what readers see. They are on the disk before anybody can see them."""
        number, old = self._number + 1, self.head_now()
        for name, version in versions.items():
            if self._root is not None and (old is None or old.versions.get(name) != version):
                sync_new(self._root / f"{name}.lance", self._on_disk)
        self.fence()
        if not self.heads.create(Head(number, by, versions, store_version)):
            raise StoreError(
                f"store {self.uri}: another job has published while this one was stopped; run the same "
                "command again: if that job finished this run too, nothing is left to do"
            )
        self._number = number
        if self._planned is not None:
            self._planned = number

    def upgrade(self) -> bool:
        """Bring a store of an earlier release up to STORE_VERSION, all at once; whether there was need."""
        head = self.head_now()
        if head is None or head.store_version == STORE_VERSION:
            return False
        self._until_alone(self._upgrade)
        return True

    def _upgrade(self) -> None:
        self._number, head = self.heads.number(), self.head_now()
        if self._number == 0:
            # From here on it is a head that names the versions, and a killed upgrade is taken back.
            self._number = head.number - 1
            self.put_head(head.versions, head.by, head.store_version)
        self._look()
        self._hide_in_manifests()
        runs, versions = self.runs(), {}
        schemas = table_schemas(self.dim(), self.turn_dim())
        for name in TABLE_KEYS:
            table = self.writable(name)
            bring_up(table, name, schemas[name])
            settle(table, name)
            drop_old_versions(table, view_versions(runs, name))
            tag(table, runs[-1]["run_id"])
            versions[name] = table.version
        table = self.writable("runs")
        rows = [
            {"sequence": place} | row | {"config": hide_in_dump(row["config"])}
            for place, row in enumerate(runs, 1)
        ]
        rows[-1] |= {"versions": json.dumps(versions)}
        dataset = table.to_lance()
        dataset.insert(run_rows(rows), mode="overwrite")
        self.put_head(versions | {"runs": dataset.version}, runs[-1]["run_id"])

    def _hide_in_manifests(self) -> None:
        """Earlier releases dumped the operator's tokens in clear."""
        manifests = Files(self.uri, "runs")
        for path in manifests.paths():
            found = manifests.get_json(path) if path.endswith(".json") else None
            if found and (hidden := json.loads(hide_in_dump(json.dumps(found)))) != found:
                manifests.put_json(path, hidden)

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
        run, versions, runs = intent["run"], {}, self.runs()
        if any(row["run_id"] == run["run_id"] for row in runs):
            # Killed behind the commit point: the versions that the run names, and their tags, must not move.
            return
        for name, schema in table_schemas(intent["dim"], intent["turn_dim"]).items():
            table = self.writable(name, schema)
            self._apply_table(table, name, schema, intent)
            settle(table, name)
            drop_old_versions(table, view_versions(runs, name))
            # The tag keeps this version from every later clean-up, and gives plain lancedb users its name.
            tag(table, run["run_id"])
            versions[name] = table.version
        self.publish([run_row(run, versions)], [])

    def _apply_table(self, table, name: str, schema: pa.Schema, intent: dict) -> None:
        run, staging, keys = intent["run"], Files(self.uri, "staging"), TABLE_KEYS[name]
        paths = list(dict.fromkeys(intent["inserts"].get(name, []) + intent["replaces"].get(name, [])))
        closed = intent["closed_segments"] if "closed_run_id" in schema.names else []
        new_keys = staged_keys(staging, paths, keys)
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


@contextlib.contextmanager
def alone(table) -> Iterator[None]:
    """One change of a table that stands at its newest version. Overtaken when it was not the only one."""
    before = table.version
    yield
    if table.version != before + 1:
        raise Overtaken(f"table {table.name!r}, version {before + 1}")


@contextlib.contextmanager
def settled(table) -> Iterator[None]:
    """Any number of changes that leave the rows as they are. Overtaken when another one changed them."""
    before = table.version
    yield
    dataset = table.to_lance()
    for version in range(before + 1, table.version + 1):
        if _operation(dataset, version) in CHANGES:
            raise Overtaken(f"table {table.name!r}, version {version}")


CHANGES = {"Append", "DataReplacement", "Delete", "Merge", "Overwrite", "Project", "Restore", "Update"}
"""Operations of Lance behind which a table has other rows or columns."""


def _operation(dataset, version: int) -> str:
    try:
        return type(dataset.read_transaction(version).operation).__name__
    except TypeError:
        # pylance 14 cannot show a compaction that moved an index, and shows all others.
        return "Rewrite"


def quote(value: str) -> str:
    """A SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


MAX_IN = 500
"""Values in one IN list of a query."""


def in_lists(column: str, values: list[str]) -> list[str]:
    """Conditions that together hold where the column has one of the values."""
    return [
        f"{column} IN ({', '.join(map(quote, values[start : start + MAX_IN]))})"
        for start in range(0, len(values), MAX_IN)
    ]


def words_query(text: str, column: str) -> MatchQuery | BooleanQuery:
    """A full-text query for any of a text's words. Nothing in the text is an operator.

    Outside of English nothing is stemmed, so words of alphabets are also met when their ends differ:
    Москва finds Москве, and 서울 finds 서울에서.
    """
    words = dict.fromkeys(word.lower() for word in _INFLECTED.findall(text))
    exact = MatchQuery(text or " ", column)
    if not words:
        return exact
    alike = [_alike(word, column) for word in list(words)[:MAX_INFLECTED]]
    return BooleanQuery([(Occur.SHOULD, query) for query in (exact, *alike)])


def _alike(word: str, column: str) -> MatchQuery:
    """Words that begin as this one and differ in at most two characters at the end; short ones in one."""
    # A syllable of Korean is one character, and a particle behind a word has up to two.
    is_short = len(word) < 4 and not "\uac00" <= word[0] <= "\ud7a3"
    stem = max(2, len(word) - (1 if is_short else 2))
    return MatchQuery(word, column, fuzziness=1 if is_short else 2, prefix_length=stem)


_INFLECTED = re.compile(r"[\u0370-\u1cff\u1f00-\u1fff\uac00-\ud7a3]{2,}")
"""Words of alphabets other than Latin, Korean syllables included; not what ICU's dictionaries cut."""

MAX_INFLECTED = 32
"""Words of one query whose ends may differ: each costs a look into the list of all words."""


def _in_order(runs: list[dict]) -> list[dict]:
    """Rows of `runs`, oldest first. Those of releases before heads have only a clock to be ordered by."""
    if any(row.get("sequence") is None for row in runs):
        ordered = sorted(runs, key=lambda row: (row["finished_at"], row["run_id"]))
        return [row | {"sequence": place} for place, row in enumerate(ordered, 1)]
    return sorted(runs, key=lambda row: row["sequence"])


def run_row(run: dict, versions: dict[str, int]) -> dict:
    """A run of an intent as a row of RUNS_SCHEMA, finished now. Its place comes with the commit."""
    return run | {
        "versions": json.dumps(versions),
        "started_at": dt.datetime.fromisoformat(str(run["started_at"])),
        "finished_at": dt.datetime.now(dt.UTC),
    }


def run_rows(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=RUNS_SCHEMA)


def view_versions(runs: list[dict], name: str) -> dict[str, int]:
    """Run -> version of a table that its view has, for all runs whose views are kept."""
    return {
        row["run_id"]: versions[name] for row in runs if (versions := json.loads(row["versions"] or "{}"))
    }


def make_indexes(table, name: str) -> None:
    """Index what has no index yet, or one that cuts text into other words than this release does."""
    for column, config in INDEXES[name].items():
        existing = [index for index in table.list_indices() if column in index.columns]
        if not existing or not all(_is_made_so(index, config) for index in existing):
            table.create_index(column, config=config, replace=bool(existing))


def _is_made_so(index, config) -> bool:
    """Whether an index that is there has these settings, as far as it says."""
    if not isinstance(config, FTS):
        return True
    said, wanted = index.index_details or {}, dataclasses.asdict(config)
    known = said.keys() & wanted.keys()
    return bool(known) and all(said[name] == wanted[name] for name in known)


def bring_up(table, name: str, schema: pa.Schema) -> None:
    """Bring a table of an earlier release, or a version of one, up to this release: columns that it lacks,
    one row of each key, full text that is cut into words as the query is. Leaves a table of this release as
    it is."""
    with settled(table):
        make_indexes(table, name)
    if missing := [field for field in schema if field.name not in table.schema.names]:
        with alone(table):
            table.add_columns(pa.schema(missing))
    _drop_repeats(table, name)


def settle(table, name: str) -> None:
    """Compact a table and index its new rows, which leaves the rows as they are."""
    with settled(table):
        make_indexes(table, name)
        # Left to itself, LanceDB's optimize cleans up too, and fails as soon as a tag is a week old.
        table.optimize(cleanup_older_than=_NEVER)


def drop_old_versions(table, kept: dict[str, int]) -> None:
    """Remove versions that no tag names when they are a week old.

    `kept` (run -> version) is what tags must say: a writer that was stopped may have moved its own one.
    """
    retag(table, kept)
    table.to_lance().cleanup_old_versions(KEEP_UNNAMED, error_if_tagged_old_versions=False)


def retag(table, kept: dict[str, int]) -> None:
    """Give these versions their runs' names, where they do not have them."""
    tags = table.tags.list()
    try:
        for run_id, version in kept.items():
            if run_id not in tags:
                table.tags.create(run_id, version)
            elif tags[run_id]["version"] != version:
                table.tags.update(run_id, version)
    except RuntimeError as error:
        if "already exists" in str(error) or "not found" in str(error):
            raise Overtaken(f"a tag of table {table.name!r}") from error
        raise


def tag(table, run_id: str) -> None:
    """Give the table's version the run's name, or move the name to it."""
    retag(table, {run_id: table.version})


def _drop_repeats(table, name: str) -> None:
    """Leave one row of each key: a release that ordered runs by a clock could insert a row twice."""
    keys = TABLE_KEYS[name]
    life = [column for column in ("active",) if column in table.schema.names]
    rows = table.to_lance().to_table(columns=[*keys, *life], with_row_id=True)
    # The row that is kept comes first: an active one, and of these the one that was written last.
    order = [(column, "descending") for column in (*life, "_rowid")]
    seen, repeated = set(), []
    for row in rows.sort_by(order).to_pylist():
        key = tuple(row[column] for column in keys)
        if key in seen:
            repeated.append(row["_rowid"])
        seen.add(key)
    for start in range(0, len(repeated), MAX_IN):
        with alone(table):
            table.delete(f"_rowid IN ({', '.join(map(str, repeated[start : start + MAX_IN]))})")


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

    With `places`, as `staged_keys` gives them, a key that was staged more than once comes once. `created_at`
    counts up by a microsecond from row to row: what is staged later, as the archive has it, came in later.
    It begins behind `after`: what a later run brings came in later, whatever the clocks of the two say.
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
    }

    num_rows = 0
    for path in paths:
        staged = files.get_table(path)
        if places is not None:
            found = list(_rows_of(staged.select(keys)))
            last = {row: number for number, row in enumerate(found) if places[row] == path}
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


def _last_created(table) -> dt.datetime | None:
    """When the newest memory of a table was written; None in other tables, and in an empty one."""
    if "created_at" not in table.schema.names:
        return None
    newest = (
        pc.max(batch.column("created_at"))
        for batch in table.to_lance().scanner(columns=["created_at"]).to_batches()
    )
    return max((one.as_py() for one in newest if one.is_valid), default=None)


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
