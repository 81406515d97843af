"""Dates of a record: what "next Friday", "last month" or "3 May" meant on the day on which it was said.

`resolve` finds the words of time in an English statement, computes the days that they mean from the day of
the message, and writes the date in their place. Vague words ("recently", "soon") mean nothing here. Where a
date has no year, the nearest one in the direction of the statement's tense is meant.
"""

import datetime as dt
import re
from dataclasses import dataclass

from cluster.language.days import DAYS, MONTHS, NUMBERS, ORDINALS, SEASONS, days_of, words_of

_DAY = rf"(?P<day>{'|'.join(DAYS)})"
_MONTH_NAMES = "|".join(f"{name[:3]}(?:{name[3:]})?" if name != "may" else "may" for name in MONTHS)
_MONTH_NAMES = _MONTH_NAMES.replace("sep(?:tember)?", "sept?(?:ember)?")
_NUMBER = rf"(?P<number>\d+|{'|'.join(NUMBERS)}|a couple of)"
_UNIT = r"(?P<unit>day|week|fortnight|month|year)s?"
_ORDINALS = "|".join(sorted(ORDINALS, key=len, reverse=True)).replace("-", "[ -]")
_DOM = rf"(?P<dom>\d{{1,2}}|{_ORDINALS})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>1[5-9]\d\d|20\d\d)"
_DAY_BEFORE = rf"(?:(?:{'|'.join(DAYS)}),? )?"
_WHICH = r"(?P<which>next|this coming|coming|this past|this|last|past)"

_AHEAD = re.compile(
    r"\b(?:will|won['’]t|shall|going to|plans?|planning|intends?|wants?|hopes?|would like|booked|scheduled"
    r"|due|expires?|decided to|chose to|agreed to|promised to|supposed to|has to|have to|must|needs?"
    r"|estimated|expects?|expecting"
    r"|(?:been|was|were|is) (?:moved|postponed|pushed|brought forward) (?:to|back|from)"
    r"|appointment|interview|exam|deadline|is on|are on|is in|(?:is|are)$"
    r"|(?:is|are|being) (?!called|married|named|born)\w+(?:ing|ed|off)"
    r"|has (?:her|his|their|an?) (?:\S+ ){0,4}?(?:operation|visit|check-up|scan|flight|trip|meeting))\b",
    re.IGNORECASE,
)
_BACK = re.compile(
    r"\b(?:was|were|had|did|didn['’]t|got|went|came|left|lost|bought|sold|won|took|became|began|broke|died"
    r"|born|quit|(?:has|have) (?:been|had|not|never|no longer|\w+ed|\w+en)|since|ago|saw|met|made"
    r"|gave|found|ran|put|owed|fell|ate|drank|slept|spoke|sang|swam|rode|chose|forgot|grew|hid|kept|laid|led|lent|paid"
    r"|said|sent|slipped|spent|stole|taught|threw|wore|woke|caught|fought|held|brought|built|flew|drove|wrote|told|started|[a-z]{3,}ed)\b",
    re.IGNORECASE,
)
_RECURRING = re.compile(r"\b(?:every|each|only|all|but|most|usually|always)\b[^,;.]{0,25}$", re.IGNORECASE)
_YEARLY = re.compile(r"\b(?:birthday|anniversary|name day)\b(?: is| falls)?\s*$", re.IGNORECASE)
_DEADLINE = re.compile(
    r"\b(?:due(?: date)?(?: of| is)?|deadline(?: is| of)?|last day(?:[^,;.]{0,40}? is)?)\s*$", re.IGNORECASE
)
_OF_A_PLACE = re.compile(
    r"\b(?:lives|lived|resides|resided|works|worked|stays|stayed|based|situated|located) $", re.IGNORECASE
)
"""Verbs whose "in" wants a place: a duration behind it ("lives in 15 years") is a slip, and no day."""


@dataclass(frozen=True)
class Span:
    """The days that words of time mean, and how the text names them. `opens`: they begin something that goes
    on; `closes`: they end it."""

    first: dt.date
    last: dt.date
    words: str
    opens: bool = False
    closes: bool = False
    is_range: bool = False


@dataclass(frozen=True)
class Resolved:
    """A statement with its dates: `valid_from` and `valid_to` are YYYY-MM-DD or empty."""

    text: str
    valid_from: str = ""
    valid_to: str = ""


