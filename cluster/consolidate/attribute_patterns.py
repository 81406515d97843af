"""Forms in which clauses state attributes of one value and end them, and what counts as a value of each."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cluster.language import places
from cluster.language import vocabulary as words
from cluster.language.grammar import plain

# --- words behind a value, names ------------------------------------------------------------------------

MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December|spring|summer|"
    r"autumn|winter)"
)
_WHEN = (
    rf"(?:in (?:early |late |mid-)?{MONTH}(?: \d{{4}})?|in \d{{4}}|on \d{{1,2}}\.? {MONTH}(?: \d{{4}})?|"
    rf"on \d{{4}}-\d\d-\d\d|on {MONTH} \d{{1,2}}(?:, \d{{4}})?|"
    r"(?:last|this) (?:week|month|year|spring|summer|autumn|winter|night|morning)|yesterday|today|recently|"
    rf"(?:a few|two|three|\d) days ago|since (?:{MONTH}|\d{{4}}|then|last \w+)|at last|finally|officially|"
    r"for good|permanently|again|after all|once and for all|for health reasons|unexpectedly)"
)
_WHY = r"(?:(?:because|since|as|after|due to|to be (?:near|close|closer)|so that|thanks to)\b.*)"
TAIL = rf"(?:,? (?:{_WHEN}|{_WHY}))*"
"""What may stand behind a value without changing what it means. Every pattern of a change ends with it."""

_CAPITAL = r"[^\W\d_a-z][\w'’&.\-]*"
NAME = rf"{_CAPITAL}(?: (?:(?:of|de|del|la|le|van|von|der|den|the|&|and|do) )?{_CAPITAL})*"


# --- values ---------------------------------------------------------------------------------------------


def _is_town(value: str) -> bool:
    return places.find(value) is not None


def _is_place(value: str) -> bool:
    return bool(re.fullmatch(rf"{NAME}(?:, {NAME})?", value))


def _is_employer(value: str) -> bool:
    if not re.fullmatch(NAME, value):
        return False
    return (
        not {word.lower() for word in value.split()[:1]} & words.NO_EMPLOYERS
        and value.split()[0] not in _DAYS
    )


_DAYS = frozenset("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())  # noqa: SIM905


def _is_company(value: str) -> bool:
    """A name that says itself that it is a company's: people join gyms and networks as well."""
    return _is_employer(value) and bool(_COMPANY.search(value))


_COMPANY = re.compile(
    r"\b(?:Corp|Corporation|Inc|Ltd|Limited|LLC|LLP|GmbH|AG|SE|SA|BV|Oy|AB|PLC|Group|Bank|Labs|Industries|Systems|"
    r"Technologies|Logistics|Robotics|Foods|Textiles|Energy|Press|Diagnostics|Partners|Holdings|Consulting|Motors|"
    r"Pharma|Airlines|Insurance|Hospital|Software|Electronics|Engineering|Solutions|Ministry|Company)\b\.?$"
)


def _is_workplace(value: str) -> bool:
    return _head(value) in words.WORKPLACES or plain(value) in words.WORKPLACES


def _is_work(value: str) -> bool:
    """What "works as" may name: a known occupation, or a noun of somebody who does something."""
    head = _head(value)
    return head in words.OCCUPATIONS or (
        bool(re.search(r"(?:er|or|ist|ian|man|woman|smith|eer)$", head)) and head not in _NO_WORK
    )


_NO_WORK = frozenset(("volunteer", "member", "vegetarian", "mother", "father", "waver"))


def is_occupation(value: str) -> bool:
    return _head(value) in words.OCCUPATIONS


def _is_bare_occupation(value: str) -> bool:
    """Who became "manager of a fan club" may have done so after work."""
    return is_occupation(value) and " of " not in value


def _head(value: str) -> str:
    """The noun of "a school teacher in Bonn"."""
    phrase = re.split(r" (?:in|at|for|of|with|on|who|from)\b", plain(value))[0]
    return phrase.split()[-1] if phrase else ""


def _is_diet(value: str) -> bool:
    return value.lower() in words.DIETS


def _is_subject(value: str) -> bool:
    """What somebody may study: nouns, not "for the exam" and not "hard"."""
    return not re.match(
        r"(?:for|in|at|with|on|to|by|every|hard|late|early|alone|full|part|from|together|more|less|too|very|a|an|the)\b",
        value,
    )


def is_name_of(value: str) -> bool:
    """A name, and no nationality or faith: "User's wife is Korean"."""
    return bool(re.fullmatch(NAME, value)) and not _ADJECTIVE.search(value.split()[-1])


