"""Consolidation at scale, beside LightMem's offline update, and what a change costs.

    python -m tests.benchmarks.bench_consolidate scale --num-users 1 --num-memories 100000
    python -m tests.benchmarks.bench_consolidate scale --num-users 1000 --num-memories 1000000
    python -m tests.benchmarks.bench_consolidate lightmem --num-memories 10000 --lightmem FOLDER
    python -m tests.benchmarks.bench_consolidate calls --archive DIR --lightmem FOLDER
    python -m tests.benchmarks.bench_consolidate gold --seeds 20

scale     a real store of synthetic memories in which the newest 1 % are new; one worker, no Ray: seconds of
          every stage, and the peak memory of the process above what it held before, without the commit and
          with it
lightmem  LightMem's own queue construction and scan against ours, on the same vectors, everything new. FOLDER
          is a clone of its repository: two methods are read from it and run as they are. Its vector database
          is replaced by an exact search in numpy, which is faster than a database; the LLM is stubbed on
          both sides ("ignore"). `delta_1_percent_s` is ours as it runs every night; LightMem has no delta.
calls     calls and estimated tokens for each gold change of a sample world: ours, and one call per linked
          target as LightMem links them, at its two thresholds. A change counts as reachable when the target's
          call shows a memory that supersedes or repeats it.
gold      gold memories of sample worlds with the seeds 1 to SEEDS, consolidated by rules: old values that are
          still active, facts that lost their current value, unrelated memories touched; all are to be 0
The last line is JSON.
"""

import argparse
import ast
import concurrent.futures
import datetime as dt
import json
import logging
import multiprocessing
import resource
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

DIM = 384
CHARS_A_TOKEN = 4

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
    from cluster.files import Files
    from cluster.store import Store
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
    from cluster.consolidation.plan import plan_group
    from cluster.consolidation.stages import DecideStage
    from cluster.files import Files
    from cluster.store import Store
    from jobs.updates import UpdateConfig, group_users

    # A process of its own writes the store, so that its memory is not counted here.
    context = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory(dir=options.folder) as uri:
        with context as pool:
            pool.submit(write_store, uri, options.num_users, options.num_memories).result()
        store, files = Store(uri), Files(uri, "staging/consolidate/bench")
        config = UpdateConfig(store=uri)
        settings = make_settings(uri, "night", config)
        before_mib = peak_mib()
        seconds, done = {}, []
        started_s = time.monotonic()
        groups = group_users(store, settings)
        seconds["group"] = time.monotonic() - started_s
        planned = [plan_group(f"{n:06}", users, settings, files) for n, users in enumerate(groups)]
        seconds["plan"] = time.monotonic() - started_s - seconds["group"]
        stage = DecideStage(None, settings, files, {})
        done = [stage(row) for row in planned]
        seconds["decide"] = time.monotonic() - started_s - sum(seconds.values())
        run = store.run() | {"run_id": "bench", "started_at": settings.started_at.isoformat()}
        run = {name: value for name, value in run.items() if name not in ("versions", "finished_at")}
        replaces = {
            table: [
                f"consolidate/bench/{row['group_id']}/{table}.parquet"
                for row in done
                if row[f"num_rows_{table}"]
            ]
            for table in ("decisions", "records")
        }
        peak = peak_mib()
        store.commit(run, DIM, replaces=replaces)
        seconds["commit"] = time.monotonic() - started_s - sum(seconds.values())
        counts = ("num_memories", "num_new", "num_pairs", "num_targets", "num_deleted", "num_united")
        return {
            "num_users": options.num_users,
            **{name: sum(row[name] for row in done) for name in counts},
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            "seconds_without_commit": round(sum(seconds.values()) - seconds["commit"], 2),
            "peak_mib_above_start": round(peak - before_mib),
            "peak_mib_above_start_with_commit": round(peak_mib() - before_mib),
        }


