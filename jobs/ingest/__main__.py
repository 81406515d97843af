"""Ingest: chat logs, exports and benchmarks become an archive."""

import jobs.ingest
from jobs.common.cli import main

if __name__ == "__main__":
    main(jobs.ingest.IngestConfig, jobs.ingest.run, jobs.ingest.__doc__)
