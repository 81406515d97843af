"""Jobs that write a store: who finds it taken ends, or waits, and says so."""

import pytest

from cluster.store.lease import Lease
from jobs.common.cli import HeldError
from jobs.common.run import writing
from tests.unit.project import ROOT, job_of, jobs_there_are


def source_of(job: str) -> str:
    place = ROOT / job.replace(".", "/")
    paths = [place / "__init__.py", place / "__main__.py"] if place.is_dir() else [place.with_suffix(".py")]
    return "".join(path.read_text("utf-8") for path in paths)


WRITERS = [job for job in jobs_there_are() if "writing(" in source_of(job)]


def test_a_store_that_another_job_writes_is_held(tmp_path):
    uri = str(tmp_path / "store")
    refused = pytest.raises(HeldError, match=r"is being written by jobs\.first")
    with Lease(uri, "jobs.first"), refused, writing(uri, "jobs.second", must_exist=False):
        pass


def test_who_waits_long_enough_writes_it(tmp_path, monkeypatch):
    uri = str(tmp_path / "store")
    holder = Lease(uri, "jobs.first").__enter__()
    monkeypatch.setattr("cluster.store.lease.time.sleep", lambda seconds: holder.__exit__())
    with writing(uri, "jobs.second", must_exist=False, wait_s=60) as store:
        store.lease.check()


def test_there_are_writers():
    assert {"jobs.backfill", "jobs.forget", "jobs.import", "jobs.rollback"} < set(WRITERS)


@pytest.mark.parametrize("job", [*WRITERS, "jobs.nightly"])
def test_every_job_that_writes_a_store_can_wait_for_it(job):
    assert "--lease-wait" in job_of(job).options()
    assert job == "jobs.nightly" or "wait_s=config.lease_wait" in source_of(job)
