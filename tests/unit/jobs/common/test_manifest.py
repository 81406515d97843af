"""Every folder that a job writes has a manifest, and all are read alike."""

import importlib.metadata
import json
from pathlib import Path

import pytest

from cluster.store.files import Files
from jobs.common.cli import JobConfig, JobError
from jobs.common.manifest import get_run, object_of, put_run, read_file, versions_of
from jobs.common.run import Run, recorded
from jobs.evaluate import decider
from jobs.evaluate.report import write_report
from jobs.ingest import IngestConfig
from jobs.ingest import run as ingest
from jobs.ingest.output import read_ingests
from jobs.sample.__main__ import SampleConfig
from jobs.sample.__main__ import run as sample
from jobs.train import __main__ as training
from schemas.manifest import RunManifest, RunStatus


class Config(JobConfig):
    """Settings."""

    store: str
    """Where."""


def test_a_run_of_a_store_leaves_one(tmp_path):
    profiles, config = {"decider": {"name": "d"}}, Config(store=str(tmp_path))
    with Run("small", config, encoder="e", embedder="m", profiles=profiles) as this:
        this.counts |= {"num_rows": 3, "decider": "4f2a"}
        with this.stage("count"):
            pass
        printed = this.finish("done")
    found = get_run(Files(str(tmp_path), "runs"), this.run_id)
    assert (found.run_id, found.job, found.status) == (this.run_id, "small", RunStatus.DONE)
    assert found.finished_at >= found.started_at == this.started_at
    assert found.summary == {"num_rows": 3, "decider": "4f2a", "store": str(tmp_path)}
    assert (found.profiles, found.config) == (profiles, config.model_dump(mode="json"))
    assert found.stages == printed["stages"] and "ray" in found.packages
    # What the release before had at the top is there: a profile wins over a count.
    assert found.model_extra == {"num_rows": 3, "decider": {"name": "d"}, "store": str(tmp_path)}


def test_a_run_that_goes_on_has_no_end(tmp_path):
    with Run("small", Config(store=str(tmp_path)), encoder="e", embedder="m") as this:
        found = get_run(Files(str(tmp_path), "runs"), this.run_id)
        assert (found.status, found.finished_at) == (RunStatus.RUNNING, None)
        this.finish("done")


def test_a_job_that_writes_another_folder_leaves_one_with_what_it_printed(tmp_path):
    @recorded("small", writes="store")
    def run(config):
        return {"status": "unchanged", "leaderboard": [1]}

    run(Config(store=str(tmp_path)))
    (path,) = (tmp_path / "_slowwave" / "runs").iterdir()
    found = read_file(path)
    assert (found.status, found.summary) == (RunStatus.UNCHANGED, {"leaderboard": [1]})


def test_an_evaluation_leaves_one_with_its_report(tmp_path):
    given = decider.Config(pairs="p", report=str(tmp_path))
    write_report(tmp_path, given, {"deciders": [1]}, "T", [{"a": 1}], "notes", ())
    found = read_file(tmp_path / "report.json")
    assert (found.job, found.status, found.config["pairs"]) == ("evaluate decider", RunStatus.DONE, "p")
    assert found.model_extra == {"deciders": [1]}


def test_a_training_leaves_one_and_is_told_again_what_it_printed(tmp_path):
    counted = {"task": "encoder", "num_steps": 7}
    made = RunManifest.with_keys({"key": "k1"} | counted, job="train", seconds=1.0, summary=counted)
    (tmp_path / "training.json").write_text('{"key": "k1"}')
    training.leave(made, "card", "page", tmp_path, tmp_path)
    assert training.finished(tmp_path, "k1") == {
        "status": "done",
        **counted,
        "seconds": 1.0,
        "finished_at": None,
    }


def test_a_training_of_the_release_before_is_not_repeated(tmp_path):
    (tmp_path / "training.json").write_text('{"key": "k1"}')
    printed = {"status": "done", "task": "encoder", "num_steps": 7, "seconds": 1.0}
    printed |= {"finished_at": "2026-01-02T12:00:00+00:00"}
    written = printed | {"key": "k1", "config": {}, "packages": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(written))
    assert training.finished(tmp_path, "k1") == printed


