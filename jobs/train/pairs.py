"""Train on pairs of memories: the model of the decider `pairs` or `crosspairs`.

    python -m jobs.train.pairs --output DIR                         # `pairs`: a minute on one core
    python -m jobs.train.pairs --output DIR --decider crosspairs    # `crosspairs`: several minutes an epoch

Learned from the people of the written corpus's part `train` (their labelled pairs; what their memories
supersede or repeat; and, as keeps, their memories that resemble each other and replace nothing) and from the
pairs in its folder `pairs`. Thresholds are chosen on the pairs of its part `tune`, nothing is learned of
these. Leaves weights, settings and a card in the output folder. The same data give the same weights.

`pairs` is a softmax over features of the wording (cluster.consolidate.pairs). `crosspairs` is a LoRA adapter
that makes the default embedder's model a cross-encoder, mixed with the shipped `pairs`
(cluster.consolidate.crosspairs). Its best epoch so far is always in the output folder, each one in its folder
`epochs`, with what every tune pair was given. Run the same command again after a crash: it goes on behind the
last whole epoch. With other limits of thresholds it chooses these anew.
"""

import hashlib
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cluster.train.settings import CrossRecipe
from jobs.common.cli import JobConfig, JobError, LocalFolder, UsageError, main, say
from jobs.common.markdown import render
from jobs.train.corpus import CORPUS, read_lines
from jobs.train.pair_examples import Data, Example, labelled, resembling, training_examples
from jobs.train.pair_thresholds import Limits, choose_thresholds, log_loss, measure, scored, with_scores

if TYPE_CHECKING:
    import numpy as np

    from cluster.consolidate.crosspairs import PairReader
    from cluster.consolidate.pairs import PairModel


class CrossTraining(CrossRecipe):
    """The cross-encoder of `crosspairs`: how it learns, and when its mix with the pair model is believed."""

    early_stopping: int | None = Field(2, ge=1)
    """Stop after so many epochs in a row that are no better on the people of `tune`."""
    unlabelled_weight: float = Field(0.5, gt=0, le=1)
    """A keep that nobody labelled counts so much: a few of them may be wrong."""
    wording_weight: float = Field(0.3, ge=0)
    """The pair model's log-odds count so much, beside 1 for those of the cross-encoder."""
    min_kept: float = Field(0.98, gt=0, le=1)
    """Share of the labelled keeps of the tune part that the threshold of deletes leaves alone."""
    max_wrong: float = Field(0.01, ge=0, le=1)
    """Share of the unlabelled keeps of the tune part that each threshold may touch."""
    least_delete: float = Field(0.5, ge=0, le=1)
    """No threshold of deletes is lower."""
    least_unite: float = Field(0.8, ge=0, le=1)
    """No threshold of unites is lower."""


class PairsConfig(JobConfig):
    """Settings of a training on pairs."""

    output: LocalFolder
    """Folder for weights, settings and card."""
    decider: Literal["pairs", "crosspairs"] = "pairs"
    """Whose model is trained."""
    corpus: str = str(CORPUS)
    """Folder with people/train, people/tune and pairs."""
    num_keeps: int = Field(5, ge=0)
    """For each memory so many later ones of the same person that resemble it most, as keeps."""
    other_share: float = Field(0.45, ge=0, le=1)
    """Share of deletes and unites of which a keep is made by naming somebody else."""
    strength: float = Field(4.0, gt=0)
    """Inverse of the regularisation."""
    max_wrong: float = Field(0.01, ge=0, le=1)
    """Share of the unlabelled keeps of the tune part, memories of one person that resemble each other, which
    each threshold may touch; of its labelled keeps none."""
    least_delete: float = Field(0.7, ge=0, le=1)
    """No threshold of deletes is lower. Trained on three quarters of the labelled pairs and asked about the
    last one, in turn, the model deletes about one keep in a hundred at this."""
    least_unite: float = Field(0.8, ge=0, le=1)
    """No threshold of unites is lower."""
    seed: int = 0
    """Of what is drawn, and of new weights."""
    cross: CrossTraining = CrossTraining()


def run(config: PairsConfig) -> dict:
    """Train, choose thresholds, write the model, return the summary."""
    started_s = time.monotonic()
    data = read(config)
    say(f"[{config.decider}] {len(data.train)} pairs to learn from, {len(data.tune)} to choose thresholds on")
    summary = (train_wording if config.decider == "pairs" else train_cross)(config, data)
    summary = {"status": "done", "output": config.output, "num_train": data.num_train, **summary}
    (Path(config.output) / "README.md").write_text(card(config.decider, summary))
    return summary | {"seconds": round(time.monotonic() - started_s, 1)}


