"""The judge of `encoder`: scores of a model, in place of those by rule."""

import functools
from typing import TYPE_CHECKING, Any

from cluster.runtime import Progress, Stage, StageError, run_stage
from jobs.common.cli import JobError, say
from jobs.common.run import absolute, check_engine, load_profile
from schemas.endpoint import EndpointConfig
from schemas.profiles.judge import JudgeProfile

if TYPE_CHECKING:
    from cluster.models.paid_answers import Budget
    from cluster.store.files import Files


def judge_rows(config: Any, label: str, rows: list[dict], segments: dict[str, dict]) -> list[dict]:
    """Rows of trial.assess with the judge's scores; None, and out of all means, where it gave none.

    JobError when an endpoint is gone, or `max_cost` is reached: what it answered lies in the report folder,
    and is not asked for again.
    """
    from cluster.distill.judge import make_judge
    from cluster.evaluate.trial import AnswersToJudge, Judging
    from cluster.models.endpoint import EndpointError
    from cluster.models.resolve import resolve_decider
    from cluster.store.files import Files

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
    endpoint, files = config.judge_endpoint, Files(absolute(config.report), "judge")
    budget = functools.partial(_budget, endpoint, config.max_cost, files)
    make = functools.partial(make_judge, config.judge, profile, endpoint, files, config.pool.engine, budget)
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


def _budget(endpoint: EndpointConfig, max_cost: float | None, files: "Files") -> "Budget":
    """What the judge may cost, all answers of judges in this report folder included."""
    from cluster.models.paid_answers import Budget, Responses

    return Budget(max_cost=max_cost, cost=Responses(files, "judge", "").cost(endpoint))
