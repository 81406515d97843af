"""The one place where stages are started: on a Ray cluster through Ray Data, or in this process.

    for cut in run_stage(units, Stage(cut_unit, arguments)):                       # tasks
    for done in run_stage(batches, Stage(EncodeStage, ..., pool), Stage(EmbedStage, ..., pool)):   # actors

A stage says by its annotations what it takes and what it gives, each a frozen dataclass. On a cluster these
travel as rows of Arrow tables (cluster.runtime.rows): references and counts, while data lies in staged files.
Rows are what Ray Data moves, and Ray Data has the pools that grow, the replacement of lost workers and the
backpressure for which plain Ray tasks with Python objects would need an executor of our own. In this process
the objects are handed on as they are.
"""

import contextlib
import functools
import gc
import itertools
import os
import re
import sys
import threading
import time
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.runtime.config import PoolConfig
from cluster.runtime.connecting import is_local, num_cores
from cluster.runtime.progress import Progress, report_to
from cluster.runtime.resources import Waiting, dead_nodes, num_gpus_within_reach, this_node

if TYPE_CHECKING:
    import pyarrow as pa
    import ray

MAX_BLOCKS = 4096
"""Tasks of a stage at most: enough for any cluster, few enough for the driver."""

NUMBER = "__number"
"""Column with the place of an item among all items."""


class StageError(Exception):
    """A stage raised. The message says which, and what."""


@dataclass(frozen=True)
class Stage:
    """One step of the work."""

    work: Callable
    """A function (item, **arguments) -> result where nothing is loaded; else a class, made with `arguments`
    once in each worker, whose instance is called with item after item."""
    arguments: Mapping[str, object] = field(default_factory=dict)
    """The same for every item; on a cluster the workers get copies."""
    pool: PoolConfig | None = None
    """Workers of a class; a function runs in as many tasks as there is room for."""
    wants_gpu: bool = False
    """Whether each worker takes a GPU where the cluster has some and the pool does not say."""
    in_flight: int = 1
    """Items that each worker of a class has in work at a time on a cluster. With more than one, several
    threads call the instance side by side. In this process it is one."""

    @property
    def name(self) -> str:
        return self.work.__name__

    @property
    def is_loaded(self) -> bool:
        return isinstance(self.work, type)

    @functools.cached_property
    def carriers(self) -> tuple[type, type]:
        """Classes of item and result, as the annotations say."""
        work: typing.Any = self.work
        hints = typing.get_type_hints(work.__call__ if self.is_loaded else work)
        gives = hints.pop("return")
        return next(iter(hints.values())), gives

    def made(self) -> Callable:
        """item -> result."""
        if self.is_loaded:
            return self.work(**self.arguments)
        return functools.partial(self.work, **self.arguments)


def run_stage(
    items: Sequence,
    *stages: Stage,
    progress: Progress | None = None,
    count: Callable[[typing.Any], int] = lambda result: 1,
    note: Callable[[typing.Any], str] = lambda result: "",
    in_order: bool = False,
) -> Iterator:
    """Results of the last stage, one for each item, as they come; `in_order`: in the order of the items.

    Each stage hands its results to the next while it goes on. `progress` counts `count(result)` units for
    each result, with `note(result)` behind them. StageError when a stage raises, TypeError when one does not
    take what the one before gives.
    """
    for before, after in itertools.pairwise(stages):
        if not issubclass(gives := before.carriers[1], takes := after.carriers[0]):
            raise TypeError(f"{before.name} gives {gives.__name__}, but {after.name} takes {takes.__name__}")
    if not items:
        return
    results = (_run_here if is_local() else _run_on_ray)(items, stages, progress)
    waiting: dict[int, object] = {}
    num_given = 0
    for number, result in results:
        if progress is not None:
            progress.arrived(number, count(result), note(result))
        if not in_order:
            yield result
            continue
        waiting[number] = result
        while num_given in waiting:
            yield waiting.pop(num_given)
            num_given += 1


