"""What a statement claims of somebody, as far as there are questions to ask about it. No model, no templates.

A clause (see cluster.language.grammar) is read as *subject, slot, value*: the slot names an attribute.

    residence, employer, occupation, diet: several verbs each, "moved to" and "joined" included
    name                     User's dog is called Rex         user's dog     | name          | Rex
    copula of a possession   User's partner is Nadia          user           | partner       | Nadia
    date of something        User has a blood test on 3 May   user           | date of blood test | 3 May
                             User's blood test was moved to 5 May
    preference in a context  User prefers tea when ill        user           | prefer when ill | tea
    any other verb           User drives a red Fox            user           | drive         | red Fox

A clause may have several readings, or none. What is denied or over ("no longer", "used to", "left", "was")
claims nothing.
"""

import re
from dataclasses import dataclass

from cluster.language.claims import FILLER
from cluster.language.grammar import clauses, plain
from cluster.language.words import base_form, listed


@dataclass(frozen=True)
class Claim:
    """One reading of one clause."""

    subject: str
    slot: str
    value: str
    """Lower case, without article; the words that the slot does not cover."""
    is_one_name: bool = False
    """Whether the value is a name, and there is one such thing only."""


_OVER = re.compile(
    r"\bno longer\b|\bany ?more\b|^(?:does|do|did|is|are|was|were|can|will) not\s+."
    r"|^(?:used to|stopped|quit|left|sold|gave up)\s+.",
    re.IGNORECASE,
)
"""What is denied, or has ended."""

_EXCHANGE = re.compile(
    r"(?:switched|changed|replaced|traded) (?:from )?.+? (?:to|with|for|by) .+", re.IGNORECASE
)

_PAST_MARK = re.compile(r"\b(?:ago|formerly|previously|once|in the past|until|back then|as a child)\b")
_PAST_VERBS = listed("""was were had grew graduated studied lived worked drove ate played retired visited""")

_MANY = listed(
    """sister brother son daughter child kid friend colleague cousin aunt uncle niece nephew grandson
    granddaughter grandmother grandfather neighbour neighbor flatmate roommate housemate pet dog cat
    teacher doctor student hobby habit goal plan skill allergy interest sibling"""
)
"""Possessions that people have several of: a second name is a second person."""
_SELECTORS = listed("main favourite favorite preferred current primary best native first only usual")
_SHAPE = listed("called named in on at for with as to of by from about")
_DATE = re.compile(
    r"\d|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|monday|tuesday"
    r"|wednesday|thursday|friday|saturday|sunday)",
    re.IGNORECASE,
)
_APPOINTMENT = re.compile(
    r"(?:has|have|had) (?:a |an |another )?(.+?) (?:scheduled |planned )?(?:on|at) "
    rf"((?=(?:the )?\S*(?:{_DATE.pattern})).+)",
    re.IGNORECASE,
)
_MOVED = re.compile(
    r"(?:was|is|has been|got) (?:now )?(?:moved|rescheduled|postponed|brought forward|"
    r"pushed(?: back)?|changed) (?:from .+? )?(?:to|until|for) (.+)",
    re.IGNORECASE,
)
_CANCELLED = re.compile(r"(?:was|is|has been) (?:cancelled|canceled|called off)", re.IGNORECASE)
_CALLED = re.compile(r"(?:is|are) (?:called|named) (\S.*)", re.IGNORECASE)
_IS = re.compile(r"(is|are)(?: due)?(?: (on|by|in|at|for|from|with))? (.+)", re.IGNORECASE)


def read(text: str) -> list[Claim]:
    """Text -> what it claims. Never raises; an unknown form claims nothing."""
    return [
        claim
        for clause in clauses(text)
        if clause.subject
        # An adverb may stand before the verb: the whole clause says whether it is over.
        for claim in _claims(clause.subject.lower(), clause.predicate, clause.raw.lower())
    ]


def _claims(subject: str, predicate: str, lower: str) -> list[Claim]:
    body = " ".join(FILLER.sub(" ", predicate).split()).strip(" ,")
    is_exchanged = _EXCHANGE.match(body) and not re.search(r"\bdiet\b", body)
    if not body or is_exchanged or _OVER.search(lower) or _OVER.search(body):
        return []
    head = body.split()[0].lower()
    is_past = bool(_PAST_MARK.search(lower))
    claims = []
    for slot, pattern, kinds in _TABLE:
        if found := pattern.match(body):
            value = found["v"].strip(" ,")
            if not kinds or _kind(value) in kinds:
                claims.append(Claim(subject, slot, plain(value)))
    if claims:
        return [] if is_past or head in ("was", "were", "lived", "worked") else claims
    owner, possessive, thing = subject.rpartition("'s ")
    if possessive and (found := _MOVED.match(body)):
        return [Claim(owner, f"date of {thing}", plain(found[1]))] if _DATE.search(found[1]) else []
    if possessive and _CANCELLED.match(body):
        return [Claim(owner, f"date of {thing}", "cancelled")]
    if found := _CALLED.match(body):
        return [Claim(subject, "name", plain(found[1]), is_one_name=True)]
    if found := _IS.match(body):
        return _of_possession(owner, thing, *found.groups()) if possessive else []
    if found := _APPOINTMENT.match(body):
        return [] if head == "had" else [Claim(subject, f"date of {plain(found[1])}", plain(found[2]))]
    rest = body.partition(" ")[2]
    if head == "prefers":
        return _preferences(subject, rest)
    if is_past or head in _PAST_VERBS:
        return []
    shape = " ".join(word for word in rest.lower().split() if word in _SHAPE)
    return [Claim(subject, f"{base_form(head)} {shape}".strip(), plain(rest))]


