"""Checks that end a backfill before it publishes: another model, too many bad rows, too many tokens."""

from typing import TYPE_CHECKING

from jobs.backfill.config import BackfillConfig
from jobs.backfill.plan import Plan
from jobs.common.cli import JobError, say
from jobs.common.rejected import check_rejected as fail_on_rejections
from jobs.common.run import Run
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.encoder import EncoderProfile
from schemas.store import REJECTIONS_SCHEMA

if TYPE_CHECKING:
    from cluster.store.store import Store


def check_compatible(
    config: BackfillConfig, encoder: EncoderProfile, embedder: EmbedderProfile, store: "Store"
) -> None:
    """JobError if another embedder wrote the store, or another encoder and --on-encoder-change says fail."""
    last = store.run()
    if last is None:
        return
    if last.embedder != embedder.fingerprint:
        raise JobError(
            f"--embedder {config.embedder} ({embedder.fingerprint}): the store's vectors are of embedder "
            f"{last.embedder}, and a store never mixes two; use that embedder, or another --store"
        )
    if last.encoder != encoder.fingerprint and config.on_encoder_change == "fail":
        raise JobError(
            f"--profile {config.profile} ({encoder.fingerprint}): the store was written by encoder "
            f"{last.encoder}; pass --on-encoder-change keep (encode only what is new) or reencode "
            "(encode everything again)"
        )


def check_plan(config: BackfillConfig, plan: Plan, this: Run) -> None:
    """Before anything is paid: too many bad rows, or more tokens than allowed."""
    if plan.num_rows == 0:
        say(f"[cut] {config.archive}: the archive is empty, no file of it has a session")
    num_bad = len(plan.rejections) + plan.known_rejections
    check_rejected(config, this, "sessions", num_bad, plan.num_rows, plan.rejections)
    if config.max_input_tokens and plan.num_tokens > config.max_input_tokens:
        raise JobError(
            f"max_input_tokens={config.max_input_tokens}: {plan.num_pending} segments with {plan.num_tokens} "
            "tokens are to be encoded; raise the cap, or take fewer with --limit-sessions"
        )


def check_rejected(
    config: BackfillConfig,
    this: Run,
    what: str,
    num_rejected: int,
    num_all: int,
    rows: list[dict] | None = None,
) -> None:
    """JobError when a larger share than allowed is rejected. The message says where the rejections are
    kept."""

    def keep() -> str:
        from cluster.store.files import Files

        if not rows:
            return "in the staged batches"
        path = f"{this.run_id}-rejections.parquet"
        Files(config.store, "runs").put_rows(path, rows, REJECTIONS_SCHEMA)
        return f"{config.store}/_slowwave/runs/{path}"

    fail_on_rejections(
        config.max_rejected_fraction,
        num_rejected,
        num_all,
        f"{what} were rejected",
        [f"{row['reason']}: {row['detail']}" for row in rows or ()],
        keep=keep,
        remedy="Mend the input, or raise the limit: what was encoded is not paid again",
    )
