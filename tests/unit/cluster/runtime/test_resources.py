"""What a cluster can have, and what is said while workers wait. Ray's own answers are set here."""

from collections import Counter
from types import SimpleNamespace

import pytest
import ray
from ray._private.state import state

from cluster.runtime import resources


@pytest.mark.parametrize(
    ("up", "most", "within_reach"),
    [
        ({"CPU": 4}, None, 0),
        ({"CPU": 4, "GPU": 2}, None, 2),
        ({"CPU": 4}, {"CPU": 64, "GPU": 8}, 8),
        ({"CPU": 4, "GPU": 2}, {"CPU": 64}, 2),
    ],
)
def test_a_gpu_that_the_autoscaler_may_bring_up_counts(monkeypatch, up, most, within_reach):
    monkeypatch.setattr(ray, "cluster_resources", lambda: up)
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: most)
    assert resources.num_gpus_within_reach() == within_reach


@pytest.fixture
def looked(monkeypatch, capsys):
    """(Waiting, workers, tasks, in work) -> what it says at a look, 11 s after the one before."""
    clock = iter(range(0, 1000, 11))
    monkeypatch.setattr(resources.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(resources, "_free", lambda: "3 of 4 CPUs, 0 of 0 GPUs")

    def look(waiting, workers=(), num_tasks=0, num_in_work=0) -> str:
        monkeypatch.setattr(resources, "_waiting_workers", lambda: Counter(workers))
        monkeypatch.setattr(resources, "_waiting_tasks", lambda: num_tasks)
        waiting.look(num_in_work)
        return capsys.readouterr().err

    return look


def test_workers_that_wait_are_named_again_and_again_until_they_have_a_place(looked):
    waiting = resources.Waiting("encode")
    said = [looked(waiting, {"of EncodeStage": 2}) for _ in range(7)]
    assert [bool(line) for line in said] == [False, False, False, True, False, False, True]
    assert "[encode] waits for a place on the cluster: 2 of EncodeStage; free are 3 of 4 CPUs" in said[3]
    assert not any(looked(waiting) for _ in range(5))


def test_tasks_that_wait_are_named_where_none_of_the_stage_s_is_in_work(looked):
    cut, encode = resources.Waiting("cut", "cut_unit"), resources.Waiting("encode")
    said = [looked(cut, num_tasks=5) for _ in range(4)]
    assert "[cut] waits for a place on the cluster: 5 tasks of cut_unit; free are" in said[3]
    assert not any(looked(cut, num_tasks=5, num_in_work=1) for _ in range(5))
    assert not any(looked(encode, num_tasks=5) for _ in range(5)), "those of others"


@pytest.mark.parametrize(
    ("state", "address", "is_named"),
    [
        ("PENDING_CREATION", "", True),
        ("PENDING_CREATION", "10.0.0.1", False),
        ("RESTARTING", "", True),
        ("ALIVE", "10.0.0.1", False),
    ],
)
def test_a_worker_waits_where_it_has_no_address_also_after_its_node_was_lost(
    monkeypatch, state, address, is_named
):
    """Ray names the node that was asked before that has a place, if ever."""
    at = {"IPAddress": address, "NodeID": "ab" * 28}
    found = {state: {"1": {"ActorClassName": "MapWorker(MapBatches(EncodeStage))", "Address": at}}}
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "01000000"))
    monkeypatch.setattr(
        "ray._private.state.actors", lambda job_id, actor_state_name: found.get(actor_state_name, {})
    )
    assert resources._waiting_workers() == ({"of EncodeStage": 1} if is_named else {})
