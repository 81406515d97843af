"""An object store is asked, once, whether it keeps two writers apart; one that does not is refused."""

import pytest
from obstore.exceptions import NotSupportedError

from cluster.store import files
from cluster.store.errors import StoreError
from cluster.store.exclusion import check_exclusive
from cluster.store.files import Files
from cluster.store.lease import Lease
from jobs.common.cli import JobError
from jobs.common.run import writing
from tests.buckets import new_bucket, serving

URI = "s3://bucket/store"


class Server:
    """An object store in memory, in the place of the real client. It counts what is created."""

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.num_created, self.overwrites, self.admits = 0, False, True

    def bucket(self, url: str) -> "Bucket":
        return Bucket(self, url)


class Bucket:
    def __init__(self, server: Server, url: str):
        self._server, self._url = server, url

    def put(self, path, data):
        self._server.objects[f"{self._url}/{path}"] = data

    def create(self, path, data):
        self._server.num_created += 1
        is_there = self.exists(path)
        if not is_there or self._server.overwrites:
            self.put(path, data)
        return not is_there or (self._server.overwrites and self._server.admits)

    def get(self, path):
        return self._server.objects.get(f"{self._url}/{path}")

    def exists(self, path):
        return self.get(path) is not None

    def paths(self, prefix):
        inside = f"{self._url}/{prefix}"
        return [
            path.removeprefix(f"{self._url}/") for path in self._server.objects if path.startswith(inside)
        ]

    def delete(self, paths):
        for path in paths:
            self._server.objects.pop(f"{self._url}/{path}", None)


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setattr(files, "_Bucket", server.bucket)
    return server


@pytest.mark.parametrize("admits", [True, False], ids=["and says so", "and says that it refused"])
def test_a_store_whose_server_overwrites_is_refused_before_anything_is_written(server, admits):
    server.overwrites, server.admits = True, admits
    with pytest.raises(StoreError, match=r"does not keep two writers apart.*use one that knows conditional"):
        Lease(URI, "jobs.backfill").__enter__()
    assert server.objects == {}
    # It is not forgotten either.
    with pytest.raises(StoreError):
        check_exclusive(URI)


def test_a_job_says_so_as_a_failure_not_as_a_store_that_is_held(server, monkeypatch):
    server.overwrites = True
    monkeypatch.setattr("cluster.store.store.Store", lambda uri, must_exist: type("S", (), {"uri": uri}))
    with pytest.raises(JobError, match="does not keep two writers apart") as failed, writing(URI, "test"):
        pass
    assert type(failed.value) is JobError


def test_a_server_that_refuses_the_second_is_asked_once(server):
    check_exclusive(URI)
    assert server.num_created == 2
    for _ in range(3):
        with Lease(URI, "jobs.backfill") as lease:
            lease.check()
    # One of each lease.
    assert server.num_created == 2 + 3


def test_what_a_killed_job_left_of_the_question_is_no_answer(server):
    """The object is there, and nobody knows how the second try went."""
    Files(URI, "probe").put("exclusive.json", b'{"token": "of a killed job"}')
    server.overwrites = True
    with pytest.raises(StoreError):
        check_exclusive(URI)
    Files(URI, "probe").put("exclusive.json", b'{"token": "of a killed job"}')
    server.overwrites = False
    check_exclusive(URI)
    assert Files(URI, "probe").get_json("exclusive.json")["is_exclusive"] is True


def test_a_store_that_was_copied_to_another_server_is_asked_there(server, monkeypatch):
    check_exclusive(URI)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://another:9000")
    server.overwrites = True
    with pytest.raises(StoreError):
        check_exclusive(URI)
    assert "another" not in str(server.objects)


def test_a_client_that_knows_no_conditional_put_is_refused(server, monkeypatch):
    def unsupported(self, path, data):
        raise NotSupportedError("conditional put is disabled")

    monkeypatch.setattr(Bucket, "create", unsupported)
    with pytest.raises(StoreError, match=r"only where none is .*disabled.*use one that knows"):
        check_exclusive(URI)


def test_a_local_folder_is_not_asked(tmp_path):
    with Lease(str(tmp_path), "jobs.backfill"):
        assert not (tmp_path / "_slowwave" / "probe").exists()


def test_a_server_that_speaks_s3_is_asked_and_remembered(monkeypatch):
    with serving() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        uri = f"s3://{new_bucket(environment, is_versioned=False)}/store"
        with Lease(uri, "jobs.backfill") as lease:
            lease.check()
        assert Files(uri, "probe").get_json("exclusive.json")["is_exclusive"] is True
