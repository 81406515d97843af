"""LightMem's offline update beside ours, on the same vectors: seconds, calls and tokens.

    python -m tests.benchmarks.bench_lightmem speed --num-memories 2000 10000 --lightmem FOLDER
    python -m tests.benchmarks.bench_lightmem calls --lightmem FOLDER

FOLDER is a clone of github.com/zjunlp/LightMem: two methods are read from it and run as they are. Its vector
database is replaced by an exact search in numpy, which is faster than a database; the LLM is stubbed on both
sides.

speed     its queue construction and scan against our candidates and fold, one user, everything new. The LLM
          says "ignore". `ours_delta_1_percent_s` is ours as it runs every night; LightMem has no delta
calls     calls and tokens per accepted change on gold memories of a sample world: ours, and one call per
          linked target as LightMem links them, at its two thresholds. On both sides the rules stand for the
          LLM, so that only the linking differs. Accepted is what they update or delete, and a repeat that
          ours unites without a call. Tokens are those of our prompt and of the answer, counted by the default
          decider's tokenizer. Of the gold changes, those count as made whose old memory ends
The last line is JSON.
"""

import argparse
import ast
import concurrent.futures
import datetime as dt
import json
import logging
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.bench_consolidate import synthetic


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
    from cluster.consolidate.attribute_reader import read_attributes
    from cluster.consolidate.attributes import binding_keys, keys
    from cluster.consolidate.candidates import similar_pairs, slot_pairs, union
    from cluster.consolidate.fold import Memory, Pair, Verdict, fold

    asked = []

    def ignore(questions):
        asked.extend(questions)
        return [Verdict("ignore")] * len(questions)

    started_s = time.monotonic()
    is_new = np.arange(len(texts)) >= len(texts) - num_new
    similar = similar_pairs(vectors, is_new, top_k=10, min_similarity=0.5)
    said = [read_attributes(text) for text in texts]
    slotted = slot_pairs(vectors, is_new, [keys(one) for one in said], [binding_keys(one) for one in said])
    pairs = union(similar, slotted)
    involved = sorted({*pairs.targets.tolist(), *pairs.sources.tolist()})
    memories = [Memory(f"{n:09}", 1, "u", f"{n:09}", f"s{n}", 0, texts[n]) for n in involved]
    edges = zip(pairs.targets.tolist(), pairs.sources.tolist(), pairs.scores.tolist(), strict=True)
    fold(memories, [Pair(f"{t:09}", f"{s:09}", score) for t, s, score in edges], ignore, decider="bench")
    return asked, time.monotonic() - started_s