def resolve(text: str, said_on: dt.date | None) -> Resolved:
    """The statement as it reads on any other day. Without the day of the message only whole dates count."""
    spans: list[Span] = []
    pieces, position, between = [], 0, ""
    while match := _EXPRESSION.search(text, position):
        follows = spans and spans[-1].opens and match["weekday"] and text[position : match.start()].isspace()
        # "From Monday until Friday" is until the Friday after that Monday.
        span = _span(match, text, spans[-1].first if follows else said_on)
        pieces.append(text[position : match.start()])
        if span is None:
            pieces.append(match[0])
        else:
            spans.append(span)
            between = text[position : match.start()]
            pieces.append(span.words)
        position = match.end()
    pieces.append(text[position:])
    valid_from = next((span.first for span in spans if not span.closes), None)
    valid_to = next((span.last for span in spans if span.closes), None)
    if len(spans) == 2 and spans[0].opens and re.fullmatch(r" (?:to|until|till|–|-) ", between):
        # "From 28 May to 3 June"
        valid_to = spans[1].last
    if valid_from and not valid_to:
        only = next(span for span in spans if not span.closes)
        # An event or plan of some days ends with them; of a state only the beginning is known.
        if only.first != only.last and (not only.opens or only.is_range):
            valid_to = only.last
    if valid_from and valid_to and valid_to < valid_from:
        valid_to = None
    return Resolved(
        text="".join(pieces),
        valid_from=valid_from.isoformat() if valid_from else "",
        valid_to=valid_to.isoformat() if valid_to else "",
    )


_PATTERNS = {
    "iso": r"(?P<iso>(?:19|20)\d\d-\d\d-\d\d)",
    "range": rf"(?:the )?(?P<start>\d{{1,2}})(?:st|nd|rd|th)? ?(?:to|and|until|-|–) ?(?:the )?{_DOM} "
    rf"(?:of )?(?P<month>{_MONTH_NAMES})\b(?:,? {_YEAR})?",
    "before_yesterday": r"the day before yesterday",
    "after_tomorrow": r"the day after tomorrow",
    "yesterday": r"yesterday(?: (?:morning|afternoon|evening|night))?|last night",
    "tomorrow": r"tomorrow(?: (?:morning|afternoon|evening|night))?",
    "today": r"(?:later |earlier )?today|tonight|this (?:morning|afternoon|evening)",
    # A weekday may stand before them: they come before the weekdays.
    "date": rf"(?:on )?{_DAY_BEFORE}(?:the )?{_DOM} (?:of )?(?P<month>{_MONTH_NAMES})\b\.?"
    rf"(?:,? (?:of )?{_YEAR}|,? (?P<which>last|next|this) year)?",
    "date_us": rf"(?:on )?{_DAY_BEFORE}(?P<month>{_MONTH_NAMES})\.? (?:the )?{_DOM}\b(?!:)(?:,? {_YEAR})?",
    "day_of_month": rf"(?:on )?{_DAY_BEFORE}the (?:(?P<dom>\d{{1,2}})(?:st|nd|rd|th)"
    rf"|(?<=on the )(?P<word>{_ORDINALS})(?=$|[,.;]))"
    r"\b(?! (?:of|floor|time|place|grade|year|birthday"
    r"|anniversary|edition|century|season|attempt|street|avenue))",
    "weekday_week": rf"(?:on )?(?:a week on )?{_DAY} week|a week on (?P<later>{'|'.join(DAYS)})",
    "from_today": rf"{_NUMBER} {_UNIT} from (?:today|now)",
    "weekday": rf"(?:on )?(?:{_WHICH} )?{_DAY}(?P<possessive>['’]s)?"
    r"(?: (?:morning|afternoon|evening|night))?",
    "week": r"(?P<which>last|next|this) (?P<span>week|weekend|month|year)",
    "season": rf"(?:in |the )*(?:(?P<which>last|next|this) )?(?P<season>{'|'.join(SEASONS)})"
    rf"(?: (?:of )?{_YEAR})?",
    "ago": rf"(?:about |around |some |just over )?{_NUMBER} {_UNIT} ago",
    "in": rf"in (?:about |around )?{_NUMBER} {_UNIT}(?:['’]s? time)?",
    "month": rf"(?:(?P<edge>(?:at |by )?the (?:end|beginning|start|middle) of) )?"
    rf"(?:(?P<which>last|next|this) )?(?P<month>{_MONTH_NAMES})\b"
    rf"(?: (?:of )?{_YEAR}| (?P<year_which>last|next|this) year)?",
    "end_of_year": r"the end of the year",
    "holiday": r"(?P<name>christmas eve|christmas|new year['’]s eve|new year['’]s day|new year)",
    "year": _YEAR,
}
"""Kinds of expressions; their groups are named anew for each kind when they are joined below."""

_INTRODUCED = r"(?:(?P<intro>since|until|till|by|before|from|between|after|in|during|at|for|as of) )?"
_EXPRESSION = re.compile(
    rf"(?<![\w-]){_INTRODUCED}(?:"
    + "|".join(
        f"(?P<{name}>{re.sub('[(][?]P<', f'(?P<{name}__', pattern)})" for name, pattern in _PATTERNS.items()
    )
    + r")\b",
    re.IGNORECASE,
)


