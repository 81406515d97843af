"""Task `encoder`: archive -> segments -> teacher -> verifier -> judge -> examples.

    units --cut--> plan/BATCH --teach--> taught/PART --check--> checked/PART --judge--> judged/PART

As in a backfill the rows between the stages are references to staged files; what makes a killed run cheap to
repeat is the ledger of paid answers (cluster.models.paid_answers), all else costs seconds. A part is what
of a batch is wanted: duplicates are left out before the teacher is asked, because they would be paid for and
then dropped.
"""

import functools
import hashlib
import json
import pickle
from collections import Counter
from dataclasses import dataclass, field

from cluster.runtime import PoolConfig, actor_options, encoder_gpus
from jobs.common.cli import Progress
from jobs.distill.config import DistillConfig, EnginePool
from jobs.distill.leaks import Leaks
from jobs.distill.sets import Candidates, draw, rejection
from schemas.judge import JudgeProfile, scores_schema
from schemas.profile import EncoderProfile

MAX_BLOCKS = 4096


@dataclass
class Plan:
    """What the archive gives. `parts` are references for the teacher."""

    parts: list[dict] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)
    counts: Counter = field(default_factory=Counter)


def cut(config: DistillConfig, files, profile: EncoderProfile, paths: list[str], leaks: Leaks) -> Plan:
    """Archive -> staged batches of segments -> the parts of them that are worth asking about."""
    import numpy as np
    import ray

    from cluster.backfill.archive import inspect_file, plan_units
    from cluster.backfill.encoder import skipped
    from cluster.backfill.ledger import Ledger
    from cluster.backfill.stages import cut_unit, plan_path
    from cluster.distill.examples import NUM_HASHES, duplicates, said, signature
    from schemas.store import SEGMENTS_SCHEMA

    def inspect(row: dict) -> dict:
        return {"found": pickle.dumps(inspect_file(config.archive, row["item"]))}

    found = ray.data.from_items(paths, override_num_blocks=min(len(paths), MAX_BLOCKS)).map(inspect)
    inspected = [pickle.loads(row["found"]) for row in found.iter_rows()]
    units = plan_units(inspected, config.limit_sessions)
    shared = ray.put(
        {
            "archive": config.archive,
            "profile": profile,
            "ledger": Ledger.of(SEGMENTS_SCHEMA.empty_table()),
            "batch_size": config.batch_size,
            "files": files,
            "leave_out": leaks,
        }
    )
    all_units = ray.put(units)

    def step(row: dict) -> dict:
        arguments = ray.get(shared)
        result = cut_unit(ray.get(all_units)[row["id"]], **arguments)
        ids, signatures, num_cut = [], [], 0
        for batch in result["batches"]:
            segments = arguments["files"].get_table(plan_path(batch["batch_id"])).to_pylist()
            num_cut += len(segments)
            segments = [segment for segment in segments if not skipped(segment, profile)]
            ids.append([segment["segment_id"] for segment in segments])
            signatures += [signature(said(segment)) for segment in segments]
        result["num_not_shown"] = num_cut - len(signatures)
        packed = np.array(signatures, "i4").tobytes()
        return {"result": json.dumps(result), "ids": json.dumps(ids), "signatures": packed}

    plan, batches, packed = Plan(), [], []
    plan.counts["num_rejections"] = sum(len(item["bad"]) for item in inspected)
    progress = Progress("cut", "sessions", sum(unit.num_rows_read for unit in units))
    if units:
        rows = ray.data.range(len(units), override_num_blocks=min(len(units), MAX_BLOCKS)).map(step)
        for row in rows.iter_rows():
            result = json.loads(row["result"])
            for name in ("num_sessions", "num_segments", "num_redactions", "num_rejections"):
                plan.counts[name] += result[name]
            num_left_out = sum(result["left_out"].values())
            plan.left_out.update(result["left_out"])
            plan.left_out["not_shown_to_the_student"] += result["num_not_shown"]
            position = 0
            for batch, ids in zip(result["batches"], json.loads(row["ids"]), strict=True):
                size = len(ids) * NUM_HASHES * 4
                batches.append((batch["batch_id"], ids, row["signatures"][position : position + size]))
                position += size
            progress.advance(result["num_sessions"] + result["num_rejections"] + num_left_out)
    # Which of two duplicates stays must not depend on the order in which workers finish.
    batches.sort()
    packed = b"".join(signatures for *_, signatures in batches)
    is_duplicate = duplicates(np.frombuffer(packed, "i4").reshape(-1, NUM_HASHES), config.near_duplicate)
    plan.left_out["duplicate_segment"] = int(is_duplicate.sum())
    all_ids = [segment_id for _, ids, _ in batches for segment_id in ids]
    wanted = [item for item, is_twin in zip(all_ids, is_duplicate, strict=True) if not is_twin]
    if config.max_segments and len(wanted) > config.max_segments:
        plan.left_out["over_max_segments"] = len(wanted) - config.max_segments
        wanted = sorted(wanted, key=lambda item: draw(item, config.seed))[: config.max_segments]
    wanted = set(wanted)
    for batch_id, ids, _ in batches:
        if chosen := [item for item in ids if item in wanted]:
            part_id = hashlib.sha256("".join(chosen).encode()).hexdigest()[:24]
            plan.parts.append({"part_id": part_id, "batch_id": batch_id, "segment_ids": chosen})
    plan.counts["num_segments_asked"] = len(wanted)
    return plan