def part_speed(options) -> dict:
    from cluster.consolidate.attribute_reader import read_attributes

    ours(*synthetic(200, seed=1), 200)
    for num in options.num_memories:
        texts, vectors = synthetic(num)
        times = np.arange(num, dtype=np.float64)
        payloads = [
            {"float_time_stamp": float(t), "memory": text} for t, text in zip(times, texts, strict=True)
        ]
        # What was read is remembered: each run has to read for itself.
        read_attributes.cache_clear()
        asked, our_s = ours(texts, vectors, num)
        read_attributes.cache_clear()
        _, delta_s = ours(texts, vectors, num // 100)
        manager, queue_s, scan_s = lightmem(options.lightmem, vectors, times, payloads, 0.8)
        result = {
            "num_memories": num,
            "ours_s": round(our_s, 3),
            "ours_delta_1_percent_s": round(delta_s, 3),
            "lightmem_queue_s": round(queue_s, 2),
            "lightmem_scan_s": round(scan_s, 2),
            "times_faster_everything_new": round((queue_s + scan_s) / our_s, 1),
            "times_faster_delta": round((queue_s + scan_s) / delta_s, 1),
            "ours_calls": len(asked),
            "lightmem_calls": len(manager.asked),
        }
        if num != options.num_memories[-1]:
            print(json.dumps(result), flush=True)
    return result


# --- calls ----------------------------------------------------------------------------------------------


def part_calls(options) -> dict:
    from cluster.consolidate.fold import Question, Source, fold
    from cluster.consolidate.rules import Rules
    from jobs.sample.__main__ import SampleConfig
    from jobs.sample.__main__ import run as make_sample
    from tests.gold import gold_pairs, gold_rows, load_embedder

    with tempfile.TemporaryDirectory() as folder:
        make_sample(SampleConfig(archive=Path(folder) / "archive", seed=options.seed))
        gold = gold_rows(Path(folder) / "archive")
    gold.sort(key=lambda row: (row["user_id"], row["session_time"], row["session_id"], row["memory_id"]))
    vectors = load_embedder().embed([row["semantic_text"] for row in gold])
    memories, pairs = gold_pairs(gold, vectors)
    ended = {row["supersedes"] or row["repeat_of"] for row in gold} - {None}
    cost, asked = tokens_of(), []

    def rules(questions):
        verdicts = Rules().decide(questions)
        asked.extend(zip(questions, verdicts, strict=True))
        return verdicts

    folded = fold(memories, pairs, rules, decider="bench")
    closed = {change.memory.record_id for change in folded.changes if change.closed_reason}
    result = {"num_memories": len(gold), "num_gold_changes": len(ended)}
    num_united = sum(row["action"] == "unite" for row in folded.decisions)
    result["ours"] = per_change(asked, cost, len(closed & ended), num_united)
    by_id, ids = {memory.record_id: memory for memory in memories}, [row["memory_id"] for row in gold]
    times = np.array([dt.datetime.fromisoformat(row["session_time"]).timestamp() for row in gold])
    for threshold in (0.8, 0.9):
        asked, made = [], set()
        for user in sorted({row["user_id"] for row in gold}):
            rows = [n for n, row in enumerate(gold) if row["user_id"] == user]
            payloads = [{"float_time_stamp": float(times[n])} for n in rows]
            manager, _, _ = lightmem(options.lightmem, vectors[rows], times[rows], payloads, threshold)
            for target, sources in manager.asked:
                shown = sorted((rows[n] for n in sources), key=lambda n: by_id[ids[n]].order)
                scores = vectors[shown] @ vectors[rows[target]]
                question = Question(
                    by_id[ids[rows[target]]],
                    tuple(Source(by_id[ids[n]], float(s)) for n, s in zip(shown, scores, strict=True)),
                )
                verdict = Rules().judge(question)
                asked.append((question, verdict))
                if verdict.action != "ignore":
                    made.add(question.target.record_id)
        result[f"one_call_per_linked_target_{threshold}"] = per_change(asked, cost, len(made & ended))
    return result


def tokens_of():
    """(question, verdict) -> tokens of the default decider's prompt and of the answer."""
    from transformers import AutoTokenizer

    from cluster.consolidate.decider import DeciderPrompt
    from cluster.models.resolve import resolve_decider
    from cluster.models.sources import base_folder
    from jobs.common.run import load_profile
    from schemas.profiles.decider import DeciderProfile

    profile = resolve_decider(load_profile("deciders", "default", DeciderProfile))
    tokenizer = AutoTokenizer.from_pretrained(base_folder(profile))
    prompt = DeciderPrompt(profile, tokenizer)

    def cost(question, verdict) -> int:
        answer = {"action": verdict.action, "updated_text": verdict.text, "confidence": 0.9}
        return len(prompt(question)) + len(tokenizer(json.dumps(answer))["input_ids"])

    return cost


def per_change(asked: list, cost, num_gold_changes: int, num_united: int = 0) -> dict:
    accepted = sum(verdict.action != "ignore" for _, verdict in asked) + num_united
    tokens = sum(cost(*pair) for pair in asked)
    return {
        "calls": len(asked),
        "tokens": tokens,
        "accepted": accepted,
        "accepted_without_a_call": num_united,
        "calls_per_accepted_change": round(len(asked) / max(1, accepted), 2),
        "tokens_per_accepted_change": round(tokens / max(1, accepted)),
        "gold_changes_made": num_gold_changes,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["speed", "calls"])
    parser.add_argument("--num-memories", type=int, nargs="+", default=[2_000, 10_000])
    parser.add_argument("--lightmem", type=Path, required=True, help="a clone of github.com/zjunlp/LightMem")
    parser.add_argument("--seed", type=int, default=1, help="of the sample world of `calls`")
    chosen = parser.parse_args()
    print(json.dumps({"speed": part_speed, "calls": part_calls}[chosen.part](chosen)))
