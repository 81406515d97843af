"""Train the pair model: labelled pairs of memories become the decider `pairs` (cluster.consolidate.pairs).

    python -m jobs.train.pairs --output DIR       # a minute on one core; the shipped one was made so

Learned from the people of the written corpus's part `train` (their labelled pairs; what their memories
supersede or repeat; and, as keeps, their memories that resemble each other and replace nothing) and from the
pairs in its folder `pairs`. Thresholds are chosen on the pairs of its part `tune`, nothing is learned of
these. Leaves weights, settings and a card in the output folder. The same data give the same weights.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from jobs.common.cli import JobConfig, UsageError, main, say
from jobs.common.markdown import render

CORPUS = Path(__file__).parents[1] / "sample" / "corpus"

OTHERS = ("sister", "friend Tom", "colleague", "neighbour Ayse", "son", "mother")
"""Of whom the same is said, so that it is learned that it then replaces nothing."""


class PairsConfig(JobConfig):
    """Settings of a training of the pair model."""

    output: str
    """Folder for weights, settings and card."""
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


@dataclass(frozen=True)
class Example:
    """A labelled pair."""

    older: str
    newer: str
    label: str


def run(config: PairsConfig) -> dict:
    """Train, choose thresholds, write the model, return the summary."""
    from cluster.consolidate.pairs import PairModel, PairSettings

    started_s = time.monotonic()
    corpus = Path(config.corpus)
    train, tune = training_examples(corpus, config), labelled(corpus / "people" / "tune")
    if not train or not any(one.label == "keep" for one in tune):
        raise UsageError(f"--corpus {config.corpus}: needs pairs in pairs, people/train and people/tune")
    say(f"[pairs] {len(train)} pairs to learn from, {len(tune)} to choose thresholds on")
    weights, bias = fit(train, config.strength)
    model = PairModel(weights, bias, PairSettings(min_delete=0, min_unite=0))
    alike = resembling(corpus / "people" / "tune", config.num_keeps)
    model.settings = choose_thresholds(model, tune, alike, config)
    model.save(Path(config.output))
    # As it will be loaded, in half precision.
    model = PairModel.load(Path(config.output))
    summary = {
        "status": "done",
        "output": config.output,
        "num_train": dict(Counter(one.label for one in train)),
        "tune": measure(model, tune),
        **model.settings.model_dump(),
        "seconds": round(time.monotonic() - started_s, 1),
    }
    (Path(config.output) / "README.md").write_text(card(summary))
    return summary


# --- data ---------------------------------------------------------------------------------------------


def training_examples(corpus: Path, config: PairsConfig) -> list[Example]:
    """Each pair of texts once, the surest label first."""
    written = [*labelled(corpus / "pairs"), *labelled(corpus / "people" / "train")]
    told = [one for memories in _people(corpus / "people" / "train") for one in _told(memories)]
    keeps = resembling(corpus / "people" / "train", config.num_keeps)
    others = _of_others([*written, *told], config)
    found: dict[tuple[str, str], Example] = {}
    for one in (*written, *told, *keeps, *others):
        found.setdefault((one.older, one.newer), one)
    return list(found.values())


def labelled(folder: Path) -> list[Example]:
    """The labelled pairs of a folder: lines of the kind `pair`, or lines of a file of nothing else."""
    return [
        Example(line["older"], line["newer"], line["label"])
        for path in sorted(folder.glob("*.jsonl"))
        for line in _lines(path)
        if line.get("kind", "pair") == "pair"
    ]


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _people(folder: Path) -> Iterator[list[dict]]:
    """The memories of each person of a folder, oldest first."""
    for path in sorted(folder.glob("*.jsonl")):
        memories = [
            memory | {"time": line["time"]}
            for line in _lines(path)
            if line["kind"] == "session"
            for memory in line["memories"]
        ]
        yield sorted(memories, key=lambda memory: memory["time"])


def _ended_by(memories: list[dict]) -> dict[str, dict[str, str]]:
    """Memory id -> ids of those that supersede or repeat it -> label."""
    found: dict[str, dict[str, str]] = {memory["id"]: {} for memory in memories}
    for memory in memories:
        for older in memory.get("supersedes", []):
            found.get(older, {})[memory["id"]] = memory.get("how", "delete")
        if memory.get("same_as") in found:
            found[memory["same_as"]][memory["id"]] = "unite"
    return found


def _told(memories: list[dict]) -> Iterator[Example]:
    text = {memory["id"]: memory["text"] for memory in memories}
    for older, by in _ended_by(memories).items():
        for newer, label in by.items():
            yield Example(text[older], text[newer], label)


def resembling(folder: Path, num_keeps: int) -> list[Example]:
    """Memories of one person that resemble each other, where the later one ends nothing that is written."""
    return [one for memories in _people(folder) for one in _resembling(memories, num_keeps)]


def _resembling(memories: list[dict], num_keeps: int) -> Iterator[Example]:
    from cluster.consolidate.pair_features import likeness

    ended_by = _ended_by(memories)
    for number, older in enumerate(memories):
        ends, open_ones = set(), [older["id"]]
        while open_ones:
            new = ended_by.get(open_ones.pop(), {}).keys() - ends
            ends |= new
            open_ones += new
        later = [
            (likeness(older["text"], newer["text"]), place)
            for place, newer in enumerate(memories[number + 1 :], number + 1)
            if newer["time"] > older["time"] and newer["id"] not in ends
        ]
        for score, place in sorted(later, reverse=True)[:num_keeps]:
            if score > 0:
                yield Example(older["text"], memories[place]["text"], "keep")


def _of_others(examples: Iterable[Example], config: PairsConfig) -> Iterator[Example]:
    rng = random.Random(config.seed)
    for one in examples:
        if one.label not in ("delete", "unite") or not one.newer.startswith("User "):
            continue
        if one.older.startswith("User") and rng.random() < config.other_share:
            newer = f"User's {rng.choice(OTHERS)}{one.newer.removeprefix('User')}"
            yield Example(one.older, newer, "keep")


# --- learning -----------------------------------------------------------------------------------------


def fit(examples: list[Example], strength: float):
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


def choose_thresholds(model, tune: list[Example], alike: list[Example], config: PairsConfig):
    """The least thresholds, not below those of the config, at which no labelled keep of `tune` is touched,
    and at most `max_wrong` of `alike`, pairs that look like keeps and that nobody has labelled."""
    from cluster.consolidate.pairs import PairSettings

    def wrong(score: str) -> float:
        anything = PairSettings(min_delete=float(score != "delete"), min_unite=float(score != "unite"))
        model.settings = anything
        labelled_keeps, others = (
            sorted(
                (
                    model.probabilities(one.older, one.newer)
                    for one in examples
                    if one.label == "keep" and model.label(one.older, one.newer) == score
                ),
                key=lambda found: -score_of(found, score),
            )
            for examples in (tune, alike)
        )
        others = others[int(config.max_wrong * len(alike)) :]
        return max((score_of(found, score) for found in [*labelled_keeps[:1], *others[:1]]), default=0)

    least = {"delete": config.least_delete, "unite": config.least_unite}
    limits = {
        f"min_{score}": round(min(1.0, max(floor, wrong(score) + 0.01)), 3) for score, floor in least.items()
    }
    return PairSettings(**limits)


def score_of(found: dict[str, float], score: str) -> float:
    """What a threshold is held against."""
    return found["delete"] if score == "delete" else found["unite"] + found["update"]


def measure(model, examples: list[Example]) -> dict[str, str]:
    """Label -> how many of how many are decided so; an update is done as a unite."""
    right: Counter = Counter()
    for one in examples:
        made = model.label(one.older, one.newer)
        right[one.label] += made == ("unite" if one.label == "update" else one.label)
    total = Counter(one.label for one in examples)
    return {label: f"{right[label]} of {num}" for label, num in sorted(total.items())}


def card(summary: dict) -> str:
    """README.md of the folder, as the training can write it; measurements elsewhere are added by hand."""
    return render("train/pairs.md.j2", **summary)


if __name__ == "__main__":
    main(PairsConfig, run, __doc__)
