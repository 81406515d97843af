"""Encoder throughput: our pipeline against the raw engine and against the model card's recipe.

    python -m tests.benchmarks.bench_encoder --archive DIR [--num-segments 32] [--recipe 4]
    python -m tests.benchmarks.bench_encoder --archive DIR --backends

Three parts, each in a process of its own, one after the other on the same segments and prompts:
  raw       vLLM's generate on all prompts in one call, no Ray: the limit
  pipeline  jobs.backfill through Ray Data, one batch
  recipe    transformers + peft + outlines, one segment at a time (on the first `--recipe` segments)
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
    from cluster.models.sources import resolve_encoder
    from jobs.common.run import load_profile
    from schemas.profile import EncoderProfile

    return resolve_encoder(load_profile("encoders", name, EncoderProfile).model_copy(update=changes))


def part_raw(options) -> dict:
    changes = {"structured_backend": options.backend} if options.backend else {}
    profile = resolved(options.profile, **changes)
    encoder, replies, result = _ask_engine(options.archive, profile, options.num_segments)
    return result | {"floor": _floor(encoder, replies)}


def part_recipe(options) -> dict:
    return _ask_engine(options.archive, resolved(options.profile, engine="transformers"), options.recipe)[2]


def _ask_engine(archive: str, profile, num_segments: int) -> tuple:
    """(encoder, replies, result) of one call to the profile's engine, without Ray."""
    from cluster.backfill.encoder import Encoder
    from cluster.models.engine import Request
    from schemas.record import answer_schema

    segments = segments_of(archive, profile, num_segments)
    started_s = time.monotonic()
    encoder = Encoder(profile, max_num_seqs=num_segments)
    load_s = time.monotonic() - started_s
    requests = [
        Request(
            encoder.prompt(s["context"], s["current"], s["session_time"]),
            answer_schema(len(s["current"]), profile.limits, profile.fields),
        )
        for s in segments
    ]
    started_s = time.monotonic()
    replies = encoder.engine.generate(requests)
    return encoder, replies, _result(replies, time.monotonic() - started_s, load_s)


def part_pipeline(options) -> dict:
    """The same segments through the job's own encode stage, in a Ray Data actor."""
    from cluster.backfill.encode_stage import EncodeStage
    from cluster.backfill.staged import plan_path
    from cluster.runtime import ClusterConfig, PoolConfig, Stage, connect, run_stage
    from cluster.store.files import Files
    from schemas.carriers import Batch
    from schemas.store import SEGMENT_SCHEMA

    # No halving here: the raw engine answers each prompt once, and so must we.
    profile = resolved(options.profile, max_splits=0)
    segments = segments_of(options.archive, profile, options.num_segments)
    with tempfile.TemporaryDirectory() as store:
        files = Files(store, "staging")
        files.put_rows(plan_path("one"), segments, SEGMENT_SCHEMA)
        started_s = time.monotonic()
        connect(ClusterConfig())
        engine = {"max_num_seqs": options.num_segments}
        arguments = {"profile": profile, "files": files, "attempt": "bench", "paid": {}, "engine": engine}
        batch = Batch("one", len(segments), 0)
        (done,) = run_stage([batch], Stage(EncodeStage, arguments, PoolConfig()))
        wall_s = time.monotonic() - started_s
    seconds = done.encode_s
    tokens = done.prompt_tokens + done.output_tokens
    return {
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "prompt_tokens": done.prompt_tokens,
        "cached_tokens": done.cached_tokens,
        "output_tokens": done.output_tokens,
        "num_segments": done.num_segments,
        "startup_s": wall_s - seconds,
    }


def _result(replies, seconds: float, load_s: float) -> dict:
    prompt, cached = sum(r.prompt_tokens for r in replies), sum(r.cached_tokens for r in replies)
    output = sum(r.output_tokens for r in replies)
    return {
        "seconds": seconds,
        "tokens_per_s": (prompt + output) / seconds,
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "output_tokens": output,
        "num_segments": len(replies),
        "num_complete": sum(r.complete for r in replies),
        "startup_s": load_s,
    }


def _floor(encoder, replies) -> dict:
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
    rate = {rows: _gemm_rate(rows, hidden, inner, dtype) for rows in (512, len(replies))}
    prefill_tokens = sum(r.prompt_tokens - r.cached_tokens for r in replies)
    output_tokens = sum(r.output_tokens for r in replies)
    prefill_s = 2 * weights * prefill_tokens / rate[512]
    decode_s = 2 * (weights + head) * output_tokens / rate[len(replies)]
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
    results: dict[str, list[dict]] = {}
    for _ in range(options.repeats):
        for part in ("raw", "pipeline", *(["recipe"] if options.recipe else [])):
            results.setdefault(part, []).append(run_part(part))
    raw = sorted(results["raw"], key=lambda r: r["tokens_per_s"])[len(results["raw"]) // 2]
    print("part      segments  seconds  tokens/s  of raw  per segment  start-up s")
    for part, runs in results.items():
        result = sorted(runs, key=lambda r: r["tokens_per_s"])[len(runs) // 2]
        per_segment = result["seconds"] / result["num_segments"]
        share = result["tokens_per_s"] / raw["tokens_per_s"]
        print(
            f"{part:9} {result['num_segments']:8} {result['seconds']:8.1f} {result['tokens_per_s']:9.0f} "
            f"{share:7.2f} {per_segment:10.2f} s {result['startup_s']:10.1f}"
        )
    floor = raw["floor"]
    print(
        f"floor: {floor['gflop_prefill']:.0f} GFLOP prefill + {floor['gflop_decode']:.0f} GFLOP decode at "
        f"{floor['gemm_gflop_per_s']} GFLOP/s = {floor['seconds']:.1f} s; raw engine is at "
        f"{raw['seconds'] / floor['seconds']:.2f} x the floor"
    )


if __name__ == "__main__":
    main()
