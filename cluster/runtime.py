"""The cluster a job runs on: connecting to it, and what each kind of worker asks of it."""

import json
import logging
import os
import re
import signal
import threading
import warnings

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class PoolConfig(BaseModel):
    """A pool of actors. Ray starts `min_size` and grows to `max_size` where the cluster has room."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    min_size: int = Field(1, ge=1)
    max_size: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, ge=0)
    """Logical CPUs per actor: a reservation, not a limit."""
    num_gpus: float | None = Field(None, ge=0)
    """GPUs per actor. Not given: 1 for the encoder where the cluster has GPUs, else 0."""
    num_threads: int | None = Field(None, ge=1)
    """Threads per actor. Not given, and without a GPU: all cores that the submitting process may use."""


class ClusterConfig(BaseModel):
    """Where to run. Inside `ray job submit` nothing need be given: the job's own cluster is used."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    address: str | None = None
    """Ray address; not given: the running cluster that the environment names, else a local one."""
    num_cpus: int | None = Field(None, ge=1)
    """Logical CPUs of a local cluster. Not given: the machine's, but at least 4, because small stages must
    find a place beside the actors."""
    log_to_driver: bool = False
    """Show what workers print. Their errors reach the job either way; Ray keeps their logs."""
    env_vars: dict[str, SecretStr] = {}
    """Environment of the workers, for example SLOWWAVE_CACHE. Values are never stored nor shown; secret ones
    belong into `pass_env`, for this file can be read."""
    pass_env: list[str] = []
    """Names of variables that the workers get from the submitting process, for example HF_TOKEN."""
    pip: list[str] = []
    """Packages that Ray installs on the workers, where their image lacks some."""
    working_dir: str | None = None
    """Code for the workers of a remote cluster. Not needed under `ray job submit --working-dir`."""

    @field_validator("pass_env")
    @classmethod
    def _are_set(cls, names: list[str]) -> list[str]:
        if missing := [name for name in names if name not in os.environ]:
            raise ValueError(f"{', '.join(missing)}: not set in the environment; export it, or leave it out")
        return names

    def environment(self) -> dict[str, str]:
        """What the workers' environment is to have, in clear."""
        given = {name: value.get_secret_value() for name, value in self.env_vars.items()}
        return given | {name: os.environ[name] for name in self.pass_env}


_SECRET_NAMES = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY|_KEY)$", re.IGNORECASE)
MIN_SECRET_CHARS = 8
"""Shorter values are words, and would be hidden in every sentence."""


HIDDEN = "**********"
"""Stands for a secret, as it does in the dump of a secret type."""

_USERINFO = re.compile(r"""://(?:\\.|[^\s"/?#\\])*@""")
"""What a URL has in front of its host. In text as in JSON, where a quotation mark has a backslash."""

_PARAMETER = re.compile(r"""(?<=[?&;#])([\w.%~-]{1,80})=(?:\\.|[^\s"'&#\\])+""")
"""A parameter of a URL's query, or of its fragment."""

_SECRET_PARAMETERS = re.compile(
    r"token|secret|passw|pwd|credential|signature|session|jwt|auth(?!or)|key(?:[_-]?id)?$"
    r"|^(?:sig|code|pass|user(?:name)?)$",
    re.IGNORECASE,
)
"""Names of those whose values are secret."""


def hide_secrets(text: str) -> str:
    """Text of the operator's own, such as a dumped config (as JSON) or an error, without secrets: user names,
    passwords, secret parameters and keys in the path of every URL in it, and what `hide_variables` hides."""
    text = _USERINFO.sub(f"://{HIDDEN}@", hide_variables(text))
    return _PARAMETER.sub(_without_secret, _without_keys(text))


def _without_keys(text: str) -> str:
    if "://" not in text:
        return text
    from cluster.secrets.urls import in_paths

    pieces, done = [], 0
    for start, end, _ in sorted(in_paths(text)):
        if start >= done:
            pieces += text[done:start], HIDDEN
        done = max(done, end)
    return "".join([*pieces, text[done:]])


def hide_in_dump(dump: str) -> str:
    """JSON with a config in it, as an earlier release dumped it, without secrets: values of `env_vars` too,
    which stood there in clear."""
    return hide_secrets(json.dumps(_without_env_vars(json.loads(dump or "null"))))


def _without_env_vars(value):
    if isinstance(value, list):
        return [_without_env_vars(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: _without_env_vars(item) for name, item in value.items()}
    if isinstance(given := found.get("env_vars"), dict):
        found["env_vars"] = dict.fromkeys(given, HIDDEN)
    return found


def _without_secret(parameter: re.Match) -> str:
    return f"{parameter[1]}={HIDDEN}" if _SECRET_PARAMETERS.search(parameter[1]) else parameter[0]


def hide_variables(text: str) -> str:
    """The text without the values of environment variables whose names say that they are secret: a library's
    error may quote one."""
    for name, value in os.environ.items():
        if len(value) >= MIN_SECRET_CHARS and _SECRET_NAMES.search(name) and not os.path.exists(value):
            for written in (value, json.dumps(value)[1:-1]):
                text = text.replace(written, f"[{name}]")
    return text


def num_cores() -> int:
    """Cores that this process may use: where a container or taskset leaves it fewer than the machine has,
    threads for all of them would wait for each other."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def connect(config: ClusterConfig) -> None:
    """ray.init with this config; a second call in one process changes nothing."""
    # Ray's own chatter would bury the job's progress; what fails is raised here all the same.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    warnings.filterwarnings("ignore", message="lancedb fork support")
    import ray

    if ray.is_initialized():
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    in_cluster = config.address or os.environ.get("RAY_ADDRESS")
    if not in_cluster:
        # A cluster of our own inherits this environment. Ray writes a runtime environment into its logs.
        os.environ.update(config.environment())
    runtime_env = {
        "env_vars": {
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **(config.environment() if in_cluster else {}),
        },
        **({"pip": config.pip} if config.pip else {}),
        **({"working_dir": config.working_dir} if config.working_dir else {}),
    }
    local = (
        {} if in_cluster else {"num_cpus": config.num_cpus or max(4, num_cores()), "include_dashboard": False}
    )
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(
        # Without a word, a cluster of our own, never one that happens to run on this machine.
        address=in_cluster or "local",
        runtime_env=runtime_env,
        logging_level=logging.ERROR,
        log_to_driver=config.log_to_driver,
        **local,
    )
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


def encoder_gpus(pool: PoolConfig) -> float:
    """GPUs per encoder actor on the connected cluster."""
    import ray

    if pool.num_gpus is not None:
        return pool.num_gpus
    return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def actor_options(pool: PoolConfig, num_gpus: float) -> dict:
    """Arguments of Dataset.map for an actor pool: compute strategy, resources, threads."""
    from ray.data import ActorPoolStrategy

    options = {
        "compute": ActorPoolStrategy(min_size=pool.min_size, max_size=max(pool.min_size, pool.max_size)),
        "num_cpus": pool.num_cpus,
    }
    if num_gpus:
        return options | {"num_gpus": num_gpus}
    # Ray sets OMP_NUM_THREADS to num_cpus; a model wants the cores, however few it reserves.
    threads = str(pool.num_threads or num_cores())
    return options | {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads}}}
