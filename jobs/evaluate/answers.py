"""Asking a model on the cluster, for the commands of this job that compare models."""

import json

from pydantic import Field

from cluster.runtime import PoolConfig, actor_options, encoder_gpus
from jobs.common.cli import Progress


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


def ask_model(label: str, profile, schema: str | None, conversations: list, pool: ModelPool):
    """Replies (dicts of cluster.backfill.encoder.Reply) in order, and answers a second of one engine.

    `conversations` as cluster.evaluate.answering.Answering takes them. The cluster must be connected.
    """
    import ray

    from cluster.evaluate.answering import Answering

    if not conversations:
        return [], None
    size = pool.batch_size
    batches = [conversations[start : start + size] for start in range(0, len(conversations), size)]
    items = [{"batch": number} for number in range(len(batches))]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
        Answering,
        fn_constructor_args=(profile, schema, pool.engine, ray.put(batches)),
        **actor_options(pool, encoder_gpus(pool)),
    )
    found, seconds = {}, 0.0
    progress = Progress(label, "answers", len(conversations))
    for row in dataset.iter_rows():
        result = json.loads(row["result"])
        found[row["batch"]] = result["replies"]
        seconds += result["seconds"]
        progress.advance(len(result["replies"]))
    replies = [reply for number in sorted(found) for reply in found[number]]
    return replies, len(replies) / seconds if seconds else None
