"""However a job ends, its last line is JSON and its manifest says how: real processes of a small job."""

import json
import signal
import subprocess
import sys

import pytest

from cluster.store.files import Files
from jobs.common.cli import JobConfig, JobError
from jobs.common.ending import AGAIN, Interrupted
from jobs.common.run import Run, recorded
from tests.unit.jobs.common.endings import JOB, ROOT


def small_job(tmp_path, body):
    """Run the small job; (exit code, last line of stdout, its only manifest)."""
    command = [sys.executable, "-c", JOB % body, "--store", str(tmp_path / "store")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    (path,) = (runs := Files(str(tmp_path / "store"), "runs")).paths()
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), runs.get_json(path)


SIGTERM = "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"


@pytest.mark.parametrize(
    ("body", "code", "status", "error"),
    [
        ("pass", 0, "done", None),
        ('raise JobError("limit=1: all\\nwhat somebody said")', 1, "failed", "limit=1: all"),
        ('raise ValueError("what somebody said")', 1, "failed", "ValueError"),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", 1, "interrupted", "KeyboardInterrupt"),
        (SIGTERM, 1, "interrupted", "Interrupted"),
        # Twice, as a submitter that signals the process and its group does.
        (SIGTERM.replace("time.sleep(60)", f"\n        {SIGTERM}"), 1, "interrupted", "Interrupted"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, "interrupted", "ended from outside"),
        # As Ray's own code ends a process whose cluster is gone.
        ("os._exit(1)", 1, "interrupted", "ended from outside"),
        ("os.abort()", -signal.SIGABRT, "interrupted", "ended from outside"),
    ],
)
def test_every_end_of_a_job_leaves_a_last_line_and_a_manifest(tmp_path, body, code, status, error):
    """Regression: SIGTERM ended a job by abort; it, and an exception, left neither."""
    returncode, last, manifest = small_job(tmp_path, body)
    assert (returncode, manifest["status"], manifest["num_rows"]) == (code, status, 3)
    assert last["run_id"] == manifest["run_id"]
    assert last["status"] == ("done" if status == "done" else "failed")
    assert (manifest["job"], manifest["config"]["store"]) == ("small", str(tmp_path / "store"))
    if error:
        assert error in manifest["error"]
        assert "what somebody said" not in json.dumps(manifest), "a manifest is kept"
    if status == "interrupted":
        assert AGAIN in last["error"]


class Config(JobConfig):
    """Settings."""

    store: str
    """Where."""


def test_a_manifest_is_there_from_the_beginning(tmp_path):
    runs = Files(str(tmp_path), "runs")
    with Run("small", Config(store=str(tmp_path)), encoder="e", embedder="m") as this:
        assert runs.get_json(f"{this.run_id}.json")["status"] == "running"
        assert this.finish("unchanged")["status"] == "unchanged"
    assert runs.get_json(f"{this.run_id}.json")["status"] == "unchanged"


def test_a_run_that_is_interrupted_while_it_begins_ends_its_manifest(tmp_path, monkeypatch):
    def interrupted(*_):
        raise Interrupted()

    monkeypatch.setattr("jobs.common.run.watcher.opened", interrupted)
    run = Run("small", Config(store=str(tmp_path)), encoder="e", embedder="m")
    with pytest.raises(Interrupted), run:
        raise AssertionError("it has not begun")
    assert Files(str(tmp_path), "runs").get_json(f"{run.run_id}.json")["status"] == "interrupted"


def test_a_watcher_that_cannot_be_started_is_no_wrong_usage(tmp_path, monkeypatch):
    def no_process(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("jobs.common.run.watcher.opened", no_process)
    with (
        pytest.raises(OSError, match="memory"),
        Run("small", Config(store=str(tmp_path)), encoder="e", embedder="m"),
    ):
        raise AssertionError("it has not begun")


def test_the_first_end_of_a_run_is_its_end(tmp_path):
    with (
        pytest.raises(JobError),
        Run("small", Config(store=str(tmp_path)), encoder="e", embedder="m") as this,
    ):
        this.finish("stopped")
        raise JobError("caps were reached")
    assert Files(str(tmp_path), "runs").get_json(f"{this.run_id}.json")["status"] == "stopped"


def test_what_ended_a_run_is_raised_though_its_manifest_cannot_be_written(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("the bucket is gone")

    with pytest.raises(Interrupted), Run("small", Config(store=str(tmp_path)), encoder="e", embedder="m"):
        monkeypatch.setattr(Files, "put_json", broken)
        raise Interrupted


@pytest.mark.parametrize("status", ["done", "stopped"])
def test_a_job_that_writes_no_store_leaves_a_manifest_too(tmp_path, status):
    @recorded("small", writes="store")
    def run(config):
        return {"status": status}

    assert run(Config(store=str(tmp_path))) == {"status": status}
    runs = Files(str(tmp_path), "runs")
    assert [runs.get_json(path)["status"] for path in runs.paths()] == [status]
