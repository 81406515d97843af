"""Asking models, for the commands of this job that compare them: on workers, or behind an endpoint."""

from collections.abc import Sequence
from dataclasses import asdict

from pydantic import Field

from cluster.runtime import Progress, Stage, StageError, run_stage
from jobs.common.cli import JobError, LocalFolder
from jobs.common.endpoints import workers
from jobs.common.pools import EnginePool
from jobs.common.run import StagesConfig, absolute, check_engine
from schemas.endpoint import EndpointConfig
from schemas.profiles.model import AskedProfile


class ModelPool(EnginePool):
    """Actors of the model that is measured."""

    batch_size: int = Field(64, ge=1)
    """Conversations, or segments, per batch."""


class ModelsConfig(StagesConfig):
    """Base of the config of a command that compares models."""

    report: LocalFolder
    """Folder for report.json, report.md and report.html."""
    endpoint: EndpointConfig = EndpointConfig()
    """Goes over the table of that name of profiles whose model is behind an endpoint."""
    max_cost: float | None = Field(None, ge=0)
    """What one such model, a judge too, may cost in the currency of its prices, earlier runs into this report
    included."""
    pool: ModelPool = ModelPool()


def through(
    label: str,
    config: ModelsConfig,
    profile: AskedProfile,
    work: type,
    arguments: dict,
    items: Sequence,
    progress: Progress,
) -> list:
    """Results of a stage that asks the profile's model, one an item, in order.

    JobError when a model behind an endpoint is gone, or its cap is reached: what it answered is kept in the
    report folder, and not asked again.
    """
    from cluster.store.files import Files

    check_engine(profile)
    ledger = Files(absolute(config.report), "ledger")
    pool, engine = workers(profile, config.pool, ledger, profile.fingerprint, config.max_cost)
    stage = Stage(work, arguments | {"profile": profile, "engine": engine}, pool, wants_gpu=True)
    try:
        return list(run_stage(items, stage, progress=progress, count=len, in_order=True))
    except StageError as error:
        if profile.engine != "openai":
            raise
        raise JobError(
            f"{label}: {error}; what was answered is kept in {config.report}: mend it, or raise max_cost, "
            "and run the same command again"
        ) from error


def cost_of(profile: AskedProfile, rows: Sequence[dict]) -> float | None:
    """What these answers cost behind an endpoint; None for a model that nobody charges for."""
    if profile.endpoint is None:
        return None
    tokens = (sum(row[name] for row in rows) for name in ("prompt_tokens", "output_tokens"))
    return round(profile.endpoint.cost(*tokens), 6)


def ask_model(
    label: str, config: ModelsConfig, profile: AskedProfile, schema: str | None, conversations: list
) -> tuple[list[dict], float | None]:
    """Replies (dicts of cluster.evaluate.answering.Said) in order, and answers a second of one engine.

    `conversations`: of each its candidates, see cluster.evaluate.answering. The cluster must be connected.
    """
    from cluster.evaluate.answering import Answering, Asked

    if not conversations:
        return [], None
    size = config.pool.batch_size
    batches = [
        Asked(tuple(conversations[start : start + size])) for start in range(0, len(conversations), size)
    ]
    progress = Progress(label, "answers", len(conversations))
    found = through(label, config, profile, Answering, {"schema": schema}, batches, progress)
    seconds = sum(answered.seconds for answered in found)
    replies = [asdict(reply) for answered in found for reply in answered.replies]
    return replies, len(replies) / seconds if seconds else None
