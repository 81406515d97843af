"""From which score on a pair model is believed, and how often it is right then."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.train.pair_examples import Example

if TYPE_CHECKING:
    from cluster.consolidate.pairs import PairScorer, PairSettings


@dataclass(frozen=True)
class Scored:
    """An example and what a model says of it."""

    example: Example
    allowed: tuple[str, ...]
    """What the guards let become of the older one."""
    scores: dict[str, float]

    def label(self, settings: "PairSettings") -> str:
        """What these settings make of it."""
        from cluster.consolidate.pairs import surest

        return surest(self.allowed, self.scores, settings)


@dataclass(frozen=True)
class Limits:
    """What thresholds have to keep to."""

    max_wrong: float
    """Share of the unlabelled keeps that each threshold may touch."""
    delete: tuple[float, float]
    """The least threshold, and the share of the labelled keeps that it leaves alone."""
    unite: tuple[float, float]
    """The same of unites."""


def scored(model: "PairScorer", examples: list[Example]) -> list[Scored]:
    """Examples with the scores of a model."""
    return with_scores(examples, model.scores([(one.older, one.newer) for one in examples]))


def with_scores(examples: list[Example], scores: list[dict[str, float]]) -> list[Scored]:
    """Examples with scores that they were given."""
    from cluster.consolidate.pairs import allowed

    return [
        Scored(one, allowed(one.older, one.newer), found) for one, found in zip(examples, scores, strict=True)
    ]


def choose_thresholds(tune: list[Scored], alike: list[Scored], limits: Limits) -> dict[str, float]:
    """`min_delete` and `min_unite`: the least thresholds that keep to the limits, a little above the keeps
    that they must leave alone. `alike` are pairs that look like keeps and that nobody has labelled."""

    def keeps(examples: list[Scored], fate: str, num_spared: int) -> list[float]:
        found = [one.scores[fate] for one in examples if one.example.label == "keep" and fate in one.allowed]
        return sorted(found, reverse=True)[num_spared:]

    chosen = {}
    num_keeps = sum(one.example.label == "keep" for one in tune)
    for fate in ("delete", "unite"):
        least, min_kept = getattr(limits, fate)
        # The tolerance is for 1 - 0.98.
        labelled_keeps = keeps(tune, fate, int((1 - min_kept) * num_keeps + 1e-9))
        others = keeps(alike, fate, int(limits.max_wrong * len(alike)))
        wrong = max([*labelled_keeps[:1], *others[:1]], default=0.0)
        chosen[f"min_{fate}"] = round(max(least, wrong + min(0.01, (1 - wrong) / 4)), 3)
    return chosen


def measure(examples: list[Scored], settings: "PairSettings") -> dict[str, str]:
    """Label -> how many of how many are decided so; an update is done as a unite."""
    right: Counter = Counter()
    for one in examples:
        wanted = one.example.label
        right[wanted] += one.label(settings) == ("unite" if wanted == "update" else wanted)
    total = Counter(one.example.label for one in examples)
    return {label: f"{right[label]} of {num}" for label, num in sorted(total.items())}


def log_loss(examples: list[Scored]) -> float:
    """Mean of -ln of the probability given to what is right: a delete, or none."""
    given = [
        one.scores["delete"] if one.example.label == "delete" else 1 - one.scores["delete"]
        for one in examples
    ]
    return sum(-math.log(max(one, 1e-4)) for one in given) / len(given)