@contextlib.contextmanager
def _named(stage: str) -> Iterator[None]:
    """What is raised here is a StageError that names the stage."""
    try:
        yield
    except Exception as error:
        raise StageError(f"{stage}: {type(error).__name__}: {error}") from error


# --- in this process ------------------------------------------------------------------------------------


def _run_here(
    items: Sequence, stages: Sequence[Stage], progress: Progress | None
) -> Iterator[tuple[int, object]]:
    calls: list[Callable] = []
    try:
        for number, item in enumerate(items):
            with report_to(functools.partial(progress.tick, number) if progress else None):
                for place, stage in enumerate(stages):
                    with _named(stage.name):
                        if place == len(calls):
                            use_threads(stage.pool)
                            calls.append(stage.made())
                        item = calls[place](item)
            yield number, item
    finally:
        calls.clear()
        if any(stage.is_loaded for stage in stages):
            # A model goes before the next one is loaded.
            gc.collect()


def use_threads(pool: PoolConfig | None) -> None:
    """As many threads as a worker of this pool has; a library that is loaded already must be told."""
    if pool is None or pool.num_threads is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(pool.num_threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(pool.num_threads)


# --- on a cluster ---------------------------------------------------------------------------------------


def _run_on_ray(
    items: Sequence, stages: Sequence[Stage], progress: Progress | None
) -> Iterator[tuple[int, object]]:
    import ray

    from cluster.runtime.rows import of_table, to_table

    takes, gives = stages[0].carriers[0], stages[-1].carriers[1]
    num_blocks, blocks = min(len(items), MAX_BLOCKS), []
    for block in range(num_blocks):
        start, end = len(items) * block // num_blocks, len(items) * (block + 1) // num_blocks
        blocks.append(_numbered(to_table(takes, items[start:end]), range(start, end)))
    board = _Board(uuid.uuid4().hex)
    dataset = ray.data.from_blocks(blocks)
    for stage in stages:
        dataset = dataset.map_batches(
            **_worker(stage, board), batch_size=1, batch_format="pyarrow", zero_copy_batch=True
        )
    try:
        with board.followed_by(progress, _waiting(stages, progress)):
            # Without a look ahead: it would keep each result back until there is another.
            for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from zip(table.column(NUMBER).to_pylist(), of_table(gives, table), strict=True)
    except ray.exceptions.RayError as error:
        # The error of the worker is in the text alone.
        told = re.search(r"StageError: (.+)", str(error)) or re.search(r"(.+)\s*$", str(error))
        raise StageError(told[1] if told else type(error).__name__) from error


def _waiting(stages: Sequence[Stage], progress: Progress | None) -> Waiting:
    tasks = [stage.name for stage in stages if not stage.is_loaded]
    return Waiting(progress.label if progress else stages[0].name, *tasks[:1])


def _worker(stage: Stage, board: "_Board") -> dict:
    """Arguments of Dataset.map_batches: what is run, and on which workers."""
    import ray

    if not stage.is_loaded:
        shared, work, name, carriers = ray.put(stage.arguments), stage.work, stage.name, stage.carriers

        def step(table: "pa.Table") -> "pa.Table":
            return _one(functools.partial(work, **_shared(shared)), name, carriers, board, table)

        step.__name__ = name
        return {"fn": step, "num_cpus": 1}
    # Ray shows operators the name of the class.
    actor = type(stage.name, (_Actor,), {})
    return {"fn": actor, "fn_constructor_args": (stage, board), **_resources(stage)}


@functools.lru_cache(maxsize=2)
def _shared(reference: "ray.ObjectRef") -> Mapping[str, object]:
    """Arguments of a stage, unpickled once a process and not for each item. Two, as two stages may share a
    process."""
    import ray

    return ray.get(reference)


class _Actor:
    """A stage with something loaded, in a worker of its own."""

    def __init__(self, stage: Stage, board: "_Board"):
        self._name, self._carriers, self._board = stage.name, stage.carriers, board
        with _named(stage.name):
            self._call = stage.made()

    def __call__(self, table: "pa.Table") -> "pa.Table":
        return _one(self._call, self._name, self._carriers, self._board, table)


def _one(
    call: Callable, name: str, carriers: tuple[type, type], board: "_Board", table: "pa.Table"
) -> "pa.Table":
    """A row with an item -> a row with its result."""
    from cluster.runtime.rows import of_table, to_table

    (item,), number = of_table(carriers[0], table), table.column(NUMBER)
    with board.reporting(number[0].as_py()), _named(name):
        result = call(item)
    return _numbered(to_table(carriers[1], [result]), number)


def _numbered(table: "pa.Table", numbers: Sequence[int]) -> "pa.Table":
    import pyarrow as pa

    return table.append_column(pa.field(NUMBER, pa.int64()), [pa.array(numbers, pa.int64())])


def _resources(stage: Stage) -> dict:
    from ray.data import ActorPoolStrategy

    pool = stage.pool or PoolConfig()
    num_gpus = pool.num_gpus
    if num_gpus is None:
        num_gpus = 1.0 if stage.wants_gpu and num_gpus_within_reach() >= 1 else 0.0
    options = {
        "compute": ActorPoolStrategy(
            min_size=pool.min_size,
            max_size=max(pool.min_size, pool.max_size),
            max_concurrent_calls_per_actor=stage.in_flight,
            enable_true_multi_threading=stage.in_flight > 1,
        ),
        "num_cpus": pool.num_cpus,
    }
    if num_gpus:
        return options | {"num_gpus": num_gpus}
    # Ray sets OMP_NUM_THREADS to num_cpus; a model wants the cores, however few it reserves.
    threads = str(pool.num_threads or num_cores())
    return options | {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads}}}