def read(config: PairsConfig) -> Data:
    """The pairs of the corpus."""
    corpus = Path(config.corpus)
    train = training_examples(
        corpus, num_keeps=config.num_keeps, other_share=config.other_share, seed=config.seed
    )
    tune = labelled(corpus / "people" / "tune")
    if not train or not any(one.label == "keep" for one in tune):
        raise UsageError(f"--corpus {config.corpus}: needs pairs in pairs, people/train and people/tune")
    return Data(train, tune, resembling(corpus / "people" / "tune", config.num_keeps))


def train_wording(config: PairsConfig, data: Data) -> dict:
    """The model of `pairs`, saved; its part of the summary."""
    from cluster.consolidate.pairs import PairModel, PairSettings

    weights, bias = fit(data.train, config.strength)
    model = PairModel(weights, bias, PairSettings(min_delete=1, min_unite=1))
    limits = Limits(config.max_wrong, (config.least_delete, 1.0), (config.least_unite, 1.0))
    chosen = choose_thresholds(scored(model, data.tune), scored(model, data.alike), limits)
    model.settings = PairSettings(**chosen)
    model.save(Path(config.output))
    # As it will be loaded, in half precision.
    model = PairModel.load(Path(config.output))
    return {"tune": measure(scored(model, data.tune), model.settings), **chosen}


def train_cross(config: PairsConfig, data: Data) -> dict:
    """The model of `crosspairs`, saved, the best epoch; its part of the summary."""
    from transformers import AutoTokenizer

    from cluster.consolidate.crosspairs import PairReader, token_ids
    from cluster.consolidate.pairs import LABELS, PairModel
    from cluster.models.cross_encoder import BASE
    from cluster.models.sources import ModelError, model_folder, source_hash
    from cluster.train.cross_encoder import Learned, save_parts, train_cross_encoder

    output, cross = Path(config.output), config.cross
    epochs = output / "epochs"
    try:
        base, base_hash = model_folder(BASE, None), source_hash(BASE, None)
    except ModelError as error:
        raise JobError(str(error)) from error
    recipe = CrossRecipe(**cross.model_dump(include=set(CrossRecipe.model_fields)))
    settings = recipe.model_dump() | {"unlabelled_weight": cross.unlabelled_weight}
    claim(epochs, json.dumps([base_hash, config.seed, settings, asdict(data)]))
    tokenizer = AutoTokenizer.from_pretrained(base)
    learned = [
        Learned(
            token_ids(tokenizer, one.older, one.newer),
            LABELS.index(one.label),
            1.0 if one.is_sure else cross.unlabelled_weight,
        )
        for one in data.train
    ]
    worded = scores_of(PairModel.load(), data)
    # Chosen anew, so that limits can be changed afterwards.
    results = {
        int(path.parent.name): choose(path.parent, worded, data, cross) for path in epochs.glob(f"*/{SCORES}")
    }
    training = train_cross_encoder(
        base, learned, len(LABELS), recipe, seed=config.seed, checkpoint=epochs / "checkpoint.pt"
    )
    while not is_over(results, cross) and (epoch := next(training, None)):
        save_parts(epoch.parts, folder := epochs / str(epoch.number))
        write_scores(folder, scores_of(PairReader.load(folder, base), data), worded, data)
        results[epoch.number] = choose(folder, worded, data, cross)
        say(f"[crosspairs] epoch {epoch.number}: loss {epoch.loss:.3f}; {json.dumps(results[epoch.number])}")
        ship(epochs, best_of(results), output)
    ship(epochs, best := best_of(results), output)
    return {"epoch": best, "num_epochs": len(results), **results[best]}


SCORES = "scores.jsonl"
"""In the folder of an epoch: what each tune pair was given. Its last file."""

Scores = list[dict[str, float]]
"""Of the pairs of Data.tune and Data.alike, one after the other."""


def claim(epochs: Path, told: str) -> None:
    """Say whose epochs these are. UsageError where they are of a training with other pairs or settings."""
    key = hashlib.sha256(told.encode()).hexdigest()
    epochs.mkdir(parents=True, exist_ok=True)
    if (file := epochs / "key").is_file() and file.read_text() != key:
        raise UsageError(
            f"--output {epochs.parent}: its folder {epochs.name} is of a training with other pairs or "
            "settings; remove that, or name another output"
        )
    file.write_text(key)


