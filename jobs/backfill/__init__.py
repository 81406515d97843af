"""Backfill: a conversation archive becomes a versioned memory store.

    python -m jobs.backfill --archive DIR --store URI
    python -m jobs.backfill --archive DIR --store URI --dry-run      # what it would cost
    python -m jobs.backfill --archive DIR --store URI --consolidate  # and what jobs.consolidate does
    ray job submit --working-dir . -- python -m jobs.backfill --archive s3://... --store s3://...

Reads Parquet archives (jobs.ingest and jobs.sample make them), cuts sessions into segments, encodes each
segment into memory records, embeds records and turns, and commits all of it at once. Run it again after a
crash or with new sessions: what was paid for is never paid for again.
"""

from typing import TYPE_CHECKING

from jobs.backfill.checks import check_compatible, check_plan, check_rejected
from jobs.backfill.config import BackfillConfig, consolidation_of
from jobs.backfill.cutting import cut, inspect, read_watermark
from jobs.backfill.encoding import encode_and_embed
from jobs.backfill.plan import batch_counts, encode_times
from jobs.backfill.projecting import expected_costs
from jobs.backfill.publishing import publish, read_turns
from jobs.common.choice import choose_embedder, choose_encoder
from jobs.common.cli import UsageError, say
from jobs.common.consolidation import consolidate
from jobs.common.endpoints import at_endpoint, paying
from jobs.common.forgotten import read_forgotten
from jobs.common.run import Run, absolute, check_engine, connect, load_profile, writing
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.encoder import EncoderProfile

if TYPE_CHECKING:
    from cluster.store.store import Store


def run(config: BackfillConfig) -> dict:
    """Run a backfill and return its summary. Safe to repeat at any time."""
    from cluster.backfill.archive import ArchiveError, list_files
    from cluster.store.files import unusable

    config = config.model_copy(update={"archive": absolute(config.archive), "store": absolute(config.store)})
    # A profile or archive that does not exist is wrong usage, found before a store is made.
    if config.profile:
        encoder = load_profile("encoders", config.profile, EncoderProfile)
        at_endpoint(encoder, config.endpoint, config.max_cost)
    if config.embedder:
        load_profile("embedders", config.embedder, EmbedderProfile)
    update = consolidation_of(config) if config.consolidate else None
    if problem := unusable(config.store):
        raise UsageError(f"--store {config.store!r}: {problem}")
    try:
        files = list_files(config.archive)
    except ArchiveError as error:
        raise UsageError(str(error)) from None
    say(f"[backfill] {config.archive} ({len(files)} files) -> {config.store}")
    with writing(config.store, "jobs.backfill", must_exist=False, wait_s=config.lease_wait) as store:
        encoder = choose_encoder(config.profile, store, config.endpoint, config.max_cost)
        embedder = choose_embedder(config.embedder, store)
        summary = backfill(config, files, encoder, embedder, store)
        is_stopped = summary["status"] == "stopped"
        if update and not config.dry_run and not is_stopped and store.run():
            summary["consolidation"] = consolidate(update, store)
            if summary["consolidation"]["status"] == "failed":
                summary["status"] = "failed"
        return summary


def backfill(
    config: BackfillConfig,
    files: list[str],
    encoder: EncoderProfile,
    embedder: EmbedderProfile,
    store: "Store",
) -> dict:
    """archive -> units (row groups) -> batches of segments -> records with vectors -> one commit."""
    from cluster.models.paid_answers import CapReached

    with Run(
        "backfill",
        config,
        encoder=encoder.fingerprint,
        embedder=embedder.fingerprint,
        profiles={"encoder": encoder.model_dump(mode="json"), "embedder": embedder.model_dump(mode="json")},
    ) as this:
        check_compatible(config, encoder, embedder, store)
        connect(config.runs_on)
        if not config.dry_run:
            check_engine(encoder)

        forgotten = read_forgotten(config, config.store)
        with this.stage("inspect"):
            watermark = read_watermark(config, encoder, forgotten)
            inspected = inspect(config, files, watermark, forgotten)
        with this.stage("cut"):
            plan = cut(config, encoder, store, inspected, watermark, forgotten)
        this.counts |= plan.counts() | batch_counts([])
        check_plan(config, plan, this)
        if config.dry_run:
            this.counts |= expected_costs(config, encoder, plan, store)
            return this.finish("dry_run")

        try:
            with this.stage("encode"), paying(this, encoder, config.store, "encoder"):
                done = encode_and_embed(config, encoder, embedder, plan)
        except CapReached as cap:
            say(f"[encode] {cap}")
            return this.finish("stopped")
        this.stages["encode"] |= encode_times(done)
        this.counts |= plan.counts() | batch_counts(done)
        this.counts["num_rejections"] += sum(batch.num_rejections for batch in done)
        num_rejected = sum(batch.num_segments_rejected for batch in done)
        check_rejected(config, this, "segments", num_rejected, plan.num_pending)

        read = read_turns(config, embedder, store, plan, done, this)

        with this.stage("publish"):
            store.fence()
            changed = publish(this, embedder, plan, done, read, store)
        return this.finish("done" if changed else "unchanged")
