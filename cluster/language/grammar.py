"""What a statement claims, read with a small grammar: whose attribute, which value. No model, no templates.

A statement is one short sentence in the third person ("User lives in Lyon."). It is cut into clauses, and a
clause is read as *subject, slot, value*: the slot names an attribute that two statements can disagree about
("user" / "residence" / "Lyon"). A clause may have several readings, or none; what is not understood claims
nothing and so replaces nothing.

    copula of a possession   User's partner is Nadia          user's partner | is            | Nadia
    name                     User's dog is called Rex         user's dog     | name          | Rex
    residence, employer, occupation, diet: several verbs each, "moved to" and "joined" included
    date of something        User has a blood test on 3 May   user           | date of blood test | 3 May
                             User's blood test was moved to 5 May
    preference in a context  User prefers tea when ill        user           | prefer when ill | tea
    limit with a number      User must not lift more than 5 kg (constraints and preferences)
    any other verb           User drives a red Fox            user           | drive         | red Fox

Slots are *exclusive* when a person has one value at a time; in the others a later statement replaces an
earlier one only if it says so itself ("now", "no longer", "these days", "was moved"). Past statements ("was",
"used to", "years ago") are history: they neither replace nor are replaced, but "used to", "no longer",
"stopped", "left", "quit" and "not ... any more" deny the value they name.
"""

import functools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from cluster.language.claims import FILLER, Claim, Statement
from cluster.language.words import base_form, listed

_CHANGE = re.compile(r"\b(?:now|nowadays|these days|from now on|instead|since then|no longer|any ?more)\b")
_PAST_MARK = re.compile(r"\b(?:ago|formerly|previously|once|in the past|until|back then|as a child)\b")
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
_PAST_VERBS = listed("""was were had grew graduated studied lived worked drove ate played retired visited""")
_ADDITIVE = listed(
    """like love enjoy hate want know think believe speak need plan can must should own visit watch read be
    keep is are will does cannot support listen collect"""
)
"""Verbs whose objects stand side by side: liking tea now says nothing about coffee."""

_BEFORE_VERBS = listed(
    "just recently finally officially never no longer now currently still already also usually"
)

_DIETS = "vegetarian|vegan|pescatarian|flexitarian|ketogenic|keto|paleo|omnivore"
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