def _of_possession(owner: str, thing: str, verb: str, preposition: str | None, value: str) -> list[Claim]:
    """What somebody's thing is."""
    preposition = (preposition or "").lower()
    if preposition in ("on", "by", "at") and _DATE.search(value):
        return [Claim(owner, f"date of {thing}", plain(value))]
    words = thing.split()
    is_one = verb.lower() == "is" and words[-1] not in _MANY and not _SELECTORS & set(words)
    slot = f"{thing} {preposition}".strip()
    return [Claim(owner, slot, plain(value), is_one_name=is_one and _kind(value) == "name")]


_PREFERRED = (
    re.compile(r"(\w+ as) (.+)"),
    re.compile(r"(\w+ing) (.+)"),
    re.compile(
        r"(\w+s) ((?:right |late |early |just )*"
        r"(?:before|after|around|at|in|on|between|by|early|late)\b.+)"
    ),
)
"""What of "prefers answers as lists", "prefers reading poems", "prefers meetings after lunch" is the slot."""


def _preferences(subject: str, rest: str) -> list[Claim]:
    """Choices among alternatives, each in its context."""
    claims = []
    found = re.match(r"(.+) (when|while|for|during|on|over) (.+)", rest, re.IGNORECASE)
    if found and not (found[2].lower() in ("on", "over") and _DATE.search(found[3])):
        claims.append(Claim(subject, f"prefer {found[2]} {plain(found[3])}".lower(), plain(found[1])))
    if found := next(filter(None, (pattern.match(rest) for pattern in _PREFERRED)), None):
        claims.append(Claim(subject, f"prefer {found[1].lower()}", plain(found[2])))
    return claims


def _kind(value: str) -> str:
    """described (with an article) | name | number | other."""
    if re.match(r"(?:a|an|the)\s", value, re.IGNORECASE):
        return "described"
    return "name" if value[:1].isupper() else "number" if value[:1].isdigit() else "other"


_DIETS = "vegetarian|vegan|pescatarian|flexitarian|ketogenic|keto|paleo|omnivore"


def _row(slot: str, pattern: str, kinds: tuple[str, ...] = ()) -> tuple[str, re.Pattern, tuple[str, ...]]:
    return slot, re.compile(pattern, re.IGNORECASE), kinds


_END = r"(?=\s+(?:and|with|near|since|because|where)\b|,|$)"
_TABLE = (
    _row(
        "residence",
        rf"(?:lives?|lived|resides|is based|is living|has a home) (?:back )?in (?P<v>.+?){_END}",
        ("name",),
    ),
    _row(
        "residence",
        rf"(?:has moved|moved|relocated|has relocated)(?: from .+?)?(?: back)? to (?P<v>.+?)"
        rf"(?= from\b)?{_END}",
        ("name",),
    ),
    _row(
        "employer",
        rf"(?:works?|worked|is employed|is working) (?:at|for|by|with) (?P<v>.+?){_END}",
        ("name", "described"),
    ),
    _row(
        "employer",
        rf"(?:joined|started (?:working )?at|got a job at|signed with) (?P<v>.+?){_END}",
        ("name",),
    ),
    _row("occupation", rf"(?:works?|worked|is working) (?:full.time |part.time )?as (?P<v>an? .+?){_END}"),
    _row(
        "occupation",
        rf"(?:started|retrained|became|has become)(?: working)?(?: as)? (?P<v>an? .+?){_END}",
    ),
    _row("occupation", r"is (?P<v>an? .+?) by profession"),
    _row("diet", r"(?:follows|is on|keeps to|eats|sticks to) (?:an? )?(?P<v>.+?) diet\b"),
    _row("diet", r"(?:switched|changed|moved|went)(?: from .+?)? (?:to|on) (?:an? )?(?P<v>.+?) diet\b"),
    _row("diet", rf"(?:is|became|went) (?:an? )?(?P<v>{_DIETS})\b"),
)
