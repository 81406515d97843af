"""What a training of evolvable makes: an evolvable model. The module `adapter` has the same names."""

from collections.abc import Callable
from pathlib import Path

from cluster.train.settings import EvolvableSettings, TrainingError
from jobs.common.cli import UsageError
from jobs.common.markdown import render
from jobs.common.run import absolute
from jobs.train.cards import PAGE, Curves, front_matter
from jobs.train.config import EvolvableTraining, TrainConfig
from schemas.evolvable import EvolvableShape
from schemas.training import hash_rows

NAME = "model"

MEASURES = {"recall_at_10": "recall@10", "recall_at_5": "recall@5", "mrr": "MRR"}

CURVES: Curves = (
    ("contrastive loss", (("contrastive_loss", "training"), ("eval_contrastive_loss", "validation"))),
    ("language-model loss", (("lm_loss", "training"), ("eval_lm_loss", "validation"))),
    ("recall@10", (("recall_at_10", "training"), ("eval_recall_at_10", "validation"))),
    ("learning rate", (("learning_rate", "learning rate"),)),
)
"""As in the module `adapter`."""


def worker() -> Callable[[dict], None]:
    """What each worker runs."""
    from cluster.train.evolvable import train_worker

    return train_worker


def settle(config: TrainConfig) -> TrainConfig:
    """The settings, with base, adapters and memory of the model that the training goes on with. What of its
    memory the settings name is changed, but for the shapes of its weights."""
    assert isinstance(config, EvolvableTraining)
    if not (start := config.evolvable.start):
        return config
    from cluster.evolvable.checkpoint import read_config
    from cluster.models.sources import model_folder

    model = read_config(model_folder(start, None))
    if Path(start).is_dir():
        start = absolute(start)
    given = config.evolvable.model_fields_set
    for name in {"num_latents", "num_words", "embedding_dim"} & given:
        if getattr(config.evolvable, name) != (has := getattr(model, name)):
            raise UsageError(
                f"evolvable.{name}={getattr(config.evolvable, name)}: the model that the training goes on "
                f"with has {has}; leave it out"
            )
    shape = {name: getattr(model, name) for name in EvolvableShape.model_fields if name not in given}
    lora = {"rank": model.lora_r, "alpha": model.lora_alpha, "target_modules": model.lora_targets}
    return config.model_copy(
        update={
            "base": model.base,
            "base_revision": model.base_revision,
            "lora": config.lora.model_copy(update=lora),
            "evolvable": config.evolvable.model_copy(update=shape | {"start": start}),
        }
    )


def hash_data(config: TrainConfig) -> str:
    """Hash over the rows of the set, after a look at settings and samples."""
    from cluster.train.evolvable_samples import histories_of, read_rows

    if config.lora.first_layer or config.lora.quantize != "none":
        raise UsageError(
            "task 'evolvable' adapts all blocks of a base that is not quantized: set lora.first_layer=0 and "
            'lora.quantize="none", or take --config jobs/configs/train/evolvable.toml'
        )
    parts = []
    for part in ("train", "validation"):
        try:
            parts.append(list(read_rows(Path(config.data), part)))
            histories, left_out = histories_of(parts[-1], part)
        except TrainingError as error:
            raise UsageError(f"data={config.data}: {error}") from None
        if not histories:
            raise UsageError(f"data={config.data}: {part} holds no sample with evidence ({dict(left_out)})")
    return hash_rows(parts)


def complete(config: TrainConfig, base: Path, folder: Path) -> None:
    """Nothing: the model names its base, and has no prompt."""


def measured(metrics: list[dict], result: dict) -> dict:
    """Of metrics.jsonl: the evaluation before the first step and the last one."""
    evaluations = [entry for entry in metrics if "eval_loss" in entry]
    names = ("loss", "lm_loss", "contrastive_loss", *MEASURES)

    def values(entry: dict) -> dict:
        return {name: round(entry[f"eval_{name}"], 4) for name in names}

    found = {"at_start": values(evaluations[0]), "trained": values(evaluations[-1])}
    if evaluations[1]["step"] == 0:
        # Measured again before the first step, with a fitted projection.
        found["whitened"] = values(evaluations[1])
    return found


def scores(manifest: dict) -> list[dict]:
    """What was measured on validation, as rows of a table."""
    evaluations = {
        "at the start": manifest["at_start"],
        "whitened": manifest.get("whitened"),
        "trained": manifest["trained"],
        "trained, read with an empty queue": manifest["without_queue"],
        f"{manifest['config']['evolvable']['baseline']}, static": manifest.get("baseline"),
    }
    return [
        {"": name} | {shown: values[measure] for measure, shown in MEASURES.items()}
        for name, values in evaluations.items()
        if values
    ]


def card(manifest: dict) -> str:
    """The model's README, with the front matter that model hubs read."""
    config = manifest["config"]
    settings = EvolvableSettings(**config["evolvable"])
    start = f"last projection fitted to {settings.whiten} conversations" if settings.whiten else "identity"
    if settings.start:
        start = f"{Path(settings.start).name} ({manifest['start_hash']})"
    return render(
        "train/evolvable.md.j2",
        **manifest,
        front_matter=front_matter(config, tags=["embeddings", "evolvable", "slowwave"]),
        settings=settings,
        start=start,
        evaluations=scores(manifest),
        page=PAGE,
    )
