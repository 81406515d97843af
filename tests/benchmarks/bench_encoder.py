"""Encoder throughput: our pipeline against the raw engine and against the model card's recipe.

    python -m tests.benchmarks.bench_encoder --archive DIR [--num-segments 32] [--recipe 4]
    python -m tests.benchmarks.bench_encoder --archive DIR --num-segments 512 --in-flight 1 2 3 --recipe 0
    python -m tests.benchmarks.bench_encoder --archive DIR --backends

Parts, each in a process of its own, one after the other on the same segments and prompts:
  raw          vLLM on all prompts in one call, no Ray: the limit
  whole        the encode stage of jobs.backfill in an actor of Ray Data, all segments as one batch
  pipeline N   the same in batches of `--batch-size`, N of them in work at a time
  recipe       transformers + peft + outlines, one segment at a time (on the first `--recipe` segments)
Seconds are from the first request to the last answer, without start-up and embedding. The raw engine answers
each prompt once; so does the pipeline here, but with `--rounds`, which leaves it halves and second looks.
Tokens are prompt + output. Loading, imports and start-up are shown apart. The floor is what the machine's
matrix products need for the same tokens (FLOPs of prefill and decode over a measured GEMM rate).
`--backends` measures vLLM's structured-output backends instead, on the same prompts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONCE = {"max_splits": 0, "second_look": False}
"""Settings with which the encoder asks about each segment once, as the raw engine is asked."""


def segments_of(archive: str, profile, num_segments: int) -> list[dict]:
    from cluster.backfill.archive import inspect_file, list_files, plan_units, read_unit
    from cluster.backfill.cut_stage import segment_offsets
    from cluster.backfill.encoder import skipped
    from cluster.backfill.segmenter import cut_session

    offsets = segment_offsets(profile)
    found = []
    for unit in plan_units([inspect_file(archive, path) for path in list_files(archive)]):
        for session in read_unit(archive, unit):
            if isinstance(session, dict):
                segments = cut_session(session, offsets, profile)
                found += [segment for segment in segments if not skipped(segment, profile)]
                if len(found) >= num_segments:
                    return found[:num_segments]
    return found


def resolved(name: str, **changes):
    from cluster.models.resolve import resolve_encoder
    from jobs.common.run import load_profile
    from schemas.profiles.encoder import EncoderProfile

    return resolve_encoder(load_profile("encoders", name, EncoderProfile).model_copy(update=changes))


def part_raw(options) -> dict:
    changes = {"structured_backend": options.backend} if options.backend else {}
    profile = resolved(options.profile, **changes)
    segments = segments_of(options.archive, profile, options.num_segments)
    encoder, replies, result = _ask_engine(options, profile, segments)
    floor = _floor(encoder, replies, options.max_num_seqs)
    return result | {"floor": floor, "beside_s": _beside_s(encoder, segments, replies)}


def part_recipe(options) -> dict:
    # transformers tells no probabilities, by which a profile might refuse records.
    profile = resolved(
        options.profile, engine="transformers", min_confidence=None, calibrated=False, entailment=False
    )
    return _ask_engine(options, profile, segments_of(options.archive, profile, options.recipe))[2]


def _ask_engine(options, profile, segments: list[dict]) -> tuple:
    """(encoder, replies, result) of one call to the profile's engine, without Ray."""
    from cluster.backfill.encoder import Encoder
    from cluster.models.asking import Request
    from schemas.record import answer_schema

    started_s = time.monotonic()
    encoder = Encoder(profile, max_num_seqs=options.max_num_seqs)
    load_s = time.monotonic() - started_s
    requests = [
        Request(
            encoder.prompt(s["context"], s["current"], s["session_time"]),
            answer_schema(len(s["current"]), profile.limits, profile.fields),
            profile.max_tokens,
        )
        for s in segments
    ]
    started_s = time.monotonic()
    replies = encoder.engine.generate(requests)
    return encoder, replies, _result(replies, time.monotonic() - started_s, load_s)


def _beside_s(encoder, segments: list[dict], replies: list) -> float:
    """Seconds of what the encode stage does beside the engine: it writes prompts, and checks what it gets."""
    from cluster.backfill.encoder import encode

    profile = encoder.profile.model_copy(update=ONCE)
    started_s = time.monotonic()
    encode(segments, lambda requests: replies, encoder.prompt, profile, encoder.calibration)
    return time.monotonic() - started_s


