"""Consolidate: new memories update, replace or confirm older ones of the same user.

    python -m jobs.consolidate --store URI                       # no model, what came since the last
    python -m jobs.consolidate --store URI --decider model --dry-run    # what a model would cost
    python -m jobs.consolidate --store URI --since all           # compare everything with everything

Nothing is overwritten: a changed memory gets a new revision, a replaced one is closed, and every decision is
a row of the table `decisions`. Run it again at any time: what was decided is never asked for again.
"""

from jobs.common.cli import main, say
from jobs.common.consolidation import consolidate
from jobs.common.run import absolute, writing
from jobs.common.update_config import UpdateConfig


class ConsolidateConfig(UpdateConfig):
    """Settings of a consolidation."""


def run(config: ConsolidateConfig) -> dict:
    """Run a consolidation and return its summary."""
    config = config.model_copy(update={"store": absolute(config.store)})
    say(f"[consolidate] {config.store}")
    with writing(config.store, "jobs.consolidate", wait_s=config.lease_wait) as store:
        return consolidate(config, store)


if __name__ == "__main__":
    main(ConsolidateConfig, run, __doc__)
