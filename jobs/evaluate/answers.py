"""Asking a model on the cluster, for the commands of this job that compare models."""

from dataclasses import asdict

from pydantic import Field

from cluster.runtime import PoolConfig, Progress, Stage, run_stage
from jobs.common.run import check_engine
from schemas.profile import ModelProfile


class ModelPool(PoolConfig):
    """Actors of the model that is measured."""

    batch_size: int = Field(64, ge=1)
    """Conversations, or segments, per batch."""
    max_num_seqs: int = Field(64, ge=1)
    """Of them, those that vLLM decodes side by side."""
    kv_cache_gib: int = Field(2, ge=1)
    """Memory of the key-value cache on a CPU."""
    gpu_memory: float = Field(0.85, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes."""

    @property
    def engine(self) -> dict:
        return self.model_dump(include={"max_num_seqs", "kv_cache_gib", "gpu_memory"})


def ask_model(
    label: str, profile: ModelProfile, schema: str | None, conversations: list, pool: ModelPool
) -> tuple[list[dict], float | None]:
    """Replies (dicts of cluster.evaluate.answering.Said) in order, and answers a second of one engine.

    `conversations`: of each its candidates, see cluster.evaluate.answering. The cluster must be connected.
    """
    from cluster.evaluate.answering import Answering, Asked

    if not conversations:
        return [], None
    check_engine(profile)
    size = pool.batch_size
    starts = range(0, len(conversations), size)
    found = list(
        run_stage(
            [Asked(tuple(conversations[start : start + size])) for start in starts],
            Stage(
                Answering, {"profile": profile, "schema": schema, "engine": pool.engine}, pool, wants_gpu=True
            ),
            progress=Progress(label, "answers", len(conversations)),
            count=lambda answered: len(answered.replies),
            in_order=True,
        )
    )
    seconds = sum(answered.seconds for answered in found)
    replies = [asdict(reply) for answered in found for reply in answered.replies]
    return replies, len(replies) / seconds if seconds else None
