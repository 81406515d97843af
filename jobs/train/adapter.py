"""What a training of encoder, decider or fact_qa makes: a LoRA adapter.

The module `evolvable` has the same names; `jobs.train` needs no more of a task.
"""

import json
from collections.abc import Callable
from pathlib import Path

from jobs.common.cli import UsageError
from jobs.common.markdown import render
from jobs.train.cards import PAGE, Curves, front_matter
from jobs.train.config import TrainConfig
from schemas.training import PROFILE_FILE

NAME = "adapter"
"""Of the folder in the output, and of its key in the summary."""

CURVES: Curves = (
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


def worker() -> Callable[[dict], None]:
    """What each worker runs. The first leaves the folder and `result.json` in the output."""
    from cluster.train.trainer import train_adapter

    return train_adapter


def settle(config: TrainConfig) -> TrainConfig:
    """The settings as they are. A training of evolvable may go on with a model that brings its own."""
    return config


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


def complete(config: TrainConfig, base: Path, folder: Path) -> None:
    """Check that the adapter fits its base, and put the learned profile beside it. ModelError when not."""
    from cluster.models.sources import check_adapter

    check_adapter(base, folder)
    write_profile(config, folder)


def write_profile(config: TrainConfig, adapter: Path) -> None:
    """Beside the adapter, the profile whose prompts were learned, for the base that learned them."""
    given = Path(config.data) / PROFILE_FILE
    if given.is_file():
        profile = json.loads(given.read_text()) | {"base": config.base, "base_revision": config.base_revision}
        (adapter / PROFILE_FILE).write_text(json.dumps(profile, indent=1, ensure_ascii=False))


def measured(metrics: list[dict], result: dict) -> dict[str, float]:
    """Of metrics.jsonl: the evaluation of the step whose weights were kept."""
    evaluations = [entry for entry in metrics if "eval_loss" in entry]
    of_best = [entry for entry in evaluations if entry["step"] == result["best_step"]]
    names = ("loss", "mean_token_accuracy", "complete_answers", "valid_answers", "exact_answers")
    found = (of_best or evaluations or [{}])[-1]
    return {
        f"validation_{name}": round(found[f"eval_{name}"], 4) for name in names if f"eval_{name}" in found
    }


def scores(manifest: dict) -> list[dict]:
    """What was measured on validation, as rows of a table."""
    return [
        {"measure": name.removeprefix("validation_").replace("_", " "), "value": value}
        for name, value in manifest.items()
        if name.startswith("validation_")
    ]


def card(manifest: dict) -> str:
    """The adapter's README, with the front matter that model hubs read."""
    config, task = manifest["config"], manifest["task"]
    return render(
        "train/adapter.md.j2",
        **manifest,
        front_matter=front_matter(
            config, library_name="peft", tags=["lora", "slowwave", task], pipeline_tag="text-generation"
        ),
        scores=scores(manifest),
        page=PAGE,
        num_answers=min(config["recipe"]["num_answers"], manifest["num_validation"]),
    )
