"""Settings: where a job runs, and what each kind of worker asks for."""

import os
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from schemas.settings import Settings


class PoolConfig(Settings):
    """A pool of actors. Ray starts `min_size` and grows to `max_size` where the cluster has room."""

    min_size: int = Field(1, ge=1)
    """Actors that the pool begins with."""
    max_size: int = Field(1, ge=1)
    """Actors that it may have, if the cluster has room."""
    num_cpus: float = Field(1.0, ge=0)
    """Logical CPUs per actor: a reservation, not a limit."""
    num_gpus: float | None = Field(None, ge=0)
    """GPUs per actor. Not given: 1 for the encoder where the cluster has GPUs or its autoscaler may
    bring some up, else 0."""
    num_threads: int | None = Field(None, ge=1)
    """Threads per actor. Not given, and without a GPU: all cores that the submitting process may use."""

    def of_endpoint(self) -> Self:
        """The same for a model behind an endpoint: one actor keeps the caps, sends as many requests side by
        side as are wanted, and needs no GPU."""
        return self.model_copy(update={"min_size": 1, "max_size": 1, "num_gpus": 0.0})


class ClusterConfig(Settings):
    """Where to run. Under `ray job submit` nothing has to be set: the job's own cluster is used."""

    local: bool = False
    """Run the stages in the job's own process, one item after the other, without Ray."""
    address: str | None = None
    """Ray address. Not given: the running cluster that the environment names, else one that the job
    starts."""
    num_cpus: int | None = Field(None, ge=1)
    """Logical CPUs of the cluster that the job starts. Not given: those of the machine, but at least 4, so
    that small stages have room beside the actors."""
    log_to_driver: bool = False
    """Show what workers print. Their errors reach the job either way; Ray keeps their logs."""
    dashboard: bool = False
    """Start the dashboard of Ray with a cluster that the job starts, on this machine alone."""
    env_vars: dict[str, SecretStr] = Field({})
    """Environment variables of the workers, for example SLOWWAVE_CACHE. Their values are never stored or
    shown; name secret ones in `pass_env` instead, because others may read this file."""
    pass_env: list[str] = Field([])
    """Names of variables that the workers get from the submitting process, for example HF_TOKEN."""
    pip: list[str] = Field([])
    """Packages that Ray installs on the workers, if their image lacks them."""
    working_dir: str | None = None
    """Code for the workers of a remote cluster. Not needed under `ray job submit --working-dir`."""

    @field_validator("pass_env")
    @classmethod
    def _are_set(cls, names: list[str]) -> list[str]:
        if missing := [name for name in names if name not in os.environ]:
            raise ValueError(f"{', '.join(missing)}: not set in the environment; export it, or leave it out")
        return names

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.local:
            self.check_local()
        return self

    def check_local(self) -> None:
        """ValueError for settings that mean nothing where the stages run in the job's own process."""
        if given := [name for name in ("address", "pip", "working_dir") if getattr(self, name)]:
            raise ValueError(
                f"local=true runs the stages in the job's own process, where {', '.join(given)} of [cluster] "
                "means nothing; leave one of the two out"
            )

    def environment(self) -> dict[str, str]:
        """What the workers' environment is to have, in clear."""
        given = {name: value.get_secret_value() for name, value in self.env_vars.items()}
        return given | {name: os.environ[name] for name in self.pass_env}
