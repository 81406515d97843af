"""Embedders side by side: vectors a second, and what they find by themselves; the centre of one.

    python -m tests.benchmarks.bench_embedder speed --embedders minilm default
    python -m tests.benchmarks.bench_embedder recall --embedders minilm default --longmemeval FILE --every 4
    python -m tests.benchmarks.bench_embedder centre --embedders default

speed: messages of the written corpus's single segments, as turns are embedded, each embedder in turn and
all of them again, so that what else the machine does falls on all; processor time does not count it.
recall: of LongMemEval's questions with marked evidence every N-th, all turns of its sessions, cosines
alone: evidence-turn recall@5 and @10, MRR of the first. With `--pooled` the turns of all those questions
are searched for each (for the file without haystacks). centre: the mean vector of messages and of memories
of the segments, half and half, for a profile's `centre`.
"""

import argparse
import gzip
import json
import random
import time
from pathlib import Path

import numpy as np

SEGMENTS = Path(__file__).parents[2] / "jobs" / "sample" / "corpus" / "segments"


def load(name: str, **changes):
    from cluster.embed.embedder import Embedder
    from cluster.models.resolve import resolve_embedder
    from jobs.common.run import load_profile
    from schemas.profiles.embedder import EmbedderProfile

    profile = load_profile("embedders", name, EmbedderProfile).model_copy(update=changes)
    return Embedder(resolve_embedder(profile))


def corpus(num: int) -> tuple[list[str], list[str]]:
    """Messages and memories of the single segments, shuffled, `num` of each at most."""
    rows = [json.loads(line) for path in sorted(SEGMENTS.glob("*.jsonl")) for line in path.open()]
    messages = [turn[1] for row in rows for turn in row["turns"]]
    memories = [memory["text"] for row in rows for memory in row["memories"]]
    for texts in (messages, memories):
        random.Random(0).shuffle(texts)
    return messages[:num], memories[:num]


def speed(args) -> None:
    messages, _ = corpus(args.num)
    embedders = {name: load(name) for name in args.embedders}
    seconds, cpu_s = ({name: [] for name in embedders} for _ in range(2))
    for embedder in embedders.values():
        embedder.embed(messages[:32])
    for _ in range(args.times):
        for name, embedder in embedders.items():
            started_s, started_cpu_s = time.monotonic(), time.process_time()
            embedder.embed(messages)
            seconds[name].append(time.monotonic() - started_s)
            cpu_s[name].append(time.process_time() - started_cpu_s)
    num_vectors = len(set(messages))
    for name in embedders:
        per_s, per_cpu_s = (num_vectors / min(found[name]) for found in (seconds, cpu_s))
        share = min(cpu_s[args.embedders[0]]) / min(cpu_s[name])
        print(
            f"{name}: {per_s:.1f} vectors/s, {per_cpu_s:.1f} a second of processor time, {share:.2f} of the "
            f"first's; best of {args.times}"
        )


def recall(args) -> None:
    with gzip.open(args.longmemeval, "rt") as file:
        rows = [json.loads(line) for line in file]
    rows = [row for row in rows if any(turn.get("has_answer") for turn in turns_of(row))][:: args.every]
    places = [number for number, row in enumerate(rows) for _ in turns_of(row)]
    is_evidence = np.array([bool(turn.get("has_answer")) for row in rows for turn in turns_of(row)])
    texts = [turn["content"] for row in rows for turn in turns_of(row)]
    for name in args.embedders:
        embedder = load(name)
        vectors = embedder.embed(texts)
        found = []
        for number, asked in enumerate(embedder.embed_queries([row["question"] for row in rows])):
            own = np.array(places) == number
            order = np.argsort(-np.where(own | args.pooled, vectors @ asked, -2.0), kind="stable")
            ranks = np.flatnonzero((own & is_evidence)[order])
            found.append([(ranks < 5).mean(), (ranks < 10).mean(), 1 / (1 + ranks[0])])
        at_5, at_10, mrr = np.mean(found, axis=0)
        print(
            f"{name}: recall@5 {at_5:.3f}, recall@10 {at_10:.3f}, MRR {mrr:.3f} "
            f"({len(rows)} questions, {len(texts)} turns)"
        )


def turns_of(row: dict) -> list[dict]:
    return [turn for session in row["haystack_sessions"] for turn in session if turn["content"].strip()]


def centre(args) -> None:
    for name in args.embedders:
        embedder = load(name, centre=())
        found = np.mean([embedder.embed(texts).mean(0) for texts in corpus(args.num)], axis=0)
        print(f"{name}: centre = {[round(float(number), 4) for number in found]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "recall", "centre"])
    parser.add_argument("--embedders", nargs="+", default=["minilm", "default"])
    parser.add_argument("--num", type=int, default=400, help="messages, and memories")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--longmemeval", type=Path, help="for recall: LongMemEval as gzipped JSON lines")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--pooled", action="store_true")
    args = parser.parse_args()
    {"speed": speed, "recall": recall, "centre": centre}[args.what](args)


if __name__ == "__main__":
    main()
