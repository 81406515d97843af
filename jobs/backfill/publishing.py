"""Staged rows -> one commit. Before it, the turns of users that changed are read, where the embedder does."""

from typing import TYPE_CHECKING

from jobs.backfill.checks import check_rejected
from jobs.backfill.config import BackfillConfig
from jobs.backfill.plan import Plan, staged_tables
from jobs.common.run import Run
from jobs.common.turns import all_users, changed_users, counts_of, read_users, rejection_rows
from schemas.profiles.embedder import EmbedderProfile
from schemas.stage_items import EmbeddedBatch, UsersRead
from schemas.store import REJECTIONS_SCHEMA

if TYPE_CHECKING:
    from cluster.store.store import Store

OF_DECIDERS = ("decided/", "answers/decider/", "asked/decider/")
"""Staged files that a consolidation has paid for and goes on from, whatever is published meanwhile."""


def read_turns(
    config: BackfillConfig,
    embedder: EmbedderProfile,
    store: "Store",
    plan: Plan,
    done: list[EmbeddedBatch],
    this: Run,
) -> list[UsersRead]:
    """Turns with vectors and memories of all users of whom anything changed; nothing where the embedder reads
    each turn alone."""
    from cluster.embed.turn_embedder import turn_embedder

    stage = turn_embedder(embedder).user_stage
    if stage is None:
        return []
    with this.stage("turns"):
        users = changed_users(store, done, plan.closed_segments)
        read = read_users(stage, store, embedder, users, config.embedder_pool)
        this.counts |= counts_of(read)
        num_users = len(all_users(store, "turns", "active") | users.keys())
        rejected = rejection_rows(read)
        check_rejected(config, this, "users", len(rejected), num_users, rejected)
        num_before = len(plan.rejections)
        plan.reject(rejected, store)
        this.counts["num_rejections"] += len(plan.rejections) - num_before
    return read


def publish(
    this: Run,
    embedder: EmbedderProfile,
    plan: Plan,
    done: list[EmbeddedBatch],
    read: list[UsersRead],
    store: "Store",
) -> bool:
    """Commit everything that was staged as one run; False when there is nothing to commit."""
    from cluster.embed.turn_embedder import vector_lengths
    from cluster.store.files import Files

    staging = Files(this.home, "staging")
    has_news = any(part.num_turns or part.num_states for part in read)
    if not (done or plan.closed_segments or plan.rejections or has_news):
        staging.delete(staging.paths("turns"))
        return False
    inserts, replaces = staged_tables(done, read)
    if plan.rejections:
        staging.put_rows(path := f"rejections/{this.run_id}.parquet", plan.rejections, REJECTIONS_SCHEMA)
        replaces["rejections"].append(path)
    seen = (batch.dim for batch in done), (part.dim for part in read)
    dim, turn_dim = vector_lengths(embedder, store, *seen)
    store.commit(
        this.row(embedder.model_dump_json()),
        dim,
        inserts=inserts,
        replaces=replaces,
        closed_segments=plan.closed_segments,
        turn_dim=turn_dim,
    )
    staged = [path for path in staging.paths() if not path.startswith(OF_DECIDERS)]
    # Listed while the lease was held: what another job stages later is not on the list.
    store.fence()
    staging.delete(staged)
    return True
