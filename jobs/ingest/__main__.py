"""Entry point of `python -m jobs.ingest`."""

import jobs.ingest
from jobs.common.cli import main

if __name__ == "__main__":
    main(jobs.ingest.IngestConfig, jobs.ingest.run, jobs.ingest.__doc__)
