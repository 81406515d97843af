"""The class `Writer`: writes a store so that a kill at any moment, or another writer, leaves it whole.

It knows intents, heads and recovery. What is written is up to operations, such as the commit of a run
(`Store.commit`, cluster.store.commit).

A run is prepared in staged files, written down as one *intent*, and then applied table by table. The commit
point is the creation of the next *head* (see cluster.store.heads), which names the version of every table,
`runs` included: a reader takes the versions of the newest head and so sees all of a run or nothing of it.
Runs are ordered by the number of the head that made them visible, and by no clock.

A writer that finds an intent finishes it before it does anything else. It begins anew at the versions of the
newest head: a table that has moved on since is restored first, so every step can be repeated, and what a
killed process left is rolled forward, never half visible. An intent that cannot be applied any more, because
its staged files are gone, is given up.

A writer may be stopped for minutes at any step, lose its lease, and go on while another one writes. It asks
for its lease before each table. What it still writes lands behind the versions that heads name, or between
two steps of the other, who notices (`alone`, `settled`) and begins anew. Its own head it cannot create: that
number is taken. Files that a new version may need are never deleted by their age (`tidy`).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.runtime import StageError, hide_in_dump
from cluster.runtime.log import say
from cluster.store.errors import StoreError
from cluster.store.files import Files, files_below, sweep_aside, sync_new
from cluster.store.heads import UPGRADE, Head
from cluster.store.lease import Lease, LeaseLost
from cluster.store.reading import INTENT, INTENTS, Reader
from cluster.store.runs import FinishedRun, run_rows, view_versions
from cluster.store.tables import Overtaken, Table, alone, bring_up, broke_off, drop_old_versions, settle, tag
from schemas.intent import Intent, read_intent
from schemas.store import RUNS_SCHEMA, STORE_VERSION, TABLE_KEYS, table_schemas

Apply = Callable[["Writer", Any], None]
"""Brings an intent to its end, whatever of it is done already: every step of it can be repeated."""

Operations = Mapping[type[Intent], Apply]
"""How the intents of each class are applied."""

MAX_BEGUN = 5
"""How often a writer begins a commit anew because another one, who lost the lease, wrote into it."""

MAX_BROKEN = 50
"""How often it begins anew because an answer broke off: each time it comes further."""


class Writer(Reader):
    """A store for those who write it, under a lease."""

    def __init__(self, uri: str, *, must_exist: bool = True, lease: Lease | None = None):
        self.lease = lease
        self._planned: int | None = None
        """Number of the head that this writer's work builds on, from `recover` on."""
        self._number, self.by, self.intent = 0, "", ""
        """While an intent is applied: number of the newest head, the intent's run and its path in `files`."""
        self._on_disk: set[Path] = set()
        """Files of tables that were there, and so on the disk, when this intent was begun."""
        super().__init__(uri, must_exist=must_exist)

    def fence(self) -> None:
        """Raise LeaseLost unless this writer still holds the lease."""
        if self.lease:
            self.lease.check()

    def recover(self, operations: Operations) -> str | None:
        """Finish the run that a killed writer had decided to commit; its id, or None. Needs the lease, and
        the operations that the writer may have begun.

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
            finished = self._recover(path, operations) or finished
        for name in head.versions if (head := self.head_now()) else ():
            self.writable(name)
        self._planned = self.heads.number()
        return finished

    def _recover(self, path: str, operations: Operations) -> str | None:
        written = self.files.get_json(path)
        if written is None:
            self._give_up(path, "a run", "what was to be done is empty or cut off")
            return None
        run_id = written["run"]["run_id"]
        if written.get("store_version", 0) > STORE_VERSION:
            raise StoreError(
                f"store {self.uri}: a newer release had begun to commit run {run_id}; finish it with that "
                f"release, or delete _slowwave/commit/{path} to give that run up"
            )
        if "config" in written["run"] and written.get("store_version", 0) < STORE_VERSION:
            written["run"]["config"] = hide_in_dump(written["run"]["config"])
        number, newest = INTENTS.number(path), self.heads.number()
        if number is not None and number <= newest:
            head = self.heads.get(number)
            # An upgrade that came in between has left all rows as they were.
            while head and head.by == UPGRADE and head.number < newest:
                head = self.heads.get(head.number + 1)
            if head is None or head.by not in (run_id, UPGRADE):
                self._give_up(path, f"run {run_id}", "another run was published in its place")
                return None
        try:
            intent = read_intent(written)
        except ValueError as error:
            raise StoreError(
                f"store {self.uri}: another release had begun to commit run {run_id}, which this one cannot "
                f"finish ({error}); finish it with that release, or delete _slowwave/commit/{path} to give "
                "that run up"
            ) from None
        if (apply := operations.get(type(intent))) is None:
            raise StoreError(
                f"store {self.uri}: the {intent.kind} of run {run_id} was interrupted; have it finished by a "
                "job that writes the store, such as jobs.migrate"
            )
        try:
            self._finish(path, intent, apply, newest)
        except (StoreError, LeaseLost):
            raise
        except Exception:
            if not (damaged := self._damaged(intent)):
                raise
            Files(self.uri, "staging").delete(damaged)
            self._give_up(path, f"run {run_id}", f"its staged files {damaged[:3]} are gone or damaged")
            return None
        return run_id

    def _give_up(self, path: str, what: str, why: str) -> None:
        if self.head_now() is None:
            # What a first commit has left in `runs` would pass for runs of a store that has lost its heads.
            self.writable("runs", RUNS_SCHEMA)
        self.files.delete([path])
        say(
            f"store {self.uri}: {what} was interrupted in its commit and cannot be finished ({why}); it was "
            "given up, and nothing of it is seen. Run its job again"
        )

    def _damaged(self, intent: Intent) -> list[str]:
        """Staged files of an intent that cannot be read."""
        staging, damaged = Files(self.uri, "staging"), []
        for path in intent.staged_paths:
            try:
                staging.get_table(path)
            except (OSError, pa.ArrowException):
                damaged.append(path)
        return damaged

    def begin(self, intent: Intent, apply: Apply) -> None:
        """Write down what is to be done, and do it."""
        if self.head_now() is not None:
            self.upgrade()
        newest, path = self.heads.number(), INTENTS.path(self.heads.number() + 1)
        self.fence()
        if self._planned not in (None, newest):
            raise StoreError(
                f"store {self.uri}: another job has published while this one was stopped, so what this one "
                "prepared is outdated; run the same command again"
            )
        written = intent.model_dump(by_alias=True) | {"store_version": STORE_VERSION}
        content = json.dumps(written, default=str)
        if self.files.exists(INTENT) or not self.files.claim(path, content.encode()):
            raise StoreError(f"store {self.uri}: an interrupted commit is not finished; call recover() first")
        # As a later writer would read it: what is done first and what is done again is one thing.
        self._finish(path, read_intent(json.loads(content)), apply, newest)

    def _finish(self, path: str, intent: Intent, apply: Apply, number: int) -> None:
        self._number, self.by, self.intent = number, intent.run["run_id"], path
        self._look()
        try:
            self._until_alone(lambda: apply(self, intent))
        finally:
            self.by = ""
        self.files.delete([path])
        self.heads.tidy()

    def _until_alone(self, work: Callable[[], object]) -> None:
        """Do what can be repeated, and do it anew where another writer has written into it, or where the
        server of a bucket broke off."""
        num_overtaken = num_broken = 0
        while True:
            self.fence()
            try:
                work()
                return
            except Overtaken as error:
                num_overtaken += 1
                if num_overtaken == MAX_BEGUN:
                    raise StoreError(
                        f"store {self.uri}: another job, which has lost its lease, goes on writing "
                        f"({error}); end it and run the same command again"
                    ) from None
            except (RuntimeError, OSError, StageError) as error:
                num_broken += 1
                if num_broken == MAX_BROKEN or not broke_off(error):
                    raise

    def _look(self) -> None:
        """Remember which files need no bringing to the disk: those of published versions are there."""
        if self._root is not None:
            folders = [self._root / f"{name}.lance" for name in (*TABLE_KEYS, "runs")]
            self._on_disk = set().union(*map(files_below, folders))

    def head(self, name: str) -> Table:
        """The newest version of a table, published or not: for writers, under the lease. No `Head`: that is
        `head_now`."""
        if self.by:
            self.fence()
        return self._db.open_table(name)

    def writable(self, name: str, schema: pa.Schema | None = None) -> Table:
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

    def is_published(self, intent: Intent) -> bool:
        """Whether it is behind its commit point: the versions that its run names, and their tags, must not
        move any more."""
        return any(run.run_id == intent.run["run_id"] for run in self.runs())

    def publish(self, new: list[dict], changed: list[FinishedRun]) -> None:
        """The commit point: new rows of `runs`, as `run_row` makes them, and changed runs, and with them the
        versions of the newest run's view, become what readers see. At once, and unless another writer was
        faster."""
        number, runs = self._number + 1, self.writable("runs", RUNS_SCHEMA)
        # The newest rows take the place of those with their ids.
        news = [*changed, *(FinishedRun.of(row | {"sequence": number}) for row in new)]
        all_runs = {run.run_id: run for run in [*self.runs(), *news]}
        newest = max(all_runs.values(), key=lambda run: run.sequence)
        if news:
            with alone(runs):
                merge = runs.merge_insert(["run_id"]).when_matched_update_all().when_not_matched_insert_all()
                merge.execute(run_rows(news))
            settle(runs, "runs")
        self.put_head(newest.versions | {"runs": runs.version}, self.by or newest.run_id)

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
            assert head is not None, "only a store with a run is upgraded"
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
            tag(table, runs[-1].run_id)
            versions[name] = table.version
        table = self.writable("runs")
        hidden = [run.with_columns(config=hide_in_dump(run["config"])) for run in runs]
        hidden[-1] = hidden[-1].with_columns(versions=versions)
        dataset = table.to_lance()
        dataset.insert(run_rows(hidden), mode="overwrite")
        self.put_head(versions | {"runs": dataset.version}, UPGRADE)

    def _hide_in_manifests(self) -> None:
        """Earlier releases dumped the operator's tokens in clear."""
        manifests = Files(self.uri, "runs")
        for path in manifests.paths():
            found = manifests.get_json(path) if path.endswith(".json") else None
            if found and (hidden := json.loads(hide_in_dump(json.dumps(found)))) != found:
                manifests.put_json(path, hidden)