def part_pipeline(options) -> dict:
    """The same segments through the job's own encode stage, in a Ray Data actor."""
    from cluster.backfill.encode_stage import EncodeStage
    from cluster.backfill.encoder import Encoder
    from cluster.backfill.staged import plan_path
    from cluster.runtime import ClusterConfig, PoolConfig, Stage, connect, run_stage
    from cluster.store.files import Files
    from schemas.stage_items import Batch, EncodedBatch
    from schemas.store import SEGMENT_SCHEMA

    class TimedStage(EncodeStage):
        """Notes when its engine was asked first and answered last."""

        def __init__(self, **arguments):
            super().__init__(**arguments)
            load, files, asked_s = self._load, arguments["files"], []

            def timed() -> Encoder:
                engine = (encoder := load()).engine
                generate = engine.generate

                def answered(requests):
                    asked_s.append(time.monotonic())
                    replies = generate(requests)
                    files.put_json("bench/asked", {"seconds": time.monotonic() - asked_s[0]})
                    return replies

                engine.generate = answered
                return encoder

            self._load = timed

        def __call__(self, batch: Batch) -> EncodedBatch:
            return super().__call__(batch)

    profile = resolved(options.profile, **({} if options.rounds else ONCE))
    segments = segments_of(options.archive, profile, options.num_segments)
    (in_flight,) = options.in_flight
    with tempfile.TemporaryDirectory() as store:
        files, batches = Files(store, "staging"), []
        for start in range(0, len(segments), options.batch_size):
            part = segments[start : start + options.batch_size]
            batches.append(Batch(f"batch{start}", len(part), 0))
            files.put_rows(plan_path(batches[-1].batch_id), part, SEGMENT_SCHEMA)
        started_s = time.monotonic()
        connect(ClusterConfig())
        engine = {"max_num_seqs": options.max_num_seqs}
        arguments = {"profile": profile, "files": files, "attempt": "bench", "paid": {}, "engine": engine}
        stage = Stage(TimedStage, arguments, PoolConfig(), in_flight=in_flight)
        done = list(run_stage(batches, stage))
        wall_s = time.monotonic() - started_s
        if failures := [result.failure for result in done if result.failure]:
            sys.exit(failures[0])
        seconds = files.get_json("bench/asked")["seconds"]
    counted = ("prompt_tokens", "cached_tokens", "output_tokens", "num_segments", "num_calls")
    counts = {name: sum(getattr(result, name) for result in done) for name in counted}
    return counts | _speeds(counts["prompt_tokens"], counts["output_tokens"], seconds, wall_s - seconds)


def _speeds(prompt_tokens: int, output_tokens: int, seconds: float, startup_s: float) -> dict:
    return {
        "seconds": seconds,
        "tokens_per_s": (prompt_tokens + output_tokens) / seconds,
        "output_tokens_per_s": output_tokens / seconds,
        "startup_s": startup_s,
    }


def _result(replies, seconds: float, load_s: float) -> dict:
    prompt, cached = sum(r.prompt_tokens for r in replies), sum(r.cached_tokens for r in replies)
    output = sum(r.output_tokens for r in replies)
    return _speeds(prompt, output, seconds, load_s) | {
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "output_tokens": output,
        "num_segments": len(replies),
        "num_complete": sum(r.complete for r in replies),
    }


def _floor(encoder, replies, max_num_seqs: int) -> dict:
    """Seconds that the matrix products alone need: 2 FLOPs a weight a token, at this machine's GEMM rate.

    Prefill at the rate of a large product; decode at the rate of a product with one row a sequence.
    """
    import torch

    config = encoder.engine.llm.llm_engine.model_config.hf_config
    hidden, layers, inner = config.hidden_size, config.num_hidden_layers, config.intermediate_size
    kv = hidden * config.num_key_value_heads // config.num_attention_heads
    weights = layers * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * inner)
    head = config.vocab_size * hidden
    dtype = getattr(torch, encoder.profile.dtype)
    num_rows = min(len(replies), max_num_seqs)
    rate = {rows: _gemm_rate(rows, hidden, inner, dtype) for rows in (512, num_rows)}
    prefill_tokens = sum(r.prompt_tokens - r.cached_tokens for r in replies)
    output_tokens = sum(r.output_tokens for r in replies)
    prefill_s = 2 * weights * prefill_tokens / rate[512]
    decode_s = 2 * (weights + head) * output_tokens / rate[num_rows]
    return {
        "gflop_prefill": 2e-9 * weights * prefill_tokens,
        "gflop_decode": 2e-9 * (weights + head) * output_tokens,
        "gemm_gflop_per_s": {rows: value / 1e9 for rows, value in rate.items()},
        "seconds": prefill_s + decode_s,
    }


