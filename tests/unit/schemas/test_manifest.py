"""Manifests as folders hold them: what an earlier release left must be read by every later one."""

import datetime as dt
import json

import pytest
from pydantic import ValidationError

from schemas.manifest import FORMAT_VERSION, RunManifest, RunStatus, read_manifest

NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)

OF_A_RUN = {
    "run_id": "20260102T120000-a1b2c3",
    "status": "done",
    "num_records": 3,
    "seconds": 1.5,
    "stages": {"cut": {"seconds": 0.5}},
    "store": "s",
    "job": "backfill",
    "started_at": "2026-01-02 12:00:00+00:00",
    "config": {"profile": None},
    "encoder": {"name": "default"},
    "packages": {"ray": "2.0"},
}
OF_AN_INGEST = {"format": "messages", "user_id": None, "input": [], "files": [], "num_sessions": 2}
OF_A_SAMPLE = {"files": ["a.parquet"], "counts": {"num_users": 1}, "seed": 7}
"""What the release without `format_version` wrote."""


def test_a_run_of_the_release_before_is_read():
    found = read_manifest(OF_A_RUN, "RUN.json")
    assert (found.run_id, found.job, found.status) == ("20260102T120000-a1b2c3", "backfill", RunStatus.DONE)
    assert (found.started_at, found.finished_at, found.seconds) == (NOON, None, 1.5)
    assert found.stages == {"cut": {"seconds": 0.5}}
    assert found.profiles == {"encoder": {"name": "default"}}
    assert found.summary == {"num_records": 3, "store": "s"}
    assert (found.config, found.packages, found.error) == ({"profile": None}, {"ray": "2.0"}, None)


def test_an_interrupted_run_of_the_release_before_says_how_it_ended():
    found = read_manifest(OF_A_RUN | {"status": "interrupted", "error": "Interrupted"}, "RUN.json")
    assert (found.status, found.error) == (RunStatus.INTERRUPTED, "Interrupted")


@pytest.mark.parametrize("written", [OF_AN_INGEST, OF_A_SAMPLE], ids=["ingest", "sample"])
def test_what_was_written_last_without_a_status_is_done(written):
    found = read_manifest(written, "f")
    assert (found.status, found.summary) == (RunStatus.DONE, written)


@pytest.mark.parametrize("written", [OF_A_RUN, OF_AN_INGEST, OF_A_SAMPLE], ids=["run", "ingest", "sample"])
def test_a_manifest_of_the_release_before_is_written_again_with_its_own_keys(written):
    again = json.loads(json.dumps(read_manifest(written, "f").as_json()))
    started_at = again.pop("started_at", None)
    assert again == {name: value for name, value in written.items() if name != "started_at"}
    assert started_at is None or dt.datetime.fromisoformat(started_at) == NOON


def test_a_manifest_is_read_as_it_was_written():
    made = RunManifest.with_keys(
        {"num_records": 3, "decider": "rules"},
        run_id="r",
        job="consolidate",
        status="dry_run",
        started_at=NOON,
        finished_at=NOON,
        config={"profile": None},
        profiles={"decider": "rules"},
        summary={"num_records": 3, "decider": "4f2a"},
    )
    written = json.loads(json.dumps(made.as_json()))
    assert read_manifest(written, "f") == made
    assert written["format_version"] == FORMAT_VERSION
    assert (written["num_records"], written["status"]) == (3, "dry_run"), "where version 1 had them"
    assert written["config"] == {"profile": None}, "a setting that is not given is a setting"
    assert "error" not in written and "stages" not in written


def test_a_run_that_ended_says_how_and_when():
    begun = RunManifest(run_id="r", status=RunStatus.RUNNING)
    ended = begun.ended(RunStatus.FAILED, error="KeyError")
    assert (ended.run_id, ended.status, ended.error) == ("r", RunStatus.FAILED, "KeyError")
    assert ended.finished_at is not None and begun.finished_at is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([], "f: no manifest"),
        (
            {"format_version": FORMAT_VERSION + 1},
            f"f: format_version={FORMAT_VERSION + 1}, .* the release that",
        ),
        ({"format_version": "two"}, "f: format_version='two', and this release reads 1 to 2"),
        ({"status": "asleep"}, "f: status='asleep': .*'running'"),
        ({"format_version": 2, "stages": 3}, "f: stages=3: "),
    ],
)
def test_what_is_no_manifest_of_this_release_is_refused_by_field_and_value(written, said):
    with pytest.raises(ValueError, match=said):
        read_manifest(written, "f")


def test_a_manifest_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        RunManifest().status = RunStatus.FAILED