def make_settings(uri: str, new_run: str, config):
    from cluster.consolidation.decider import Rules
    from cluster.consolidation.plan import Settings

    return Settings(
        uri=uri,
        as_of=new_run,
        run_id="bench",
        started_at=dt.datetime.now(dt.UTC),
        new_runs=(new_run,),
        again=frozenset(),
        undone=(),
        decider=Rules.fingerprint,
        **config.model_dump(
            include={"min_similarity", "top_k", "max_sources", "min_confidence", "batch_size"}
        ),
    )


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- LightMem -------------------------------------------------------------------------------------------


class Retriever:
    """An exact search in memory, in place of LightMem's vector database."""

    def __init__(self, vectors: np.ndarray, times: np.ndarray, payloads: list[dict]):
        self.vectors, self.times = vectors, times
        self.entries = [
            {"id": number, "vector": vectors[number], "payload": payload}
            for number, payload in enumerate(payloads)
        ]

    def get_all(self):
        return list(self.entries)

    def search(self, query_vector, limit, filters):
        scores = self.vectors @ query_vector
        scores[self.times > filters["float_time_stamp"]["lte"]] = -2
        best = np.argpartition(-scores, min(limit, len(scores) - 1))[:limit]
        return [{"id": int(n), "score": float(scores[n])} for n in best[np.argsort(-scores[best])]]

    def update(self, vector_id, vector, payload):
        self.entries[vector_id]["payload"] = payload


class Manager:
    """A stubbed LLM: counts what it is asked and ignores everything."""

    def __init__(self):
        self.asked = []

    def _call_update_llm(self, prompt, target, sources):
        self.asked.append((target["id"], [source["id"] for source in sources]))
        return {"action": "ignore", "usage": {}}