_ADJECTIVE = re.compile(
    r"(?:ese|ish|ian|ean|ican|yan|ani|lim)$|^(?:French|Dutch|German|Greek|Thai|Swiss|Czech|Iraqi|Israeli|Welsh|Slovak|"
    r"Croat|Serb|Turk|Arab|Kurd|Finn|Dane|Swede|Scot|Pole|Hindu|Sikh|Catholic|Protestant|Orthodox|Christian|Black|"
    r"Asian|African|Republican|Democrat)$"
)


def _anything(value: str) -> bool:
    return True


# --- states and ends ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern:
    regex: re.Pattern
    is_value: Callable[[str], bool]
    is_exclusive: bool = True
    is_change: bool = False
    tail: str = ""
    """Words that may follow, where they are others than TAIL."""


def _pattern(regex: str, is_value: Callable[[str], bool], **options: Any) -> Pattern:
    return Pattern(re.compile(regex), is_value, **options)


_STOP = "and|with|near|since|because|where|in|on|for|until|last|this|after|recently|again|at|by|so"
_END, _OCC_END = rf"(?=,| (?:{_STOP}|as|to|from)\b|$)", rf"(?=,| (?:{_STOP})\b|$)"
_HOME_TAIL = (
    rf"(?:{TAIL}|(?:,? (?:with|near|close to|in the|to be|and lives there|and now lives there|,) ?.*))*"
)
STATES = {
    "residence": [
        _pattern(
            rf"(?:lives?|resides|is based|is living|has a home) (?:back )?in (?P<v>.+?){_END}",
            _is_place,
            tail=_HOME_TAIL,
        ),
        _pattern(
            r"(?:has )?(?:moved|relocated) (?:from .+? )?(?:back )?to (?P<v>.+?)"
            r"(?= and (?:now )?lives there)",
            _is_place,
            is_change=True,
            tail=_HOME_TAIL,
        ),
        _pattern(
            rf"(?:has )?(?:moved|relocated) (?:from .+? )?(?:back )?to (?P<v>.+?){_END}",
            _is_town,
            is_change=True,
            tail=_HOME_TAIL,
        ),
    ],
    "employer": [
        _pattern(
            rf"(?:works?|is employed|is working|has a job) (?:at|for|by) (?P<v>.+?){_END}", _is_employer
        ),
        _pattern(
            rf"(?:works?|is employed|is working) (?:at|for|in) (?P<v>an? .+?){_END}",
            _is_workplace,
            is_exclusive=False,
        ),
        _pattern(
            r"(?:got|has|has got|found|started|took|accepted|landed) (?:an?|the|his|her|their)(?: new)?"
            rf"(?: \w+)? (?:job|position|role) (?:at|with) (?P<v>.+?){_END}",
            _is_employer,
            is_change=True,
        ),
        _pattern(
            rf"(?:has )?(?:started (?:working|work) (?:at|for)|was hired by|signed with) (?P<v>.+?){_END}",
            _is_employer,
            is_change=True,
        ),
        _pattern(
            r"(?:has )?joined (?P<v>.+?)(?= as an? )", _is_employer, is_change=True, tail=r" as an? [a-z ]+"
        ),
        _pattern(rf"(?:has )?joined (?P<v>.+?){_END}", _is_company, is_change=True),
    ],
    "occupation": [
        _pattern(rf"(?:works?|is working|is employed) (?:full.time )?as (?P<v>an? .+?){_OCC_END}", _is_work),
        _pattern(r"is (?P<v>an? .+?) by profession", _is_work),
        _pattern(rf"is (?P<v>an? .+?){_OCC_END}", is_occupation, is_exclusive=False),
        _pattern(
            r"(?:has )?(?:(?:re)?trained as|qualified as|became|become|started (?:working |work |out )?as|"
            rf"(?:started|got) (?:an? |the )?(?:new )?job as) (?P<v>an? .+?){_OCC_END}",
            _is_bare_occupation,
            is_change=True,
            tail=rf"(?: (?:at|in) {NAME})?{TAIL}",
        ),
    ],
    "marital": [
        _pattern(rf"is (?P<v>{'|'.join(words.MARITAL)})\b", _anything, tail=rf"(?: to {NAME})?{TAIL}"),
        _pattern(
            r"(?:has )?(?:got|gotten|became) (?P<v>married|engaged|divorced|separated|widowed)\b",
            _anything,
            tail=rf"(?: to {NAME}| from {NAME})?{TAIL}",
        ),
    ],
    "partner of": [
        _pattern(rf"is (?:married|engaged) to (?P<v>{NAME})", _anything, is_exclusive=False),
    ],
    "pregnancy": [
        _pattern(
            r"(?P<v>is (?:(?:\w+ )?(?:weeks|months) )?pregnant|is expecting (?:a|her|their|twins).*)",
            _anything,
        ),
    ],
    "diet": [
        _pattern(
            r"(?:follows|is on|keeps to|eats|sticks to) (?:an? |the )?(?P<v>[\w\-]+)(?P<noun> diet)\b",
            _anything,
            is_exclusive=True,
        ),
        _pattern(
            r"(?:has )?(?:switched|changed|moved|went)(?: from .+?)? (?:to|on) (?:an? |the )?(?P<v>[\w\-]+)"
            r"(?P<noun> diet)\b",
            _anything,
            is_change=True,
        ),
        _pattern(
            r"(?:is|became|has become|went|turned) (?:an? )?(?:strict |fully )?(?P<v>[a-z\-]+)\b", _is_diet
        ),
    ],
    "studies": [
        _pattern(
            rf"(?:studies|is studying|is doing a degree in|majors in) (?P<v>[\w ]+?){_END}",
            _is_subject,
            is_exclusive=False,
            # What is studied "now" may be a map.
            tail=r"(?!)",
        ),
    ],
}

