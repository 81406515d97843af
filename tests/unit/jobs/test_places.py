"""Archives in an object store: written there by the jobs that make them, whole, and by one at a time."""

import json
import os
from stat import S_ISDIR

import pytest

from cluster.backfill.archive import list_files, read_sessions
from cluster.store.files import Files, paths_below
from cluster.store.lease import Lease
from jobs.common.cli import JobError, UsageError
from jobs.export import ExportConfig
from jobs.ingest import IngestConfig
from jobs.ingest import run as ingest
from jobs.sample.__main__ import SampleConfig
from jobs.sample.__main__ import run as sample
from jobs.train.config import EncoderTraining


@pytest.fixture
def uri(server):
    return f"s3://{server.new_bucket()}/archive"


def chat(folder, *said):
    path = folder / f"{len(said)}.jsonl"
    session = {"user_id": "me", "session_id": "s1", "session_time": "2024-05-01"}
    path.write_text(
        json.dumps(session | {"messages": [{"role": "user", "content": one} for one in said]}) + "\n"
    )
    return IngestConfig(input=[str(path)], archive="replaced")


def into(uri, config):
    return ingest(config.model_copy(update={"archive": uri}))


def test_an_archive_grows_in_a_bucket_as_it_does_in_a_folder(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = str(tmp_path / "archive")
    for place in (uri, folder):
        first, again = (into(place, chat(tmp_path, "I moved to Oslo.")) for _ in range(2))
        more = into(place, chat(tmp_path, "I moved to Oslo.", "In May."))
        assert (first["num_sessions"], again["num_sessions"], again["num_duplicates"]) == (1, 0, 1)
        assert (more["num_sessions"], more["num_sessions_changed"]) == (1, 1)
    assert list_files(uri) == list_files(folder)
    assert list(read_sessions(uri)) == list(read_sessions(folder))
    # And nothing is left beside it, here or there.
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("s3")]
    assert {path.split("/")[0] for path in paths_below(uri)} - set(list_files(uri)) == {
        "_ingest.json",
        "_slowwave",
    }


def test_what_was_ingested_is_on_the_disk_with_its_name_before_it_is_recorded(tmp_path, monkeypatch):
    """Else a power cut could leave a record of files that are not there."""
    order, replace, fsync = [], os.replace, os.fsync

    def synced(handle):
        order.append("folder" if S_ISDIR(os.fstat(handle).st_mode) else "content")
        fsync(handle)

    def named(source, target):
        order.append(os.path.basename(target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", named)
    into(str(tmp_path / "archive"), chat(tmp_path, "I moved to Oslo."))
    [data] = list_files(str(tmp_path / "archive"))
    assert order[-6:] == ["content", data, "folder", "content", "_ingest.json", "folder"]


def test_what_was_rejected_lies_beside_it_and_too_much_publishes_nothing(uri, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"user_id": "me", "session_id": "s1", "messages": 7}\n')
    config = IngestConfig(input=[str(bad)], format="messages", archive=uri)
    assert ingest(config)["status"] == "failed"
    [rejections] = [path for path in paths_below(uri) if not path.startswith("_slowwave/")]
    assert rejections.startswith("_rejections/")


def test_another_ingest_into_the_same_bucket_is_told_who_is_at_it(uri, tmp_path):
    with Lease(uri, "jobs.ingest"), pytest.raises(JobError, match=r"is being written by jobs\.ingest"):
        into(uri, chat(tmp_path, "Hello."))
    assert into(uri, chat(tmp_path, "Hello."))["num_sessions"] == 1


def test_a_sample_is_the_same_in_a_bucket_as_in_a_folder(uri, tmp_path):
    from cluster.store.files import everything

    options = {"num_users": 2, "num_weeks": 1}
    for place in (uri, str(tmp_path / "sample")):
        sample(SampleConfig(archive=place, num_users=3, num_weeks=1))
        sample(SampleConfig(archive=place, **options))
    assert dict(everything(uri)) == dict(everything(str(tmp_path / "sample")))


def test_a_sample_is_not_written_into_an_archive_of_a_bucket(uri, tmp_path):
    into(uri, chat(tmp_path, "Hello."))
    with pytest.raises(UsageError, match="no sample; choose an empty folder"):
        sample(SampleConfig(archive=uri, num_users=1))
    assert Files(uri, "lease").paths()


def test_a_bucket_that_is_not_there_is_a_failure_with_a_remedy(server, tmp_path):
    with pytest.raises(JobError, match=r"archive='s3://not-there/a': .*see that the bucket is there"):
        sample(SampleConfig(archive="s3://not-there/a", num_users=1))
    with pytest.raises(JobError, match=r"archive='s3://not-there/a': .*run the same command again"):
        into("s3://not-there/a", chat(tmp_path, "Hello."))


def test_what_libraries_write_to_folders_alone_is_refused_for_a_bucket():
    with pytest.raises(ValueError, match="must be a local folder; copy it to where it belongs"):
        ExportConfig(store="s", format="jsonl", output="s3://bucket/export")
    with pytest.raises(ValueError, match="must be a local folder"):
        EncoderTraining(task="encoder", data="d", output="s3://bucket/trained")
