"""Consolidation at scale, and over many sample worlds. Rules decide, so that no model is timed.

    python -m tests.benchmarks.bench_consolidate scale --num-memories 10000 100000
    python -m tests.benchmarks.bench_consolidate scale --num-users 1000 --num-memories 1000000
    python -m tests.benchmarks.bench_consolidate gold --seeds 20

scale     real stores of synthetic memories in which the newest 1 % are new; one worker, no Ray: seconds of
          every stage, and the peak memory of the process above what it held before, without the commit and
          with it. With several sizes, also the last one's time over the first one's. `--prepare` only writes
          the stores, into FOLDER, where the next call finds them
gold      gold memories of sample worlds with the seeds 1 to SEEDS: old values that are still active, facts
          that lost their current value, unrelated memories touched; exit code 1 unless all are 0
The last line is JSON.
"""

import argparse
import concurrent.futures
import datetime as dt
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.memory import peak_kib

DIM = 384

PREDICATES = (
    "User lives in {}.",
    "User now works at {}.",
    "User read {} on the train.",
    "User visited {} with a friend.",
    "User's colleague recommended {}.",
    "User is learning about {}.",
    "User bought {} at the market.",
    "User wants to try {} next summer.",
)


def synthetic(num: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Statements, and unit vectors in which a memory has a few near neighbours (cosine about 0.86)."""
    rng = np.random.default_rng(seed)
    # One in fifty says where the user lives or works; the others only resemble each other.
    kinds = np.where(rng.random(num) < 0.02, rng.integers(0, 2, num), rng.integers(2, len(PREDICATES), num))
    values = rng.integers(0, num, num)
    texts = [PREDICATES[kind].format(f"Name{value}") for kind, value in zip(kinds, values, strict=True)]
    centres = rng.standard_normal((max(1, num // 4), DIM)).astype(np.float32)
    vectors = centres[rng.integers(0, len(centres), num)]
    vectors += rng.standard_normal((num, DIM)).astype(np.float32) * 0.4
    return texts, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def records(num_users: int, num: int, first: int, texts, vectors) -> dict:
    """Columns of a staged file of records `first` and following: one a minute, users in turn."""
    numbers = np.arange(first, first + num)
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    sessions = [f"s{number}" for number in numbers]
    return {
        "record_id": [f"r{number:09}" for number in numbers],
        "revision": [1] * num,
        "segment_id": sessions,
        "user_id": [f"u{number % num_users:06}" for number in numbers],
        "conversation_id": ["c"] * num,
        "session_id": sessions,
        "session_time": [start + dt.timedelta(minutes=int(number)) for number in numbers],
        "memory_type": ["fact"] * num,
        "semantic_text": texts,
        "normalized_text": texts,
        "entities": [[]] * num,
        "temporal": [{"t_ref": "", "t_valid_from": "", "t_valid_to": ""}] * num,
        "tags": [[]] * num,
        "evidence": [[{"session_id": session, "turn_index": 0}] for session in sessions],
        "source_role": ["user"] * num,
        "vector": list(vectors),
    }


def write_store(uri: str, num_users: int, num: int) -> None:
    from cluster.store.files import Files
    from cluster.store.store import Store
    from schemas.store import records_schema

    store, staging = Store(uri, must_exist=False), Files(uri, "staging")
    num_new = num // 100
    for run_id, first, last in (("before", 0, num - num_new), ("night", num - num_new, num)):
        paths = []
        for start in range(first, last, 50_000):
            size = min(50_000, last - start)
            columns = records(num_users, size, start, *synthetic(size, seed=start))
            known = pa.schema([field for field in records_schema(DIM) if field.name in columns])
            staging.put_table(path := f"{run_id}-{start}.parquet", pa.table(columns, schema=known))
            paths.append(path)
        run = {"run_id": run_id, "job": "backfill", "started_at": dt.datetime.now(dt.UTC).isoformat()}
        run |= {"encoder": "e", "embedder": "e", "embedder_profile": "{}", "config": "{}", "summary": "{}"}
        store.commit(run, DIM, inserts={"records": paths})
        staging.delete(staging.paths())


def part_scale(options) -> dict:
    results = []
    for num in options.num_memories:
        if options.prepare:
            write_store(str(options.folder / store_name(options.num_users, num)), options.num_users, num)
            continue
        # A process each: the peak of one must not hide that of the next.
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            results.append(pool.submit(measure, options.num_users, num, options.folder).result())
        if len(options.num_memories) > 1:
            print(json.dumps(results[-1]), flush=True)
    if len(results) < 2:
        return dict(*results)
    first, last = results[0], results[-1]
    return {
        "times_as_many_memories": last["num_memories"] / first["num_memories"],
        "times_as_long": round(last["seconds_without_commit"] / first["seconds_without_commit"], 2),
        "times_as_long_with_commit": round(sum(last["seconds"].values()) / sum(first["seconds"].values()), 2),
    }


def store_name(num_users: int, num_memories: int) -> str:
    return f"store-{num_users}-{num_memories}"


def measure(num_users: int, num_memories: int, folder: Path | None) -> dict:
    """One night on a store of this size."""
    from cluster.consolidate.plan import plan_group
    from cluster.consolidate.stages import DecideStage
    from cluster.store.files import Files
    from cluster.store.store import Store
    from jobs.common.consolidation import group_users, staged_rows
    from jobs.common.update_config import UpdateConfig
    from schemas.stage_items import UserGroup

    with tempfile.TemporaryDirectory(dir=folder) as uri:
        prepared = folder and folder / store_name(num_users, num_memories)
        if prepared and prepared.is_dir():
            prepared.rename(uri)
        else:
            # A process of its own writes the store, so that its memory is not counted here.
            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                pool.submit(write_store, uri, num_users, num_memories).result()
        store, files = Store(uri), Files(uri, "staging/consolidate/bench")
        config = UpdateConfig(store=uri)
        settings = make_settings(uri, "night", config)
        before_kib = peak_kib()
        seconds, done = {}, []
        started_s = time.monotonic()
        groups = group_users(store, settings)
        seconds["group"] = time.monotonic() - started_s
        users = [UserGroup(f"{n:06}", tuple(group)) for n, group in enumerate(groups)]
        planned = [plan_group(group, settings=settings, files=files) for group in users]
        seconds["plan"] = time.monotonic() - started_s - seconds["group"]
        stage = DecideStage(None, settings, files, {})
        done = [stage(group) for group in planned]
        seconds["decide"] = time.monotonic() - started_s - sum(seconds.values())
        run = store.run().row | {"run_id": "bench", "started_at": settings.started_at.isoformat()}
        run = {name: value for name, value in run.items() if name not in ("versions", "finished_at")}
        replaces = staged_rows("bench", done)
        peak = peak_kib()
        store.commit(run, DIM, replaces=replaces)
        seconds["commit"] = time.monotonic() - started_s - sum(seconds.values())
        counts = ("num_memories", "num_new", "num_pairs", "num_targets", "num_deleted", "num_united")
        return {
            "num_users": num_users,
            **{name: sum(getattr(group, name) for group in done) for name in counts},
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            "seconds_without_commit": round(sum(seconds.values()) - seconds["commit"], 2),
            "peak_mib_above_start": (peak - before_kib) >> 10,
            "peak_mib_above_start_with_commit": (peak_kib() - before_kib) >> 10,
        }


def make_settings(uri: str, new_run: str, config):
    from cluster.consolidate.plan import PlanSettings
    from cluster.consolidate.rules import rules_fingerprint

    return PlanSettings(
        uri=uri,
        as_of=new_run,
        run_id="bench",
        started_at=dt.datetime.now(dt.UTC),
        new_runs=(new_run,),
        again=frozenset(),
        undone=(),
        decider=rules_fingerprint(),
        **config.model_dump(
            include={"min_similarity", "top_k", "max_sources", "min_confidence", "batch_size"}
        ),
    )


def part_gold(options) -> dict:
    from tests.gold import consolidated_world, load_embedder

    embedder, result = load_embedder(), {}
    for seed in range(1, options.seeds + 1):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found = consolidated_world(Path(folder) / "archive", embedder, seed=seed)
        for name, items in found.items():
            result[name] = result.get(name, 0) + len(items)
    wrong = ("old_values_active", "current_facts_lost", "unrelated_touched")
    return {"seeds": options.seeds, **result, "is_right": not any(result[name] for name in wrong)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["scale", "gold"])
    parser.add_argument("--num-users", type=int, default=1)
    parser.add_argument("--num-memories", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, default=None, help="where stores and archives are put")
    parser.add_argument("--prepare", action="store_true", help="only write the stores of `scale`")
    parser.add_argument("--seeds", type=int, default=20)
    chosen = parser.parse_args()
    summary = {"scale": part_scale, "gold": part_gold}[chosen.part](chosen)
    print(json.dumps(summary))
    sys.exit(not summary.get("is_right", True))
