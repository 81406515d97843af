"""The crash matrix: every operation, killed at every write, then the same again: as if nothing had been.

After a kill a reader sees the store before the operation or after it, never a part. The operation, run again
(it first recovers what the killed one left), leaves what the uninterrupted one left. `make test-crash` kills
at every point; the default tests at some, spread evenly.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from cluster.store.files import HOME, Files, everything, local_path
from cluster.store.store import Store
from schemas.store import STORE_VERSION, TABLE_KEYS
from tests.crash.killing import Bucket, Jobs, environment, killer_library
from tests.crash.operations import OP, OPERATIONS, prepare
from tests.e2e.operations.stores import SECRET
from tests.unit.cluster.store.stores import view

EVERY = int(os.environ.get("SLOWWAVE_CRASH_EVERY", "0"))
"""Kill at each n-th point; 0: at some of an operation."""

PARTS = range(16 if EVERY == 1 else 4 if EVERY else 1)
"""The points of an operation are dealt out, so that workers end together: forget has half of all."""

NUM_SAMPLED = {"local": 2, "s3": 1}
"""Points of an operation in the default tests: 14 on a local store, and 2 on S3."""

PARTS_ON_S3 = range(4 if EVERY == 1 else len(PARTS))
"""Fewer, because each makes its store first, and there are fewer requests than writes."""

ON_S3 = [
    pytest.param(name, marks=() if name in ("nightly", "rollback") else pytest.mark.slow)
    for name in OPERATIONS
]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    jobs = Jobs(LD_PRELOAD=killer_library(tmp_path_factory.mktemp("killer")))
    yield jobs
    jobs.close()


@pytest.fixture(scope="module")
def bucket():
    bucket = Bucket()
    with environment(bucket.env):
        bucket.make()
        yield bucket
    bucket.close()


@pytest.fixture(scope="module")
def jobs_on_s3(bucket):
    jobs = Jobs(**bucket.env)
    yield jobs
    jobs.close()


def now(uri: str) -> dict:
    """What a reader of the newest run sees."""
    return view(Store(uri, must_exist=False).snapshot())


def shown(uri: str) -> dict:
    """What readers of each run see."""
    store = Store(uri, must_exist=False)
    kept = [row["run_id"] for row in store.runs() if json.loads(row["versions"])]
    return {run_id: view(store, run_id) for run_id in kept} | {"kept": kept, "now": now(uri)}


def assert_whole(uri: str, name: str) -> None:
    """Nothing half done is left, and tables stand where readers see them."""
    store = Store(uri)
    assert store.intents() == []
    head = store.head_now()
    assert head.store_version == STORE_VERSION
    for table in TABLE_KEYS:
        assert store.head(table).version == head.versions[table], table
        tags = store.head(table).tags.list()
        for row in store.runs():
            if versions := json.loads(row["versions"]):
                assert tags[row["run_id"]]["version"] == versions[table]
    if local_path(uri) is not None:
        assert not list(Path(uri, HOME, "tmp").glob("*"))
    if name == "forget":
        assert not [path for path, data in everything(uri) if SECRET.encode() in data]
        assert Files(uri, "receipts").get_json(f"{OP}.json")["proof"]["is_clean"]


def points(num_calls: int, where: str, part: int, num_parts: int) -> list[int]:
    """Numbers of the writes to kill at in this part: evenly spread."""
    if EVERY:
        return list(range(1, num_calls + 1, EVERY))[part::num_parts]
    num = NUM_SAMPLED[where]
    return sorted({round(1 + (num_calls - 1) * (number + 0.5) / num) for number in range(num)})


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_at_any_write_the_same_again_leaves_what_the_uninterrupted_one_left(
    name, part, jobs, tmp_path
):
    base, whole, store = (str(tmp_path / folder) for folder in ("base", "whole", "store"))
    prepare(name, base)
    shutil.copytree(base, whole)
    _, num_calls = jobs.run(name, whole)
    expected, either = shown(whole), (now(base), now(whole))
    assert_whole(whole, name)
    killed_at = points(num_calls, "local", part, len(PARTS))
    for at in killed_at:
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(base, store)
        jobs.run(name, store, at)
        assert now(store) in either, f"{name}: a part is seen, killed at write {at}"
        # Killed once more while it recovers, at some other point.
        jobs.run(name, store, 1 + at * 7 % num_calls)
        assert now(store) in either, f"{name}: a part is seen, killed at write {at}, then again"
        assert jobs.run(name, store)[0]
        assert shown(store) == expected, f"{name}: killed at write {at}"
        assert_whole(store, name)
    print(f"{name}: {num_calls} writes, killed at {len(killed_at)} of them")


@pytest.mark.parametrize("part", PARTS_ON_S3)
@pytest.mark.parametrize("name", ON_S3)
def test_killed_at_any_request_to_s3_the_same_again_leaves_what_the_uninterrupted_one_left(
    name, part, bucket, jobs_on_s3
):
    base = f"{name}-{part}"
    prepare(name, bucket.uri(base))
    whole = bucket.copied(base, f"{base}-whole")
    bucket.arm(None)
    jobs_on_s3.run(name, whole)
    num_requests = bucket.num
    expected, either = shown(whole), (now(bucket.uri(base)), now(whole))
    assert_whole(whole, name)
    killed_at = points(num_requests, "s3", part, len(PARTS_ON_S3))
    for at in killed_at:
        for is_after in (False, True) if EVERY else (at % 2 == 0,):
            store = bucket.copied(base, f"{base}-killed")
            jobs_on_s3.run(
                name, store, on_start=lambda pid, at=at, after=is_after: bucket.arm(pid, at, after)
            )
            bucket.arm(None)
            assert now(store) in either, f"{name}: a part is seen, killed at request {at}"
            assert jobs_on_s3.run(name, store)[0]
            assert shown(store) == expected, f"{name}: killed at request {at}, after it: {is_after}"
            assert_whole(store, name)
    print(f"{name}: {num_requests} requests that change something, killed at {len(killed_at)} of them")
