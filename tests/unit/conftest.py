"""Stores of eleven and of thirty nights, made once; a copy of the first for each test that changes it."""

import pytest

from cluster.store.store import Store
from tests.e2e.operations.stores import copy_of
from tests.unit.cluster.report import month as thirty
from tests.unit.cluster.report.nights import make


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
