"""The pair model: a learned decider that needs no language model and no GPU.

It reads the target with each source and says how likely the newer one replaces it (delete), makes it more
exact (update) or repeats it (unite). Only what is more likely than a threshold of the model is done; the
thresholds were chosen so that almost everything that should stay does. What the rules are sure of is done
whatever the model says, and a statement about one person never closes one about another.
"""

import functools
import hashlib
import json
import zlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cluster import profiles
from cluster.consolidate.fold import Question, Source, Verdict
from cluster.consolidate.pair_features import features, is_contained, may_replace, whose
from cluster.consolidate.rules import Rules
from cluster.models.fingerprint import source_fingerprint

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


def buckets(older: str, newer: str):
    """int64, sorted: rows of the weights that hold for a pair."""
    import numpy as np

    ids = {zlib.crc32(name.encode()) % NUM_BUCKETS for name in features(older, newer)}
    return np.array(sorted(ids), np.int64)


class PairModel:
    """Weights of a softmax over LABELS. A pair's features have unit norm together, times SCALE."""

    SCALE = 3.0

    def __init__(self, weights, bias, settings: PairSettings):
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

    def label(self, older: str, newer: str) -> str:
        """What becomes of the older one: what is not surely something else is kept."""
        if whose(older, newer) == "other":
            return "keep"
        found = self.probabilities(older, newer)
        if found["delete"] >= self.settings.min_delete and may_replace(older, newer):
            return "delete"
        if found["unite"] + found["update"] >= self.settings.min_unite and is_contained(older, newer):
            return "unite"
        return "keep"


class PairDecider:
    """Decides by the rules where these are sure, else by the pair model, source by source, newest first."""

    load_s = 0.0
    num_calls = 0

    def __init__(self, model: PairModel | None = None):
        self._model, self._rules = model or PairModel.load(), Rules()

    def decide(self, questions: list[Question]) -> list[Verdict]:
        return [self._judge(question) for question in questions]

    def _judge(self, question: Question) -> Verdict:
        verdict = self._rules.judge(question)
        if verdict.action != "ignore":
            return verdict
        for source in reversed(question.sources):
            record_id, label = source.memory.record_id, self._label(question, source)
            if label == "delete":
                return Verdict("delete", reason=f"replaced by {record_id}")
            if label == "unite":
                return Verdict("update", text=source.memory.text, reason=f"restated by {record_id}")
        return Verdict("ignore")

    def _label(self, question: Question, source: Source) -> str:
        tags, others = set(question.target.tags), set(source.memory.tags)
        if tags and others and not tags & others:
            return "keep"
        return self._model.label(question.target.text, source.memory.text)


@functools.cache
def pairs_fingerprint(folder: Path = SHIPPED) -> str:
    """16 hex digits over the code that decides and the weights that it decides by."""
    digest = hashlib.sha256(source_fingerprint("cluster.consolidate.pairs").encode())
    for name in (SETTINGS_FILE, WEIGHTS_FILE):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]
