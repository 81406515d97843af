"""What tests of several folders begin with: an empty store and its staged files, a server of buckets, stores
of eleven and of thirty nights, made once, and a copy of the first for each test that changes it."""

import pytest

from cluster.store.files import Files
from cluster.store.store import Store
from tests.e2e.operations.stores import copy_of
from tests.unit.cluster.report import month as thirty
from tests.unit.cluster.report.nights import make


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), must_exist=False)


@pytest.fixture
def files(tmp_path):
    return Files(str(tmp_path / "store"), "staging")


@pytest.fixture(scope="module")
def server():
    # moto and boto3 take a second, and few tests need them.
    from tests.buckets import found_by
    from tests.s3_server import serving_fake

    with serving_fake() as found, found_by(found.environment):
        yield found


@pytest.fixture(scope="session")
def nights(tmp_path_factory) -> Store:
    """Nobody writes it."""
    return make(str(tmp_path_factory.mktemp("nights") / "store"))


@pytest.fixture
def own_nights(nights, tmp_path) -> Store:
    return copy_of(nights.uri, tmp_path / "store")


@pytest.fixture(scope="session")
def month(tmp_path_factory) -> thirty.Month:
    """Thirty nights, as jobs have run them. Nobody writes it."""
    return thirty.make(tmp_path_factory.mktemp("month"))