POLL_S = 2.0
"""How often workers note how far they are, and the job reads it."""


@dataclass(frozen=True)
class _Board:
    """Where workers note which items are in work, on which node, and how many units of them are done: a few
    keys in Ray's own store."""

    run: str

    @contextlib.contextmanager
    def reporting(self, number: int) -> Iterator[None]:
        """Ticks meanwhile are of item `number`."""
        from ray.experimental import internal_kv

        key, node, done, noted_s = self._key(str(number)), this_node(), 0, time.monotonic()

        def note() -> None:
            internal_kv._internal_kv_put(key, f"{node} {done}", overwrite=True)

        def report(count: int) -> None:
            nonlocal done, noted_s
            done += count
            if time.monotonic() - noted_s >= POLL_S:
                note()
                noted_s = time.monotonic()

        note()
        try:
            with report_to(report):
                yield
        finally:
            internal_kv._internal_kv_del(key)

    @contextlib.contextmanager
    def followed_by(self, progress: Progress | None, waiting: Waiting) -> Iterator[None]:
        """Show meanwhile what workers note."""
        is_over = threading.Event()
        thread = threading.Thread(target=self._follow, args=(progress, waiting, is_over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            # A cluster that is gone keeps it waiting.
            thread.join(POLL_S)

    def _follow(self, progress: Progress | None, waiting: Waiting, is_over: threading.Event) -> None:
        while not is_over.wait(POLL_S):
            # It only tells how far the work is; a cluster that does not answer is found out elsewhere.
            with contextlib.suppress(Exception):
                counts = self._counts()
                if progress:
                    progress.in_work(counts)
                waiting.look(len(counts))

    def _counts(self) -> dict[int, int]:
        """Items in work -> units of them that are done. What a lost node had in work is not."""
        from ray.experimental import internal_kv

        keys = internal_kv._internal_kv_list(self._key(""))
        notes = {key: internal_kv._internal_kv_get(key) for key in keys}
        found = {key: note.decode().split(" ") for key, note in notes.items() if note}
        lost = dead_nodes() if found else ()
        return {
            int(key.rpartition(b"/")[2]): int(count)
            for key, (node, count) in found.items()
            if node not in lost
        }

    def _key(self, number: str) -> bytes:
        return f"slowwave/{self.run}/{number}".encode()
