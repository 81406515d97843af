"""Backfill: a conversation archive becomes a versioned memory store.

Its flow is `run` and `backfill` of jobs/backfill/__init__.py.
"""

import jobs.backfill
from jobs.common.cli import main

if __name__ == "__main__":
    main(jobs.backfill.BackfillConfig, jobs.backfill.run, jobs.backfill.__doc__)
