"""The pair model: a learned decider that needs no language model and no GPU.

It reads the target with each source and says how likely the newer one replaces it (delete), makes it more
exact (update) or repeats it (unite). Only what is more likely than a threshold of the model is done; the
thresholds were chosen so that almost everything that should stay does. What the rules are sure of is done
whatever the model says. A statement about one person never closes one about another, and guards refuse what
only resembles an end (see cluster.consolidate.pair_guards).
"""

import functools
import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict, Field

from cluster import profiles
from cluster.consolidate.fold import Memory, Question, Source, Verdict
from cluster.consolidate.pair_features import features, is_contained, may_replace, whose
from cluster.consolidate.pair_guards import refusal
from cluster.consolidate.rules import Rules
from cluster.models.fingerprint import source_fingerprint

if TYPE_CHECKING:
    import numpy as np

Texts = tuple[str, str]
"""An older and a newer memory."""

LABELS = ("keep", "delete", "update", "unite")
SETTINGS_FILE, WEIGHTS_FILE = "pairs.json", "weights.safetensors"
SHIPPED = profiles.SHIPPED / "deciders" / "pairs"
"""The model that comes with this package, wherever a worker has that."""

NUM_BUCKETS = 1 << 15
"""Features are counted by a hash of their names: rows of the weights."""


class PairSettings(BaseModel):
    """From when on the model is believed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    min_delete: float = Field(ge=0, le=1)
    """Least probability of a delete that is made."""
    min_unite: float = Field(ge=0, le=1)
    """Least probability of a unite or an update that is made."""


def buckets(older: str, newer: str) -> "np.ndarray":
    """int64, sorted: rows of the weights that hold for a pair."""
    import numpy as np

    ids = {zlib.crc32(name.encode()) % NUM_BUCKETS for name in features(older, newer)}
    return np.array(sorted(ids), np.int64)


class PairModel:
    """Weights of a softmax over LABELS. A pair's features have unit norm together, times SCALE."""

    SCALE = 3.0

    def __init__(self, weights: "np.ndarray", bias: "np.ndarray", settings: PairSettings):
        """`weights` float32 [NUM_BUCKETS, len(LABELS)], `bias` float32 [len(LABELS)]."""
        self.weights, self.bias, self.settings = weights, bias, settings

    @classmethod
    def load(cls, folder: Path = SHIPPED) -> "PairModel":
        """The model that `save` left in a folder."""
        from safetensors.numpy import load_file

        parts = load_file(folder / WEIGHTS_FILE)
        settings = PairSettings.model_validate_json((folder / SETTINGS_FILE).read_text())
        return cls(parts["weights"].astype("float32"), parts["bias"].astype("float32"), settings)

    def save(self, folder: Path) -> None:
        """Weights in half precision, and settings."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        parts = {"weights": self.weights.astype("float16"), "bias": self.bias.astype("float16")}
        save_file(parts, folder / WEIGHTS_FILE)
        (folder / SETTINGS_FILE).write_text(json.dumps(self.settings.model_dump(), indent=2) + "\n")

    def probabilities(self, older: str, newer: str) -> dict[str, float]:
        """Label -> probability."""
        import numpy as np

        rows = buckets(older, newer)
        logits = self.bias + self.weights[rows].sum(axis=0) * (self.SCALE / max(1, len(rows)) ** 0.5)
        shares = np.exp(logits - logits.max())
        return dict(zip(LABELS, (shares / shares.sum()).tolist(), strict=True))

    def scores(self, pairs: list[Texts]) -> list[dict[str, float]]:
        """Of each pair, probabilities that the older one is deleted and that it is united with the newer."""
        return [by_fate(self.probabilities(*pair)) for pair in pairs]


def by_fate(found: dict[str, float]) -> dict[str, float]:
    """Probabilities of labels -> of what is done: an update is done as a unite."""
    return {"delete": found["delete"], "unite": found["unite"] + found["update"]}


class PairScorer(Protocol):
    """What says how likely the newer of two memories ends the older one."""

    @property
    def settings(self) -> PairSettings:
        """From when on it is believed."""

    def scores(self, pairs: list[Texts]) -> list[dict[str, float]]:
        """Of each pair, probabilities that the older one is deleted and that it is united with the newer."""


def allowed(older: str, newer: str) -> tuple[str, ...]:
    """What may become of the older one at all besides being kept, whatever a model says."""
    if whose(older, newer) == "other":
        return ()
    guards = {"delete": may_replace, "unite": is_contained}
    return tuple(fate for fate, guard in guards.items() if guard(older, newer))


def labels(model: PairScorer, pairs: list[Texts]) -> list[str]:
    """keep | delete | unite of each pair: what is not surely something else is kept. Only pairs of which
    something may become are asked about."""
    may = [allowed(*pair) for pair in pairs]
    asked = [pair for pair, fates in zip(pairs, may, strict=True) if fates]
    found = iter(model.scores(asked) if asked else [])
    return [surest(fates, next(found), model.settings) if fates else "keep" for fates in may]


def surest(fates: tuple[str, ...], scores: dict[str, float], settings: PairSettings) -> str:
    """The first of the allowed fates that is likely enough; else keep."""
    least = {"delete": settings.min_delete, "unite": settings.min_unite}
    return next((fate for fate in fates if scores[fate] >= least[fate]), "keep")


class PairDecider:
    """Decides by the rules where these are sure, else by a model of pairs, source by source, newest first."""

    load_s = 0.0
    num_calls = 0

    def __init__(self, model: PairScorer | None = None):
        self._model, self._rules = model or PairModel.load(), Rules()

    def decide(self, questions: list[Question]) -> list[Verdict]:
        verdicts = [self._rules.judge(question) for question in questions]
        asked = [
            (number, source.memory)
            for number, (question, verdict) in enumerate(zip(questions, verdicts, strict=True))
            if verdict.action == "ignore"
            for source in reversed(question.sources)
            if _share_tags(question, source)
        ]
        texts = [(questions[number].target.text, newer.text) for number, newer in asked]
        for (number, newer), label in zip(asked, labels(self._model, texts), strict=True):
            given = verdicts[number]
            if label == "keep" or (given.action != "ignore" and given.outcome == "applied"):
                continue
            verdict = _verdict(label, newer)
            if reason := refusal(questions[number].target, newer, label):
                # Of several refusals that of the newest memory is told.
                verdict = given if given.outcome == "refused" else _refused(verdict, reason)
            verdicts[number] = verdict
        return verdicts


def _share_tags(question: Question, source: Source) -> bool:
    tags, others = set(question.target.tags), set(source.memory.tags)
    return not tags or not others or bool(tags & others)


def _verdict(label: str, newer: Memory) -> Verdict:
    if label == "delete":
        return Verdict("delete", reason=f"replaced by {newer.record_id}")
    return Verdict("update", text=newer.text, reason=f"restated by {newer.record_id}")


def _refused(verdict: Verdict, reason: str) -> Verdict:
    return replace(verdict, outcome="refused", reason=reason)


@functools.cache
def pairs_fingerprint(folder: Path = SHIPPED) -> str:
    """16 hex digits over the code that decides and the weights that it decides by."""
    files = (folder / SETTINGS_FILE, folder / WEIGHTS_FILE)
    return decider_fingerprint(source_fingerprint("cluster.consolidate.pairs"), files)


def decider_fingerprint(source: str, files: Iterable[Path], *others: str) -> str:
    """16 hex digits over the code that decides, these files, and what else decides."""
    digest = hashlib.sha256(source.encode())
    for file in files:
        digest.update(file.read_bytes())
    digest.update("".join(others).encode())
    return digest.hexdigest()[:16]
