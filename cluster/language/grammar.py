"""A statement is cut into clauses, each with its subject and its predicate: a small grammar of English.

A statement is one short sentence in the third person ("User lives in Lyon and drives a red Fox."). What is
not understood is a clause without a subject.
"""

import functools
import re
import unicodedata
from dataclasses import dataclass

from cluster.language.claims import FILLER
from cluster.language.words import listed

_CONTRACTIONS = (("can't", "cannot"), ("won't", "will not"), ("n't", " not"), ("’", "'"))

_VERBS = listed(
    """is are was were has have had lives lived resides resided works worked drives drove rides rode owns
    owned follows followed goes went moved moves relocated switched changed prefers preferred likes
    liked loves loved enjoys enjoyed hates hated eats ate drinks drank takes took uses used plays
    played studies studied speaks spoke keeps kept cannot can must should needs needed wants wanted
    plans planned started stopped quit left joined got became adopted bought sold practises
    practices attends attended teaches taught runs ran avoids avoided does did will wears wore
    weighs earns commutes reads writes watches watched listens supports believes grew graduated
    married retired pays smokes smoked trains rents rented gave knows cooks grows collects hosts
    visits visited replaced traded"""
)
_BEFORE_VERBS = listed(
    "just recently finally officially never no longer now currently still already also usually"
)


@dataclass(frozen=True)
class Clause:
    """A part of a statement with a verb of its own."""

    raw: str
    subject: str
    """Without adverbs; empty where the clause was not understood. "He" and "she" are the clause before's."""
    predicate: str

    @property
    def text(self) -> str:
        """The clause as a sentence of its own."""
        return f"{self.subject} {self.predicate}" if self.subject else self.raw


@functools.lru_cache(maxsize=65536)
def clauses(text: str) -> tuple[Clause, ...]:
    """Text -> its clauses, each with subject and predicate."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split()).rstrip(".! ")
    for short, long in _CONTRACTIONS:
        plain = plain.replace(short, long)
    found: list[Clause] = []
    subject, at = "", None
    for raw in _clauses(plain):
        words = raw.split()
        words = words[1:] if len(words) > 1 and words[0] == "The" and words[1].startswith("user") else words
        lower = [word.lower() for word in words]
        if found and lower and lower[0] in ("he", "she", "they", "it", "user") and subject:
            words, lower = words[1:], lower[1:]
            at = 0
        elif found and subject and _verb_at(lower) == 0:
            at = 0
        else:
            at = _verb_at(lower)
            if at is None and lower[:1] == ["user"]:
                at = next((n for n, word in enumerate(lower) if n and word not in _BEFORE_VERBS), None)
                at = at if at and re.fullmatch(r"[a-z]{3,}", lower[at]) else None
            subject = "" if at is None else " ".join(_no_adverbs(words[:at]))
            words, at = (words, None) if at is None else (words[at:], 0)
        if at is None or not subject:
            found.append(Clause(raw, "", ""))
        else:
            found.append(Clause(raw, subject, " ".join(words)))
    return tuple(found)


def _clauses(text: str) -> list[str]:
    parts = re.split(r"\s*;\s*|\.\s+(?=[A-Z])|,?\s+(?:but|so|and|while)\s+", text)
    separators = re.findall(r"\s*;\s*|\.\s+(?=[A-Z])|,?\s+(?:but|so|and|while)\s+", text)
    joined = parts[:1]
    for separator, part in zip(separators, parts[1:], strict=True):
        lower = _no_adverbs(part.lower().split())
        starts = bool(lower) and (
            lower[0] in _VERBS
            or lower[:2] == ["no", "longer"]
            or (lower[0] in ("he", "she", "they", "it", "user", "user's") and _verb_at(lower) is not None)
        )
        # "moved to Oslo and now lives there" is one clause: the second half means nothing alone.
        starts = starts and lower[-1] not in ("there", "it", "them", "this", "that", "so", "too", "one")
        if starts or separator.strip() in (";", "."):
            joined.append(part)
        else:
            joined[-1] += separator + part
    return joined


def _no_adverbs(words: list[str]) -> list[str]:
    return FILLER.sub(" ", " ".join(words)).split()


def _verb_at(lower: list[str]) -> int | None:
    """Index of the clause's first verb, adverbs and "no longer" before it included; None without one."""
    for index, word in enumerate(lower):
        if word in _VERBS:
            # "User's work is": a noun that looks like a verb stands behind a possessive.
            if index and lower[index - 1].endswith("'s") and set(lower[index + 1 :]) & _VERBS:
                continue
            while index and lower[index - 1] in ("longer", "no", "not", "never"):
                index -= 1
            return index
    return None


def plain(value: str) -> str:
    """Lower case, without article or possessive."""
    return re.sub(r"^(?:a|an|the|his|her|their|my)\s+", "", value.strip(" ,").lower())
