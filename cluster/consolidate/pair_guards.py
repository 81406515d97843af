"""What a model of pairs may not do to an older memory, whatever it says: kinds of newer statements that
resemble an end and are none.

A guard looks at how something is said, not at what it is about: "visited Rome in 2012", "no longer plays in
church", "sold the car keys". Its reason stands in the decision. A text that a guard does not understand
passes it. The rules need no guards: they act only on what they understand in full.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from cluster.consolidate.attribute_patterns import MONTH, TAIL
from cluster.consolidate.attribute_reader import read_attributes
from cluster.consolidate.fold import Memory
from cluster.consolidate.pair_features import stem
from cluster.language import vocabulary as words
from cluster.language.claims import FILLER
from cluster.language.grammar import clauses
from cluster.language.people import RELATIONS
from cluster.language.words import base_form, listed

Guard = Callable[[Memory, Memory], bool]
"""An older and a newer memory -> whether it stops what a model says of them."""


def refusal(older: Memory, newer: Memory, fate: str) -> str:
    """Why the newer memory does not delete the older one, or is not united with it; empty where no guard
    objects."""
    return next((reason for reason, guard in GUARDS[fate].items() if guard(older, newer)), "")


# --- what is said ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Clause:
    """The first clause of a statement."""

    subject: str
    verb: str
    """In lower case, adverbs aside."""
    rest: str
    """What stands behind the verb."""


@functools.lru_cache(maxsize=65_536)
def _first_clause(text: str) -> _Clause:
    found = next((one for one in clauses(text) if one.subject), None)
    if found is None:
        return _Clause("", "", "")
    predicate = " ".join(FILLER.sub(" ", found.predicate).split()).strip(" ,")
    verb, _, rest = predicate.partition(" ")
    return _Clause(found.subject.lower(), verb.lower(), rest)


def _told(text: str) -> set[str]:
    """Stems of the words that say what a statement is about, and its numbers."""
    found = re.findall(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*|\d+", text.casefold())
    return {stem(word) for word in found if word not in _SMALL}


_SMALL = listed(
    """user user's a an the of in on at to for from with by as and or but is are was were be been being
    has have had do does did will would his her their its it he she they this that these those him them
    who which there very also so because since until while after before than then about into up out off
    over any all some own every each no not longer more anymore now new mg ml kg g km times daily"""
)
"""Words that two statements may share without being about one thing."""


def _unknown(said: set[str], known: set[str]) -> set[str]:
    """Words that the others do not have in any form: who knows "citizen" knows "citizenship"."""
    begun = {word[:5] for word in known}
    return {word for word in said - known if len(word) < 5 or word[:5] not in begun}


def _present(past: str) -> str:
    """ "ate" -> "eat"; empty of other forms than irregular past ones."""
    return words.PAST.get(past) or _PAST.get(past, "")


_PAST = {
    "ate": "eat",
    "drank": "drink",
    "drove": "drive",
    "rode": "ride",
    "sang": "sing",
    "slept": "sleep",
    "spent": "spend",
    "spoke": "speak",
    "taught": "teach",
    "wore": "wear",
}
"""Of habits; those of what people plan are in the vocabulary."""

# --- when -----------------------------------------------------------------------------------------------

_YEAR = re.compile(
    r"\b(?:in|since|from|until|during|before|after) (?:(?:early|late|[A-Z]\w+) )?((?:19|20)\d\d)\b(?!-)"
)
_LONG_AGO = re.compile(
    r"\b(?:(?:many|several|some|a few|two|three|four|five|six|ten|\w+ty|\d+) years ago|back then|"
    r"(?:years|decades|long) ago|as an? (?:child|kid|boy|girl|teenager|student|young (?:man|woman))|"
    r"in (?:the (?:19|20)?\d0s|the \w+ties|(?:his |her |their )?(?:childhood|youth)|college|high school)|"
    r"when (?:he|she|they) (?:was|were) (?:a |young|little|small|\d))\b"
)


def is_earlier(older: Memory, newer: Memory) -> bool:
    """ "visited Rome in 2012": it had happened when the plan was told. The year in which the older memory was
    told and the one before it do not count: a year is told roughly, and a plan may be told late."""
    known = set(_YEAR.findall(older.text))
    if years := [int(year) for year in _YEAR.findall(newer.text) if year not in known]:
        told = older.session_time[:4]
        return max(years) + 1 < (int(told) if told.isdigit() else 9999)
    return bool(_LONG_AGO.search(newer.text)) and not _LONG_AGO.search(older.text)


def is_once(older: Memory, newer: Memory) -> bool:
    """ "takes 10 mg", "took 20 mg yesterday": what was done once ends nothing that is done regularly."""
    old, new = _first_clause(older.text), _first_clause(newer.text)
    lemma = base_form(old.verb)
    if old.subject != new.subject or lemma == old.verb or lemma in _LASTING or _THE_LAST.search(newer.text):
        return False
    return _present(new.verb) == lemma or new.verb in (f"{lemma}ed", f"{lemma}d")


_THE_LAST = re.compile(r"\b(?:his|her|their|the) (?:very )?(?:last|final)\b")
_LASTING = listed("weigh cost measure earn live work own")
"""Verbs whose past tells a state, and so perhaps that of today."""

# --- how far --------------------------------------------------------------------------------------------

_DENIES = re.compile(
    r"\b(?:no longer|(?:does|do|did|is|are|was|has|have|can) not|doesn't|don't|didn't|isn't|cannot|can't|"
    r"stopped|quit|paused|skipped|gave up|given up)\b"
)
_NUM = (
    r"(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|\d+|some|several|a few|a couple of|"
    "the|this|that)"
)
_SPAN = (
    "(?:minutes?|hours?|days?|nights?|weeks?|weekends?|months?|years?|season|summer|winter|spring|autumn|"
    "term|while)"
)
_WEEKDAY = "(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_LIMIT = re.compile(
    rf"\bfor {_NUM} (?:\w+ )?{_SPAN}\b|\bfor now\b|\btemporar\w+|\bwhen(?:ever)? (?:he|she|they|it)\b|"
    r"\b(?:until|till|during|while|only|except)\b|"
    r"\b(?:in|during) the (?:mornings?|afternoons?|evenings?|daytime|holidays?|summer|winter|spring|autumn|"
    r"week)\b|\bat (?:night|work|school|home|weekends|lunch|breakfast|dinner)\b|"
    rf"\b(?:on|at) (?:weekdays|weekends|{_WEEKDAY}s)\b",
    re.IGNORECASE,
)
_NOT_TODAY = re.compile(
    r"\b(?:skipped|paused|is not|isn't|did not|didn't)\b.*"
    r"\b(?:today|tonight|yesterday|this (?:morning|evening|week|weekend))\b"
)
_NOT_SINCE = re.compile(r"\b(?:has|have) not\b")
_DENIAL = re.compile(
    r"\b(?:no longer|(?:does|do|did|is|are|has|have) not|(?:stopped|quit|gave up|given up)(?= [a-z]+ing\b)) "
    r"(?:going to |(?:want|plan|intend|need|hope)s? to )?(?P<verb>\w+)(?P<rest> .+)$"
)
_ASIDE = re.compile(
    r"[,;:(]| (?:and|but|because|since|as|after|due|so|thanks|instead|from|any ?more|who|which|where|once|"
    r"on \d)\b"
)


def is_limited(older: Memory, newer: Memory) -> bool:
    """ "stopped tea for a day", "does not eat pork at work": at other times it holds."""
    if _NOT_TODAY.search(newer.text) and not _NOT_TODAY.search(older.text):
        return True
    # Who has not smoked for a month has stopped; "on Sundays" limits nothing that was done "every Sunday".
    if not _DENIES.search(newer.text) or _NOT_SINCE.search(newer.text):
        return False
    limits, known = set(_LIMIT.findall(newer.text)) - set(_LIMIT.findall(older.text)), _told(older.text)
    return any(not _told(one) or _unknown(_told(one), known) for one in limits)


def is_narrower(older: Memory, newer: Memory) -> bool:
    """ "no longer plays piano in church", "does not eat fish bones": less is denied than was said."""
    said = " ".join(newer.text.replace("n't ", " not ").split()).rstrip(". ")
    if not (found := _DENIAL.search(said)):
        return False
    denied = _told(_ASIDE.split(re.sub(f"{TAIL}$", "", _LIMIT.sub("", found["rest"])))[0])
    known = _told(older.text)
    return bool(_unknown(denied, known) and (denied | _told(found["verb"])) & known)


_ADDED = re.compile(r"\b(?:too(?=[.,]|$)|also|as well|additional\w*|besides|on the side|in addition)\b")


def is_added(older: Memory, newer: Memory) -> bool:
    """ "now speaks German too": the older statement stands beside it."""
    verb = _first_clause(newer.text).verb
    is_event = bool(_present(verb)) or verb.endswith("ed")
    return bool(_ADDED.search(newer.text)) and not is_event and not _DENIES.search(newer.text)


# --- what -----------------------------------------------------------------------------------------------


def is_part(older: Memory, newer: Memory) -> bool:
    """ "sold the car keys", "got a flat tyre": what both name stands in one of them before another noun."""
    old, new = _told(older.text), _told(newer.text)
    parts = {
        word
        for text, there in ((older.text, new), (newer.text, old))
        for word, noun in _modifiers(text).items()
        if _unknown({noun}, there)
    }
    return bool(old & new & parts) and not (old & new) - parts


def _modifiers(text: str) -> dict[str, str]:
    """Stems of a word and the noun that it stands before, of objects with an article: "the car keys"."""
    tokens = re.findall(r"[\w'’-]+|[^\w\s]", text)
    return {
        stem(word.casefold()): stem(noun)
        for before, article, word, noun in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False)
        # Who "is a freelance translator" is both.
        if before not in ("is", "as")
        and article in _ARTICLES
        and re.fullmatch("[a-z]{2,}", noun)
        and not _NO_ENDING.fullmatch(noun)
        and noun not in _NO_NOUNS | _STAND_FOR
    }


_ARTICLES = listed("a an the his her their its new old some any no both this that another")
_STAND_FOR = listed(
    "membership subscription contract exam test course licence license operation treatment job"
)
"""Whose gym membership is over has left the gym."""
_NO_NOUNS = listed(
    """about above across after again along among and any are around as at away back because before
    behind below beside between broke but by came can could cut died down during each eight every except
    fell five for four from good got had has have he her his home how if in instead into is it last left
    like made may might must near next nine no not now of off old on once only onto or out outside over
    own per ran seven she should since six so still ten than that the their then there they this though
    three through till to today together tomorrow too twice two under until up was we went were what
    when where which while who whom whose why will with within without would yesterday"""
)
_NO_ENDING = re.compile(r"\w{2,}(?:ly|ed|ing)")


def is_other_sense(older: Memory, newer: Memory) -> bool:
    """ "drives a Volvo", "drives to work now"; "wants to learn Thai", "learned to swim": they have only the
    verb in common, which says different things."""
    old, new = _first_clause(older.text), _first_clause(newer.text)
    if planned := _PLANNED.fullmatch(f"{old.verb} {old.rest}"):
        old = _Clause(old.subject, planned["verb"], planned["rest"])
    if old.subject != new.subject or not old.rest or not new.rest or _verb(old.verb) != _verb(new.verb):
        return False
    if new.verb in _IS:
        # What somebody is may be over when he is something else; a thing that is broken is still of its kind.
        is_kind = re.match("an? ", old.rest) and not re.match("an? ", new.rest)
        if not is_kind or old.subject == "user" or set(old.subject.split()) & RELATIONS:
            return False
    told = [{one for one in _told(part) if not one.isdigit()} for part in (old.rest, new.rest)]
    is_other_number = all(re.search(r"\d", part) for part in (old.rest, new.rest)) and not all(told)
    first, second = old.rest.split()[0], new.rest.split()[0]
    is_other_name = first == second and first in _PREPOSITIONS
    if is_other_number or is_other_name or _DENIES.search(newer.text):
        return False
    return not (_told(older.text) & _told(newer.text)) - _told(f"{old.subject} {old.verb} {new.verb}")


def _verb(form: str) -> str:
    return stem(_present(form) or form)


_PREPOSITIONS = listed("at by for from in on to with")
_IS = listed("is are was were")
_PLANNED = re.compile(
    r"(?:wants|plans|hopes|intends|is (?:planning|hoping|going)) to (?P<verb>[a-z]+) (?P<rest>.+)"
)


_STOP = re.compile(r"\b(?:stopped|stops) (?:for|by|at|off|over)\b")
_LEAVE = re.compile(
    r"\bleft (?:an?|the|his|her|their) (?P<what>.*)\b(?:in|at|on|with|behind|under)\b(?P<where>.*)"
)
_LEFT_FOR_GOOD = listed(
    "job post position role flat house home room company firm band club choir team party group school"
)
_LEAVE_TOWN = re.compile(r"\bleft [A-Z]")
_FOR_GOOD = re.compile(r"\b(?:for good|for ever|forever|permanently|moved|back to|to live|after .*years)\b")


def is_departure(older: Memory, newer: Memory) -> bool:
    """ "stopped for coffee", "left the laptop in the office"; "left Berlin" of somebody who lives there: he
    may be back."""
    if _STOP.search(newer.text):
        return True
    said = _first_clause(older.text)
    if said.verb in ("has", "owns"):
        left = _LEAVE.search(newer.text)
        if not left or set(left["what"].split()) & _LEFT_FOR_GOOD or _DAY.search(left["where"]):
            return False
        return not left["where"].strip(" .") or bool(_unknown(_told(left["where"]), _told(older.text)))
    is_home = said.verb in ("lives", "live", "resides")
    return is_home and bool(_LEAVE_TOWN.search(newer.text)) and not _FOR_GOOD.search(newer.text)


_DATED = re.compile(rf"\b(?:on|at|due) (?:the )?(?:\d|{MONTH}|{_WEEKDAY})", re.IGNORECASE)
_MOVED_TO = re.compile(r"\b(?:was|is|has been|were|are) moved (?:from .+ )?to (?P<where>.+)")
_DAY = re.compile(
    rf"\d{{4}}|\d[.:]\d|^\d+\W*$|\d ?[ap]\.?m\b|\b(?:{MONTH}|{_WEEKDAY}|today|tomorrow|midday|noon|next|"
    r"morning|afternoon|evening|week|month|year|later|earlier|Christmas|Easter|Ramadan|Diwali)\b",
    re.IGNORECASE,
)


def is_other_place(older: Memory, newer: Memory) -> bool:
    """ "User's meeting is on 4 June", "was moved to Room 4": the day stands."""
    moved = _MOVED_TO.search(newer.text)
    return moved is not None and bool(_DATED.search(older.text)) and not _DAY.search(moved["where"])


_ONE_OF = re.compile(
    r"(?<!every )\b(?:first|second|third|other|another|former|previous|one of (?:his|her|their|the)) (\w+)"
)


def is_another(older: Memory, newer: Memory) -> bool:
    """ "has a dog", "User's first dog died": there is, or was, more than one."""
    known = _told(older.text)
    return any(stem(one) in known for one in _ONE_OF.findall(newer.text)) and not _ONE_OF.search(older.text)


def is_of_other_age(older: Memory, newer: Memory) -> bool:
    """ "User's son is six", "User's son is nine": if not so many years have passed, there are two."""
    years = [int(one.session_time[:4] or 0) for one in (older, newer)]
    old, new = _ages(older.text), _ages(newer.text)
    return any(not 0 <= new[who] - old[who] <= years[1] - years[0] + 1 for who in old.keys() & new.keys())


def _ages(text: str) -> dict[str, int]:
    """Somebody of whom there may be another -> age."""
    found = {}
    for state in read_attributes(text).states:
        thing = state.subject.rpartition("'s ")[2]
        if state.attribute == "age" and thing not in words.UNIQUE_PERSONS and thing != "user":
            found[state.subject] = words.NUMERALS.get(state.value) or int(state.value)
    return found


def is_for_another(older: Memory, newer: Memory) -> bool:
    """ "is looking for a job", "found a job for Tom": somebody else's."""
    if not _SOUGHT.search(older.text) or _first_clause(newer.text).verb not in words.PAST:
        return False
    told = [
        one
        for one in re.findall(r" for (?:(?:his|her|their|an?|the) )?(\w+)", newer.text)
        if not _DAY.search(one)
    ]
    return any((one[0].isupper() or one in RELATIONS) and one not in older.text for one in told)


