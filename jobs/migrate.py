"""Migrate: upgrade a store that an earlier release wrote.

    python -m jobs.migrate --store URI

The first job of this release that writes a store does the same, and readers can open the store before and
after. Run this job to upgrade before the next night: it takes the lease, builds the full-text indexes again,
and then publishes the whole change at once. CHANGELOG.md says what each version of a store has.
"""

from jobs.common.cli import main
from jobs.common.run import WriterConfig, writing


class MigrateConfig(WriterConfig):
    """Settings of a migration."""


def run(config: MigrateConfig) -> dict:
    """Migrate and return the summary. Safe to repeat."""
    from schemas.store import STORE_VERSION

    with writing(config.store, "jobs.migrate", wait_s=config.lease_wait) as store:
        before, head = store.version_found, store.head_now()
    assert head is not None
    status = "unchanged" if before == STORE_VERSION else "done"
    return {"status": status, "store": config.store, "from_version": before, "version": head.store_version}


if __name__ == "__main__":
    main(MigrateConfig, run, __doc__)
