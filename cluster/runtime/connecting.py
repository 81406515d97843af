"""Connecting to the cluster that a job runs on, or to none."""

import contextlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from cluster.runtime.config import ClusterConfig
from cluster.runtime.log import write
from cluster.runtime.secrets import hide_secrets

START_TIMEOUT_S = 180
"""Ray starts within some 5 s, and within a minute on a machine that is busy with other work."""

WORKERS_ENVIRONMENT = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}


class ClusterError(Exception):
    """Ray cannot be started or reached. The message has the remedy."""


_is_local = True


def is_local() -> bool:
    """Whether stages run in this process, without Ray: what the last `connect` asked for, and before it."""
    return _is_local


def num_cores() -> int:
    """Cores that this process may use: where a container or taskset leaves it fewer than the machine has,
    threads for all of them would wait for each other."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def connect(config: ClusterConfig) -> None:
    """ray.init with this config, or nothing of Ray where it says `local`. ClusterError when Ray does not
    start, tried twice. A second call in one process starts no second cluster."""
    global _is_local
    _is_local = config.local
    warnings.filterwarnings("ignore", message="lancedb fork support")
    if config.local:
        os.environ.update(WORKERS_ENVIRONMENT | config.environment())
        # What workers of Ray say stays in its logs; here it would stand among the progress.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        return
    # Ray's own chatter would bury the job's progress; what fails is raised here all the same.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    in_cluster = config.address or os.environ.get("RAY_ADDRESS")
    if not in_cluster:
        # A cluster of our own inherits this environment. Ray writes a runtime environment into its logs.
        os.environ.update(config.environment())
    runtime_env = {
        "env_vars": WORKERS_ENVIRONMENT | (config.environment() if in_cluster else {}),
        **({"pip": config.pip} if config.pip else {}),
        **({"working_dir": config.working_dir} if config.working_dir else {}),
    }
    num_cpus = config.num_cpus or max(4, num_cores())
    own = {} if in_cluster else {"num_cpus": num_cpus, "include_dashboard": config.dashboard}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    started = _start(
        # Without a word, a cluster of our own, never one that happens to run on this machine.
        address=in_cluster or "local",
        runtime_env=runtime_env,
        logging_level=logging.ERROR,
        log_to_driver=config.log_to_driver,
        **own,
    )
    if config.dashboard and not in_cluster:
        write(f"[cluster] dashboard: http://{started.dashboard_url}")
    if callable(on_sigterm) and threading.current_thread() is threading.main_thread():
        # Ray puts its own in the place, which ends the process with a stack trace.
        signal.signal(signal.SIGTERM, on_sigterm)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.issue_detectors_config.high_memory_detector_config.detection_time_interval_s = -1
    # A job that waits for a GPU makes no progress, and is right to.
    context.execution_no_progress_timeout_s = -1
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _start(*, address: str, **options: Any) -> Any:
    """What ray.init gives, called again where it fails or hangs, as it may on a busy machine."""
    import ray

    error: BaseException | None = None
    for _ in range(2):
        try:
            with _at_most(START_TIMEOUT_S):
                return ray.init(address=address, **options)
        except (Exception, _TookTooLong) as caught:
            error = caught
            told = hide_secrets(f"{type(error).__name__}: {error}".partition("\n")[0])
            write(f"[cluster] Ray at {hide_secrets(address)!r}: {told}")
            ray.shutdown()
    remedy = (
        "free memory and CPUs, or give the job its own machine"
        if address == "local"
        else "check [cluster] address and RAY_ADDRESS, and that `ray status` answers there"
    )
    raise ClusterError(
        f"Ray at {hide_secrets(address)!r} did not start, tried twice, the last time with {told}; {remedy}. "
        "Or do without Ray: --local runs the same stages in this process"
    ) from error


class _TookTooLong(BaseException):
    """No Exception: loops of Ray that wait for something swallow those, and wait on."""


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise _TookTooLong in the main thread where the body takes longer; elsewhere nothing can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise _TookTooLong(f"no answer in {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    # Again every second, should it be caught after all.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