def _span(match: re.Match, text: str, said_on: dt.date | None) -> Span | None:
    """What a found expression means; None where it means no day or is no time at all."""
    found = {name: value for name, value in match.groupdict().items() if value}
    kind = next(name for name in _PATTERNS if name in found)
    groups = {
        name.removeprefix(f"{kind}__"): value.lower()
        for name, value in found.items()
        if name.startswith(f"{kind}__")
    }
    intro = found.get("intro", "").lower()
    before = text[: match.start()]
    if not _names_time(kind, groups, intro, match, text) or _is_recurring(kind, groups, intro, match, text):
        return None
    if said_on is None and not groups.keys() & {"year", "iso"}:
        return None
    days = days_of(kind, groups, said_on or dt.date.max, _direction(text, match, intro))
    if days is None:
        return None
    first, last, precision = days
    closes = intro in _CLOSING or bool(_DEADLINE.search(before))
    if closes and precision == "month":
        # Until May is until it begins.
        last = first
    words = words_of(first, last, precision)
    if intro == "in" and not re.match(r"in \d|in (?:the|last|next|this) ", match[0]) and kind in _OF_DAYS:
        # "Moved in yesterday": it belongs to the verb.
        words = f"in on {words}"
    elif intro in _KEPT:
        words = f"{intro} {words}"
    elif precision == "range":
        words = f"from {words}"
    elif re.search(r"\b(?:of|about|around|past|the|a|an|his|her|their|our|[Uu]ser['’]s)\s$", before):
        pass
    elif precision != "day":
        words = f"in {words}"
    elif match[0].lower().startswith("on ") or not ("possessive" in groups or _wants_no_on(before)):
        words = f"on {words}"
    return Span(first, last, words, opens=intro in _OPENING, closes=closes, is_range=precision == "range")


_CLOSING = ("until", "till", "by", "before")
_OPENING = ("since", "from", "as of", "after")
_OF_DAYS = (
    "yesterday",
    "before_yesterday",
    "tomorrow",
    "after_tomorrow",
    "today",
    "date",
    "date_us",
    "weekday",
)
_KEPT = (*_CLOSING, *_OPENING, "between", "for")
"""Words before an expression that stand before the date as well."""


def _wants_no_on(before: str) -> bool:
    """Whether the words before the date want it without "on": "is dated 3 May", "moved to 3 May"."""
    return bool(re.search(r"\b(?:to|is|was|dated|and|between|not|for|around|about|past|on)\s$", before))


def _is_recurring(kind: str, groups: dict, intro: str, match: re.Match, text: str) -> bool:
    """Whether the day, date or season comes again and again: "every Tuesday", "birthday is on 3 May"."""
    before, after = text[: match.start()], text[match.end() :]
    if kind == "season":
        return "year" not in groups and "which" not in groups and bool(_RECURRING.search(before))
    if kind in ("date", "date_us", "day_of_month"):
        return "year" not in groups and "which" not in groups and bool(_YEARLY.search(before))
    if kind != "weekday" or "which" in groups:
        return False
    if _RECURRING.search(before):
        return True
    if re.search(r"\bthe $", before) or re.match(r" (?:mornings|afternoons|evenings|nights)\b", after):
        return True
    other = "|".join(day.capitalize() for day in DAYS)
    return bool(
        re.match(rf"(?: to|,| and|,? or|-|–) ?(?:{other})\b", after)
        or re.search(rf"\b(?:{other})(?: to|,| and|,? or|-|–) ?$", before)
    )


def _names_time(kind: str, groups: dict, intro: str, match: re.Match, text: str) -> bool:
    """Whether a month, season or year means a time: "may" is a verb, "March" a name, "2019" a number."""
    if kind == "year":
        return intro in ("in", "since", "until", "before", "after", "from", "till", "by", "during")
    if kind == "season":
        return bool(intro or "which" in groups or match[0].lower().startswith(("in ", "the ")))
    if kind == "week" and re.search(r"\bthe $", text[: match.start()] + (f"{intro} " if intro else "")):
        # "In the last year" is until now, and no calendar year.
        return False
    if kind == "ago" and re.search(r"\bhalf $", text[: match.start()]):
        return False
    if kind == "in" and _OF_A_PLACE.search(text[: match.start()]):
        return False
    if kind == "weekday":
        return match["weekday__day"][0].isupper() or "which" in groups or bool(re.match("on |at ", match[0]))
    if kind != "month":
        return True
    written = match["month__month"]
    return written[0].isupper() and bool(intro or groups.keys() & {"edge", "which", "year", "year_which"})


def _direction(text: str, match: re.Match, intro: str) -> int:
    """1 where the statement looks ahead, -1 where it looks back, 0 where its words do not say."""
    if intro in ("until", "till", "by", "before", "from", "as of"):
        return 1
    if intro == "since":
        return -1
    # The words of the clause around the expression: what it looks back on it does not plan.
    before = re.split(r"[;,]| (?:because|when|which|who) ", text[: match.start()])[-1]
    for clause in (before, text):
        ahead, back = list(_AHEAD.finditer(clause.rstrip())), list(_BACK.finditer(clause))
        if ahead:
            return 1
        if back:
            return -1
    return 1
