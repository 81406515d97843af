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
from dataclasses import dataclass

_ADVERBS = (
    "now|currently|presently|still|already|also|usually|generally|nowadays|these days|from now on|instead"
)
_CHANGE = re.compile(r"\b(?:now|nowadays|these days|from now on|instead|since then|no longer|any ?more)\b")
_FILLER = re.compile(rf"(?:^|(?<=\s))(?:{_ADVERBS})(?=[\s,.;]|$),?")
_PAST_MARK = re.compile(r"\b(?:ago|formerly|previously|once|in the past|until|back then|as a child)\b")
_RELATIVE_TIME = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|(?:next|last|this|coming) \w+|in \w+ (?:days?|weeks?|months?))\b"
)
_CONTRACTIONS = (("can't", "cannot"), ("won't", "will not"), ("n't", " not"), ("’", "'"))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VERBS = _words(
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
_PAST_VERBS = _words("""was were had grew graduated studied lived worked drove ate played retired visited""")
_ADDITIVE = _words(
    """like love enjoy hate want know think believe speak need plan can must should own visit watch read be
    keep is are will does cannot support listen collect"""
)
"""Verbs whose objects stand side by side: liking tea now says nothing about coffee."""

_DIETS = "vegetarian|vegan|pescatarian|flexitarian|ketogenic|keto|paleo|omnivore"
_MANY = _words(
    """sister brother son daughter child kid friend colleague cousin aunt uncle niece nephew grandson
    granddaughter grandmother grandfather neighbour neighbor flatmate roommate housemate pet dog cat
    teacher doctor student hobby habit goal plan skill allergy interest sibling"""
)
"""Possessions that people have several of: a second name is a second person."""
_SELECTORS = _words("main favourite favorite preferred current primary best native first only usual")
_SHAPE = _words("called named in on at for with as to of by from about")
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
    plain = re.sub(r"^the user\b", "user", _FILLER.sub(" ", plain))
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


@functools.lru_cache(maxsize=65536)
def read(text: str) -> Statement:
    """Text -> what it claims. Never raises; an unknown form claims nothing."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split()).rstrip(".! ")
    for short, long in _CONTRACTIONS:
        plain = plain.replace(short, long)
    claims, clauses, subject = [], [], ""
    for number, raw in enumerate(_clauses(plain)):
        words = raw.split()
        words = words[1:] if len(words) > 1 and words[0] == "The" and words[1].startswith("user") else words
        lower = [word.lower() for word in words]
        if clauses and lower and lower[0] in ("he", "she", "they", "it", "user") and subject:
            words, lower = words[1:], lower[1:]
            at = 0
        elif clauses and subject and _verb_at(lower) == 0:
            at = 0
        else:
            at = _verb_at(lower)
            if at is None and len(lower) > 2 and lower[0] == "user" and re.fullmatch(r"[a-z]{3,}s", lower[1]):
                at = 1
            subject = "" if at is None else " ".join(_no_adverbs(words[:at]))
            words, at = (words, None) if at is None else (words[at:], 0)
        if at is None or not subject:
            clauses.append(raw)
            continue
        predicate = " ".join(words)
        clauses.append(f"{subject} {predicate}")
        # An adverb may stand before the verb: the whole clause says whether it tells of a change.
        claims += _claims(number, subject, predicate, raw.lower())
    return Statement(tuple(claims), tuple(clauses))


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
    return _FILLER.sub(" ", " ".join(words)).split()


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


def _plain(value: str) -> str:
    return re.sub(r"^(?:a|an|the|his|her|their|my)\s+", "", value.strip(" ,").lower())


def _lemma(verb: str) -> str:
    verb = verb.lower()
    irregular = {"has": "have", "had": "have", "goes": "go", "does": "do", "was": "is", "were": "are"}
    if verb in irregular:
        return irregular[verb]
    if verb.endswith("ies"):
        return verb[:-3] + "y"
    if re.search(r"(?:ch|sh|ss|x)es$", verb):
        return verb[:-2]
    return verb[:-1] if verb.endswith("s") and not verb.endswith("ss") and len(verb) > 3 else verb


def _claims(clause: int, subject: str, predicate: str, lower: str) -> list[Claim]:
    is_change = bool(_CHANGE.search(lower))
    denied = bool(re.search(r"\bno longer\b|\bany ?more\b", lower))
    body = re.sub(r"\b(?:no longer|any ?more)\b", " ", _FILLER.sub(" ", predicate))
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
        return [Claim(clause, subject.lower(), "", _plain(found[1]), is_change=True, is_denied=True)]
    if found := re.match(
        r"(?:stopped|quit|left|sold|gave up)\s+(?:being |working (?:at|for|as) )?(.+)", body, re.I
    ):
        value = re.split(r"\s+(?:for|to|after|in|on|because)\s+", found[1])[0]
        return [Claim(clause, subject.lower(), "", _plain(value), is_change=True, is_denied=True)]
    found = _EXCHANGE.match(body)
    if found and not re.search(r"\bdiet\b", body):
        return [Claim(clause, subject.lower(), "", _plain(found[1]), is_change=True, is_denied=True)]
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
                Claim(clause, subject.lower(), name, _plain(value), kind, True, changes, denied, past)
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
            return [Claim(clause, owner, f"date of {thing}", _plain(found[1]), "date", True, True, denied)]
        return []
    if thing and re.match(r"(?:was|is|has been) (?:cancelled|canceled|called off)", body, re.IGNORECASE):
        return [Claim(clause, owner, f"date of {thing}", "cancelled", "date", True, True)]
    if found := re.match(r"(?:is|are) (?:called|named) (\S.*)", body, re.IGNORECASE):
        single = thing.split()[-1] not in _MANY if thing else True
        return [make(subject.lower(), "name", _plain(found[1]), "name", is_exclusive=single)]
    if found := re.match(r"is (\w+|\d+) years? old", body, re.IGNORECASE):
        return [make(subject.lower(), "age", _plain(found[1]), "number", is_exclusive=True)]
    if found := re.match(r"(is|are)(?: due)?(?: (on|by|in|at|for|from|with))? (.+)", body, re.IGNORECASE):
        preposition, value = (found[2] or "").lower(), found[3]
        if not thing:
            return [make(subject.lower(), f"is {preposition}".strip(), _plain(value), _kind(value))]
        if preposition in ("on", "by", "at") and _DATE.search(value):
            return [make(owner, f"date of {thing}", _plain(value), "date", is_exclusive=True)]
        words = thing.split()
        chosen = bool(_SELECTORS & set(words))
        single = found[1].lower() == "is" and (chosen or words[-1] not in _MANY)
        kind = "other" if chosen else _kind(value)
        return [make(owner, f"{thing} {preposition}".strip(), _plain(value), kind, is_exclusive=single)]
    found = _APPOINTMENT.match(body)
    if found:
        slot, past = f"date of {_plain(found[1])}", head == "had"
        return [make(subject.lower(), slot, _plain(found[2]), "date", is_past=past)]
    if found := re.match(
        r"(?P<verb>goes|commutes) to (?:the )?(.+?) ((?:on|at|by|every|in) .+)", body, re.IGNORECASE
    ):
        return [make(subject.lower(), f"go to {found[2].lower()}", _plain(found[3]))]
    if head in ("prefers", "likes", "wants", "loves"):
        return _preferences(make, subject.lower(), body, _lemma(head))
    if is_past and not denied:
        return []
    rest = body.split(maxsplit=1)[1] if " " in body else ""
    lemma = _lemma(head)
    shape = " ".join(word for word in rest.lower().split() if word in _SHAPE)
    slot = f"{lemma} {shape}".strip()
    claim = make(subject.lower(), slot, _plain(rest), _kind(rest))
    if lemma in _ADDITIVE and not denied:
        # Kept as a claim all the same: a later denial of the same words can name it.
        claim = Claim(clause, subject.lower(), slot, _plain(rest), "additive")
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


def _preferences(make, subject: str, body: str, lemma: str) -> list[Claim]:
    """A choice among alternatives is exclusive within its context; without a context it is not."""
    rest = body.split(maxsplit=1)[1] if " " in body else ""
    claims = []
    choice = functools.partial(make, subject, kind="choice", is_exclusive=True)
    found = re.match(r"(.+) (when|while|for|during|on|over) (.+)", rest, re.IGNORECASE)
    if found and not (found[2].lower() in ("on", "over") and _DATE.search(found[3])):
        context = f"{found[2]} {_plain(found[3])}".lower()
        claims.append(choice(slot=f"{lemma} {context}", value=_plain(found[1])))
    if lemma == "prefer":
        for pattern in _PREFERRED:
            if found := pattern.match(rest):
                claims.append(choice(slot=f"prefer {found[1].lower()}", value=_plain(found[2])))
                break
    return claims or [make(subject, lemma, _plain(rest), "additive")]


def _limits(make, subject: str, body: str) -> list[Claim]:
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


# --- comparing -----------------------------------------------------------------------------------------


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
