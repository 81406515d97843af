"""Distill: an archive, or a store, becomes a training set.

    python -m jobs.distill encoder --archive DIR --output DIR                     # by rules: free, no model
    python -m jobs.distill encoder --archive DIR --output DIR --config FILE.toml  # by a model
    python -m jobs.distill encoder --archive DIR --teacher gold --gold DIR/_gold/memories.jsonl --output DIR
    python -m jobs.distill decider --store URI --output DIR
    python -m jobs.distill fact_qa --store URI --output DIR
    python -m jobs.distill evolvable --archive DIR --questions FILE --output DIR

A command is a task: what is learned. `--task NAME`, or `task` in the config file, names it too; not named, it
is encoder. `COMMAND --help` shows its options.

Writes train.parquet, validation.parquet (other users), rejected.parquet (every candidate that was refused,
with the rule) and a data card. A paid answer is kept as soon as it arrives: run the same command again after
a crash, or with higher caps, and nothing is paid for twice.
"""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.common.cli import HeldError, JobError, UsageError, say
from jobs.common.commands import commands_of
from jobs.common.rejected import too_many
from jobs.common.run import Run, absolute, connect, load_profile
from jobs.distill.config import (
    TASKS,
    DeciderSetConfig,
    DistillConfig,
    EncoderSetConfig,
    EvolvableSetConfig,
    FactSetConfig,
)
from schemas.profiles.answerer import AnswererProfile
from schemas.profiles.decider import DeciderProfile
from schemas.profiles.encoder import EncoderProfile
from schemas.profiles.judge import JudgeProfile
from schemas.profiles.model import ModelProfile
from schemas.stage_items import CheckedPart, JudgedPart

if TYPE_CHECKING:
    from jobs.distill.sets import Candidates


def run(config: DistillConfig) -> dict:
    """Distill and return the summary. Safe to repeat at any time."""
    from cluster.models.endpoint import EndpointError
    from cluster.models.sources import ModelError
    from cluster.store.errors import StoreError
    from cluster.store.lease import Lease, LeaseHeld, LeaseLost

    places = {name: getattr(config, name, None) for name in ("archive", "store", "output", "gold")}
    config = config.model_copy(update={name: absolute(uri) for name, uri in places.items() if uri})
    try:
        with Lease(config.output, "jobs.distill"):
            if isinstance(config, EncoderSetConfig):
                return encoder(config)
            if isinstance(config, EvolvableSetConfig):
                return of_questions(config)
            assert isinstance(config, DeciderSetConfig | FactSetConfig)
            return of_store(config)
    except LeaseHeld as error:
        raise HeldError(str(error)) from error
    except (EndpointError, ModelError, StoreError, LeaseLost) as error:
        raise JobError(str(error)) from error


def encoder(config: EncoderSetConfig) -> dict:
    """archive -> segments -> teacher -> verifier -> judge -> set."""
    from cluster.backfill.archive import ArchiveError, list_files
    from cluster.store.files import Files
    from jobs.distill.leaks import read_leaks
    from jobs.distill.segments import collect, cut, judge, spent, teach
    from jobs.distill.sets import split, write, write_profile

    try:
        paths = list_files(config.archive)
    except ArchiveError as error:
        raise UsageError(str(error)) from None
    say(f"[distill] {config.archive} ({len(paths)} files) -> {config.output}")
    leaks = read_leaks(config.leak_check, config.exclude_sessions)
    profiles = resolved(config)
    student = profiles["student"]
    with Run(
        "distill",
        config,
        encoder=student.fingerprint,
        embedder="",
        profiles={f"{name}_profile": profile.model_dump(mode="json") for name, profile in profiles.items()},
        writes="output",
    ) as this:
        sources = made_by(config, profiles)
        connect(config.runs_on)
        staging = Files(config.output, "staging")
        staging.delete(staging.paths())
        with this.stage("cut"):
            plan = cut(config, staging, student, paths, leaks)
        this.counts |= plan.counts
        with this.stage("teach"):
            done: Sequence[CheckedPart] = (
                teach(config, staging, student, profiles["teacher"], plan) if plan.parts else []
            )
        if config.judge != "none" and done:
            with this.stage("judge"):
                done = judge(config, staging, profiles["judge"], done)
        with this.stage("write"):
            found = collect(config, staging, sources["teacher"], done, plan)
            found.sources = sources
            this.counts |= (
                {name: sources[name] for name in ("teacher", "judge")} | asked(done) | spent(config)
            )
            status, problem = outcome(config, done, found)
            facts = {"run_id": this.run_id, "status": status, **spent(config)}
            write_profile(config, student)
            counts, data_hash = write(config, split(found, config), found, facts)
        this.counts |= counts | {"num_left": left(done, found), "data_hash": data_hash}
        staging.delete(staging.paths())
        summary = this.finish(status)
        if problem:
            raise JobError(problem)
        if status != "done":
            say(
                f"[distill] {status}: {summary['num_left']} segments are left; what was answered is in the "
                "set. Raise the caps and run the same command again to go on: nothing is paid for twice"
            )
        return summary


