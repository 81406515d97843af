"""Compact: drop the views of old runs, so that the number of versions and files stays bounded.

    python -m jobs.compact --store URI --keep-runs 30

Keeps the versions that the newest runs need, compacts their tables, and removes every other version with its
files. jobs.history still lists the older runs, but --as-of and a rollback to one of them are refused with a
clear message. Also removes what killed runs have left in the tables.
"""

from pydantic import Field

from jobs.common.cli import main
from jobs.common.run import Run, WriterConfig, writing


class CompactConfig(WriterConfig):
    """Settings of a compaction."""

    keep_runs: int = Field(ge=1)
    """How many of the newest views are kept; readers see the newest."""
    keep_months: int = Field(0, ge=0)
    """For how many months before these the last view of the month is kept too."""


def run(config: CompactConfig) -> dict:
    """Compact and return the summary. Safe to repeat."""
    from cluster.store.maintenance import compact

    with writing(config.store, "jobs.compact", wait_s=config.lease_wait) as store:
        newest = store.view()
        with Run("compact", config, encoder=newest.encoder, embedder=newest.embedder) as this:
            store.fence()
            with this.stage("compact"):
                row = this.row(newest.embedder_profile)
                this.counts = compact(store, row, config.keep_runs, config.keep_months)
            return this.finish("done")


if __name__ == "__main__":
    main(CompactConfig, run, __doc__)
