"""What operations cost on a larger store: rollback, forget, compact. No Ray, no model.

    python -m tests.benchmarks.bench_operations --num-memories 60000 --num-runs 5

The store has NUM_MEMORIES records with vectors of 384 dimensions, of 100 users, written by NUM_RUNS runs with
a kept view each. `times_one_run`: MiB of that store for one of a store whose rows came in a single run;
`most_files`: data files of the table that has most in its newest version. Every operation gets a copy of the
store. `forget` erases one user, 1 % of the rows, from every view, and searches what is left. MiB are those of
all files. `publish`: on top of that store, the commit of as many memories again, out of staged files of 2,000
rows, in a process of its own: seconds of the processor, and peak memory above what it held before. The last
line is JSON.
"""

import argparse
import concurrent.futures
import datetime as dt
import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from tests.benchmarks.bench_consolidate import DIM, records, synthetic
from tests.memory import peak_kib

NUM_USERS = 100


def write_store(uri: str, num: int, num_runs: int) -> None:
    from cluster.store.files import Files
    from cluster.store.store import Store

    store, staging, size = Store(uri, must_exist=False), Files(uri, "staging"), num // num_runs
    for number in range(num_runs):
        staging.put_table("records.parquet", memories(size, number * size, number))
        store.commit(run_row(f"run-{number}"), DIM, inserts={"records": ["records.parquet"]})
        staging.delete(staging.paths())


def memories(num: int, first: int, seed: int) -> pa.Table:
    """Staged rows of `records`."""
    from schemas.store import records_schema

    columns = records(NUM_USERS, num, first, *synthetic(num, seed=seed))
    known = pa.schema([field for field in records_schema(DIM) if field.name in columns])
    return pa.table(columns, schema=known)


def run_row(run_id: str) -> dict:
    row = {"run_id": run_id, "job": "backfill", "started_at": dt.datetime.now(dt.UTC).isoformat()}
    return row | {"encoder": "e", "embedder": "e", "embedder_profile": "{}", "config": "{}", "summary": "{}"}


ROWS_STAGED = 2_000
"""Of a file."""


def stage_night(uri: str, num: int) -> None:
    """Stage `num` memories more than the store has."""
    from cluster.store.files import Files
    from cluster.store.store import Store

    staging, known = Files(uri, "staging"), Store(uri).head("records").count_rows()
    for number, first in enumerate(range(0, num, ROWS_STAGED)):
        size = min(ROWS_STAGED, num - first)
        staging.put_table(f"night/{number:06d}.parquet", memories(size, known + first, 1_000 + number))


def publish(uri: str) -> dict:
    """Commit what is staged, in this process."""
    from cluster.store.files import Files
    from cluster.store.store import Store

    store, paths = Store(uri), Files(uri, "staging").paths("night")
    store.head("records").count_rows()
    before_kib, begun_s = peak_kib(), time.process_time()
    store.commit(run_row("night"), DIM, inserts={"records": paths})
    cpu_s = time.process_time() - begun_s
    return {"cpu_s": round(cpu_s, 2), "peak_mib_above_start": (peak_kib() - before_kib) >> 10}


def num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def num_files(table: Path) -> int:
    """Data files of a table's newest version."""
    import lance

    return len(lance.dataset(str(table)).get_fragments())


def timed(store: Path, operation: Callable[[str], dict]) -> dict:
    started_s = time.monotonic()
    summary = operation(str(store))
    assert summary["status"] == "done", summary
    return {"seconds": round(time.monotonic() - started_s, 2), "mib_after": num_bytes(store) >> 20}


def main(options) -> dict:
    from jobs.compact import CompactConfig
    from jobs.compact import run as compact
    from jobs.forget import ForgetConfig
    from jobs.forget import run as forget
    from jobs.rollback import RollbackConfig
    from jobs.rollback import run as rollback

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        whole = Path(folder) / "whole"
        write_store(str(whole), options.num_memories, options.num_runs)
        shorter = lambda uri: compact(CompactConfig(store=uri, keep_runs=1))  # noqa: E731
        operations = {
            "rollback": lambda uri: rollback(RollbackConfig(store=uri, to="run-0")),
            "forget": lambda uri: forget(ForgetConfig(store=uri, user_id="u000001")),
            "compact": shorter,
        }
        result = {"num_rows": options.num_memories, "num_runs": options.num_runs}
        result["mib"] = num_bytes(whole) >> 20
        once = Path(folder) / "once"
        write_store(str(once), options.num_memories, 1)
        result["times_one_run"] = round(num_bytes(whole) / num_bytes(once), 2)
        result["most_files"] = max(map(num_files, whole.glob("*.lance")))
        for name, operation in operations.items():
            store = Path(folder) / name
            shutil.copytree(whole, store)
            result[name] = timed(store, operation)
            if name == "forget":
                result["compact_after_forget"] = timed(store, shorter)
            shutil.rmtree(store)
        stage_night(str(whole), options.num_memories)
        # A process of its own: nothing else has filled its memory before.
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            result["publish"] = pool.submit(publish, str(whole)).result()
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-memories", type=int, default=60_000)
    parser.add_argument("--num-runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the stores are put")
    print(json.dumps(main(parser.parse_args())))
