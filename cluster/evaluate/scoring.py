"""Measures of retrieval and of answers. Pure: numbers and texts in, numbers out.

A ranked list of hits is scored by what it brings to light: a raw turn stands for itself, a record for the
turns that it cites. `ranks` holds for each turn the rank, from 0, of the first hit that stands for it, and
NEVER where no hit does; the k best hits then find exactly the turns whose rank is below k.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable

import numpy as np

NEVER = np.inf
"""Rank of what no hit stands for."""


def ranks_of_turns(scores: np.ndarray, hits: np.ndarray, turns: np.ndarray, num_turns: int) -> np.ndarray:
    """Ranks, float64 [num_turns], when hits are sorted by score, ties in their own order.

    `scores` [num_hits]; hit `hits[i]` stands for turn `turns[i]`, both int [num_citations].
    """
    rank = np.empty(len(scores))
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    ranks = np.full(num_turns, NEVER)
    np.minimum.at(ranks, turns, rank[hits])
    return ranks


def recall_at(ranks: np.ndarray, k: float) -> float | None:
    """Share of the wanted, given their ranks, that the first k hits find. None when nothing is wanted."""
    return float(np.mean(ranks < k)) if len(ranks) else None


def all_at(ranks: np.ndarray, k: float) -> float | None:
    """1 when the first k hits find all of the wanted. None when nothing is wanted."""
    return float(np.all(ranks < k)) if len(ranks) else None


def reciprocal_rank(ranks: np.ndarray) -> float | None:
    """1 / position of the first wanted one, from 1; 0 when none is found. None when nothing is wanted."""
    return float(1 / (1 + ranks.min())) if len(ranks) else None


def is_stale(current: np.ndarray, outdated: np.ndarray) -> float | None:
    """1 when an outdated statement ranks above every current one, 0 when not.

    None when there is no outdated one to find, or neither kind is found.

    A hit that stands for both says what holds now as well: it is not stale.
    """
    first_current, first_outdated = (ranks.min(initial=NEVER) for ranks in (current, outdated))
    if not len(outdated) or min(first_current, first_outdated) == NEVER:
        return None
    return float(first_outdated < first_current)


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None if there are none."""
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None


def percentile(values: list[float], share: float) -> float | None:
    """The value that `share` percent of them do not exceed, interpolated; None if there are none."""
    return float(np.percentile(values, share)) if values else None


# --- answers --------------------------------------------------------------------------------------------

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalised(text: str) -> str:
    """As SQuAD compares answers (arXiv 1606.05250): no case, punctuation, articles, or extra white space."""
    plain = "".join(" " if char in string.punctuation else char for char in text.casefold())
    return " ".join(_ARTICLES.sub(" ", plain).split())


def exact_match(answer: str, right: list[str]) -> float:
    """1 when the answer is one of the right ones, normalised."""
    return float(normalised(answer) in map(normalised, right))


def token_f1(answer: str, right: list[str]) -> float:
    """The best F1 of words shared with a right answer, normalised, 0 to 1."""
    return max(_f1(normalised(answer).split(), normalised(wanted).split()) for wanted in right)


def _f1(answer: list[str], wanted: list[str]) -> float:
    if not answer or not wanted:
        return float(answer == wanted)
    shared = sum((Counter(answer) & Counter(wanted)).values())
    return 2 * shared / (len(answer) + len(wanted))
