"""New rows of a run that workers of a cluster write: what a reader sees is what one process writes."""

import os

import pytest

from cluster.runtime import ClusterConfig, connect
from cluster.store import fragments
from cluster.store.files import Files
from cluster.store.store import Store
from schemas.store import table_schemas
from tests.unit.cluster.store.stores import MOON, TEA, commit, nightly_run, segment, view


@pytest.fixture
def on_ray():
    import ray

    connect(ClusterConfig(address=os.environ["RAY_ADDRESS"]))
    yield
    ray.shutdown()
    connect(ClusterConfig(local=True))


def runs(store):
    told = [
        segment(
            f"g{number}", f"I saw star {number}", session=f"s{number}", records=[f"Ann saw star {number}"]
        )
        for number in range(6)
    ]
    commit(store, "run1", TEA, MOON, *told)
    nightly_run(store)


def test_rows_that_workers_write_side_by_side_are_those_that_one_process_writes(
    on_ray, tmp_path, monkeypatch, capsys
):
    here, there = (Store(str(tmp_path / name), must_exist=False) for name in ("here", "there"))
    runs(here)
    assert "[publish" not in capsys.readouterr().err
    monkeypatch.setattr(fragments, "MIN_ROWS", 3)
    runs(there)
    # Rows in the order of the archive, whoever wrote them first.
    assert view(there) == view(here)
    order = [store.rows("records", ["record_id"], as_of="run1").to_pydict() for store in (here, there)]
    assert order[0] == order[1]
    assert "[publish turns] 9 of 9 rows" in capsys.readouterr().err


def test_a_staged_file_that_is_gone_gives_the_run_up_and_not_the_store(on_ray, tmp_path, monkeypatch, capsys):
    """A worker finds it out, and the writer behind it."""
    store = Store(str(tmp_path / "store"), must_exist=False)
    runs(store)
    before = view(store)
    monkeypatch.setattr(fragments, "MIN_ROWS", 1)
    read = fragments.split

    def deletes(staged):
        Files(store.uri, "staging").delete(["tables/records/run3-0.parquet"])
        return read(staged)

    monkeypatch.setattr(fragments, "split", deletes)
    told = [segment(name, f"I like {name}", session=name, records=[f"Ann likes {name}"]) for name in "ab"]
    with pytest.raises(Exception, match="run3-0"):
        commit(store, "run3", *told)
    assert Store(store.uri).recover() is None
    assert "Run its job again" in capsys.readouterr().out
    assert view(Store(store.uri)) == before
    assert set(before) >= set(table_schemas(4))