def lightmem(folder: Path, vectors, times, payloads, threshold: float) -> tuple[Manager, float, float]:
    """Run LightMem's two methods from a clone; seconds of queue construction and of the scan."""
    source = (folder / "src" / "lightmem" / "memory" / "lightmem.py").read_text()
    names = {"concurrent": concurrent, "threading": threading, "datetime": dt.datetime, "UPDATE_PROMPT": ""}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name in (
            "construct_update_queue_all_entries",
            "offline_update_all_entries",
        ):
            code = textwrap.dedent("\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno]))
            exec(compile(code, node.name, "exec"), names)

    class Memory:
        embedding_retriever = Retriever(vectors, times, payloads)
        manager = Manager()
        logger = logging.getLogger("lightmem")
        token_stats = dict.fromkeys(
            ("update_calls", "update_prompt_tokens", "update_completion_tokens", "update_total_tokens"), 0
        )

    from threadpoolctl import threadpool_limits

    # Its eight threads and those of the matrix library would fight for the cores; one thread each is fastest.
    with threadpool_limits(1):
        started_s = time.monotonic()
        names["construct_update_queue_all_entries"](Memory)
        queue_s = time.monotonic() - started_s
        names["offline_update_all_entries"](Memory, score_threshold=threshold)
    return Memory.manager, queue_s, time.monotonic() - started_s - queue_s


def ours(texts, vectors, num_new: int) -> tuple[list, float]:
    """Candidates and fold of one user; the questions that a decider is asked, and the seconds."""
    from cluster.consolidation.candidates import similar_pairs, slot_pairs, union
    from cluster.consolidation.claims import binding_slots, slots
    from cluster.consolidation.fold import Memory, Pair, Verdict, fold
    from cluster.consolidation.grammar import read

    asked = []

    def ignore(questions):
        asked.extend(questions)
        return [Verdict("ignore")] * len(questions)

    started_s = time.monotonic()
    is_new = np.arange(len(texts)) >= len(texts) - num_new
    similar = similar_pairs(vectors, is_new, top_k=10, min_similarity=0.5)
    said = [read(text) for text in texts]
    slotted = slot_pairs(vectors, is_new, [slots(one) for one in said], [binding_slots(one) for one in said])
    pairs = union(similar, slotted)
    involved = sorted({*pairs.targets.tolist(), *pairs.sources.tolist()})
    memories = [Memory(f"{n:09}", 1, "u", f"{n:09}", f"s{n}", 0, texts[n]) for n in involved]
    edges = zip(pairs.targets.tolist(), pairs.sources.tolist(), pairs.scores.tolist(), strict=True)
    fold(memories, [Pair(f"{t:09}", f"{s:09}", score) for t, s, score in edges], ignore, decider="bench")
    return asked, time.monotonic() - started_s


def part_lightmem(options) -> dict:
    texts, vectors = synthetic(options.num_memories)
    times = np.arange(len(texts), dtype=np.float64)
    payloads = [{"float_time_stamp": float(t), "memory": text} for t, text in zip(times, texts, strict=True)]
    ours(*synthetic(200, seed=1), 200)
    asked, our_s = ours(texts, vectors, len(texts))
    _, delta_s = ours(texts, vectors, len(texts) // 100)
    manager, queue_s, scan_s = lightmem(options.lightmem, vectors, times, payloads, 0.8)
    return {
        "num_memories": len(texts),
        "ours_s": round(our_s, 3),
        "ours_delta_1_percent_s": round(delta_s, 3),
        "lightmem_queue_s": round(queue_s, 2),
        "lightmem_scan_s": round(scan_s, 2),
        "times_faster_everything_new": round((queue_s + scan_s) / our_s, 1),
        "times_faster_delta": round((queue_s + scan_s) / delta_s, 1),
        "ours_calls": len(asked),
        "lightmem_calls": len(manager.asked),
    }


# --- calls ----------------------------------------------------------------------------------------------


def gold_pairs(gold: list[dict], vectors: np.ndarray) -> tuple[list, list]:
    """Gold rows and their vectors -> memories and candidate pairs, everything new."""
    from cluster.consolidation.candidates import similar_pairs, slot_pairs, union
    from cluster.consolidation.claims import binding_slots, slots
    from cluster.consolidation.fold import Memory, Pair
    from cluster.consolidation.grammar import read

    memories, pairs = [], []
    for user in sorted({row["user_id"] for row in gold}):
        rows = [n for n, row in enumerate(gold) if row["user_id"] == user]
        mine = [
            Memory(
                gold[n]["memory_id"], 1, user, gold[n]["session_time"], gold[n]["session_id"],
                max(gold[n]["evidence_turns"]), gold[n]["semantic_text"], gold[n]["memory_type"],
                tags=tuple(gold[n]["tags"]),
            )
            for n in rows
        ]  # fmt: skip
        order = sorted(range(len(mine)), key=lambda n: mine[n].order)
        mine, vector = [mine[n] for n in order], vectors[[rows[n] for n in order]]
        is_new, said = np.ones(len(mine), bool), [read(memory.text) for memory in mine]
        found = union(
            similar_pairs(vector, is_new, top_k=10, min_similarity=0.5),
            slot_pairs(vector, is_new, [slots(one) for one in said], [binding_slots(one) for one in said]),
        )
        memories += mine
        edges = zip(found.targets.tolist(), found.sources.tolist(), found.scores.tolist(), strict=True)
        pairs += [Pair(mine[t].record_id, mine[s].record_id, score) for t, s, score in edges]
    return memories, pairs


def part_calls(options) -> dict:
    from cluster.consolidation.decider import Rules
    from cluster.consolidation.fold import fold
    from jobs.run import load_profile
    from schemas.profile import DeciderProfile
    from tests.gold import gold_rows, load_embedder

    gold = gold_rows(options.archive)
    gold.sort(key=lambda row: (row["user_id"], row["session_time"], row["session_id"], row["memory_id"]))
    vectors = load_embedder().embed([row["semantic_text"] for row in gold])
    memories, pairs = gold_pairs(gold, vectors)
    fact = {row["memory_id"]: row["fact_key"] for row in gold}
    ended = {row["supersedes"] or row["repeat_of"] for row in gold} - {None}
    fixed = load_profile("deciders", "default", DeciderProfile).fixed_chars
    result = {"num_memories": len(gold), "num_gold_changes": len(ended)}
    asked = []

    def rules(questions):
        asked.extend(questions)
        return Rules().decide(questions)

    folded = fold(memories, pairs, rules, decider="bench")
    changed = {change.memory.record_id for change in folded.changes if change.closed_reason}
    chars = [
        len(question.target.text) + sum(len(source.memory.text) + 16 for source in question.sources)
        for question in asked
    ]
    result["ours"] = per_change(len(asked), sum(chars) + fixed * len(asked), len(changed & ended))
    times = np.array([dt.datetime.fromisoformat(row["session_time"]).timestamp() for row in gold])
    for threshold in (0.8, 0.9):
        calls = total = reached = 0
        for user in sorted({row["user_id"] for row in gold}):
            rows = [n for n, row in enumerate(gold) if row["user_id"] == user]
            payloads = [
                {"float_time_stamp": float(times[n]), "memory": gold[n]["semantic_text"]} for n in rows
            ]
            manager, _, _ = lightmem(options.lightmem, vectors[rows], times[rows], payloads, threshold)
            for target, sources in manager.asked:
                shown = [gold[rows[source]] for source in sources]
                memory_id = gold[rows[target]]["memory_id"]
                calls += 1
                total += sum(len(row["semantic_text"]) for row in [gold[rows[target]], *shown]) + fixed
                same = any(row["fact_key"] == fact[memory_id] for row in shown)
                reached += memory_id in ended and same
        result[f"one_call_per_linked_target_{threshold}"] = per_change(calls, total, reached)
    return result


def part_gold(options) -> dict:
    from cluster.consolidation.decider import Rules
    from cluster.consolidation.fold import fold
    from jobs.sample.__main__ import SampleConfig
    from jobs.sample.__main__ import run as make_sample
    from tests.gold import gold_rows, load_embedder

    names = ("num_memories", "num_changes", "old_values_active", "current_facts_lost", "unrelated_touched")
    result, embedder = dict.fromkeys(names, 0), load_embedder()
    for seed in range(1, options.seeds + 1):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            make_sample(SampleConfig(archive=Path(folder) / "archive", seed=seed))
            gold = gold_rows(Path(folder) / "archive")
        vectors = embedder.embed([row["semantic_text"] for row in gold])
        folded = fold(*gold_pairs(gold, vectors), Rules().decide, decider="bench")
        closed = {change.memory.record_id for change in folded.changes if change.closed_reason}
        touched = {change.memory.record_id for change in folded.changes}
        old = {row["memory_id"] for row in gold if row["status"] == "superseded"}
        current: dict[tuple, set[str]] = {}
        for row in gold:
            if row["status"] != "superseded":
                current.setdefault((row["user_id"], row["fact_key"]), set()).add(row["memory_id"])
        moved = {(row["user_id"], row["fact_key"]) for row in gold if row["supersedes"] or row["repeat_of"]}
        still = {row["memory_id"] for row in gold if (row["user_id"], row["fact_key"]) not in moved}
        result["num_memories"] += len(gold)
        result["num_changes"] += len(old)
        result["old_values_active"] += len(old - closed)
        result["current_facts_lost"] += sum(ids <= closed for ids in current.values())
        result["unrelated_touched"] += len(touched & still)
    return {"seeds": options.seeds, **result}


def per_change(calls: int, chars: int, changes: int) -> dict:
    """Tokens are estimated at CHARS_A_TOKEN, with our prompt on both sides: only the linking differs."""
    return {
        "calls": calls,
        "changes_reached": changes,
        "calls_per_change": round(calls / max(1, changes), 2),
        "tokens_per_change": round(chars / CHARS_A_TOKEN / max(1, changes)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["scale", "lightmem", "calls", "gold"])
    parser.add_argument("--num-users", type=int, default=1)
    parser.add_argument("--num-memories", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the store of `scale` is put")
    parser.add_argument("--lightmem", type=Path, help="a clone of github.com/zjunlp/LightMem")
    parser.add_argument("--archive", type=Path, help="an archive of jobs.sample")
    parser.add_argument("--seeds", type=int, default=20)
    chosen = parser.parse_args()
    parts = {"scale": part_scale, "lightmem": part_lightmem, "calls": part_calls, "gold": part_gold}
    print(json.dumps(parts[chosen.part](chosen)))
