"""Staged batches -> encoder actors -> embedder actors -> staged rows of the tables."""

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.runtime import Progress, Stage, is_local, run_stage
from jobs.backfill.config import BackfillConfig
from jobs.backfill.plan import SPENT, Plan, Workers
from jobs.common.cli import JobError, say
from jobs.common.endpoints import workers
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.encoder import EncoderProfile
from schemas.stage_items import Batch, EmbeddedBatch

if TYPE_CHECKING:
    from cluster.store.files import Files

PATIENCE_S = 30
"""Seconds that a sick worker waits after its first failure, so that healthy workers take the next batches."""


def encode_and_embed(
    config: BackfillConfig, encoder: EncoderProfile, embedder: EmbedderProfile, plan: Plan
) -> list[EmbeddedBatch]:
    """Batches -> encoder actors -> embedder actors -> staged rows of the tables, in the order of the plan.

    Batches that sick workers give back are tried again by new workers, as long as each pass finishes some.
    JobError when no worker can do what is left, CapReached when the cap on costs is reached.
    """
    from cluster.backfill.staged import segments_paid
    from cluster.models.paid_answers import CapReached
    from cluster.store.files import Files

    if not plan.batches:
        return []
    files = Files(config.store, "staging")
    paid = segments_paid(files, encoder.fingerprint, {batch.batch_id for batch in plan.batches})
    spent: dict[str, Counter[str]] = {}
    attempt = uuid.uuid4().hex
    given_back = Workers(config.encoder_pool.min_size)
    progress = Progress("encode", "segments", plan.num_pending)
    done: list[EmbeddedBatch] = []
    left, failure, is_hopeless, cap = plan.batches, "", False, ""
    while left and not is_hopeless:
        num_before = len(done)
        for result in encoding_pass(config, encoder, embedder, left, files, paid, attempt, progress):
            cost = spent.setdefault(result.batch_id, Counter())
            cost.update({name: getattr(result, name) for name in SPENT})
            if result.is_stopped:
                cap = result.failure
                continue
            if result.failure:
                failure = result.failure
                say(f"[encode] a worker gave batch {result.batch_id} back: {failure}")
                if is_hopeless := given_back.has_given_back(result.worker):
                    break
                continue
            given_back.has_done()
            done.append(replace(result, **dict[str, Any](cost)))
        is_hopeless |= len(done) == num_before
        if cap:
            raise CapReached(
                f"max_cost={config.max_cost}: reached, with {len(plan.batches) - len(done)} of "
                f"{len(plan.batches)} batches left ({cap}). Nothing was published, and what was answered is "
                "kept: run the same command with a higher cap to go on"
            )
        ids = {result.batch_id for result in done}
        left = [batch for batch in left if batch.batch_id not in ids]
    if left:
        raise JobError(
            f"encode: no worker can do what is left, {len(left)} of {len(plan.batches)} batches; the last "
            f"gave up because {failure}. Mend that and run the command again: what was encoded is kept"
        )
    places = {batch.batch_id: place for place, batch in enumerate(plan.batches)}
    return sorted(done, key=lambda result: places[result.batch_id])


def in_flight(config: BackfillConfig, encoder: EncoderProfile) -> int:
    """Batches that an encoder actor works on at a time."""
    from cluster.models.engine import SHARED

    return config.encoder_pool.in_flight if encoder.engine in SHARED and not is_local() else 1


def encoding_pass(
    config: BackfillConfig,
    encoder: EncoderProfile,
    embedder: EmbedderProfile,
    batches: list[Batch],
    files: "Files",
    paid: dict[str, str],
    attempt: str,
    progress: Progress,
) -> Iterator[EmbeddedBatch]:
    """Results of the embed stage, one per batch, in the order in which they finish."""
    from cluster.backfill.embed_stage import EmbedStage
    from cluster.backfill.encode_stage import EncodeStage

    pool, engine = workers(encoder, config.encoder_pool, files, "encoder", config.max_cost)
    encode = {
        "profile": encoder,
        "files": files,
        "attempt": attempt,
        "paid": paid,
        "engine": engine,
        "patience_s": PATIENCE_S if pool.max_size > 1 and not is_local() else 0,
    }
    embed = {"encoder": encoder.fingerprint, "profile": embedder, "files": files}
    tokens, started_s = 0, time.monotonic()

    def note(result: EmbeddedBatch) -> str:
        nonlocal tokens
        tokens += result.prompt_tokens + result.output_tokens
        return f"{tokens / (time.monotonic() - started_s):,.0f} tokens/s"

    return run_stage(
        batches,
        Stage(EncodeStage, encode, pool, wants_gpu=True, in_flight=in_flight(config, encoder)),
        Stage(EmbedStage, embed, config.embedder_pool),
        progress=progress,
        count=lambda result: 0 if result.failure else result.num_segments,
        note=note,
    )
