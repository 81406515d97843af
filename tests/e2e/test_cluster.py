"""The same command on a cluster that is already running, through `ray job submit`."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, rows

RAY = Path(sys.executable).with_name("ray")


@pytest.fixture
def head(tmp_path):
    """`ray start --head` on free ports, stopped at the end; gives the environment of its clients."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        port, dashboard_port = first.getsockname()[1], second.getsockname()[1]
    # A job's processes are children of the head and find `python` by its PATH.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"RAY_AUTH_MODE": "disabled", "PATH": path}
    command = [RAY, "start", "--head", "--port", port, "--dashboard-port", dashboard_port, "--num-cpus", 4]
    subprocess.run(
        [*map(str, command), "--node-ip-address", "127.0.0.1"], env=env, check=True, capture_output=True
    )
    yield env | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard_port}"}
    subprocess.run([str(RAY), "stop", "--force"], env=env, capture_output=True)


def test_ray_job_submit_leaves_the_same_store(head, archive, store, small_batches, tmp_path):
    submit = [RAY, "job", "submit", "--working-dir", ROOT, "--submission-id", "nightly", "--", "python", "-m"]
    command = [
        *submit,
        "jobs.backfill",
        "--archive",
        archive,
        "--store",
        tmp_path / "s",
        "--config",
        small_batches,
    ]
    done = subprocess.run([*map(str, command)], env=head, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    summary = next(json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"run_id"'))
    assert summary["status"] == "done"
    left_out = ("run_id", "created_at", "updated_at", "vector")
    assert rows(tmp_path / "s", "records", left_out) == rows(store, "records", left_out)