def of_store(config: DeciderSetConfig | FactSetConfig) -> dict:
    """decisions or memories of a store -> set. The driver alone does it."""
    from cluster.models.resolve import resolve_decider
    from jobs.distill import facts, replay
    from jobs.distill.leaks import read_leaks
    from jobs.distill.segments import spent
    from jobs.distill.sets import split, write, write_profile

    leaks = read_leaks(config.leak_check, config.exclude_sessions)
    student: DeciderProfile | AnswererProfile
    if isinstance(config, DeciderSetConfig):
        student = resolve_decider(load_profile("deciders", config.profile, DeciderProfile))
        find = functools.partial(replay.candidates, config, student, leaks)
    else:
        assert isinstance(config, FactSetConfig)
        student = AnswererProfile(name=config.task, base=config.base, dtype="float32")
        find = functools.partial(facts.candidates, config, leaks)
    with Run(
        "distill",
        config,
        encoder="",
        embedder="",
        profiles={"student_profile": student.model_dump(mode="json")},
        writes="output",
    ) as this:
        with this.stage("collect"):
            found = find()
        with this.stage("write"):
            origins = sorted({example["origin"] for example in found.examples})
            found.sources = {
                "source": config.store or "files",
                "teacher": ", ".join(origins),
                "judge": "none",
            }
            status = "stopped" if found.num_left else "done"
            facts_of_run = {"run_id": this.run_id, "status": status, **spent(config)}
            write_profile(config, student)
            counts, data_hash = write(config, split(found, config), found, facts_of_run)
        this.counts |= found.coverage | counts | spent(config)
        this.counts |= {"num_left": found.num_left, "data_hash": data_hash}
        return this.finish(status)


def of_questions(config: EvolvableSetConfig) -> dict:
    """labelled questions -> set for an evolvable embedder. The driver alone does it."""
    from jobs.distill import evolvable
    from jobs.distill.leaks import read_leaks
    from jobs.distill.sets import write

    leaks = read_leaks(config.leak_check, config.exclude_sessions)
    with Run("distill", config, encoder="", embedder="", writes="output") as this:
        with this.stage("collect"):
            found = evolvable.candidates(config, leaks)
        with this.stage("write"):
            found.sources = {"source": config.questions, "teacher": "labels", "judge": "none"}
            facts = {"run_id": this.run_id, "status": "done"}
            counts, data_hash = write(config, evolvable.parts_of(found), found, facts)
        this.counts |= found.coverage | counts | {"data_hash": data_hash}
        return this.finish("done")


