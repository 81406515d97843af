"""Reads statements, clause by clause: which attributes of one value they state, and which they end."""

import functools
import re
from typing import Any

from cluster.consolidate.attribute_patterns import (
    ENDS,
    MONTH,
    NAME,
    STATES,
    TAIL,
    Pattern,
    is_name_of,
    is_occupation,
    plain,
)
from cluster.consolidate.attributes import End, Reading, State
from cluster.language import vocabulary as words
from cluster.language.claims import FILLER
from cluster.language.grammar import Clause, clauses
from cluster.language.words import base_form

_CHANGE = re.compile(r"\b(?:now|nowadays|from now on|instead|since then)\b")
"""Not "these days": who reads Emma these days may be reading Dune too."""
_UNREAL = re.compile(
    r"\b(?:if|unless|whether|would|might|may|could|should|wonders?|wondered|dream(?:s|t|ed)?|imagin\w+|"
    r"pretend\w*|hop(?:es?|ed|ing)|wish(?:es|ed)?|plans?|planned|planning|considers?|considering|thinks?|thinking|"
    r"intends?|want(?:s|ed)?|almost|nearly|perhaps|maybe|possibly|probably|supposed\w*|claims?|claimed|jok\w+|"
    r"says|said|in case|as if|role-?play\w*|fiction\w*|story|novel|asks?|asked|wants|"
    r"sometimes|tr(?:ies|ied|ying)|will|going to|due to move|offered|was told|fears?|worr\w+|expects? to)\b"
)
_ADDED = re.compile(
    r"\b(?:too|also|as well|another|additional\w*|besides|second|both|on the side|part.time)\b"
)
_NOT_FOR_LONG = re.compile(
    r"\b(?:for (?:(?:a|an|one|two|three|four|five|six|\d+|some|several|the|this|a few|a couple of) )?"
    r"(?:\w+ )?(?:hours?|days?|nights?|weeks?|weekend|months?|years?|season|summer|winter|spring|autumn|"
    r"semester|term|holidays?|now|while|trip|conference|visit)|until|till|temporar\w+|weekends?|every|sometimes|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?|evenings?|mornings?|nights?|noon|midnight|o'clock|hours?|"
    r"ago|once|formerly|previously|back then|as an? (?:child|kid|teenager|student|volunteer|hobby|favou?r)|"
    r"in (?:college|school|university|high school)|during|when(?:ever)?|while|only|trial|at \d)\b",
    re.IGNORECASE,
)
_YEAR = re.compile(r"\b(?:in|since|from|of|until|during|before|after|,) (?:[A-Z]\w+ )?((?:19|20)\d\d)\b")

_MODEL = r"(?:[\w\-]+ ){0,3}?[A-Z0-9][\w\-]*(?: [A-Z0-9][\w\-]*)*"
"""What is named within its description: "red Fox 40"."""
_NUM = r"(?:about |around |roughly )?[€$£+]? ?\d[\d.,: /\-]*\d?"
_AMOUNT = rf"(?P<v>{_NUM}(?: ?[%€$£])?(?: [a-z]+){{0,2}}(?: (?:a|per) [a-z]+)?)"
_DATE = re.compile(
    r"\d|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|monday|tuesday"
    r"|wednesday|thursday|friday|saturday|sunday)",
    re.IGNORECASE,
)
_DAY = re.compile(
    rf"\b(?:{MONTH}|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|tomorrow|today|next \w+)\b|"
    r"\d{4}-\d\d|\d\d?[.:]\d\d|\d ?[ap]\.?m\b"
)


@functools.lru_cache(maxsize=65536)
def read_attributes(text: str) -> Reading:
    """Text -> what it states and ends. Never raises; an unknown form does neither."""
    found = clauses(text)
    states, ends = [], []
    is_unreal = bool(_UNREAL.search(text))
    for number, clause in enumerate(found):
        reader = _Reader(number, clause, is_unreal)
        reader.read()
        states += reader.states
        ends += reader.ends
    return Reading(tuple(clause.text for clause in found), tuple(states), tuple(ends))


