"""A store in a bucket whose server fails for a while: work goes on, and nothing is lost or doubled."""

import pyarrow as pa
import pytest

from cluster.backfill.archive import read_sessions
from cluster.store.crash_markers import Attempts
from cluster.store.files import Files
from cluster.store.lease import Lease
from cluster.store.store import Store
from tests.e2e.operations.stores import LYON, MOON, OSLO
from tests.faults import cut_answers, cut_now_and_then, lost_answers, outage
from tests.unit.cluster.store.stores import commit, view

FAULTS = {
    "every change done and answered by 500": lost_answers,
    "every connection cut in the first answer": cut_answers,
    "503 for a second": lambda: outage(1, after=3),
}

pytestmark = pytest.mark.parametrize("fault", FAULTS)


@pytest.fixture
def uri(server):
    yield f"s3://{server.new_bucket()}/store"
    server.around = lambda request, do: do(request)


def test_a_job_keeps_the_lease_that_it_took(server, uri, fault):
    Files(uri, "probe")
    server.around = FAULTS[fault]()
    with Lease(uri, "jobs.test") as lease:
        lease.check()
    server.around = FAULTS[fault]()
    with Lease(uri, "jobs.test") as lease:
        lease.check()
    assert len(Files(uri, "lease").paths()) == 1


def test_the_first_to_try_a_batch_is_not_taken_for_the_second(server, uri, fault):
    server.around = FAULTS[fault]()
    attempts = Attempts(Files(uri, "staging"), "run", "batch", node="n")
    assert attempts.first()
    assert not Attempts(Files(uri, "staging"), "run", "batch", node="n").first()
    with attempts.alone("part") as may_try:
        assert may_try
    assert attempts.num_deaths("part") == 0


def test_what_is_staged_is_found_again(server, uri, fault):
    server.around = FAULTS[fault]()
    files, table = Files(uri, "staging"), pa.table({"a": list(range(10_000))})
    for number in range(3):
        files.put_table(f"plan/{number}.parquet", table)
    assert files.paths("plan") == ["plan/0.parquet", "plan/1.parquet", "plan/2.parquet"]
    assert files.get_table("plan/1.parquet") == table
    files.delete(["plan/0.parquet", "plan/1.parquet"])
    assert files.paths() == ["plan/2.parquet"]


def test_two_commits_leave_what_they_leave_without_it(server, uri, fault):
    # To begin a commit anew costs a while, and every table would ask for it.
    server.around = cut_now_and_then(60) if "cut" in fault else FAULTS[fault]()
    store = Store(uri, must_exist=False)
    commit(store, "run1", LYON, MOON)
    commit(store, "run2", OSLO)
    server.around = lambda request, do: do(request)
    whole = Store(f"{uri}-whole", must_exist=False)
    commit(whole, "run1", LYON, MOON)
    commit(whole, "run2", OSLO)
    for run in ("run1", "run2"):
        assert view(Store(uri), run) == view(whole, run)
    assert [row["run_id"] for row in Store(uri).runs()] == ["run1", "run2"]
    assert Store(uri).intents() == []


def test_an_archive_is_read(server, uri, fault, tmp_path):
    from jobs.sample.__main__ import SampleConfig
    from jobs.sample.__main__ import run as sample

    server.around = FAULTS[fault]()
    summary = sample(SampleConfig(archive=uri, num_users=2, num_weeks=2))
    assert len(list(read_sessions(uri))) == summary["num_sessions"]
