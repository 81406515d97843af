"""End-to-end tests run the jobs as a user does, as processes: real Ray, real vLLM, real LanceDB.

All jobs share one Ray cluster, because starting one for each would take most of the time. `LOCAL` is the
environment of a job that starts its own, as on a laptop.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from tests.nodes import Cluster

ROOT = Path(__file__).parents[2]
LOCAL = {"RAY_ADDRESS": ""}
ENCODER = "extractor-135m"
"""The quickest encoder that ships, for tests of what an encoder writes nothing about."""
CANARY = "Canary0" * 6
"""A token of the operator, which nothing may keep."""


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


def finish(process: subprocess.Popen, timeout_s: float = 1800) -> Done:
    stdout, stderr = process.communicate(timeout=timeout_s)
    # Wrong usage has no summary.
    summary = json.loads(stdout.splitlines()[-1]) if process.returncode in (0, 1, 3) else {}
    return Done(process.returncode, summary, stdout, stderr)


def wait_until(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    """Until it has happened, or the process has ended: machines are slow in their own ways."""
    while process.poll() is None and not happened():
        time.sleep(0.02)


def job(*command: str, code: int = 0, **env: str) -> Done:
    """Run `python -m COMMAND` and check its exit code."""
    done = finish(start(*command, **env))
    assert done.code == code, f"exit code {done.code}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return done


def here(*command: str, **options) -> Done:
    """Run a job without Ray: for tests of what a job does, not of how its work is spread."""
    return job(*command, "--local", **options)


@pytest.fixture(scope="session", autouse=True)
def cores():
    """A worker of the tests has its share of the cores, with all that it starts, where there are enough: the
    threads of two engines on the same cores wait for each other, and take many times as long."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    num_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if len(mine) >= num_workers:
        os.sched_setaffinity(0, mine[number::num_workers])


@pytest.fixture(scope="session", autouse=True)
def cluster(cores):
    """One node with 4 CPUs, in the environment of all jobs, killed at the end."""
    with Cluster("--num-cpus", "4") as one, pytest.MonkeyPatch.context() as patch:
        for name, value in one.env.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """(name, make) -> the folder that `make` made, by whichever worker of these tests came first."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        whole, made = root / name, root / f"{name}.made"
        with FileLock(root / f"{name}.lock"):
            if not made.exists():
                make(whole)
                made.touch()
        return whole

    return folder


@pytest.fixture(scope="session")
def archive(made_once) -> Path:
    """Two users of the sample world."""
    options = ("--num-users", "2", "--num-weeks", "2")
    return made_once("sample", lambda folder: job("jobs.sample", "--archive", folder, *options))


@pytest.fixture(scope="session")
def small_batches(tmp_path_factory) -> Path:
    """Five segments a batch: enough batches for a crash to fall between two. Workers are given a token."""
    path = tmp_path_factory.mktemp("config") / "small.toml"
    settings = f'profile = "{ENCODER}"\n[encoder_pool]\nbatch_size = 5\n'
    path.write_text(f'{settings}[cluster.env_vars]\nCANARY_TOKEN = "{CANARY}"\n')
    return path


@pytest.fixture(scope="session")
def store(archive, small_batches, made_once) -> Path:
    """The archive's store, from one uninterrupted run. Tests must leave it as it is: they share it."""
    command = ("jobs.backfill", "--archive", archive, "--config", small_batches)
    return made_once("store", lambda folder: job(*command, "--store", folder, **LOCAL))


def rows(store: Path, table: str, without: tuple[str, ...] = ()) -> list[dict]:
    """All rows of a table, through plain lancedb, in a fixed order."""
    import lancedb

    found = lancedb.connect(store).open_table(table).to_arrow().to_pylist()
    for row in found:
        for name in without:
            row.pop(name, None)
    return sorted(found, key=lambda row: json.dumps(row, sort_keys=True, default=str))
