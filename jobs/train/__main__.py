"""Train: a training set becomes a LoRA adapter that the other jobs take as it is.

    python -m jobs.train encoder --data DIR --output DIR           # jobs/configs/train/default.toml
    python -m jobs.train encoder --data DIR --output DIR --config jobs/configs/train/encoder_v0.toml
    python -m jobs.train evolvable --data DIR --output DIR --config jobs/configs/train/evolvable.toml
    python -m jobs.backfill --profile OUTPUT/adapter ...

A command is a task: what is learned, which must be the data's. `--task NAME`, or `task` in the config file,
names it too. `COMMAND --help` shows its options.

Reads the folder that jobs.distill writes. Only answers are learned. Run the same command again after a crash:
it goes on from the last checkpoint, and a finished training is not repeated. Leaves in the output folder
`adapter/` (PEFT weights, card, `training.html` with the curves, profile with the prompt), `metrics.jsonl` and
`manifest.json`; of the task evolvable `model/`, for cluster.evolvable.embedder, instead of an adapter.
"""

import contextlib
import datetime as dt
import hashlib
import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster.runtime import hide_secrets, num_cores, num_gpus_within_reach
from cluster.train.settings import TrainingError, last_checkpoint
from jobs.common.cli import JobError, UsageError, say
from jobs.common.commands import commands_of
from jobs.common.manifest import read_file, text_of, versions_of
from jobs.common.run import absolute, connect, recorded
from jobs.train import adapter, evolvable
from jobs.train.cards import PAGE, Curves
from jobs.train.config import PLACES, TASKS, EvolvableTraining, TrainConfig
from schemas.manifest import RunManifest, RunStatus

PACKAGES = ("torch", "transformers", "peft", "trl", "ray")


@recorded("train", writes="output")
def run(config: TrainConfig) -> dict:
    """Train, and return the summary. Safe to repeat at any time."""
    from cluster.models.sources import ModelError, model_folder, source_hash

    config = config.model_copy(update={"data": absolute(config.data), "output": absolute(config.output)})
    output = Path(config.output)
    product = evolvable if config.task == "evolvable" else adapter
    try:
        config = product.settle(config)
        hashes = {
            "data_hash": product.hash_data(config),
            "base_hash": source_hash(config.base, config.base_revision),
        }
        if start := config.start:
            hashes["start_hash"] = source_hash(start, None)
        key = training_key(config, hashes)
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
        train(config, product.worker())
    folder = output / product.NAME
    product.complete(config, base, folder)

    metrics = read_metrics(output / "metrics.jsonl")
    result = json.loads((output / "result.json").read_text())
    counted = {
        "task": config.task,
        product.NAME: str(folder),
        f"{product.NAME}_bytes": sum(file.stat().st_size for file in folder.rglob("*.safetensors")),
        **result,
        **product.measured(metrics, result),
        **hashes,
    }
    manifest = RunManifest.with_keys(
        {"key": key} | counted,
        job="train",
        status=RunStatus.DONE,
        # Of this process: what came before a crash is in the times of metrics.jsonl.
        seconds=round(time.monotonic() - started_s, 1),
        finished_at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        config=config.model_dump(mode="json"),
        packages=versions_of(PACKAGES),
        summary=counted,
    )
    found = manifest.as_json()
    page = training_page(found, product.CURVES, product.scores(found), metrics)
    leave(manifest, product.card(found), page, output, folder)
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return summary(manifest)


def leave(manifest: RunManifest, card: str, page: str, output: Path, folder: Path) -> None:
    """Put card and page beside the weights, then the manifest: where that is, the training is done."""
    (folder / PAGE).write_text(page, encoding="utf-8")
    (folder / "README.md").write_text(hide_secrets(card))
    (output / "manifest.json").write_text(text_of(manifest, indent=2))


def summary(manifest: RunManifest) -> dict:
    """What of a manifest is printed."""
    counted = {name: value for name, value in manifest.summary.items() if name != "key"}
    finished_at = manifest.finished_at.isoformat() if manifest.finished_at else None
    return {"status": manifest.status} | counted | {"seconds": manifest.seconds, "finished_at": finished_at}


# --- before -------------------------------------------------------------------------------------------


def training_key(config: TrainConfig, hashes: dict[str, str]) -> str:
    """16 hex digits over everything that decides what is learned."""
    settings = config.model_dump(mode="json", exclude=PLACES | {"base", "base_revision"})
    settings.get("evolvable", {}).pop("start", None)
    content = json.dumps([settings, config.workers.num_workers, hashes], sort_keys=True)
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
    try:
        found = read_file(output / "manifest.json")
    except ValueError as error:
        raise JobError(str(error)) from None
    return summary(found) if found else None


# --- the training -------------------------------------------------------------------------------------


def train(config: TrainConfig, worker: Callable[[dict], None]) -> None:
    """Run the workers to their end; what failed in one of them is raised as JobError."""
    import os

    if config.cluster.local:
        raise UsageError("cluster.local=True: a training runs on workers of Ray; leave it out of [cluster]")
    connect(config.cluster)
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    pool, output = config.workers, Path(config.output)
    num_gpus = pool.num_gpus
    if num_gpus is None:
        num_gpus = 1.0 if num_gpus_within_reach() >= pool.num_workers else 0.0
    threads = pool.num_threads or int(os.environ.get("OMP_NUM_THREADS", 0)) or num_cores()
    bookkeeping = output / "ray_train"
    trainer = TorchTrainer(
        worker,
        train_loop_config={
            "task": config.task,
            "data": config.data,
            "output": config.output,
            "base": config.base,
            "base_revision": config.base_revision,
            "lora": config.lora.model_dump(),
            "recipe": config.recipe.model_dump(),
        }
        | ({"evolvable": config.evolvable.model_dump()} if isinstance(config, EvolvableTraining) else {}),
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
def progress(path: Path, every_s: float = 5.0) -> Iterator[None]:
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


def training_page(manifest: dict, lines: Curves, scores: list[dict], metrics: list[dict]) -> str:
    """The page that the card leads to: losses, measures and learning rate over steps. It tells no time: it
    lies in the adapter's folder, and what lies there decides which adapter it is."""
    from cluster.report.pages import Measured, of_measures
    from cluster.report.svg import curves

    charts = []
    for number, (title, of_chart) in enumerate(lines, 1):
        points = {
            label: [(entry["step"], entry[key]) for entry in metrics if key in entry]
            for key, label in of_chart
        }
        charts.append(curves(f"curve-{number}", title, points, of="Step"))
    facts = (
        ("Task", manifest["task"]),
        ("Base", hide_secrets(f"{manifest['config']['base']} ({manifest['base_hash']})")),
        ("Data", f"{manifest['num_examples']} examples, {manifest['num_validation']} for validation"),
        (
            "Steps",
            f"{manifest['num_steps']}; what it had learned after step {manifest['best_step']} was kept",
        ),
    )
    page = Measured("How the training went", tuple(charts), "On validation", tuple(scores), facts)
    return of_measures(page, None)


HELP = {
    "encoder": "an adapter that turns segments into records",
    "decider": "an adapter that decides what becomes of older memories",
    "fact_qa": "an adapter that knows a store's memories by heart",
    "evolvable": "an embedder that reads a user's turns in order",
}

COMMANDS = commands_of("jobs.train", "Train", __doc__, HELP, TASKS, run)


if __name__ == "__main__":
    COMMANDS.main()