def scores_of(model: "PairModel | PairReader", data: Data) -> Scores:
    """Of all tune pairs."""
    return model.scores([(one.older, one.newer) for one in (*data.tune, *data.alike)])


def write_scores(folder: Path, read: Scores, worded: Scores, data: Data) -> None:
    """One line a tune pair, complete or not there."""
    rows = zip((*data.tune, *data.alike), read, worded, strict=True)
    lines = [asdict(one) | {"read": by_reader, "worded": by_words} for one, by_reader, by_words in rows]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (unfinished := folder / f"_{SCORES}").write_text(text, encoding="utf-8")
    unfinished.rename(folder / SCORES)


def choose(folder: Path, worded: Scores, data: Data, cross: CrossTraining) -> dict:
    """Choose thresholds for an epoch by its scores, and save them beside its weights.

    The result has the number of deletes that the mix makes, and that each model alone would under the same
    limits.
    """
    from cluster.consolidate.crosspairs import SETTINGS_FILE, CrossSettings, mixed

    limits = Limits(cross.max_wrong, (cross.least_delete, cross.min_kept), (cross.least_unite, 1.0))
    read = [line["read"] for line in read_lines(folder / SCORES)]
    mix = [mixed(*pair, cross.wording_weight) for pair in zip(read, worded, strict=True)]
    num_deletes = {}
    for name, scores in (("read", read), ("worded", worded), ("mixed", mix)):
        examples = with_scores([*data.tune, *data.alike], scores)
        tune, alike = examples[: len(data.tune)], examples[len(data.tune) :]
        chosen = choose_thresholds(tune, alike, limits)
        settings = CrossSettings(wording_weight=cross.wording_weight, **chosen)
        num_deletes[name] = sum(one.example.label == one.label(settings) == "delete" for one in tune)
    # Of the mix, which came last.
    (folder / SETTINGS_FILE).write_text(json.dumps(settings.model_dump(), indent=2) + "\n")
    return {
        "tune": measure(tune, settings),
        "tune_loss": round(log_loss(tune), 4),
        "num_deletes": num_deletes,
        "num_alike": len(alike),
        "num_alike_touched": sum(one.label(settings) != "keep" for one in alike),
        **chosen,
    }


def best_of(results: dict[int, dict]) -> int:
    """The epoch with most deletes made; of several, that which gives the labels most probability."""
    return max(
        results, key=lambda epoch: (results[epoch]["num_deletes"]["mixed"], -results[epoch]["tune_loss"])
    )


def is_over(results: dict[int, dict], recipe: CrossTraining) -> bool:
    """Whether all epochs are done, or too many since the best one."""
    if len(results) >= recipe.num_epochs or not results:
        return bool(results)
    return recipe.early_stopping is not None and max(results) - best_of(results) >= recipe.early_stopping


def ship(epochs: Path, epoch: int, output: Path) -> None:
    """Put weights and settings of an epoch where a decider looks for them."""
    from cluster.consolidate.crosspairs import SETTINGS_FILE
    from cluster.models.cross_encoder import WEIGHTS_FILE

    for name in (SETTINGS_FILE, WEIGHTS_FILE):
        shutil.copyfile(epochs / str(epoch) / name, output / name)


def fit(examples: list[Example], strength: float) -> "tuple[np.ndarray, np.ndarray]":
    """Weights [NUM_BUCKETS, num_labels] and bias [num_labels], float32."""
    import numpy as np
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    from cluster.consolidate.pairs import LABELS, NUM_BUCKETS, PairModel, buckets

    rows = [buckets(one.older, one.newer) for one in examples]
    ends = np.cumsum([0, *map(len, rows)])
    values = np.concatenate([np.full(len(row), PairModel.SCALE / max(1, len(row)) ** 0.5) for row in rows])
    table = csr_matrix((values, np.concatenate(rows), ends), (len(rows), NUM_BUCKETS))
    learner = LogisticRegression(C=strength, max_iter=300)
    learner.fit(table, [LABELS.index(one.label) for one in examples])
    weights = np.zeros((NUM_BUCKETS, len(LABELS)), np.float32)
    bias = np.full(len(LABELS), -20.0, np.float32)
    weights[:, learner.classes_] = learner.coef_.T
    bias[learner.classes_] = learner.intercept_
    return weights, bias


def card(decider: str, summary: dict) -> str:
    """README.md of the folder, as the training can write it; measurements elsewhere are added by hand."""
    return render(f"train/{decider}.md.j2", **summary)


if __name__ == "__main__":
    main(PairsConfig, run, __doc__)