class _Reader:
    """Reads one clause."""

    def __init__(self, number: int, clause: Clause, is_unreal: bool):
        self.states: list[State] = []
        self.ends: list[End] = []
        self._number, self._clause, self._is_unreal = number, clause, is_unreal
        raw = clause.raw
        self._is_change = bool(_CHANGE.search(raw))
        self._is_added = bool(_ADDED.search(raw))
        years = [int(found[1]) for found in _YEAR.finditer(raw) if found[1]]
        self._year = max(years, default=0)
        self._subject = clause.subject.lower().removeprefix("the ")
        self._owner, _, self._thing = self._subject.rpartition("'s ")
        self._body = re.sub(r"\s+", " ", FILLER.sub(" ", clause.predicate)).strip(" ,")

    def read(self) -> None:
        self._read_deaths()
        self._read_couples()
        if not self._body:
            return
        if self._is_unreal:
            self._read_plans()
            return
        if self._is_one_person():
            for attribute, patterns in STATES.items():
                self._read_states(attribute, patterns)
            for pattern, ended in ENDS:
                self._read_ends(pattern, ended)
            self._read_counts()
            self._read_amounts()
            self._read_verbs()
            self._read_done()
        if self._thing:
            self._read_thing()
        self._read_ages()

    # What is said of whom.

    def _is_one_person(self) -> bool:
        subject = self._clause.subject
        if self._subject == "user" or re.fullmatch(NAME, subject):
            return " and " not in subject
        if not self._thing:
            return False
        last = subject.split()[-1]
        return self._thing in words.UNIQUE_PERSONS or (last[0].isupper() and self._owner == "user")

    def _state(
        self, attribute: str, value: str, *, tail: str = "", is_full: bool = True, **flags: Any
    ) -> None:
        lasting = not _NOT_FOR_LONG.search(tail) if tail else True
        flags = {"is_change": self._is_change} | flags
        self.states.append(
            State(
                self._number,
                flags.pop("subject", self._subject),
                attribute,
                plain(value),
                tail.strip(" ,"),
                may_replace=is_full and lasting and not self._is_added,
                year=self._year,
                **flags,
            )
        )

    def _end(self, attribute: str, value: str = "", subject: str = "") -> None:
        self.ends.append(End(subject or self._subject, attribute, plain(value), self._year))

    # Attributes with patterns of their own.

    def _read_states(self, attribute: str, patterns: list[Pattern]) -> None:
        for pattern in patterns:
            if not (found := pattern.regex.match(self._body)):
                continue
            value, tail = found["v"].strip(" ,"), self._body[found.end() :]
            if not pattern.is_value(value):
                continue
            is_full = bool(re.fullmatch(pattern.tail or TAIL, tail)) and not _NOT_FOR_LONG.search(self._body)
            if pattern.is_change and not is_full:
                continue
            if attribute == "occupation" and not (
                pattern.is_change or self._is_change or is_occupation(value)
            ):
                is_full = False
            # The word itself belongs to the tail: "diet" of a keto diet.
            tail = f"{found.groupdict().get('noun') or ''}{tail}"
            self._state(
                attribute,
                value,
                tail=tail,
                is_full=is_full,
                is_exclusive=pattern.is_exclusive,
                is_change=self._is_change or pattern.is_change,
            )
            return

    def _read_ends(self, pattern: re.Pattern, ended: tuple[str, ...]) -> None:
        found = pattern.fullmatch(self._body)
        if found and not _NOT_FOR_LONG.search(self._body):
            value = found.groupdict().get("v") or ""
            for attribute in ended:
                self._end(attribute, value)

    def _read_counts(self) -> None:
        """ "has two kids", later "has three kids"."""
        pattern = rf"(?:has|have) (?P<v>{'|'.join(words.NUMERALS)}|\d+) (?P<noun>[a-z]+)"
        if found := re.match(pattern, self._body):
            noun = _singular(found["noun"])
            tail = self._body[found.end() :]
            if noun in words.COUNTED:
                self._state(f"count {noun}", found["v"], tail=tail, is_full=not tail, is_exclusive=True)

    def _read_ages(self) -> None:
        pattern = rf"(?:is (?P<v>{'|'.join(words.NUMERALS)}|\d+)(?: years? old)?|turned (?P<w>\d+))"
        if found := re.fullmatch(pattern + TAIL, self._body):
            self._state("age", found["v"] or found["w"], is_exclusive=True)

    def _read_amounts(self) -> None:
        """The same words with another number: "cannot spend more than 300 euros on gifts"."""
        body = self._body
        numbers = re.findall(r"\d[\d.,:]*", body)
        if (
            len(numbers) != 1
            or _NOT_FOR_LONG.search(body)
            or re.search(rf"{MONTH}|\b(?:at|on|in) \d|(?:19|20)\d\d", body)
        ):
            return
        if not re.match(r"(?:cannot|must|is|are|has|[a-z]+s)\b", body):
            return
        is_limit = bool(
            re.search(r"\b(?:cannot|can not|must not)\b.*\bmore than \d|\bat most \d|\bweighs\b", body)
        )
        frame = re.sub(r"\d[\d.,:]*", "#", body)
        self._state(f"amount {frame}", numbers[0], is_exclusive=is_limit)

    # Verbs.

    def _read_verbs(self) -> None:
        """What somebody does and stops doing, has and sells."""
        body, raw = self._body, self._clause.raw
        body = re.sub(r" any ?more$", "", body)
        denied = re.match(r"(?:does|do|did) not (?P<verb>[a-z]+)(?: (?P<v>.+))?$", body)
        if not denied and re.search(r"\bno longer\b", raw):
            denied = re.match(r"no longer (?P<verb>[a-z]+)(?: (?P<v>.+))?$", body)
        if denied and not _NOT_FOR_LONG.search(body):
            self._deny(_lemma(denied["verb"]), denied["v"] or "")
            return
        # "is no longer vegan", "is not allergic to nuts any more".
        if found := re.match(r"(?:is|are) (?:no longer|not) (?P<v>.+)$", body):
            if not _NOT_FOR_LONG.search(found["v"]):
                self._deny("is", found["v"])
            return
        if found := re.match(r"used to (?P<verb>[a-z]+)(?: (?P<v>.+))?$", body):
            if not _NOT_FOR_LONG.search(body) and not self._year:
                self._deny(_lemma(found["verb"]), found["v"] or "")
            return
        stopped = re.match(r"(?:has )?(?:stopped|quit|gave up|given up|ended up not) (?P<v>.+)$", body)
        if stopped:
            self._stop(stopped["v"])
            return
        sold = re.fullmatch(
            r"(?:has )?(?:sold|gave away|got rid of|donated|crashed|totalled|scrapped|returned|lost|"
            r"cancelled|canceled|traded in|broke) (?:the|his|her|their) "
            rf"(?P<v>[^,]+?)(?: (?:to|for|at) .+)?{TAIL}",
            body,
        )
        if sold:
            for verb in ("have", "own", "drive", "ride"):
                self._end(f"verb {verb}", sold["v"])
            self._end("date", sold["v"])
            return
        swapped = re.match(
            r"(?:has )?(?:switched|changed) from (?P<v>.+?) to |"
            r"(?:has )?(?:replaced|traded|swapped) (?P<w>.+?) (?:with|for|by) ",
            body,
        )
        if swapped:
            for verb in ("have", "own", "drive", "ride", "use", "drink", "eat", "take", "study"):
                self._end(f"verb {verb}", swapped["v"] or swapped["w"])
            return
        self._read_date()
        found = re.match(r"(?P<verb>[a-z]+)(?: (?P<v>.+))?$", body)
        if not found or found["verb"] in ("was", "were", "had", "did"):
            return
        verb, value = found["verb"], found["v"] or ""
        if verb == "is" and (doing := re.match(r"([a-z]+ing)(?: (.+))?$", value)):
            self._state(f"verb {_stem(doing[1])}", doing[2] or "", is_full=False)
        if verb in ("is", "are"):
            self._state("verb is", value, is_full=False)
            return
        lemma = _lemma(verb)
        if lemma != verb:
            whole = not _NOT_FOR_LONG.search(value)
            self._state(f"verb {lemma}", value, is_full=False)
            # Of cars by name there is one at a time. Who now has a cat may still have the dog.
            if lemma == "drive" and whole and re.fullmatch(rf"an? {_MODEL}", value):
                self._state("vehicle", value)
        schedule = re.fullmatch(r"(?:goes|commutes) to (?:the )?(.+?) ((?:on|at|by|every) .+)", body)
        if schedule and self._is_change:
            kind = schedule[2].split()[0]
            self._state(f"schedule {schedule[1]} {kind}", schedule[2])
            self.states[-1] = State(**(vars(self.states[-1]) | {"may_replace": not self._is_added}))
        elif schedule:
            kind = schedule[2].split()[0]
            self._state(f"schedule {schedule[1]} {kind}", schedule[2], is_full=False)
        self._read_choice()

    def _deny(self, lemma: str, value: str) -> None:
        aliases = {
            ("live", "in"): ("residence",),
            ("work", "at"): ("employer",),
            ("work", "for"): ("employer",),
            ("work", "as"): ("occupation",),
        }
        first, _, rest = value.partition(" ")
        for attribute in aliases.get((lemma, first), ()):
            self._end(attribute, rest)
        self._end(f"verb {lemma}", value)
        if lemma in ("is", "be"):
            value = plain(value)
            self._end("verb is", value)
            self._end("occupation", value)
            if value in words.DIETS:
                self._end("diet", value)
            if value in words.MARITAL:
                self._end("marital", value)
        if lemma == "follow" and (found := re.fullmatch(r"(?:an? |the )?(.+) diet", value)):
            self._end("diet", found[1])

    def _stop(self, rest: str) -> None:
        rest = re.sub(rf"{TAIL}$", "", rest)
        if _NOT_FOR_LONG.search(rest) or re.match(r"(?:to|by|at|in|for|on|off)\b", rest):
            return
        doing = re.match(r"(?P<verb>[a-z]+ing)(?: (?P<v>.+))?$", rest)
        if doing and doing["verb"] == "being":
            self._deny("be", doing["v"] or "")
        elif doing and doing["verb"] in ("living", "working"):
            self._deny(_stem(doing["verb"]), doing["v"] or "")
        elif doing:
            self._end(f"verb {_stem(doing['verb'])}", doing["v"] or "")
        elif len(rest.split()) <= 3:
            for verb in ("drink", "eat", "smoke", "take", "play", "practise", "practice"):
                self._end(f"verb {verb}", rest)
            if found := re.fullmatch(r"(?:the )?(?P<v>.+) diet", rest):
                self._end("diet", found["v"])

    def _read_choice(self) -> None:
        """ "prefers answers as lists": the frame before the value is the attribute."""
        for pattern in _CHOICES:
            if found := pattern.fullmatch(self._body):
                frame = " ".join(
                    part for part in (found.groupdict().get("a"), found.groupdict().get("b")) if part
                )
                self._state(f"choice {frame.lower()}", found["v"], is_exclusive=True)
                return

    def _read_date(self) -> None:
        """ "has a dentist appointment on 3 March"."""
        found = re.match(
            r"(?:has|have) (?:an? |another )?(.+?) (?:scheduled |planned )?(?:on|at) "
            rf"((?=(?:the )?\S*(?:{_DATE.pattern})).+)",
            self._body,
            re.IGNORECASE,
        )
        if found:
            self._state("date", found[1], tail=found[2], is_full=False)

    # Plans and what became of them.

    def _read_plans(self) -> None:
        if found := re.fullmatch(_PLANNED, self._body):
            self._state(f"plan {found['verb']}", found["v"] or "", is_full=False)
        elif found := re.fullmatch(_PLANNED_DOING, self._body):
            self._state(f"plan {_stem(found['verb'])}", found["v"] or "", is_full=False)
        elif found := re.fullmatch(
            r"no longer (?:wants|plans|intends) to (?P<verb>[a-z]+)(?: (?P<v>.+))?", self._body
        ):
            self._end(f"plan {found['verb']}", found["v"] or "")

    def _read_done(self) -> None:
        if found := re.fullmatch(
            r"is (?:looking|searching) for (?P<v>.+)|is saving (?:up )?for (?P<w>.+)", self._body
        ):
            self._state("plan find", found["v"] or found["w"], is_full=False)
            return
        found = re.match(r"(?:has )?(?P<verb>[a-z]+)(?: (?P<v>.+))?$", self._body)
        if not found or found["verb"] not in words.PAST or re.search(r"\bfor\b", found["v"] or ""):
            return
        verb, value = words.PAST[found["verb"]], plain(found["v"] or "")
        # The plan's words are the beginning of what was done: bought a house in Rome.
        plans = ["find", verb] if verb in ("find", "get", "buy", "adopt", "hire", "rent") else [verb]
        self.ends += [
            End(self._subject, f"plan {plan}", value, self._year, is_deed=True)
            for plan in dict.fromkeys(plans)
        ]

    # Couples, births, deaths.

    def _read_couples(self) -> None:
        both = re.match(rf"User and (?P<n>{NAME}) (?P<rest>.+)$", self._clause.raw.rstrip(". "))
        rest = f"{both['rest']}" if both else self._body
        if not both and self._subject != "user":
            if re.fullmatch(
                rf"user's divorce (?:is|was|became) (?:finali[sz]ed|final|through){TAIL}",
                self._clause.raw.lower(),
            ):
                self._divorce("", "user")
            return
        if self._is_unreal or _NOT_FOR_LONG.search(rest):
            return
        name = both["n"] if both else ""
        if found := re.fullmatch(
            rf"(?:has |have )?(?:got |gotten |is |are )?(?:divorced|separated|split up|broken up|broke up)"
            rf"(?: (?:from|with))?(?: (?P<n>{NAME}|(?:his|her|their) (?:wife|husband|partner)))?{TAIL}",
            rest,
        ):
            named = name or (found["n"] if found["n"] and found["n"][0].isupper() else "")
            if re.search(r"divorced", rest):
                self._divorce(named, "user")
            else:
                self._part(named, "user")

    def _divorce(self, name: str, subject: str) -> None:
        self._end("partner of", name, subject)
        for relation in ("wife", "husband", "spouse", "partner"):
            self._end(f"thing {relation}", name, subject)
        if not name:
            self._end("marital", "married", subject)
        self._end("verb is", f"married to {name}".strip() if name else "married", subject)

    def _part(self, name: str, subject: str) -> None:
        for relation in words.COUPLE:
            self._end(f"thing {relation}", name, subject)
        self._end("partner of", name, subject)
        self._end("verb date", name, subject)
        if not name:
            for state in ("engaged", "in a relationship", "dating"):
                self._end("marital", state, subject)

    def _read_deaths(self) -> None:
        found = re.fullmatch(
            rf"(?:The )?[Uu]ser's (?P<thing>[a-z]+)(?:,? (?P<name>{NAME}),?)? (?:has )?(?:died|passed away|"
            rf"ran away|was put (?:down|to sleep)|was given away|was rehomed|was run over){TAIL}",
            self._clause.raw.rstrip(". "),
        )
        if not found or self._is_unreal:
            return
        thing, name = found["thing"], (found["name"] or "").lower()
        for value in (f"{thing} called {name}", f"{thing} named {name}") if name else (thing,):
            self.ends.append(End("user", "verb have", value, self._year, is_exact=not name))
        if name:
            self._end(f"thing {thing}", name, "user")
            self._end("name", name, f"user's {thing}")
        elif thing in words.UNIQUE_PERSONS:
            for attribute in ("residence", "employer", "occupation", "diet", "age", "marital"):
                self._end(attribute, "", f"user's {thing}")

    # Possessions.

    def _read_thing(self) -> None:
        """ "User's favourite band is Muse", "User's rent went up to 1000 euros"."""
        body, thing = self._body, self._thing
        if self._owner != "user" and not re.fullmatch(NAME, self._clause.subject.rpartition("'s ")[0]):
            return
        is_new = thing.startswith("new ")
        thing = thing.removeprefix("new ")
        is_change = self._is_change or is_new
        if found := re.fullmatch(
            rf"(?:is|was|got|has been) (?:called|named|renamed(?: to)?) (?P<v>{NAME}){TAIL}", body
        ):
            subject = f"{self._owner}'s {thing}"
            self._state("name", found["v"], subject=subject, is_change=is_change or "renamed" in body)
            return
        if found := re.fullmatch(
            r"(?:was|is|has been|got) (?:moved|rescheduled|postponed|brought forward|pushed(?: back)?|"
            r"changed) (?:from .+? )?(?:to|until|for) (.+)",
            body,
        ):
            if _DAY.search(found[1]):
                self._end("date", thing, self._owner)
                self._state("date", thing, tail=found[1], subject=self._owner, is_full=False)
            return
        if re.fullmatch(rf"(?:was|is|has been|got) (?:cancelled|canceled|called off){TAIL}", body):
            self._end("date", thing, self._owner)
            return
        if (found := re.match(r"(?:is|are)(?: due)? (?:on|by|at) (.+)", body)) and _DATE.search(found[1]):
            self._state("date", thing, tail=found[1], subject=self._owner, is_full=False)
            return
        attribute = f"thing {thing}"
        raised = r"(?:went up|rose|increased|was raised|dropped|fell|went down|was lowered|was cut) to"
        if found := re.fullmatch(rf"(?:is|are|{raised}) {_AMOUNT}{TAIL}", body):
            single = any(thing == one or thing.endswith(f" {one}") for one in words.NUMERIC_THINGS)
            is_change = is_change or not body.startswith(("is", "are"))
            self._state(attribute, found["v"], subject=self._owner, is_exclusive=single, is_change=is_change)
            return
        if found := re.fullmatch(rf"(?:is|are) (?P<v>\S+@\S+){TAIL}", body):
            self._state(attribute, found["v"], subject=self._owner, is_exclusive=True, is_change=is_change)
            return
        found = re.fullmatch(r"(?:is|are) (?P<v>.+)", body)
        if not found:
            return
        value = found["v"]
        chosen = bool(words.SELECTORS & set(thing.split()))
        is_one = thing in words.COUPLE
        named, model = is_name_of(value), bool(re.fullmatch(rf"an? {_MODEL}", value))
        if thing in words.UNIQUE_PERSONS and not named:
            return
        # What is neither named nor told as a thing may be said of it: "is healthy", "is on tour".
        is_thing = bool(re.fullmatch(r"(?:an? )[\w\- ]+", value)) and value.split()[-1] not in _OPINIONS
        is_colour = value in words.COLOURS and thing.split()[-1] in ("colour", "color")
        is_doing = is_change and thing.split()[-1] in ("hobby", "sport", "job")
        is_value = named or (not is_one and model) or (chosen and (is_thing or is_colour or is_doing))
        self._state(
            attribute,
            value,
            subject=self._owner,
            is_full=is_value and not _NOT_FOR_LONG.search(value),
            is_exclusive=chosen or is_one,
            is_change=is_change,
        )


