"""What a cluster can have, and what is said while workers wait. Ray's own answers are set here."""

from collections import Counter

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


def test_workers_that_wait_are_named_again_and_again_until_they_have_a_place(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 31.0, 40.0, 62.0, 63.0, 64.0])
    monkeypatch.setattr(resources.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(resources, "_waiting_workers", lambda: Counter(EncodeStage=2))
    monkeypatch.setattr(resources, "_free", lambda: "3 of 4 CPUs, 0 of 0 GPUs")
    waiting = resources.Waiting("encode", every_s=30.0)
    said = []
    for _ in range(5):
        waiting.look()
        said.append(capsys.readouterr().err)
    assert [bool(line) for line in said] == [False, False, True, False, True]
    assert "[encode] waits for a place on the cluster: 2 of EncodeStage; free are 3 of 4 CPUs" in said[2]
    monkeypatch.setattr(resources, "_waiting_workers", Counter)
    waiting.look()
    waiting.look()
    assert not capsys.readouterr().err
