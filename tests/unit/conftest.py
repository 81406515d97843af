"""A store of eleven nights, made once; a copy for each test that changes it."""

import pytest

from cluster.store.store import Store
from tests.e2e.operations.stores import copy_of
from tests.unit.cluster.report.nights import make


@pytest.fixture(scope="session")
def nights(tmp_path_factory) -> Store:
    """Nobody writes it."""
    return make(str(tmp_path_factory.mktemp("nights") / "store"))


@pytest.fixture
def own_nights(nights, tmp_path) -> Store:
    return copy_of(nights.uri, tmp_path / "store")