def _singular(noun: str) -> str:
    if noun == "children":
        return "child"
    return noun.removesuffix("s")


def _lemma(verb: str) -> str:
    irregular = {"has": "have", "goes": "go", "does": "do", "is": "is", "are": "is", "be": "is"}
    return irregular[verb] if verb in irregular else base_form(verb)


_OPINIONS = frozenset("mess pain joy problem nightmare disaster dream treat one must hit".split())  # noqa: SIM905

_STEMS = dict(
    pair.split()
    for pair in """
        smoking smoke, driving drive, riding ride, taking take, having have, using use, living live, moving
        move, practising practise, practicing practice, running run, swimming swim, getting get, dating date,
        writing write, making make, giving give, leaving leave, commuting commute, dancing dance,
        cycling cycle, planning plan, studying study, vaping vape,
        hiking hike, jogging jog, skating skate, baking bake,
        gambling gamble, biking bike, buying buy, adopting adopt, quitting quit
    """.split(",")  # noqa: SIM905 - pairs are read more easily
)


def _stem(doing: str) -> str:
    return _STEMS.get(doing, doing.removesuffix("ing"))


_INTENDS = (
    r"(?:still )?(?:wants|plans|hopes|intends|would like|is planning|is hoping|is going|is trying|"
    r"has decided)"
)
_PLANNED = re.compile(rf"{_INTENDS} to (?P<verb>[a-z]+)(?: (?P<v>.+))?")
_PLANNED_DOING = re.compile(
    r"is (?:thinking (?:about|of)|considering|planning(?: on)?) (?P<verb>[a-z]+ing)(?: (?P<v>.+))?"
)

_CHOICES = (
    re.compile(r"prefers (?P<a>\w+ as) (?P<v>[\w ]+)"),
    re.compile(r"prefers (?P<a>\w+ing) (?P<v>(?!(?:in|on|at|from|with|to|by|for|about|as|alone)\b)[\w ]+)"),
    re.compile(r"prefers (?P<v>[\w ]+?) (?P<b>(?:when|while|on|over|for|during) (?!\d)[\w ]+)"),
    re.compile(
        r"prefers (?P<a>\w+s) (?P<v>(?:(?:right|late|early|just) )*"
        r"(?:before|after|around|at|in|on|between|by|early|late)\b.+)"
    ),
)
