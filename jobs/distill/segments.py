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
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.runtime import Progress, Stage, run_stage
from jobs.common.run import check_engine
from jobs.distill.config import DistillConfig, EncoderSetConfig, TaughtConfig
from jobs.distill.leaks import Leaks
from jobs.distill.sets import Candidates, draw, rejection
from schemas.profiles.encoder import EncoderProfile
from schemas.profiles.judge import JudgeProfile
from schemas.stage_items import ArchiveFile, CheckedPart, JudgedPart, Part

if TYPE_CHECKING:
    from cluster.distill.teacher import Teacher
    from cluster.models.paid_answers import Budget
    from cluster.store.files import Files


@dataclass
class Plan:
    """What the archive gives. `parts` are references for the teacher."""

    parts: list[Part] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)
    counts: Counter = field(default_factory=Counter)


def cut(
    config: EncoderSetConfig, files: "Files", profile: EncoderProfile, paths: list[str], leaks: Leaks
) -> Plan:
    """Archive -> staged batches of segments -> the parts of them that are worth asking about."""
    import numpy as np

    from cluster.backfill.archive import inspect, plan_units
    from cluster.distill.examples import cut_for_student
    from cluster.distill.near_duplicates import NUM_HASHES, near_duplicates

    inspected = list(
        run_stage([ArchiveFile(path) for path in paths], Stage(inspect, {"archive": config.archive}))
    )
    units = plan_units(inspected, config.limit_sessions)
    arguments = {
        "archive": config.archive,
        "profile": profile,
        "batch_size": config.batch_size,
        "files": files,
        "leave_out": leaks,
    }
    plan, shown = Plan(), []
    plan.counts["num_rejections"] = sum(len(found.bad) for found in inspected)
    for unit in run_stage(
        units,
        Stage(cut_for_student, arguments),
        progress=Progress("cut", "sessions", sum(unit.num_rows_read for unit in units)),
        count=lambda unit: unit.cut.num_sessions + unit.cut.num_rejections + sum(unit.cut.left_out.values()),
    ):
        for name in ("num_sessions", "num_segments", "num_redactions", "num_rejections"):
            plan.counts[name] += getattr(unit.cut, name)
        plan.left_out.update(unit.cut.left_out)
        plan.left_out["not_shown_to_the_student"] += unit.num_not_shown
        shown += unit.shown
    # Which of two duplicates stays must not depend on the order in which workers finish.
    shown.sort(key=lambda batch: batch.batch_id)
    packed = b"".join(batch.signatures for batch in shown)
    is_duplicate = near_duplicates(np.frombuffer(packed, "i4").reshape(-1, NUM_HASHES), config.near_duplicate)
    plan.left_out["duplicate_segment"] = int(is_duplicate.sum())
    all_ids = [segment_id for batch in shown for segment_id in batch.segment_ids]
    wanted = [item for item, is_twin in zip(all_ids, is_duplicate, strict=True) if not is_twin]
    if config.max_segments and len(wanted) > config.max_segments:
        plan.left_out["over_max_segments"] = len(wanted) - config.max_segments
        wanted = sorted(wanted, key=lambda item: draw(item, config.seed))[: config.max_segments]
    asked = set(wanted)
    for batch in shown:
        if chosen := tuple(item for item in batch.segment_ids if item in asked):
            part_id = hashlib.sha256("".join(chosen).encode()).hexdigest()[:24]
            plan.parts.append(Part(part_id, batch.batch_id, chosen))
    plan.counts["num_segments_asked"] = len(asked)
    return plan


def teach(
    config: EncoderSetConfig, files: "Files", student: EncoderProfile, teacher: EncoderProfile, plan: Plan
) -> list[CheckedPart]:
    """Parts -> answers -> checked examples."""
    from cluster.distill.examples import CheckStage
    from cluster.distill.teacher import TeachStage

    if config.teacher == "vllm":
        check_engine(teacher)
    make = functools.partial(make_teacher, config, teacher)
    teaching = Stage(TeachStage, {"files": files, "make": make}, **model_pool(config, "teacher"))
    is_gold = config.teacher == "gold"
    checking = Stage(CheckStage, {"profile": student, "files": files, "is_gold": is_gold}, config.check_pool)
    if config.teacher == "openai" and config.teacher_endpoint.batch:
        # A batch takes hours and wants all requests. It needs no worker: this process waits for it.
        return _through("check", TeachStage(files, make).together(plan.parts), checking)
    return _through("teach", plan.parts, teaching, checking)


def judge(
    config: EncoderSetConfig, files: "Files", profile: JudgeProfile, parts: Sequence[CheckedPart]
) -> list[JudgedPart]:
    """Checked parts -> judged parts. A pass of its own, so that two models never share a GPU."""
    from cluster.distill.judge import JudgeStage, make_judge

    if config.judge == "vllm":
        check_engine(profile)
    engine, cap = config.judge_pool.engine, functools.partial(budget, config)
    make = functools.partial(
        make_judge, config.judge, profile, config.judge_endpoint, ledger(config), engine, cap
    )
    if config.judge == "openai" and config.judge_endpoint.batch:
        return JudgeStage(files, config.min_score, make).together(parts)
    arguments = {"files": files, "min_score": config.min_score, "make": make}
    return _through("judge", parts, Stage(JudgeStage, arguments, **model_pool(config, "judge")))


