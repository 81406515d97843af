"""Calibration: how likely a record is right, by how sure the encoder was of its words and by how these stand
in what was said.

A small model is sure of much that nobody would keep, and of relations that it made up of words that were
said far apart. A logistic regression over a few features of a record and its evidence tells more of them
apart than the probability of the words alone, at no cost. It is learned from what the encoder writes of
people whose memories were written down by hand (`python -m jobs.train.calibration`), and knows English words.
What it cannot see, a number or a name beside the wrong thing, a model that reads sees
(cluster.backfill.entailment).
"""

import itertools
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from cluster.backfill.entailment import FOLDER, Claim, EntailmentModel
from cluster.language.content import NEGATION, WORD, content_words, stem, stems
from cluster.language.people import RELATIONS
from cluster.language.statements import OF_SELF, sentences, statements
from cluster.models.confidence import Confidence
from cluster.models.cross_encoder import BASE
from cluster.models.odds import log_odds, probability_of
from cluster.models.sources import model_folder

FILE = "calibration.json"
"""In the folder of a calibration."""

LEAST = 1e-3
"""No token is taken to be surer than this leaves room for."""

_OF_SELF = re.compile(rf"\b(?:{OF_SELF})\b", re.IGNORECASE)
_HEDGES = re.compile(
    r"\b(?:maybe|perhaps|might|could|would|probably|think|guess|if|should|hope|wish|suppose)\b", re.IGNORECASE
)
_TO_ASSISTANT = re.compile(r"\b(?:you|your|u)\b", re.IGNORECASE)
_OPENS_WITH_SELF = re.compile(r"\W*(?:i|i['’]m|im|i['’]ve|my|we)\b", re.IGNORECASE)
_OWNED = re.compile(
    r"User's ((?:[\w-]+ ){0,2}?[\w-]+) (?:is|are|was|were|has|had|have|will|can|does|did|lives?|works?|wants?"
    r"|likes?|plans?|got|needs?)\b"
)
"""What a record says that the user has."""

Turn = tuple[str, str]
"""Role and text."""


def features(text: str, evidence: list[Turn], confidence: Confidence) -> dict[str, float]:
    """Of a record's text, the turns that it rests on, and the encoder's confidence; lengths as logarithms."""
    said = "\n".join(content for _, content in evidence)
    by_user = " ".join(content for role, content in evidence if role == "user")
    wanted, told = content_words(text), stems([said])
    tokens, told_tokens = _tokens(text), _tokens(said)
    shares = {one: len(wanted & stems([one])) for one in sentences(said) or [said]}
    best = max(shares, key=shares.__getitem__)
    in_best = content_words(best)
    pairs, told_pairs = list(itertools.pairwise(tokens)), set(itertools.pairwise(told_tokens))
    names = [word for word in WORD.findall(text)[1:] if word[0].isupper() and word != "User"]
    relations = [word for word in tokens if word in RELATIONS]
    verb = tokens[1] if text.startswith("User ") and len(tokens) > 1 else ""
    owned = _OWNED.match(text)
    return {
        "mean_probability": log_odds(confidence.mean, LEAST),
        "least_probability": log_odds(confidence.least, LEAST),
        "length": math.log(1 + len(tokens)),
        "content_words": len(wanted),
        "untold_words": len(wanted - told),
        "told": len(wanted & told) / max(1, len(wanted)),
        "told_in_a_sentence": shares[best] / max(1, len(wanted)),
        "of_that_sentence": len(in_best & stems([text])) / max(1, len(in_best)),
        "told_pairs": sum(pair in told_pairs for pair in pairs) / max(1, len(pairs)),
        "told_run": _longest_run(tokens, told_tokens) / max(1, len(tokens)),
        "names": len(names),
        "has_number": float(any(char.isdigit() for char in text)),
        "denies": float(bool(NEGATION.search(text))),
        "of_user": float(text.startswith("User ")),
        "of_what_is_the_users": float(text.startswith("User's")),
        "of_assistant": float(text.startswith("Assistant")),
        "relations_told": float(all(word in told_tokens for word in relations)),
        "verb_told": float(verb in told_tokens or (bool(verb) and stem(verb) in told)),
        "owned_told": float(owned is None or _is_owned(owned[1].split()[-1], said)),
        "assistant_said": float(any(role == "assistant" for role, _ in evidence)),
        "speaks_of_self": float(bool(_OF_SELF.search(by_user))),
        "sentences": math.log(1 + len(shares)),
        "evidence_length": math.log(1 + len(told_tokens)),
        "sentence_length": math.log(1 + len(_tokens(best))),
        "sentence_asks": float(best.endswith("?")),
        "sentence_states": float(best in statements(said)),
        "sentence_of_self": float(bool(_OF_SELF.search(best))),
        "sentence_opens_with_self": float(bool(_OPENS_WITH_SELF.match(best))),
        "sentence_hedges": float(bool(_HEDGES.search(best))),
        "sentence_to_assistant": float(bool(_TO_ASSISTANT.search(best))),
        "sentence_names": float(sum(word[0].isupper() for word in WORD.findall(best)[1:])),
        "sentence_numbers": float(len(re.findall(r"\d+", best))),
    }


