"""Claims: whose attribute has which value, and when two statements say the same.

Statements are read into claims by cluster.language.grammar, to ask questions about them; what replaces
what is read more strictly, by cluster.consolidate.attributes.
"""

import re
import unicodedata
from dataclasses import dataclass

_ADVERBS = (
    "now|currently|presently|still|already|also|usually|generally|nowadays|these days|from now on|instead"
)
FILLER = re.compile(rf"(?:^|(?<=\s))(?:{_ADVERBS})(?=[\s,.;]|$),?")
"""Words that change nothing about what is said, but perhaps since when."""
_RELATIVE_TIME = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|(?:next|last|this|coming) \w+|in \w+ (?:days?|weeks?|months?))\b"
)


@dataclass(frozen=True)
class Claim:
    """One reading of one clause."""

    clause: int
    """Which clause of the statement, from 0."""
    subject: str
    slot: str
    """Empty for a denial that holds for whatever slot has the value ("left Oslo")."""
    value: str
    """Lower case, without article; the words that the slot does not cover."""
    kind: str = "other"
    """name | described (with an article) | number | other: two values of different kinds do not compete."""
    is_exclusive: bool = False
    is_change: bool = False
    is_denied: bool = False
    is_past: bool = False


@dataclass(frozen=True)
class Statement:
    """A sentence read: its claims, and its clauses with their subjects, for rewriting."""

    claims: tuple[Claim, ...]
    clauses: tuple[str, ...]


def statement_key(text: str, memory_type: str = "", dates: tuple[str, str, str] = ("", "", "")) -> str:
    """Two memories of one user with the same key say the same: case, punctuation, "now" and "still" aside.

    `dates` are t_ref, t_valid_from and t_valid_to. They count where the words alone do not say when: for
    events, and for texts with "tomorrow" or "last week".
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = re.sub(r"^the user\b", "user", FILLER.sub(" ", plain))
    words = re.findall(r"[^\W_]+(?:[.,:/'-][^\W_]+)*|[+$€£%#]", plain)
    key = " ".join(words) or plain.strip()
    if _RELATIVE_TIME.search(plain):
        return "\0".join([key, *dates])
    return "\0".join([key, *dates[1:]]) if memory_type == "event" else key
