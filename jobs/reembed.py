"""Reembed: computes new vectors beside the old ones, and swaps them in at once.

    python -m jobs.reembed --store URI --embedder qwen3-0.6b
    python -m jobs.reembed --store URI --embedder my-embedder.toml

Embeds every record and turn again, closed ones included, so that what an operation opens again has a vector
of the new kind. Until the swap, readers see the old generation; a killed run goes on where it was. The new
vectors may have another length. Runs before the swap keep the vectors that they had.

An evolvable embedder reads the turns of each user in order, and leaves a memory of each; closed turns, which
no memory has seen, then have no vectors.

Afterwards jobs.backfill goes on with the new embedder by itself: a store has one.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from cluster.runtime import Progress, Stage, run_stage
from jobs.common.cli import main
from jobs.common.rejected import check_rejected
from jobs.common.run import Run, StagesConfig, WriterConfig, connect, load_profile, writing
from jobs.common.turns import (
    TurnsPool,
    all_users,
    counts_of,
    joined_paths,
    paths_of,
    read_users,
    rejection_rows,
)
from schemas.profiles.embedder import EmbedderProfile
from schemas.stage_items import EmbeddedSlice, TableSlice, UsersRead

if TYPE_CHECKING:
    from cluster.store.files import Files
    from cluster.store.store import Store


class EmbedderPool(TurnsPool):
    """Actors that run the embedder."""

    batch_size: int = Field(1024, ge=1)
    """Rows per staged file: what one call of an actor embeds, and what a crash can cost."""


class ReembedConfig(WriterConfig, StagesConfig):
    """Settings of a new vector generation."""

    embedder: str
    """Embedder profile: a name in cluster/profiles/embedders, or a TOML file."""
    max_rejected_fraction: float = Field(0.05, ge=0, le=1)
    """The run fails when an evolvable embedder cannot read the turns of a larger share of the users."""
    embedder_pool: EmbedderPool = EmbedderPool()


def run(config: ReembedConfig) -> dict:
    """Embed, swap, and return the summary. Safe to repeat: what was embedded is not embedded again."""
    from cluster.embed.embedder import TEXTS
    from cluster.embed.reembed import plan_batches
    from cluster.embed.turn_embedder import turn_embedder, vector_lengths
    from cluster.models.resolve import resolve_embedder
    from cluster.store.files import Files
    from cluster.store.maintenance import reembed

    profile = load_profile("embedders", config.embedder, EmbedderProfile)
    with writing(config.store, "jobs.reembed", wait_s=config.lease_wait) as store:
        profile, newest = resolve_embedder(profile), store.view()
        with Run(
            "reembed",
            config,
            encoder=newest["encoder"],
            embedder=profile.fingerprint,
            profiles={"embedder": profile.model_dump(mode="json")},
        ) as this:
            tables = turn_embedder(profile).row_tables
            batches = plan_batches(store, config.embedder_pool.batch_size, tables)
            texts = [table for name in TEXTS if (table := store.table(name)) is not None]
            this.counts = {"num_rows": sum(table.count_rows() for table in texts)}
            staging = Files(store.uri, "staging")
            if newest["embedder"] == profile.fingerprint:
                # A run that was killed behind its commit has left these.
                clean(staging)
                return this.finish("unchanged")
            with this.stage("embed"):
                done = list(embed(config, profile, store, batches))
            this.counts["num_rows_embedded"] = sum(part.num_rows_embedded for part in done)
            found = read(config, profile, store, this)
            staged = {name: [part.path for part in done if part.table == name] for name in TEXTS}
            staged = joined_paths(staged | {"states": []}, *paths_of(found))
            seen = (part.dim for part in done), (part.dim for part in found)
            dim, turn_dim = vector_lengths(profile, None, *seen)
            store.fence()
            with this.stage("publish"):
                reembed(store, this.row(profile.model_dump_json()), dim, staged, turn_dim)
            clean(staging)
            return this.finish("done")


def clean(staging: "Files") -> None:
    staging.delete(staging.paths("reembed") + staging.paths("turns"))


def read(config: ReembedConfig, profile: EmbedderProfile, store: "Store", this: Run) -> list[UsersRead]:
    """The turns of all users, where the embedder reads a user's together. JobError when too many users cannot
    be read."""
    from cluster.embed.turn_embedder import turn_embedder

    stage = turn_embedder(profile).user_stage
    if stage is None:
        return []
    with this.stage("turns"):
        connect(config.runs_on)
        names = all_users(store, "turns")
        users: dict[str, dict] = {user_id: {"turns": [], "closed": []} for user_id in names}
        found = read_users(stage, store, profile, users, config.embedder_pool, anew=True)
        this.counts |= (counts := counts_of(found))
        this.counts["num_rows_embedded"] += counts["num_turns_embedded"]
        rejected = rejection_rows(found)
        check_rejected(
            config.max_rejected_fraction,
            len(rejected),
            len(users),
            "users have turns that cannot be embedded",
            [row["detail"] for row in rejected],
        )
    return found


def embed(
    config: ReembedConfig, profile: EmbedderProfile, store: "Store", batches: list[TableSlice]
) -> Iterator[EmbeddedSlice]:
    """Batches of rows -> embedder actors -> staged files of complete rows, in the order of the tables."""
    from cluster.embed.reembed import ReembedStage
    from cluster.store.files import Files

    if batches:
        connect(config.runs_on)
    arguments = {"uri": store.uri, "profile": profile, "files": Files(store.uri, "staging")}
    return run_stage(
        batches,
        Stage(ReembedStage, arguments, config.embedder_pool),
        progress=Progress("embed", "rows", sum(batch.num_rows for batch in batches)),
        count=lambda part: part.num_rows,
        in_order=True,
    )


if __name__ == "__main__":
    main(ReembedConfig, run, __doc__)
