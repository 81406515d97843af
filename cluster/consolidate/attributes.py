"""What a newer statement ends: attributes of one value, read strictly.

A clause is read as *states* (subject, attribute, value) and *ends* (subject, attribute, value that no longer
holds). A state of a newer memory replaces one of an older memory only where all of this holds:

    one subject      the user, somebody with a name, or a relation of whom there is one: a mother, no friend
    one attribute    of which a subject has one value at a time: residence, employer, occupation, diet ...
    typed values     both are of the attribute's type: Oslo and Bergen are towns, Linux is none
    said in full     every word of the newer clause is understood: "moved to Oslo for a week" moves nobody
    really           no if, plan, wish, dream or report; no year before the older memory was told

What no pattern matches (cluster.consolidate.attribute_patterns) claims nothing, and so replaces nothing. It
is better to keep an old memory beside a new one than to close what still holds.
"""

import re
from dataclasses import dataclass

from cluster.language import places
from cluster.language import vocabulary as words


@dataclass(frozen=True)
class State:
    """A subject's attribute has a value."""

    clause: int
    subject: str
    attribute: str
    """Of free values, with the words that name it: "thing favourite band", "verb drive"."""
    value: str
    """Lower case, without article."""
    tail: str = ""
    """Words of the clause behind the value."""
    is_exclusive: bool = False
    """A newer state replaces this attribute's value without saying that something has changed."""
    is_change: bool = False
    may_replace: bool = True
    year: int = 0
    """Latest year that the clause names, 0 for none."""


@dataclass(frozen=True)
class End:
    """A subject's attribute no longer has a value."""

    subject: str
    attribute: str
    value: str = ""
    """Empty: whichever it is."""
    year: int = 0
    is_deed: bool = False
    """What was done, of a plan: the plan's words are the beginning of these."""
    is_exact: bool = False
    """Only just this value: "the cat died" may be about another than "a cat called Mia"."""


@dataclass(frozen=True)
class Reading:
    """A statement: its clauses in words, what they state and what they end."""

    clauses: tuple[str, ...]
    states: tuple[State, ...]
    ends: tuple[End, ...]


def keys(reading: Reading) -> set[str]:
    """Keys under which a statement may be replaced, whatever its similarity to what replaces it."""
    return {f"{state.subject}\0{state.attribute}" for state in reading.states}


def binding_keys(reading: Reading) -> set[str]:
    """Keys under which it may replace others."""
    said: list[State | End] = [
        state for state in reading.states if state.may_replace and (state.is_exclusive or state.is_change)
    ]
    return {f"{one.subject}\0{one.attribute}" for one in [*said, *reading.ends]}


def relation(older: State, newer: State | End, told: int = 0) -> str:
    """How a newer statement bears on an older state: replaces | restates | "" (it does not).

    `told` is the year in which the older one was told, 0 where unknown: what happened in an earlier year had
    happened when it was told.
    """
    if (older.subject, older.attribute) != (newer.subject, newer.attribute):
        return ""
    if newer.year and newer.year < (told or 9999):
        return ""
    if isinstance(newer, End) and newer.is_deed:
        return "replaces" if _is_same_thing(newer.value, older.value) else ""
    if isinstance(newer, End) and newer.is_exact:
        return "replaces" if older.value == newer.value else ""
    if isinstance(newer, End):
        return "replaces" if not newer.value or _is_same_thing(older.value, newer.value) else ""
    if older.value == newer.value:
        return "restates" if newer.may_replace and _covers(newer, older) else ""
    if not newer.may_replace:
        return ""
    head = older.attribute.split()[0]
    if head in _REFINED and _is_finer(older.value, newer.value) and _covers(newer, older):
        return "restates"
    if set(newer.value.split()) < set(older.value.split()) and not newer.is_change:
        return ""
    if not (newer.is_change or (newer.is_exclusive and older.is_exclusive)):
        return ""
    return "replaces" if _CONFLICTS.get(head, _differ)(older, newer) else ""


# --- values -------------------------------------------------------------------------------------------


_REFINED = frozenset(("residence", "employer", "occupation", "thing"))
"""Attributes whose value may be told more exactly: a Fold, then a Calder Fold."""


def _covers(newer: State, older: State) -> bool:
    """Whether the newer clause says all that the older one does."""
    return set(older.tail.lower().split()) <= set(f"{newer.value} {newer.tail}".lower().split())


def _is_finer(older: str, newer: str) -> bool:
    return set(older.split()) < set(newer.split()) and not re.fullmatch(r"[\d\W]+", older)


def _is_same_thing(older: str, named: str) -> bool:
    """Whether "the red Fox" is "a red Fox 40", "law school" is "law in Bonn"; a dog is no dog house."""
    if not older.startswith(named):
        return False
    rest = older[len(named) :]
    return not rest or bool(
        re.match(r" (?:\d|called |named |in |at |on |from |with |of |for |since |near |to )", rest)
    )


def _differ(older: State, newer: State) -> bool:
    """Two names, or two numbers of the same unit; Ben and Benjamin are no two."""
    units = _unit(older.value), _unit(newer.value)
    if None in units:
        return units == (None, None) and not (
            older.value.startswith(newer.value) or newer.value.startswith(older.value)
        )
    return units[0] == units[1]


def _unit(value: str) -> str | None:
    """What of a number is no digit; None of what is no number."""
    return re.sub(r"[\d\s.,:/\-]+", " ", value).strip() if re.match(r"[€$£+]? ?\d", value) else None


def _live_apart(older: State, newer: State) -> bool:
    here, there = places.find(older.value), places.find(newer.value)
    if here and there:
        return places.are_apart(here, there)
    # Of a home whose name is in no gazetteer, a quarter or a village, only a move to a town is sure.
    return newer.is_change and (there is not None or "lives there" in newer.tail)


def _marital(older: State, newer: State) -> bool:
    return (words.MARITAL[older.value], words.MARITAL[newer.value]) in words.MARITAL_CONFLICTS


def _diet(older: State, newer: State) -> bool:
    """Of two diets by name, or of "follows a ... diet" and "now follows a ... diet"."""
    named = older.value in words.DIETS and newer.value in words.DIETS
    return named or (newer.is_change and "diet" in newer.tail.split() and "diet" in older.tail.split())


def _age(older: State, newer: State) -> bool:
    """A year older. Of children there may be several: six and nine are two of them."""
    return _number(newer.value) - _number(older.value) == 1


def _number(value: str) -> float:
    return words.NUMERALS.get(value) or (float(value) if value.isdigit() else float("nan"))


_CONFLICTS = {"residence": _live_apart, "marital": _marital, "diet": _diet, "age": _age}