def teach(
    config: DistillConfig, files, student: EncoderProfile, teacher: EncoderProfile, plan: Plan
) -> list[dict]:
    """Parts -> answers -> checked examples. Returns a row of counts and references a part."""
    import ray

    from cluster.distill.examples import CheckStage
    from cluster.distill.teacher import TeachStage

    make = functools.partial(make_teacher, config, teacher)
    pool, num_gpus = model_pool(config, "teacher")
    rows = (
        ray.data.from_items(plan.parts, override_num_blocks=min(len(plan.parts), MAX_BLOCKS))
        .map(TeachStage, fn_constructor_args=(files, make), **actor_options(pool, num_gpus))
        .map(
            CheckStage,
            fn_constructor_args=(student, files, config.teacher == "gold"),
            **actor_options(config.check_pool, 0),
        )
    )
    return _consume(rows, "teach", plan.parts)


def judge(config: DistillConfig, files, profile: JudgeProfile, parts: list[dict]) -> list[dict]:
    """Checked parts -> judged parts. A pass of its own, so that two models never share a GPU."""
    import ray

    from cluster.distill.judge import JudgeStage

    make = functools.partial(make_judge, config, profile)
    pool, num_gpus = model_pool(config, "judge")
    rows = ray.data.from_items(parts, override_num_blocks=min(len(parts), MAX_BLOCKS)).map(
        JudgeStage, fn_constructor_args=(files, config.min_score, make), **actor_options(pool, num_gpus)
    )
    return _consume(rows, "judge", parts)


def _consume(rows, label: str, parts: list[dict]) -> list[dict]:
    done = []
    progress = Progress(label, "segments", sum(len(part["segment_ids"]) for part in parts))
    for row in rows.iter_rows():
        done.append(row)
        progress.advance(len(row["segment_ids"]))
    return sorted(done, key=lambda row: row["part_id"])


def model_pool(config: DistillConfig, role: str) -> tuple[PoolConfig, float]:
    """Pool and GPUs per actor of teacher or judge."""
    kind, pool = getattr(config, role), getattr(config, f"{role}_pool")
    if kind in ("rules", "gold"):
        return config.check_pool, 0
    if kind == "openai":
        # One actor keeps the caps, and has as many requests in flight as are wanted.
        return pool.model_copy(update={"min_size": 1, "max_size": 1}), 0
    return pool, encoder_gpus(pool)


def make_teacher(config: DistillConfig, profile: EncoderProfile):
    """The teacher, made where it works."""
    from cluster.distill.teacher import (
        GoldTeacher,
        OpenAITeacher,
        RulesTeacher,
        VllmTeacher,
        fingerprint,
        read_gold,
    )
    from cluster.models.paid_answers import Responses

    if config.teacher == "rules":
        return RulesTeacher(profile)
    if config.teacher == "gold":
        return GoldTeacher(read_gold(config.gold), profile)
    key = fingerprint(config.teacher, profile, config.teacher_endpoint)
    responses = Responses(ledger(config), "teacher", key)
    if config.teacher == "vllm":
        return VllmTeacher(profile, responses, _engine(config.teacher_pool))
    return OpenAITeacher(profile, config.teacher_endpoint, responses, budget(config))