def resolved(config: EncoderSetConfig) -> dict:
    """Profiles of student, teacher and judge, as far as they are needed."""
    from cluster.models.resolve import resolve_decider, resolve_encoder

    student = resolve_encoder(_without_extra("profile", config.profile))
    profiles: dict[str, ModelProfile] = {"student": student, "teacher": student}
    if config.teacher_profile:
        teacher = resolve_encoder(_without_extra("teacher_profile", config.teacher_profile))
        if missing := set(student.fields) - set(teacher.fields):
            raise UsageError(
                f"teacher_profile={config.teacher_profile!r}: does not write {sorted(missing)}, which the "
                "student has to; choose another or change `fields`"
            )
        profiles["teacher"] = teacher
    if config.judge != "none":
        profiles["judge"] = resolve_decider(load_profile("judges", config.judge_profile, JudgeProfile))
    return profiles


def _without_extra(option: str, name: str) -> EncoderProfile:
    """The encoder profile of this name."""
    profile = load_profile("encoders", name, EncoderProfile)
    if profile.extra_fields:
        names = [one.name for one in profile.extra_fields]
        raise UsageError(f"{option}={name!r}: no training set has extra_fields {names}; name one without")
    return profile


def made_by(config: EncoderSetConfig, profiles: dict) -> dict:
    """Names of teacher, judge, verifier and student, for the card."""
    from cluster.distill.teacher import rules_fingerprint
    from cluster.models.fingerprint import source_fingerprint

    names = {"rules": "rules", "gold": "gold", "none": "none"}
    for role in ("teacher", "judge"):
        kind = getattr(config, role)
        if kind == "vllm":
            names[role] = f"vllm:{profiles[role].name}"
        else:
            names[role] = names.get(kind) or f"openai:{getattr(config, f'{role}_endpoint').model}"
    if config.teacher == "gold":
        assert config.gold is not None
        taught_by = hashlib.sha256(Path(config.gold).read_bytes()).hexdigest()[:16]
    else:
        taught_by = rules_fingerprint() if config.teacher == "rules" else profiles["teacher"].fingerprint
    return {
        "teacher": names["teacher"],
        "teacher_fingerprint": taught_by,
        "judge": names["judge"],
        "min_score": config.min_score if config.judge != "none" else None,
        "verifier": source_fingerprint("cluster.distill.verifier"),
        "student": f"{profiles['student'].name} ({profiles['student'].fingerprint})",
    }


def asked(done: Sequence[CheckedPart]) -> dict[str, int]:
    """What this run asked of teacher and judge."""
    counts: dict[str, int] = {}
    for part in done:
        judge_counts = part.judge_counts if isinstance(part, JudgedPart) else {}
        for role, asked in (("teach", part.teach_counts), ("judge", judge_counts)):
            for name, count in asked.items():
                name = name.replace("num_", f"num_{role}_")
                counts[name] = counts.get(name, 0) + count
    return counts


def left(done: Sequence[CheckedPart], found: "Candidates") -> int:
    """Segments that a cap or a failure left without an answer or without a judgement."""
    return sum(part.num_left for part in done) + found.left_out["not_judged"]


def outcome(config: EncoderSetConfig, done: Sequence[CheckedPart], found: "Candidates") -> tuple[str, str]:
    """Status of the run, and the error where it has one."""
    counts = asked(done)
    if error := next((part.error for part in done if part.error), ""):
        return "failed", f"{error}. What was answered before is kept"
    for role in ("teach", "judge"):
        num_failed = counts.get(f"num_{role}_failed", 0)
        num_asked = counts.get(f"num_{role}_asked", 0) + counts.get(f"num_{role}_resumed", 0)
        limit, what = config.max_failed_fraction, "requests got no answer"
        if told := too_many("max_failed_fraction", limit, num_failed, num_asked, what):
            return "failed", f"{told}. What was answered is kept: run again to ask for the others"
    return ("stopped" if left(done, found) else "done"), ""


HELP = {
    "encoder": "an archive's segments, and what is to be remembered of them",
    "decider": "a store's decisions on memories",
    "fact_qa": "questions on a store's memories, and their answers",
    "evolvable": "questions to conversations, with the turns that answer them",
}

COMMANDS = commands_of("jobs.distill", "Distill", __doc__, HELP, TASKS, run, default="encoder")


if __name__ == "__main__":
    COMMANDS.main()