def _through(label: str, parts: Sequence[Part], *stages: Stage) -> list:
    progress = Progress(label, "segments", sum(len(part.segment_ids) for part in parts))
    done = run_stage(parts, *stages, progress=progress, count=lambda part: len(part.segment_ids))
    return sorted(done, key=lambda part: part.part_id)


def model_pool(config: EncoderSetConfig, role: str) -> dict:
    """`pool` and `wants_gpu` of the stage of teacher or judge."""
    kind, pool = getattr(config, role), getattr(config, f"{role}_pool")
    if kind in ("rules", "gold"):
        return {"pool": config.check_pool}
    if kind == "openai":
        return {"pool": pool.of_endpoint()}
    return {"pool": pool, "wants_gpu": True}


def make_teacher(config: EncoderSetConfig, profile: EncoderProfile) -> "Teacher":
    """The teacher, made where it works."""
    from cluster.distill.teacher import (
        GoldTeacher,
        OpenAITeacher,
        RulesTeacher,
        VllmTeacher,
        fingerprint,
        read_gold,
    )
    from cluster.models.batches import BatchEndpoint
    from cluster.models.paid_answers import Responses
    from cluster.models.sources import tokenizer_folder

    if config.teacher == "rules":
        return RulesTeacher(profile)
    if config.teacher == "gold":
        assert config.gold is not None
        return GoldTeacher(read_gold(config.gold), profile)
    key = fingerprint(config.teacher, profile, config.teacher_endpoint)
    responses = Responses(ledger(config), "teacher", key)
    if config.teacher == "vllm":
        return VllmTeacher(profile, responses, config.teacher_pool.engine)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(profile))
    return OpenAITeacher(
        profile, BatchEndpoint(config.teacher_endpoint, responses, budget(config)), tokenizer
    )


def ledger(config: DistillConfig) -> "Files":
    """Where paid answers lie. They stay when the run is done."""
    from cluster.store.files import Files

    return Files(config.output, "ledger")


def spent(config: DistillConfig) -> dict:
    """Tokens of all runs into this output by role, and what endpoints asked for them."""
    from cluster.models.paid_answers import Responses

    counts: dict[str, float] = {}
    cost = 0.0
    for role in ("teacher", "judge"):
        if (kind := getattr(config, role, None)) in ("vllm", "openai"):
            responses = Responses(ledger(config), role, "")
            tokens = responses.spent
            counts |= {f"{role}_prompt_tokens": tokens[0], f"{role}_output_tokens": tokens[1]}
            cost += responses.cost(getattr(config, f"{role}_endpoint")) if kind == "openai" else 0.0
    return counts | {"cost": round(cost, 6)}


def budget(config: TaughtConfig) -> "Budget":
    """Caps, and what endpoints were paid for until now, in every role."""
    from cluster.models.paid_answers import Budget

    paid = spent(config)
    tokens = sum(count for name, count in paid.items() if getattr(config, name.split("_")[0], "") == "openai")
    return Budget(config.max_tokens, config.max_cost, tokens, paid["cost"])


_BESIDE = ("asking", "alone")
"""Verdicts of examples that are made beside that of their segment."""


def collect(
    config: EncoderSetConfig, files: "Files", origin: str, done: Sequence[CheckedPart], plan: Plan
) -> Candidates:
    """Checked, and judged, parts -> candidates of the set."""
    from cluster.distill.judge import as_written

    found = Candidates(left_out=plan.left_out)
    counts: Counter[str] = Counter()
    for part in done:
        scores = {}
        if isinstance(part, JudgedPart):
            scores = {row["segment_id"]: row for row in files.get_table(part.judged).to_pylist()}
        for row in files.get_table(part.checked).to_pylist():
            row["source_id"] = row["segment_id"]
            for refusal in row["refusals"]:
                found.rejected.append(rejection(row, **refusal))
            counts[row["verdict"]] += 1
            if row["verdict"] not in ("records", "empty", *_BESIDE):
                continue
            counts["num_records"] += len(row["memory_types"])
            if config.judge != "none" and row["verdict"] == "records":
                judged = scores.get(row["segment_id"])
                if judged is None:
                    found.left_out["not_judged"] += 1
                    continue
                if judged["reason"]:
                    counts["judge"] += 1
                    written = json.dumps([as_written(one) for one in row["records"]], ensure_ascii=False)
                    found.rejected.append(
                        rejection(row, written, judged["reason"], judged["detail"], judged["scores"])
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
                    "origin": row["verdict"] if row["verdict"] in _BESIDE else origin,
                    "kinds": row["memory_types"],
                }
            )
            if row["verdict"] in _BESIDE:
                continue
            counts["num_turns"] += row["num_turns"]
            counts["num_turns_cited"] += row["num_turns_cited"]
    found.coverage = dict(plan.counts) | {
        f"segments_{name}": counts[name] for name in sorted(counts) if not name.startswith("num_")
    }
    found.coverage |= {name: counts[name] for name in ("num_records", "num_turns", "num_turns_cited")}
    return found