def _gemm_rate(rows: int, hidden: int, inner: int, dtype) -> float:
    import torch

    a, b = torch.randn(rows, hidden).to(dtype), torch.randn(hidden, inner).to(dtype)
    repeats = max(4, int(4e9 / (2 * rows * hidden * inner)))
    for _ in range(3):
        a @ b
    started_s = time.monotonic()
    for _ in range(repeats):
        a @ b
    return 2 * rows * hidden * inner * repeats / (time.monotonic() - started_s)


def run_part(part: str, *extra: str) -> dict:
    """One part in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_encoder", *sys.argv[1:], "--part", part, *extra]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"{part} failed:\n{done.stderr[-3000:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archive", required=True)
    parser.add_argument("--profile", default="default")
    parser.add_argument("--num-segments", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64, help="segments of a batch of the pipeline")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 2], help="batches in work at a time")
    parser.add_argument("--max-num-seqs", type=int, default=64, help="prompts that vLLM decodes side by side")
    parser.add_argument("--rounds", action="store_true", help="with halves and second looks")
    parser.add_argument("--recipe", type=int, default=4, help="segments for the recipe; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--backends", action="store_true", help="compare xgrammar, guidance and outlines")
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=("raw", "pipeline", "recipe"))
    options = parser.parse_args()
    if options.part:
        result = {"raw": part_raw, "pipeline": part_pipeline, "recipe": part_recipe}[options.part](options)
        print("RESULT " + json.dumps(result), flush=True)
        return
    if options.backends:
        print("backend    segments  complete  seconds  tokens/s  output tokens")
        for backend in ("xgrammar", "guidance", "outlines"):
            result = run_part("raw", "--backend", backend)
            print(
                f"{backend:10} {result['num_segments']:8} {result['num_complete']:9} "
                f"{result['seconds']:8.1f} {result['tokens_per_s']:9.0f} {result['output_tokens']:14}"
            )
        return
    whole_part = ("pipeline", "--batch-size", str(options.num_segments), "--in-flight", "1")
    parts: dict[str, tuple[str, ...]] = {"raw": ("raw",), "whole": whole_part}
    if options.num_segments > options.batch_size:
        parts |= {f"pipeline {n}": ("pipeline", "--in-flight", str(n)) for n in options.in_flight}
    if options.recipe:
        parts["recipe"] = ("recipe",)
    results: dict[str, list[dict]] = {}
    for _ in range(options.repeats):
        for name, part in parts.items():
            results.setdefault(name, []).append(run_part(*part))
    middle = {
        name: sorted(runs, key=lambda run: run["tokens_per_s"])[len(runs) // 2]
        for name, runs in results.items()
    }
    raw, whole = middle["raw"], middle["whole"]
    print("part        segments  seconds  tokens/s  of raw  output/s  of raw  of whole  a segment  start-up")
    for name, result in middle.items():
        output_per_s = result["output_tokens_per_s"]
        print(
            f"{name:11} {result['num_segments']:8} {result['seconds']:8.1f} {result['tokens_per_s']:9.0f} "
            f"{result['tokens_per_s'] / raw['tokens_per_s']:7.2f} {output_per_s:9.0f} "
            f"{output_per_s / raw['output_tokens_per_s']:7.2f} "
            f"{output_per_s / whole['output_tokens_per_s']:9.2f} "
            f"{result['seconds'] / result['num_segments']:8.2f} s {result['startup_s']:7.1f} s"
        )
    beside_s, floor = raw["beside_s"], raw["floor"]
    print(
        f"beside the engine: prompts are written, and what it answers is checked, in {beside_s:.1f} s, "
        f"{beside_s / raw['seconds']:.2f} of the raw engine's; on a CPU both share the cores"
    )
    print(
        f"floor: {floor['gflop_prefill']:.0f} GFLOP prefill + {floor['gflop_decode']:.0f} GFLOP decode at "
        f"{floor['gemm_gflop_per_s']} GFLOP/s = {floor['seconds']:.1f} s; raw engine is at "
        f"{raw['seconds'] / floor['seconds']:.2f} x the floor"
    )


if __name__ == "__main__":
    main()
