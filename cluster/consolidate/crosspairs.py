"""The cross-encoder of pairs: it reads an older and a newer memory as one text, and so sees what their words
share only in meaning (see cluster.models.cross_encoder): a softmax over the labels of the pair model.
`CrossPairModel` mixes the two, and decides under the same guards.
"""

import functools
import importlib.metadata
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from cluster import profiles
from cluster.consolidate.pairs import (
    LABELS,
    PairModel,
    PairSettings,
    Texts,
    by_fate,
    decider_fingerprint,
    pairs_fingerprint,
)
from cluster.models.cross_encoder import BASE, WEIGHTS_FILE, CrossEncoder, joined_ids
from cluster.models.fingerprint import source_fingerprint
from cluster.models.odds import log_odds, probability_of

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

SETTINGS_FILE = "crosspairs.json"
SHIPPED = profiles.SHIPPED / "deciders" / "crosspairs"
"""Where the model that comes with this package lies, wherever a worker has that."""

MAX_TOKENS = 96
"""Of each memory so many tokens are read: more than a sentence has."""

_DAY = re.compile(r"(?<!\d)\d{4}-\d{2}-\d{2}(?!\d)")


class CrossSettings(PairSettings):
    """From when on the mix is believed."""

    wording_weight: float = Field(ge=0)
    """The pair model's log-odds count so much, beside 1 for those of the cross-encoder."""


# --- the network --------------------------------------------------------------------------------------


def day_relation(older: str, newer: str) -> str:
    """How the last days that the two texts name lie to each other: told to the network in these words,
    because it does not read numbers well."""
    old, new = (max(_DAY.findall(text), default="") for text in (older, newer))
    if old and new:
        return "same day" if old == new else "later day" if new > old else "earlier day"
    return "old day" if old else "new day" if new else "no day"


def token_ids(tokenizer: "PreTrainedTokenizerBase", older: str, newer: str) -> list[int]:
    """<s> OLDER </s></s> NEWER </s></s> RELATION OF DAYS </s>"""
    texts = [older, newer, day_relation(older, newer)]
    parts = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return joined_ids(tokenizer, [part[:MAX_TOKENS] for part in parts])


class PairReader(CrossEncoder):
    """The cross-encoder of pairs, loaded: its logits are over LABELS."""

    def probabilities(self, pairs: list[Texts]) -> "np.ndarray":
        """float32 [len(pairs), len(LABELS)]; each row sums to 1."""
        import numpy as np

        found = self.logits([token_ids(self.tokenizer, *pair) for pair in pairs])
        shares = np.exp(found - found.max(axis=1, keepdims=True, initial=-np.inf))
        return shares / shares.sum(axis=1, keepdims=True)

    def scores(self, pairs: list[Texts]) -> list[dict[str, float]]:
        """Of each pair, probabilities that the older one is deleted and that it is united with the newer."""
        rows = [dict(zip(LABELS, row, strict=True)) for row in self.probabilities(pairs).tolist()]
        return [by_fate(row) for row in rows]


# --- the mix ------------------------------------------------------------------------------------------


class CrossPairModel:
    """The cross-encoder and the pair model together: log-odds of both, added. A `PairScorer`."""

    def __init__(self, reader: PairReader, wording: PairModel, settings: CrossSettings):
        self.reader, self.wording, self.settings = reader, wording, settings

    @classmethod
    def load(cls, base: Path, folder: Path = SHIPPED) -> "CrossPairModel":
        """The shipped pair model, and the weights and settings of a folder over the base."""
        settings = CrossSettings.model_validate_json((folder / SETTINGS_FILE).read_text())
        return cls(PairReader.load(folder, base), PairModel.load(), settings)

    def scores(self, pairs: list[Texts]) -> list[dict[str, float]]:
        """Of each pair, probabilities that the older one is deleted and that it is united with the newer."""
        found = zip(self.reader.scores(pairs), self.wording.scores(pairs), strict=True)
        return [mixed(read, worded, self.settings.wording_weight) for read, worded in found]


def mixed(read: dict[str, float], worded: dict[str, float], weight: float) -> dict[str, float]:
    """Scores of both models as one: the sum of their log-odds, the pair model's times `weight`."""
    sums = {fate: log_odds(read[fate]) + weight * log_odds(worded[fate]) for fate in read}
    # The last digits depend on what else was in a batch: four are kept.
    return {fate: round(probability_of(one), 4) for fate, one in sums.items()}


@functools.cache
def crosspairs_fingerprint(folder: Path = SHIPPED) -> str:
    """16 hex digits over the code that decides, the weights of both models, and the package of the base."""
    files = (folder / SETTINGS_FILE, folder / WEIGHTS_FILE)
    base = importlib.metadata.version(BASE.removeprefix("package:"))
    source = source_fingerprint("cluster.consolidate.crosspairs")
    return decider_fingerprint(source, files, pairs_fingerprint(), base)
