"""What a machine has, as far as a process may use it, and what becomes of a cluster that does not start."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from cluster.runtime import ClusterConfig, ClusterError, connect, connecting, is_local, num_cores


def test_only_cores_that_the_process_may_use_count(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert num_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert num_cores() == 64


def test_local_needs_no_ray():
    """Nor may anything on the way import it: that costs a second, and it need not be there."""
    code = (
        "import sys; from cluster.runtime import *;"
        "from cluster.store.crash_markers import dead_nodes, this_node;"
        "connect(ClusterConfig(local=True)); assert is_local();"
        "assert (this_node(), dead_nodes()) == ('', frozenset()); assert 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_local_gives_the_variables_of_the_workers_to_this_process(monkeypatch):
    monkeypatch.delenv("SLOWWAVE_TEST", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    connect(ClusterConfig(local=True, env_vars={"SLOWWAVE_TEST": "here"}))
    assert is_local() and os.environ["SLOWWAVE_TEST"] == "here"


@pytest.mark.parametrize("given", [{"address": "auto"}, {"pip": ["x"]}, {"working_dir": "."}])
def test_local_and_a_cluster_contradict_each_other(given):
    with pytest.raises(ValueError, match=f"{next(iter(given))} of .cluster. means nothing"):
        ClusterConfig(local=True, **given)


@pytest.fixture
def starts(monkeypatch):
    """ray.init that does what these say, one after the other; which calls there were."""
    import ray

    calls, told = [], []

    def init(**options):
        calls.append(options["address"])
        told.pop(0)()

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    yield calls, told
    connect(ClusterConfig(local=True))


def fails():
    raise RuntimeError("the current node timed out during startup")


def hangs():
    try:
        time.sleep(600)
    except Exception:
        time.sleep(600)


def starts_well():
    pass


def test_ray_that_does_not_start_is_tried_once_more(starts, capsys):
    calls, told = starts
    told += [fails, starts_well]
    connect(ClusterConfig())
    assert calls == ["local", "shutdown", "local"]
    assert "timed out during startup" in capsys.readouterr().err
    assert not is_local()


@pytest.mark.parametrize("wanted", [True, False])
def test_the_dashboard_of_a_cluster_of_the_job_s_own_starts_where_it_is_asked_for(
    starts, monkeypatch, capsys, wanted
):
    import ray

    given = []

    def init(**options):
        given.append(options["include_dashboard"])
        return SimpleNamespace(dashboard_url="127.0.0.1:8265")

    monkeypatch.setattr(ray, "init", init)
    connect(ClusterConfig(dashboard=wanted))
    assert given == [wanted]
    assert ("[cluster] dashboard: http://127.0.0.1:8265" in capsys.readouterr().err) == wanted


@pytest.mark.parametrize("kind", [fails, hangs])
def test_ray_that_never_starts_ends_with_what_to_do(starts, monkeypatch, kind):
    calls, told = starts
    told += [kind, kind]
    monkeypatch.setattr(connecting, "START_TIMEOUT_S", 0.05)
    with pytest.raises(ClusterError, match="tried twice") as caught:
        connect(ClusterConfig())
    assert calls == ["local", "shutdown"] * 2
    assert "--local runs the same stages in this process" in str(caught.value)


def test_the_address_that_did_not_answer_is_named_without_its_password(starts):
    _, told = starts
    told += [fails, fails]
    with pytest.raises(ClusterError, match="ray status") as caught:
        connect(ClusterConfig(address="ray://ann:geheim@head:10001"))
    assert "head:10001" in str(caught.value) and "geheim" not in str(caught.value)
