"""Compact: give up the views of old runs, so that versions and files stay bounded.

    python -m jobs.compact --store URI --keep-runs 30

Keeps what the newest runs need, tidies their tables, and removes every other version with its files. The
expired runs stay in the list that jobs.history shows; to look at one with --as-of, or to roll back to it, is
refused with a clear message. Also removes what killed runs have left in the tables.
"""

from pydantic import Field

from jobs.common.cli import main
from jobs.common.run import Run, WriterConfig, writing


class CompactConfig(WriterConfig):
    """Settings of a compaction."""

    store: str
    """Folder or object-store URI of the store."""
    keep_runs: int = Field(ge=1)
    """How many of the newest views stay; the newest of all is what readers see."""
    keep_months: int = Field(0, ge=0)
    """Of how many months before these the last view stays too."""


def run(config: CompactConfig) -> dict:
    """Compact and return the summary. Safe to repeat."""
    from cluster.store.maintenance import compact

    with writing(config.store, "jobs.compact", wait_s=config.lease_wait) as (store, lease):
        newest = store.run()
        assert newest is not None
        with Run("compact", config, encoder=newest.encoder, embedder=newest.embedder) as this:
            lease.check()
            with this.stage("compact"):
                row = this.row(newest.embedder_profile)
                this.counts = compact(store, row, config.keep_runs, config.keep_months)
            return this.finish("done")


if __name__ == "__main__":
    main(CompactConfig, run, __doc__)
