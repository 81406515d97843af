"""Where the work runs: the cluster, its workers, and the one place that starts stages on them."""

from cluster.runtime.config import ClusterConfig, PoolConfig
from cluster.runtime.connecting import ClusterError, connect, is_local, num_cores
from cluster.runtime.progress import Progress, duration, report_to, tick
from cluster.runtime.resources import num_gpus_within_reach
from cluster.runtime.secrets import HIDDEN, hide_in_dump, hide_secrets, hide_variables
from cluster.runtime.stages import Stage, StageError, run_stage
from cluster.runtime.storage import StorageConfig

__all__ = [
    "HIDDEN",
    "ClusterConfig",
    "ClusterError",
    "PoolConfig",
    "Progress",
    "Stage",
    "StageError",
    "StorageConfig",
    "connect",
    "duration",
    "hide_in_dump",
    "hide_secrets",
    "hide_variables",
    "is_local",
    "num_cores",
    "num_gpus_within_reach",
    "report_to",
    "run_stage",
    "tick",
]
