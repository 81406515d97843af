"""Forgetting in a bucket: every version of every object is searched for what was erased."""

import pytest

from cluster.forget import leftovers
from cluster.store.files import Files
from cluster.store.store import Store
from jobs.forget import ForgetConfig
from jobs.forget import run as forget_job
from tests.buckets import all_versions, found_by, new_bucket, serving
from tests.e2e.operations.stores import ANN, LYON, MOON, SECRET, texts
from tests.unit.cluster.store.stores import commit


@pytest.fixture(scope="module")
def environment():
    with serving() as found, found_by(found):
        yield found


def holding(environment, bucket, *needles):
    return [
        path
        for path, content in all_versions(environment, bucket)
        if any(needle.encode() in content for needle in needles)
    ]


@pytest.mark.slow
def test_no_version_of_any_object_of_a_bucket_holds_what_was_forgotten(environment):
    bucket = new_bucket(environment, is_versioned=True)
    store = Store(f"s3://{bucket}/store", must_exist=False)
    commit(store, "run1", MOON, LYON)
    Files(store.uri, "staging").put("raw.txt", f"{ANN} has a {SECRET} parrot".encode())
    config = ForgetConfig(store=store.uri, user_id=ANN)
    assert holding(environment, bucket, SECRET)
    summary = forget_job(config)
    assert (summary["status"], summary["is_clean"], summary["not_searched"]) == ("done", True, [])
    assert holding(environment, bucket, SECRET, ANN, "s1-of-ann") == []
    assert leftovers.look(store.uri) == leftovers.Leftovers()
    assert texts(Store(store.uri)) == ["User saw the moon."]
