"""What a cluster has, what it can grow to, which nodes are gone, and what waits for a place."""

import sys
import time
from collections import Counter
from types import ModuleType

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


def this_node() -> str:
    """Id of the cluster's node that this process runs on; empty outside a cluster."""
    ray = _ray()
    return ray.get_runtime_context().get_node_id() if ray else ""


def dead_nodes() -> frozenset[str]:
    """Ids of the cluster's nodes that are gone."""
    ray = _ray()
    return frozenset(node["NodeID"] for node in ray.nodes() if not node["Alive"]) if ray else frozenset()


def _ray() -> ModuleType | None:
    """Ray where this process is of a cluster; who is, has it imported."""
    ray = sys.modules.get("ray")
    return ray if ray and ray.is_initialized() else None


class Waiting:
    """Says what of this job waits for a place: WAITS_EVERY_S after that was first seen, and again as long as
    it is so. `label` names the stage, `tasks` the function that it runs in tasks, if it does."""

    def __init__(self, label: str, tasks: str = ""):
        self._label, self._tasks = label, tasks
        self._since_s: float | None = None

    def look(self, num_in_work: int) -> None:
        """`num_in_work`: items that some worker has begun and not done."""
        waiting = _waiting_workers()
        # The cluster does not say whose a task is that waits. Where one of this job works, others are next.
        if self._tasks and not num_in_work and (num_tasks := _waiting_tasks()):
            waiting[f"tasks of {self._tasks}"] = num_tasks
        now_s = time.monotonic()
        if not waiting:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s >= WAITS_EVERY_S:
            self._since_s = now_s
            told = ", ".join(f"{count} {name}" for name, count in sorted(waiting.items()))
            write(
                f"[{self._label}] waits for a place on the cluster: {told}; free are {_free()}. A worker "
                "takes `num_cpus` and `num_gpus` of its pool on one node, a task 1 CPU",
                waiting=waiting.total(),
            )


def _waiting_workers() -> Counter[str]:
    """`of STAGE` -> actors of this job that no node has taken yet, or no other after theirs was lost."""
    import ray
    from ray._private.state import actors

    job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    found = [
        one
        for state in ("PENDING_CREATION", "RESTARTING")
        for one in actors(job_id=job, actor_state_name=state).values()
    ]
    # One that has an address is starting there. A node may be named before that: the one that was asked.
    return Counter(f"of {_stage(one['ActorClassName'])}" for one in found if not one["Address"]["IPAddress"])


def _stage(actor: str) -> str:
    """`MapWorker(MapBatches(EncodeStage))`, as Ray Data calls its actors -> `EncodeStage`."""
    return actor.rpartition("(")[2].rstrip(")")


def _waiting_tasks() -> int:
    """Tasks that take 1 CPU, as those of every stage do, and wait for it, whoever's they are."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    demands = get_cluster_status(ray.get_runtime_context().gcs_address).resource_demands
    asked = [one for demand in demands.ray_task_actor_demand for one in demand.bundles_by_count]
    return sum(one.count for one in asked if one.bundle == {"CPU": 1.0})


def _free() -> str:
    import ray

    has, free = ray.cluster_resources(), ray.available_resources()
    return ", ".join(f"{free.get(name, 0):g} of {has.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