def _tokens(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(text)]


def _longest_run(tokens: list[str], told: list[str]) -> int:
    """Tokens of the longest run of them that was said so."""
    joined, longest = f" {' '.join(told)} ", 0
    for begin in range(len(tokens)):
        end = begin + longest + 1
        while end <= len(tokens) and f" {' '.join(tokens[begin:end])} " in joined:
            longest, end = end - begin, end + 1
    return longest


def _is_owned(thing: str, said: str) -> bool:
    """Whether the user calls a thing his own."""
    return bool(re.search(rf"\b(?:my|our|ma|me)\b[^.!?]{{0,25}}\b{re.escape(thing)}", said, re.IGNORECASE))


class Rated(NamedTuple):
    """What a record is rated by."""

    claim: Claim
    evidence: list[Turn]
    """The turns, or sentences of them, that the encoder was shown for it."""
    known: Confidence
    """In its words."""

    @property
    def features(self) -> dict[str, float]:
        return features(self.claim.text, self.evidence, self.known)


class Rater(Protocol):
    """What rates records."""

    def probabilities(self, records: list[Rated]) -> list[float]:
        """How likely each is right, 0 to 1."""
        ...


@dataclass(frozen=True)
class Weight:
    """Of a feature: it counts `weight` times its standard score."""

    mean: float
    scale: float
    weight: float


@dataclass(frozen=True)
class Entailment:
    """How the log-odds of the entailment model and those of the words add up."""

    words: float
    read: float
    bias: float


@dataclass(frozen=True)
class Calibration:
    """The logistic regression, a Rater. Features that it has no weight for do not count.

    Where there is an entailment model, its word is added to that of the regression.
    """

    weights: dict[str, Weight]
    bias: float
    entailment: Entailment | None = None
    model: EntailmentModel | None = None

    @classmethod
    def load(cls, folder: Path, with_entailment: bool = False) -> "Calibration":
        """ValueError if the file names an unknown feature, or lacks the one of entailment."""
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        known = features("User sings.", [("user", "I sing.")], Confidence(0.5, 0.5))
        if unknown := found["weights"].keys() - known.keys():
            raise ValueError(
                f"{folder / FILE}: no such feature {min(unknown)!r}; train it again with this release "
                "(python -m jobs.train.calibration)"
            )
        words = cls({name: Weight(**one) for name, one in found["weights"].items()}, found["bias"])
        if not with_entailment:
            return words
        if "entailment" not in found:
            raise ValueError(
                f"{folder / FILE}: knows nothing of entailment; train it with --entailment DIR (python -m "
                "jobs.train.calibration), or leave `entailment` out of the profile"
            )
        model = EntailmentModel.load(folder / FOLDER, model_folder(BASE, None))
        return replace(words, entailment=Entailment(**found["entailment"]), model=model)

    def save(self, folder: Path) -> None:
        rows = {name: vars(one) for name, one in self.weights.items()}
        content: dict[str, object] = {"bias": self.bias, "weights": rows}
        if self.entailment:
            content |= {"entailment": vars(self.entailment)}
        (folder / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def probabilities(self, records: list[Rated]) -> list[float]:
        """How likely each is right, 0 to 1, three digits."""
        odds = [self.odds_by_words(one) for one in records]
        if self.entailment and self.model:
            mix, read = self.entailment, self.model.odds([one.claim for one in records])
            odds = [mix.bias + mix.words * one + mix.read * two for one, two in zip(odds, read, strict=True)]
        return [round(probability_of(one), 3) for one in odds]

    def odds_by_words(self, record: Rated) -> float:
        """The log-odds that it is right, by its words and those of the turns."""
        found = record.features
        return self.bias + sum(
            one.weight * (found[name] - one.mean) / one.scale for name, one in self.weights.items()
        )
