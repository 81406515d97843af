"""Claims: whose attribute has which value, and how a newer claim bears on an older one.

Statements are read into claims by cluster.consolidation.grammar. Slots are *exclusive* when a person has one
value at a time; in the others a later statement replaces an earlier one only if it says so itself.
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


def slots(statement: Statement) -> set[str]:
    """Keys under which a statement may be replaced, whatever its similarity to what replaces it."""
    return {_slot_key(claim) for claim in statement.claims if claim.slot and not claim.is_past}


def binding_slots(statement: Statement) -> set[str]:
    """Keys under which it may replace others: one value at a time, or it tells of a change or denies."""
    return {
        _slot_key(claim)
        for claim in statement.claims
        if claim.slot
        and not claim.is_past
        and (claim.is_denied or (claim.kind != "additive" and (claim.is_exclusive or claim.is_change)))
    }


def _slot_key(claim: Claim) -> str:
    return f"{claim.subject}\0{claim.slot}"


def relation(older: Claim, newer: Claim) -> str:
    """How a newer claim bears on an older one: replaces | restates | refines | "" (it does not)."""
    if older.subject != newer.subject or older.is_past or newer.is_past:
        return ""
    if newer.is_denied and not older.is_denied:
        return "replaces" if _denies(older, newer) else ""
    if older.slot != newer.slot or not newer.slot:
        return ""
    if older.is_denied:
        return "replaces" if not newer.is_denied and older.value == newer.value else ""
    if older.value == newer.value:
        return "restates"
    if "additive" in (older.kind, newer.kind) or older.kind != newer.kind:
        return ""
    if not (newer.is_exclusive or newer.is_change):
        return ""
    if newer.kind not in ("date", "number") and set(older.value.split()) < set(newer.value.split()):
        return "refines"
    if not newer.is_change and set(newer.value.split()) < set(older.value.split()):
        return ""
    return "replaces"


def _denies(older: Claim, newer: Claim) -> bool:
    """Whether the denied words are the value, or its beginning ("red Fox" of "red Fox 40"), or the verb."""
    if newer.slot:
        return newer.slot == older.slot and (older.value == newer.value or _begins(older.value, newer.value))
    if older.value and _begins(older.value, newer.value):
        return True
    verb, _, rest = newer.value.partition(" ")
    return verb.endswith("ing") and older.slot.split()[0].startswith(verb[:-3]) and older.value == rest


def _begins(value: str, part: str) -> bool:
    return bool(part) and f"{value} ".startswith(f"{part} ")