def make_judge(config: DistillConfig, profile: JudgeProfile):
    """The judge, made where it works."""
    from cluster.distill.judge import Judge, LocalModel, fingerprint
    from cluster.models.endpoint import Endpoint
    from cluster.models.paid_answers import Responses

    key = fingerprint(config.judge, profile, config.judge_endpoint)
    responses = Responses(ledger(config), "judge", key)
    if config.judge == "vllm":
        return Judge(profile, LocalModel(profile, scores_schema(), responses, _engine(config.judge_pool)))
    return Judge(profile, Endpoint(config.judge_endpoint, responses, budget(config)))


def _engine(pool: EnginePool) -> dict:
    return pool.model_dump(include={"max_num_seqs", "kv_cache_gib", "gpu_memory"})


def ledger(config: DistillConfig):
    """Where paid answers lie. They stay when the run is done."""
    from cluster.store.files import Files

    return Files(config.output, "ledger")


def spent(config: DistillConfig) -> dict:
    """Tokens of all runs into this output by role, and what endpoints asked for them."""
    from cluster.models.paid_answers import Responses

    counts, cost = {}, 0.0
    for role in ("teacher", "judge"):
        if (kind := getattr(config, role)) in ("vllm", "openai"):
            tokens = Responses(ledger(config), role, "").spent
            counts |= {f"{role}_prompt_tokens": tokens[0], f"{role}_output_tokens": tokens[1]}
            cost += getattr(config, f"{role}_endpoint").cost(*tokens) if kind == "openai" else 0.0
    return counts | {"cost": round(cost, 6)}


def budget(config: DistillConfig):
    """Caps, and what endpoints were paid for until now."""
    from cluster.models.endpoint import Budget

    paid = spent(config)
    tokens = sum(count for name, count in paid.items() if getattr(config, name.split("_")[0], "") == "openai")
    return Budget(config.max_tokens, config.max_cost, tokens, paid["cost"])


def collect(config: DistillConfig, files, origin: str, done: list[dict], plan: Plan) -> Candidates:
    """Checked, and judged, parts -> candidates of the set."""
    found = Candidates(left_out=plan.left_out)
    counts = Counter()
    for part in done:
        scores = {}
        if part.get("judged"):
            scores = {row["segment_id"]: row for row in files.get_table(part["judged"]).to_pylist()}
        for row in files.get_table(part["checked"]).to_pylist():
            row["source_id"] = row["segment_id"]
            for refusal in row["refusals"]:
                found.rejected.append(rejection(row, **refusal))
            counts[row["verdict"]] += 1
            if row["verdict"] not in ("records", "empty", "asking"):
                continue
            counts["num_records"] += len(row["memory_types"])
            if config.judge != "none" and row["verdict"] == "records":
                judged = scores.get(row["segment_id"])
                if judged is None:
                    found.left_out["not_judged"] += 1
                    continue
                if judged["reason"]:
                    counts["judge"] += 1
                    found.rejected.append(
                        rejection(row, row["records"], judged["reason"], judged["detail"], judged["scores"])
                    )
                    continue
            found.examples.append(
                {
                    **{name: row[name] for name in ("source_id", "user_id", "session_id", "messages")},
                    **{
                        name: row[name]
                        for name in ("completion", "num_turns", "prompt_tokens", "completion_tokens")
                    },
                    "task": "encoder",
                    "label": ("empty", "record", "records")[min(2, len(row["memory_types"]))],
                    "origin": "asking" if row["verdict"] == "asking" else origin,
                    "kinds": row["memory_types"],
                }
            )
            if row["verdict"] == "asking":
                continue
            counts["num_turns"] += row["num_turns"]
            counts["num_turns_cited"] += row["num_turns_cited"]
    found.coverage = dict(plan.counts) | {
        f"segments_{name}": counts[name] for name in sorted(counts) if not name.startswith("num_")
    }
    found.coverage |= {name: counts[name] for name in ("num_records", "num_turns", "num_turns_cited")}
    return found
