"""The health of a store, and the job that shows it."""

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.report.health import health
from cluster.store.errors import StoreError
from cluster.store.files import Files, everything
from cluster.store.lease import Lease, holder
from cluster.store.store import Store
from jobs.common.cli import JobError
from jobs.status import StatusConfig
from jobs.status import run as status_job
from tests.unit.cluster.report import nights as story
from tests.unit.cluster.store.stores import TEA, commit

ROOT = Path(__file__).parents[4]


def test_a_store_whose_last_night_went_well_is_well(nights):
    found = health(nights.uri)
    assert found.problems == () and found.newest.run_id == found.last_good.run_id == story.LAST
    assert (found.lease, found.intent, found.num_views) == (None, None, 6)
    assert found.num_versions >= 6 and not found.is_compaction_due
    assert {"records", "turns", "runs", "beside"} <= found.disk.keys()
    in_all = sum(len(data) for _, data in everything(nights.uri))
    assert sum(used.num_bytes for used in found.disk.values()) == in_all
    assert 0 < found.num_old_bytes < in_all


@pytest.mark.parametrize("status", ["failed", "stopped", "interrupted"])
@pytest.mark.parametrize("job", ["backfill", "consolidate", "compact", "forget"])
def test_a_store_whose_last_night_did_not_is_not(own_nights, job, status):
    story.manifest(own_nights, story.run_id(12), job, status, error="no space left")
    found = health(own_nights.uri)
    assert found.problems == (f"the last {job} is {status}: no space left",)
    assert found.last_good.run_id == story.LAST
    story.manifest(own_nights, story.run_id(13), job, "unchanged")
    assert health(own_nights.uri).problems == ()


@pytest.mark.parametrize("status", ["dry_run", "unchanged"])
def test_a_dry_run_is_no_good_night_and_an_unchanged_one_is(own_nights, status):
    story.manifest(own_nights, story.run_id(12), "backfill", status)
    expected = story.run_id(12) if status == "unchanged" else story.LAST
    assert health(own_nights.uri).last_good.run_id == expected


def test_a_good_night_can_be_too_long_ago(nights):
    ended = health(nights.uri).last_good.ended_at
    for hours, problems in ((35, ()), (37, ("max_age_h=36: no good night ended within these hours",))):
        now = ended + dt.timedelta(hours=hours)
        assert health(nights.uri, max_age_h=36, now=now).problems == problems
        assert health(nights.uri, now=now).problems == ()


def test_an_unfinished_commit_is_a_problem_unless_somebody_is_at_it(own_nights):
    intent = {"run": {"run_id": "run-9"}, "kind": "forget", "subject": {"user_id": "ann-of-the-hill"}}
    own_nights.files.put_json("intent-000000000099.json", intent)
    with Lease(own_nights.uri, "jobs.forget"):
        found = health(own_nights.uri)
        assert found.problems == () and found.lease.job == "jobs.forget" and found.lease.is_alive
        assert abs(found.lease.taken_at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)
    found = health(own_nights.uri)
    assert len(found.problems) == 1 and "run run-9 is not finished" in found.problems[0]
    assert "ann-of-the-hill" not in str(found), "an intent may name whom somebody wants forgotten"


def test_the_lease_of_a_dead_process_is_told_as_such(own_nights):
    with Lease(own_nights.uri, "jobs.backfill"):
        files = Files(own_nights.uri, "lease")
        path = files.paths()[-1]
        content = files.get_json(path)
    files.put_json(path, content | {"released": False, "process_started": 1})
    assert holder(own_nights.uri).is_alive is False
    found = health(own_nights.uri)
    assert found.problems == () and "left by a process that is gone" in found.notes[0]
    # Of another host nothing is known; of another release, not even since when.
    del content["taken_at"]
    files.put_json(path, content | {"released": False, "boot": "another"})
    assert (holder(own_nights.uri).is_alive, holder(own_nights.uri).taken_at) == (None, None)


def test_staged_files_and_many_old_bytes_are_noted(own_nights, monkeypatch):
    monkeypatch.setattr("cluster.report.health.MIN_OLD_BYTES", 1000)
    Files(own_nights.uri, "staging").put("encoded/e/b.parquet", b"x" * 77)
    found = health(own_nights.uri)
    assert found.disk["staging"].num_bytes == 77 and found.is_compaction_due and found.problems == ()
    assert len(found.notes) == 2


def test_a_store_without_a_run_is_not_well_and_a_folder_without_a_store_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="no such store"):
        health(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    Files(str(tmp_path / "store"), "commit").put_json("x.json", {})
    assert health(str(tmp_path / "store")).problems == ("no run has been published yet",)


def test_a_look_writes_nothing(own_nights):
    def stamps():
        return {path: path.stat().st_mtime_ns for path in sorted(Path(own_nights.uri).rglob("*"))}

    before, contents = stamps(), dict(everything(own_nights.uri))
    health(own_nights.uri)
    assert stamps() == before and dict(everything(own_nights.uri)) == contents


# --- the job --------------------------------------------------------------------------------------------


def test_the_job_shows_lines_for_people_and_a_summary_for_programs(nights, capsys):
    summary = status_job(StatusConfig(store=nights.uri))
    shown = capsys.readouterr().out
    assert summary["status"] == "healthy" and summary["last_good"]["run_id"] == story.LAST
    assert summary["num_bytes"] == sum(used["num_bytes"] for used in summary["disk"].values())
    for part in ("the store is well", story.LAST, "nobody has it", "6 kept", "records"):
        assert part in shown
    json.dumps(summary, default=str)


@pytest.mark.parametrize(("fails", "expected"), [(False, (0, "healthy")), (True, (1, "unhealthy"))])
def test_the_exit_code_is_0_for_a_store_that_is_well_and_1_for_one_that_is_not(own_nights, fails, expected):
    """As a probe asks, and the summary stays the last line."""
    if fails:
        story.manifest(own_nights, story.run_id(12), "backfill", "failed", error="no space left")
    command = [sys.executable, "-m", "jobs.status", "--store", own_nights.uri]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, json.loads(done.stdout.splitlines()[-1])["status"]) == expected


def test_a_store_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(JobError, match="no such store"):
        status_job(StatusConfig(store=str(tmp_path / "none")))


def test_whoever_wrote_a_manifest_cannot_act_on_the_terminal(own_nights, capsys):
    story.manifest(own_nights, story.run_id(12), "backfill", "failed", error="x\x1b[2J\nthe store is well")
    status_job(StatusConfig(store=own_nights.uri))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\nthe store is well" not in shown


def test_a_beginning_of_an_id_that_only_one_run_has_names_it_and_another_is_refused(tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    for name in ("run1", "run10", "run2"):
        commit(store, name, TEA if name == "run1" else {})
    assert store.run("run1")["run_id"] == "run1", "a whole id is no beginning of another"
    assert store.run("run10")["run_id"] == "run10" and store.run("run2")["run_id"] == "run2"
    with pytest.raises(StoreError, match=r"--as-of ru: several runs .* \['run1', 'run10', 'run2'\]"):
        store.run("ru")
    with pytest.raises(StoreError, match="no such run"):
        store.run("")