_JOB = r"(?:the|his|her|their|a)(?: \w+)? (?:job|position|post|role)"
_DISMISSED = r"(?:was|got|has been|is) (?:fired|sacked|dismissed|laid off|let go|made redundant)"
_GAVE_UP_JOB = rf"(?:has )?(?:lost|quit|left|gave up|resigned from|stepped down from) {_JOB}"
_AT = rf"(?P<v>{NAME})"
_AS = r"as (?P<v>an? [a-z ]+)"
_WORK = ("employer", "occupation")
_STUDIES = ("studies", "verb study")
_BORN = (
    r"(?:has given|gave) birth(?: to .+)?",
    r"had (?:a|her|the|their) (?:baby|miscarriage|abortion|twins|stillbirth)",
    r"had twins",
    r"lost the baby",
    r"had a (?:baby )?(?:son|daughter|boy|girl)",
    r"delivered (?:a|the|her) baby.*",
    r"welcomed (?:a|her|their) (?:baby|son|daughter).*",
    r"became a (?:mother|mom|mum|parent)",
)
ENDS = [
    (re.compile(f"(?:{pattern}){TAIL}"), ended)
    for pattern, ended in (
        (rf"(?:has )?(?:moved (?:away from|out of)|left (?={NAME} for good)) {_AT}", ("residence",)),
        (rf"{_DISMISSED}(?: (?:from|by|at) {_AT})?(?: from {_JOB})?", ("employer",)),
        (_DISMISSED, ("occupation",)),
        (rf"{_DISMISSED} {_AS}", ("occupation",)),
        (rf"{_GAVE_UP_JOB}(?: (?:at|with) {_AT})?", ("employer",)),
        (rf"{_GAVE_UP_JOB} {_AS}", ("occupation",)),
        (rf"(?:has )?(?:quit|resigned from|left|retired from) {_AT}", ("employer",)),
        (rf"handed in (?:his|her|their) notice at {_AT}", ("employer",)),
        (rf"(?:has )?stopped working (?:at|for) {_AT}", ("employer",)),
        (r"(?:has )?resigned", ("employer",)),
        (r"(?:has |is |has been |just )?retired(?: from work(?:ing)?)?", _WORK),
        (rf"(?:has )?retired {_AS}", ("occupation",)),
        (r"went into retirement", _WORK),
        (r"is (?:unemployed|out of work|between jobs|jobless)", _WORK),
        (r"(?:has )?(?:quit|stopped|gave up) (?:being|working as) (?P<v>an? [a-z ]+)", ("occupation",)),
        ("|".join(_BORN), ("pregnancy",)),
        (r"(?:has )?dropped out(?: of (?:the )?(?:university|school|college|uni|course|studies))?", _STUDIES),
        (
            r"(?:has )?dropped out of (?:the )?(?P<v>[a-z ]+?) (?:school|course|program|programme|degree)",
            _STUDIES,
        ),
        (r"(?:has )?graduated|finished (?:his|her|their|the) (?:studies|degree)", _STUDIES),
        (r"(?:has )?graduated in (?P<v>[a-z ]+)", _STUDIES),
        (r"(?:has )?started (?:eating|to eat) (?:meat|fish)", ("diet",)),
        (r"(?:eats|is eating) (?:meat|fish|everything)(?: and .+)? again", ("diet",)),
        (r"(?:has )?(?:stopped|quit|gave up) being (?P<v>vegan|vegetarian|pescatarian)", ("diet",)),
    )
]