_SOUGHT = re.compile(
    r"\b(?:wants?|plans?|hopes?|intends?|would like|looking for|searching for|saving|needs?)\b"
)


def is_other_value(older: Memory, newer: Memory) -> bool:
    """ "User's cat is black", "User's cat is white": one word is another; they do not say the same."""
    old, new = (re.findall(r"\w+", one.text.casefold()) for one in (older, newer))
    is_same_verb = _first_clause(older.text).verb == _first_clause(newer.text).verb != ""
    return is_same_verb and len(old) == len(new) and sum(a != b for a, b in zip(old, new, strict=True)) == 1


_OF_BOTH: dict[str, Guard] = {
    "it had happened before the older memory was told": is_earlier,
    "done once, it ends nothing that is done regularly": is_once,
    "it is about another one of the kind": is_another,
    "it is about somebody of another age": is_of_other_age,
}
GUARDS: dict[str, dict[str, Guard]] = {
    "delete": {
        **_OF_BOTH,
        "it holds for a time or an occasion": is_limited,
        "it denies less than the older memory says": is_narrower,
        "it adds to the older memory": is_added,
        "it is about a part or another thing": is_part,
        "both have only a verb in common": is_other_sense,
        "it is a stop or a departure": is_departure,
        "it moves to another place, not to another day": is_other_place,
        "it was done for somebody else": is_for_another,
    },
    "unite": {**_OF_BOTH, "it has another value": is_other_value},
}
"""By what a model says: reason -> guard."""
