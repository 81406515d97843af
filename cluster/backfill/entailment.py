"""Entailment: whether what was said holds what a record says.

A small encoder writes much that nobody said: a number beside the wrong thing, one person's trouble as
another's. Words alone do not show it; a cross-encoder (cluster.models.cross_encoder) that reads the record
and the turns as one text sees more. A calibration weighs its log-odds (cluster.backfill.calibration). It
learns by `python -m jobs.train.entailment`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.models.cross_encoder import CrossEncoder, joined_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FOLDER = "entailment"
"""In the folder of an adapter that has one: its weights."""

MAX_RECORD_TOKENS, MAX_TOLD_TOKENS, MAX_BEFORE_TOKENS = 64, 160, 48
"""So much is read of each part: nearly all records and messages whole, of the turn before its end."""

NOTHING = "-"
"""Stands for the turn before where there is none."""


@dataclass(frozen=True)
class Claim:
    """What is judged."""

    text: str
    """What the record says."""
    told: tuple[str, ...]
    """The turns that it rests on, whole."""
    before: str = ""
    """The turn before the first of them, which it may answer."""


def token_ids(tokenizer: "PreTrainedTokenizerBase", claim: Claim) -> list[int]:
    """<s> RECORD </s></s> TURNS </s></s> TURN BEFORE </s>"""
    texts = [claim.text, " ".join(claim.told), claim.before or NOTHING]
    text, told, before = tokenizer(texts, add_special_tokens=False)["input_ids"]
    parts = [text[:MAX_RECORD_TOKENS], told[:MAX_TOLD_TOKENS], before[-MAX_BEFORE_TOKENS:]]
    return joined_ids(tokenizer, parts)


class EntailmentModel(CrossEncoder):
    """The cross-encoder, loaded: its two logits are for a record that is not told, and for one that is."""

    def odds(self, claims: list[Claim]) -> list[float]:
        """Of each claim the log-odds that it is told and worth a record."""
        if not claims:
            return []
        found = self.logits([token_ids(self.tokenizer, claim) for claim in claims])
        # The last digits depend on what else was in a batch.
        return [round(float(one), 2) for one in found[:, 1] - found[:, 0]]
