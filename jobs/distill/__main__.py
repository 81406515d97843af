"""Distill: an archive, or a store, becomes a training set.

    python -m jobs.distill --archive DIR --output DIR                      # by rules: free, no model
    python -m jobs.distill --archive DIR --output DIR --config FILE.toml   # by a model: jobs/configs/distill
    python -m jobs.distill --task decider --store URI --output DIR
    python -m jobs.distill --task fact_qa --store URI --output DIR

Writes train.parquet, validation.parquet (other users), rejected.parquet (every candidate that was refused,
with the rule) and a data card. A paid answer is kept as soon as it arrives: run the same command again after
a crash, or with higher caps, and nothing is paid for twice.
"""

from jobs.cli import JobError, UsageError, main, say
from jobs.distill.config import DistillConfig
from jobs.run import Run, absolute, load_profile
from schemas.profile import EncoderProfile


def run(config: DistillConfig) -> dict:
    """Distill and return the summary. Safe to repeat at any time."""
    from cluster.endpoint import EndpointError
    from cluster.models import ModelError

    places = {name: getattr(config, name) for name in ("archive", "store", "output")}
    config = config.model_copy(update={name: absolute(uri) for name, uri in places.items() if uri})
    try:
        return encoder(config)
    except (ModelError, EndpointError) as error:
        raise JobError(str(error)) from error


def encoder(config: DistillConfig) -> dict:
    """archive -> segments -> teacher -> verifier -> judge -> set."""
    from cluster.archive import ArchiveError, list_files
    from cluster.files import Files
    from cluster.models import resolve_encoder
    from cluster.resources import connect
    from cluster.teacher import rules_fingerprint
    from cluster.verifier import FINGERPRINT as VERIFIER
    from jobs.distill.leaks import read_leaks
    from jobs.distill.segments import collect, cut, teach
    from jobs.distill.sets import split, write

    student = resolve_encoder(load_profile("profiles", config.profile, EncoderProfile))
    teacher = student
    if config.teacher_profile:
        teacher = resolve_encoder(load_profile("profiles", config.teacher_profile, EncoderProfile))
        if missing := set(student.fields) - set(teacher.fields):
            raise UsageError(
                f"teacher_profile={config.teacher_profile!r}: does not write {sorted(missing)}, which the "
                "student has to; choose another or change `fields`"
            )
    try:
        paths = list_files(config.archive)
    except ArchiveError as error:
        raise UsageError(str(error)) from None
    say(f"[distill] {config.archive} ({len(paths)} files) -> {config.output}")
    leaks = read_leaks(config.leak_check, config.exclude_sessions)
    name = {
        "rules": "rules",
        "vllm": f"vllm:{teacher.name}",
        "openai": f"openai:{config.teacher_endpoint.model}",
    }
    origin = name[config.teacher]
    this = Run(
        "distill",
        config,
        encoder=student.fingerprint,
        embedder="",
        profiles={"student": student.model_dump(mode="json"), "teacher": teacher.model_dump(mode="json")},
        writes="output",
    )
    connect(config.cluster)
    with this.stage("cut"):
        plan = cut(config, student, paths, leaks)
    this.counts |= plan.counts
    with this.stage("teach"):
        done = teach(config, this, student, teacher, plan) if plan.parts else []
    with this.stage("write"):
        found = collect(config, origin, done, plan)
        found.sources = {
            "teacher": origin,
            "teacher_fingerprint": rules_fingerprint() if config.teacher == "rules" else teacher.fingerprint,
            "judge": "none",
            "verifier": VERIFIER,
            "student": f"{student.name} ({student.fingerprint})",
        }
        parts = split(found, config)
        counts, data_hash = write(config, parts, found, {"run_id": this.run_id})
    this.counts |= counts | {"teacher": origin, "data_hash": data_hash}
    staging = Files(config.output, "staging")
    staging.delete(staging.paths())
    return this.finish("done")


if __name__ == "__main__":
    main(DistillConfig, run, __doc__)
