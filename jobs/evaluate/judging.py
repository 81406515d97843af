"""The judge of `encoder`: scores of a model, in place of those by rule."""

import functools
import json

from cluster.runtime import actor_options, encoder_gpus
from jobs.common.cli import JobError, Progress, say
from jobs.common.run import absolute, load_profile
from schemas.judge import JudgeProfile, scores_schema


def judge_rows(config, label: str, rows: list[dict], segments: dict[str, dict]) -> list[dict]:
    """Rows of trial.assess with the judge's scores; None, and out of all means, where it gave none.

    `config` has `judge`, `judge_profile`, `judge_endpoint`, `pool` and `report`. JobError when an endpoint is
    gone: what it answered lies in the report folder, and is not asked for again.
    """
    import ray

    from cluster.evaluate.trial import Judging
    from cluster.models.endpoint import EndpointError
    from cluster.models.sources import resolve_decider

    profile = resolve_decider(load_profile("judges", config.judge_profile, JudgeProfile))
    asked = [row for row in rows if row["scores"]]
    if not asked:
        return rows
    answers = [(segments[row["segment_id"]], row["records"]) for row in asked]
    size = config.pool.batch_size
    batches = [answers[start : start + size] for start in range(0, len(answers), size)]
    make = functools.partial(
        make_judge, config.judge, profile, config.judge_endpoint, absolute(config.report), config.pool.engine
    )
    items = [{"batch": number} for number in range(len(batches))]
    # An endpoint needs no GPU.
    num_gpus = encoder_gpus(config.pool) if config.judge == "vllm" else 0
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
        Judging, fn_constructor_args=(make, ray.put(batches)), **actor_options(config.pool, num_gpus)
    )
    found, progress = {}, Progress(f"judge {label}", "segments", len(asked))
    try:
        for row in dataset.iter_rows():
            found[row["batch"]] = json.loads(row["scores"])
            progress.advance(len(found[row["batch"]]))
    except (EndpointError, ray.exceptions.RayTaskError) as error:
        raise JobError(f"judge {config.judge}: {error}") from error
    scores = [score for number in sorted(found) for score in found[number]]
    by_id = {row["segment_id"]: score for row, score in zip(asked, scores, strict=True)}
    if without := [score for score in scores if not isinstance(score, dict)]:
        say(f"[judge {label}] {len(without)} of {len(scores)} segments have no scores, as: {without[0]}")
    return [
        row | {"scores": score if isinstance(score := by_id.get(row["segment_id"]), dict) else None}
        for row in rows
    ]


def make_judge(kind: str, profile: JudgeProfile, endpoint, report: str, engine: dict):
    """The judge, made where it works; its answers are kept in the report folder."""
    from cluster.distill.judge import Judge, LocalModel, fingerprint
    from cluster.models.endpoint import Budget, Endpoint
    from cluster.models.paid_answers import Responses
    from cluster.store.files import Files

    responses = Responses(Files(report, "judge"), "judge", fingerprint(kind, profile, endpoint))
    if kind == "vllm":
        return Judge(profile, LocalModel(profile, scores_schema(), responses, engine))
    return Judge(profile, Endpoint(endpoint, responses, Budget()))
