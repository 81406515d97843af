"""Jobs that end in every way, and what they leave."""

import datetime as dt
import re
from pathlib import Path

from schemas.manifest import RunManifest, RunStatus

ROOT = Path(__file__).parents[4]


JOB = '''
import os, signal, sys, time
from jobs.common.cli import JobConfig, JobError, main
from jobs.common.run import Run

class Config(JobConfig):
    """Settings."""

    store: str
    """Where."""

def run(config):
    with Run("small", config, encoder="e", embedder="m") as this:
        with this.stage("count"):
            this.counts["num_rows"] = 3
        %s
        return this.finish("done")

main(Config, run, "A small job.", command="jobs.small")
'''


ENDED = dt.datetime(2026, 3, 1, 4, tzinfo=dt.UTC)
NIGHT = RunManifest(
    run_id="r1",
    job="backfill",
    status=RunStatus.DONE,
    finished_at=ENDED,
    seconds=12.5,
    stages={"encode": {"seconds": 10.0, "num_calls": 3}},
    summary={
        "num_records": 7,
        "prompt_tokens": 100,
        "cost": 0.25,
        "is_clean": True,
        "to": "x",
        "store": "s3://b",
    },
)


def samples(text: str) -> dict[str, float]:
    """Name with labels -> value, of the text format."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert re.fullmatch(
                r'[a-z_]+\{[a-z_]+="(?:[^"\\]|\\.)*"(?:,[a-z_]+="(?:[^"\\]|\\.)*")*\}', name
            ), line
            found[name] = float(value)
    return found
