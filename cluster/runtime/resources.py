"""What a cluster has, what it can grow to, and which workers wait for a place on it."""

import time
from collections import Counter

from cluster.runtime.log import write

WAITS_EVERY_S = 30.0
"""How often a job that waits for a place says so."""


def num_gpus_within_reach() -> float:
    """GPUs of the cluster: those that are up, or that its autoscaler may bring up, if more."""
    import ray

    up = float(ray.cluster_resources().get("GPU", 0))
    try:
        # What an autoscaler told Ray of its groups of nodes; Ray has no public way to it.
        from ray._private.state import state

        most = state.get_max_resources_from_cluster_config() or {}
    except (ImportError, AttributeError):
        return up
    return max(up, float(most.get("GPU", 0)))


class Waiting:
    """Says which workers of this job wait for a place, `every_s` seconds after the last one was seen to, and
    again as long as they do."""

    def __init__(self, label: str, every_s: float = WAITS_EVERY_S):
        self._label, self._every_s = label, every_s
        self._since_s: float | None = None

    def look(self) -> None:
        waiting = _waiting_workers()
        now_s = time.monotonic()
        if not waiting:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s >= self._every_s:
            self._since_s = now_s
            workers = ", ".join(f"{count} of {name}" for name, count in sorted(waiting.items()))
            write(
                f"[{self._label}] waits for a place on the cluster: {workers}; free are {_free()}. A worker "
                "takes `num_cpus` and `num_gpus` of its pool on one node",
                waiting=sum(waiting.values()),
            )


def _waiting_workers() -> Counter[str]:
    """Classes of this job's actors that no node has taken yet -> their number."""
    import ray
    from ray._private.state import actors

    job = ray.get_runtime_context().job_id
    found = actors(job_id=job, actor_state_name="PENDING_CREATION").values()
    # One that has a node is starting there; without one the id is empty, or nothing but f.
    return Counter(one["ActorClassName"] for one in found if set(one["Address"]["NodeID"]) <= {"f"})


def _free() -> str:
    import ray

    has, free = ray.cluster_resources(), ray.available_resources()
    return ", ".join(f"{free.get(name, 0):g} of {has.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
