"""The judge of `encoder`: scores of a model, in place of those by rule."""

import functools
from typing import TYPE_CHECKING, Any

from cluster.runtime import Progress, Stage, StageError, run_stage
from jobs.common.cli import JobError, say
from jobs.common.run import absolute, check_engine, load_profile
from schemas.endpoint import EndpointConfig
from schemas.judge import JudgeProfile, scores_schema

if TYPE_CHECKING:
    from cluster.distill.judge import Judge


def judge_rows(config: Any, label: str, rows: list[dict], segments: dict[str, dict]) -> list[dict]:
    """Rows of trial.assess with the judge's scores; None, and out of all means, where it gave none.

    JobError when an endpoint is gone, or `max_cost` is reached: what it answered lies in the report folder,
    and is not asked for again.
    """
    from cluster.evaluate.trial import AnswersToJudge, Judging
    from cluster.models.endpoint import EndpointError
    from cluster.models.sources import resolve_decider

    profile = resolve_decider(load_profile("judges", config.judge_profile, JudgeProfile))
    asked = [row for row in rows if row["scores"]]
    if not asked:
        return rows
    if config.judge == "vllm":
        check_engine(profile)
    # A provider's batch wants all requests, and no worker: this process waits for it.
    in_batch = config.judge == "openai" and config.judge_endpoint.batch
    size, batches = len(asked) if in_batch else config.pool.batch_size, []
    for start in range(0, len(asked), size):
        some = asked[start : start + size]
        current = tuple(segments[row["segment_id"]]["current"] for row in some)
        batches.append(AnswersToJudge(current, tuple(list(row["records"]) for row in some)))
    make = functools.partial(
        make_judge,
        config.judge,
        profile,
        config.judge_endpoint,
        absolute(config.report),
        config.pool.engine,
        config.max_cost,
    )
    pool = config.pool if config.judge == "vllm" else config.pool.of_endpoint()
    results = (
        map(Judging(make), batches)
        if in_batch
        else run_stage(
            batches,
            Stage(Judging, {"make": make}, pool, wants_gpu=True),
            progress=Progress(f"judge {label}", "segments", len(asked)),
            count=lambda judged: len(judged.answers),
            in_order=True,
        )
    )
    try:
        answers = [answer for judged in results for answer in judged.answers]
    except (StageError, EndpointError) as error:
        raise JobError(
            f"judge {config.judge}: {error}; what was answered is kept in {config.report}: mend it, or raise "
            "max_cost, and run the same command again"
        ) from error
    by_id = {row["segment_id"]: answer.scores for row, answer in zip(asked, answers, strict=True)}
    if without := [answer.reason for answer in answers if answer.scores is None]:
        say(f"[judge {label}] {len(without)} of {len(answers)} segments have no scores, as: {without[0]}")
    return [row | {"scores": by_id.get(row["segment_id"])} for row in rows]


def make_judge(
    kind: str,
    profile: JudgeProfile,
    endpoint: EndpointConfig,
    report: str,
    engine: dict,
    max_cost: float | None = None,
) -> "Judge":
    """The judge, made where it works; its answers are kept in the report folder, and count for the cap."""
    from cluster.distill.judge import Judge, fingerprint
    from cluster.models.batches import BatchEndpoint
    from cluster.models.endpoint import Budget
    from cluster.models.local_model import LocalModel
    from cluster.models.paid_answers import Responses
    from cluster.store.files import Files

    responses = Responses(Files(report, "judge"), "judge", fingerprint(kind, profile, endpoint))
    if kind == "vllm":
        return Judge(profile, LocalModel(profile, scores_schema(), responses, engine))
    budget = Budget(max_cost=max_cost, cost=responses.cost(endpoint))
    return Judge(profile, BatchEndpoint(endpoint, responses, budget))