def test_a_sample_leaves_one_without_times_and_places(tmp_path):
    printed = sample(SampleConfig(archive=tmp_path, num_users=1, num_weeks=1))
    found = read_file(tmp_path / "_gold" / "world.json")
    assert (found.job, found.started_at, found.finished_at) == ("sample", None, None)
    assert found.config["num_users"] == 1 and "archive" not in found.config
    assert (
        found.summary["num_sessions"]
        == printed["num_sessions"]
        == found.model_extra["counts"]["num_sessions"]
    )


def ingested(tmp_path: Path, name: str) -> Path:
    messages = [{"role": "user", "content": f"I like {name}."}]
    (tmp_path / f"{name}.json").write_text(
        json.dumps([{"user_id": "ann", "session_id": name, "messages": messages}])
    )
    archive = tmp_path / "archive"
    ingest(IngestConfig(format="messages", input=[str(tmp_path / f"{name}.json")], archive=str(archive)))
    return archive


def test_every_ingest_leaves_one(tmp_path):
    ((name, found),) = read_ingests(ingested(tmp_path, "tea")).items()
    assert (found.run_id, found.job, found.status) == (name, "ingest", RunStatus.DONE)
    assert (found.config, found.started_at) == ({"format": "messages", "user_id": None}, None)
    assert found.summary["num_sessions"] == 1 == found.model_extra["num_sessions"]


def test_ingests_of_the_release_before_stay_as_they_are_beside_new_ones(tmp_path):
    archive = ingested(tmp_path, "tea")
    path = archive / "_ingest.json"
    (name,) = (written := json.loads(path.read_text()))["ingests"]
    of_release = {"format_version", "run_id", "job", "status", "config", "summary"}
    old = {key: value for key, value in written["ingests"][name].items() if key not in of_release}
    path.write_text(json.dumps({"version": 1, "ingests": {name: old}}))
    ingested(tmp_path, "moon")
    now = json.loads(path.read_text())["ingests"]
    assert (len(now), now[name]) == (2, old)


def test_an_ingest_of_a_later_release_is_refused(tmp_path):
    archive = ingested(tmp_path, "tea")
    path = archive / "_ingest.json"
    path.write_text(json.dumps({"version": 1, "ingests": {"x": {"format_version": 9}}}))
    with pytest.raises(JobError, match=r"_ingest\.json: .*x: format_version=9, and this release reads"):
        ingested(tmp_path, "moon")


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", r"m\.json: no JSON .*; delete it"), ('{"format_version": 9}', r"m\.json: format_version=9")],
)
def test_a_file_that_is_no_manifest_is_named(tmp_path, text, said):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_file(tmp_path / "m.json")


def test_where_there_is_no_manifest_there_is_none(tmp_path):
    assert read_file(tmp_path / "m.json") is None
    assert get_run(Files(str(tmp_path), "runs"), "r") is None


def test_no_manifest_has_a_secret_of_the_operator(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_CANARYCANARY")
    made = RunManifest(run_id="r", error="401 for hf_CANARYCANARY", config={"store": "s3://me:pw@host/b"})
    put_run(files := Files(str(tmp_path), "runs"), made)
    for text in (json.dumps(object_of(made)), files.get("r.json").decode()):
        assert "CANARY" not in text and "me:pw" not in text


def test_packages_that_are_not_installed_have_no_version():
    assert list(versions_of(["pyarrow", "no-such-package"])) == ["pyarrow"]


def test_the_version_of_a_package_is_looked_up_once_a_process(monkeypatch):
    """A manifest is written at every stage of a job."""
    asked = []
    monkeypatch.setattr(importlib.metadata, "version", lambda name: asked.append(name) or "1")
    for _ in range(2):
        assert versions_of(["package-of-this-test"]) == {"package-of-this-test": "1"}
    assert asked == ["package-of-this-test"]
