"""A store of three nights, and a copy of it for each test."""

import pytest

from cluster.store.files import Files
from cluster.store.store import Store
from tests.e2e.operations.stores import (
    LYON,
    MOON,
    OSLO,
    TEA,
    consolidate,
    copy_of,
    record_id,
)
from tests.unit.cluster.store.stores import commit, rejection


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """Three nights: two users; ann says more, and moves; the old residence is closed by a decision."""
    folder = tmp_path_factory.mktemp("template") / "store"
    store = Store(str(folder), must_exist=False)
    commit(store, "run1", LYON, MOON, rejection("a.parquet:1"))
    commit(store, "run2", TEA, OSLO)
    consolidate(
        store,
        "run3",
        target=record_id("lyon", "User lives in Lyon."),
        source=record_id("oslo", "User lives in Oslo."),
        action="delete",
    )
    staging = Files(store.uri, "staging")
    staging.delete(staging.paths())
    return folder


@pytest.fixture
def store(template, tmp_path):
    return copy_of(template, tmp_path / "store")
