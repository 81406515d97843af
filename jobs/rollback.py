"""Rollback: readers see the store as an earlier run left it; nothing that came after is lost.

    python -m jobs.history --store URI                  # which runs there are
    python -m jobs.rollback --store URI --to RUN
    python -m jobs.rollback --store URI --to LATER_RUN  # undo it

Records, turns, decisions and rejections are exactly those of RUN, also for a reader who opens the tables with
plain lancedb. A rollback is a run like any other, so --as-of can show it, and another rollback can undo it.

What it takes out does not come back by itself. A nightly backfill leaves those segments out unless
`jobs.backfill --include-rolled-back` asks for them, and a nightly consolidation compares only what came since
the last one, rolled back or not. `jobs.consolidate --since all` (or --since RUN) decides again; answers of a
model that the rollback took out of `decisions` are not paid for again while the view of their run is kept.
"""

from jobs.common.cli import main, say
from jobs.common.run import Run, WriterConfig, writing


class RollbackConfig(WriterConfig):
    """Settings of a rollback."""

    to: str
    """Run whose view the store is to have; the beginning of its id is enough."""


def run(config: RollbackConfig) -> dict:
    """Roll back and return the summary. Safe to repeat: going to where the store is changes no row."""
    from cluster.store.maintenance import rollback

    with writing(config.store, "jobs.rollback", wait_s=config.lease_wait) as store:
        newest, target = store.view(), store.view(config.to, "--to")
        to = target.run_id
        with Run("rollback", config, encoder=target.encoder, embedder=target.embedder) as this:
            this.counts = {"from": newest.run_id, "to": to}
            store.fence()
            with this.stage("publish"):
                rollback(store, this.row(target.embedder_profile), to)
            this.counts |= {
                f"num_{name}_active": store.rows(name, ["run_id"], where="active").num_rows
                for name in ("records", "turns")
            }
            undo = f"python -m jobs.rollback --store {config.store} --to {newest.run_id}"
            say(f"[rollback] undo with: {undo}")
            return this.finish("done")


if __name__ == "__main__":
    main(RollbackConfig, run, __doc__)
