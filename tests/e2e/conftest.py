"""End-to-end tests run the jobs as a user does, as processes: real Ray, real vLLM, real LanceDB."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass
class Done:
    """A job that ended."""

    code: int
    summary: dict
    stdout: str
    stderr: str


def start(*command: str, **env: str) -> subprocess.Popen:
    """Start `python -m COMMAND`."""
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, timeout_s: float = 600) -> Done:
    stdout, stderr = process.communicate(timeout=timeout_s)
    # Wrong usage has no summary.
    summary = json.loads(stdout.splitlines()[-1]) if process.returncode in (0, 1) else {}
    return Done(process.returncode, summary, stdout, stderr)


def job(*command: str, code: int = 0) -> Done:
    """Run `python -m COMMAND` and check its exit code."""
    done = finish(start(*command))
    assert done.code == code, f"exit code {done.code}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return done


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """Two users of the sample world."""
    folder = tmp_path_factory.mktemp("sample") / "archive"
    job("jobs.sample", "--archive", folder, "--num-users", "2", "--num-weeks", "2")
    return folder


@pytest.fixture(scope="session")
def small_batches(tmp_path_factory) -> Path:
    """Five segments a batch: enough batches for a crash to fall between two."""
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text("[encoder_pool]\nbatch_size = 5\n")
    return path


@pytest.fixture(scope="session")
def store(archive, small_batches, tmp_path_factory) -> Path:
    """The archive's store, from one uninterrupted run. Tests must leave it as it is."""
    folder = tmp_path_factory.mktemp("store") / "store"
    job("jobs.backfill", "--archive", archive, "--store", folder, "--config", small_batches)
    return folder


def rows(store: Path, table: str, without: tuple[str, ...] = ()) -> list[dict]:
    """All rows of a table, through plain lancedb, in a fixed order."""
    import lancedb

    found = lancedb.connect(store).open_table(table).to_arrow().to_pylist()
    for row in found:
        for name in without:
            row.pop(name, None)
    return sorted(found, key=lambda row: json.dumps(row, sort_keys=True, default=str))