_EXCHANGE = re.compile(
    r"(?:switched|changed|replaced|traded) (?:from )?(.+?) (?:to|with|for|by) .+", re.IGNORECASE
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
def read(text: str) -> Statement:
    """Text -> what it claims. Never raises; an unknown form claims nothing."""
    found = clauses(text)
    claims = []
    for number, clause in enumerate(found):
        if clause.subject:
            # An adverb may stand before the verb: the whole clause says whether it tells of a change.
            claims += _claims(number, clause.subject, clause.predicate, clause.raw.lower())
    return Statement(tuple(claims), tuple(clause.text for clause in found))


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


def _kind(value: str) -> str:
    if re.match(r"(?:a|an|the)\s", value, re.IGNORECASE):
        return "described"
    return "name" if value[:1].isupper() else "number" if value[:1].isdigit() else "other"


def plain(value: str) -> str:
    """Lower case, without article or possessive."""
    return re.sub(r"^(?:a|an|the|his|her|their|my)\s+", "", value.strip(" ,").lower())


def _lemma(verb: str) -> str:
    verb = verb.lower()
    irregular = {"has": "have", "had": "have", "goes": "go", "does": "do", "was": "is", "were": "are"}
    return irregular[verb] if verb in irregular else base_form(verb)


def _claims(clause: int, subject: str, predicate: str, lower: str) -> list[Claim]:
    is_change = bool(_CHANGE.search(lower))
    denied = bool(re.search(r"\bno longer\b|\bany ?more\b", lower))
    body = re.sub(r"\b(?:no longer|any ?more)\b", " ", FILLER.sub(" ", predicate))
    body = " ".join(body.split()).strip(" ,")
    if match := re.match(r"(?:does|do|did|is|are|was|were|can|will) not\s+(.+)", body):
        verb = body.split()[0].lower()
        body, denied = (match[1], True) if verb in ("does", "do", "did") else (f"{verb} {match[1]}", True)
    if not body:
        return []
    owner, possessive, thing = subject.lower().rpartition("'s ")
    if not possessive:
        owner, thing = thing, ""
    make = functools.partial(Claim, clause, is_change=is_change, is_denied=denied)
    if found := re.match(
        r"used to (?:be |live in |work (?:at|for|as) |have |drive )?(.+)", body, re.IGNORECASE
    ):
        return [Claim(clause, subject.lower(), "", plain(found[1]), is_change=True, is_denied=True)]
    if found := re.match(
        r"(?:stopped|quit|left|sold|gave up)\s+(?:being |working (?:at|for|as) )?(.+)", body, re.I
    ):
        value = re.split(r"\s+(?:for|to|after|in|on|because)\s+", found[1])[0]
        return [Claim(clause, subject.lower(), "", plain(value), is_change=True, is_denied=True)]
    found = _EXCHANGE.match(body)
    if found and not re.search(r"\bdiet\b", body):
        return [Claim(clause, subject.lower(), "", plain(found[1]), is_change=True, is_denied=True)]
    head = body.split()[0].lower()
    is_past = head in _PAST_VERBS or bool(_PAST_MARK.search(lower))
    claims = []
    for name, pattern, only in _TABLE:
        if found := pattern.match(body):
            value = found["v"].strip(" ,")
            kind = _kind(value)
            if only and kind not in only:
                continue
            kind = kind if only else "value"
            changes = is_change or bool(found.groupdict().get("change"))
            past = bool(_PAST_MARK.search(lower)) or head in ("was", "were", "lived", "worked")
            claims.append(
                Claim(clause, subject.lower(), name, plain(value), kind, True, changes, denied, past)
            )
    if claims:
        return claims
    if thing and (
        found := re.match(
            r"(?:was|is|has been|got) (?:now )?(?:moved|rescheduled|postponed|brought forward|"
            r"pushed(?: back)?|changed) (?:from .+? )?(?:to|until|for) (.+)",
            body,
            re.I,
        )
    ):
        if _DATE.search(found[1]):
            return [Claim(clause, owner, f"date of {thing}", plain(found[1]), "date", True, True, denied)]
        return []
    if thing and re.match(r"(?:was|is|has been) (?:cancelled|canceled|called off)", body, re.IGNORECASE):
        return [Claim(clause, owner, f"date of {thing}", "cancelled", "date", True, True)]
    if found := re.match(r"(?:is|are) (?:called|named) (\S.*)", body, re.IGNORECASE):
        single = thing.split()[-1] not in _MANY if thing else True
        return [make(subject.lower(), "name", plain(found[1]), "name", is_exclusive=single)]
    if found := re.match(r"is (\w+|\d+) years? old", body, re.IGNORECASE):
        return [make(subject.lower(), "age", plain(found[1]), "number", is_exclusive=True)]
    if found := re.match(r"(is|are)(?: due)?(?: (on|by|in|at|for|from|with))? (.+)", body, re.IGNORECASE):
        preposition, value = (found[2] or "").lower(), found[3]
        if not thing:
            # "is married now" takes the place of "is single"; "is doing well now" and "is good at chess"
            # stand beside whatever else somebody is.
            kind = _kind(value)
            if not preposition and kind != "described" and re.search(r"\s|ing$", value):
                kind = "additive"
            return [make(subject.lower(), f"is {preposition}".strip(), plain(value), kind)]
        if preposition in ("on", "by", "at") and _DATE.search(value):
            return [make(owner, f"date of {thing}", plain(value), "date", is_exclusive=True)]
        words = thing.split()
        chosen = bool(_SELECTORS & set(words))
        single = found[1].lower() == "is" and (chosen or words[-1] not in _MANY)
        kind = "other" if chosen else _kind(value)
        return [make(owner, f"{thing} {preposition}".strip(), plain(value), kind, is_exclusive=single)]
    found = _APPOINTMENT.match(body)
    if found:
        slot, past = f"date of {plain(found[1])}", head == "had"
        return [make(subject.lower(), slot, plain(found[2]), "date", is_past=past)]
    if found := re.match(
        r"(?P<verb>goes|commutes) to (?:the )?(.+?) ((?:on|at|by|every|in) .+)", body, re.IGNORECASE
    ):
        return [make(subject.lower(), f"go to {found[2].lower()}", plain(found[3]))]
    if head in ("prefers", "likes", "wants", "loves"):
        return _preferences(make, subject.lower(), body, _lemma(head))
    if is_past and not denied:
        return []
    rest = body.split(maxsplit=1)[1] if " " in body else ""
    lemma = _lemma(head)
    shape = " ".join(word for word in rest.lower().split() if word in _SHAPE)
    slot = f"{lemma} {shape}".strip()
    claim = make(subject.lower(), slot, plain(rest), _kind(rest))
    if lemma in _ADDITIVE and not denied:
        # Kept as a claim all the same: a later denial of the same words can name it.
        claim = Claim(clause, subject.lower(), slot, plain(rest), "additive")
    return [claim, *_limits(make, subject.lower(), body)]


_PREFERRED = (
    re.compile(r"(\w+ as) (.+)"),
    re.compile(r"(\w+ing) (.+)"),
    re.compile(
        r"(\w+s) ((?:right |late |early |just )*"
        r"(?:before|after|around|at|in|on|between|by|early|late)\b.+)"
    ),
)
"""What of "prefers answers as lists", "prefers reading poems", "prefers meetings after lunch" is the slot."""


def _preferences(make: Callable[..., Claim], subject: str, body: str, lemma: str) -> list[Claim]:
    """A choice among alternatives is exclusive within its context; without a context it is not."""
    rest = body.split(maxsplit=1)[1] if " " in body else ""
    claims = []
    choice = functools.partial(make, subject, kind="choice", is_exclusive=True)
    found = re.match(r"(.+) (when|while|for|during|on|over) (.+)", rest, re.IGNORECASE)
    if found and not (found[2].lower() in ("on", "over") and _DATE.search(found[3])):
        context = f"{found[2]} {plain(found[3])}".lower()
        claims.append(choice(slot=f"{lemma} {context}", value=plain(found[1])))
    if lemma == "prefer":
        for pattern in _PREFERRED:
            if found := pattern.match(rest):
                claims.append(choice(slot=f"prefer {found[1].lower()}", value=plain(found[2])))
                break
    return claims or [make(subject, lemma, plain(rest), "additive")]


def _limits(make: Callable[..., Claim], subject: str, body: str) -> list[Claim]:
    """ "cannot spend more than 300 euros on X": the frame without its numbers is the slot."""
    numbers = re.findall(r"\d[\d.,:]*", body)
    if not numbers or not re.match(r"(?:cannot|can|must|should|needs|will)\b", body, re.IGNORECASE):
        return []
    frame = re.sub(r"\d[\d.,:]*", "#", body.lower())
    return [make(subject, frame, " ".join(numbers), "number", is_exclusive=True)]


def _row(name: str, pattern: str, only: tuple[str, ...] = ()) -> tuple[str, re.Pattern, tuple[str, ...]]:
    return name, re.compile(pattern, re.IGNORECASE), only


_END = r"(?=\s+(?:and|with|near|since|because|where)\b|,|$)"
_TABLE = (
    _row(
        "residence",
        rf"(?:lives?|lived|resides|is based|is living|has a home) (?:back )?in (?P<v>.+?){_END}",
        ("name",),
    ),
    _row(
        "residence",
        rf"(?P<change>has moved|moved|relocated|has relocated)(?: from .+?)?(?: back)? to (?P<v>.+?)"
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
        rf"(?P<change>joined|started (?:working )?at|got a job at|signed with) (?P<v>.+?){_END}",
        ("name",),
    ),
    _row("occupation", rf"(?:works?|worked|is working) (?:full.time |part.time )?as (?P<v>an? .+?){_END}"),
    _row(
        "occupation",
        rf"(?P<change>started|retrained|became|has become)(?: working)?(?: as)? (?P<v>an? .+?){_END}",
    ),
    _row("occupation", r"is (?P<v>an? .+?) by profession"),
    _row("diet", r"(?:follows|is on|keeps to|eats|sticks to) (?:an? )?(?P<v>.+?) diet\b"),
    _row(
        "diet", r"(?P<change>switched|changed|moved|went)(?: from .+?)? (?:to|on) (?:an? )?(?P<v>.+?) diet\b"
    ),
    _row("diet", rf"(?:is|became|went) (?:an? )?(?P<v>{_DIETS})\b"),
)
