"""Dates of a record: what "next Friday", "last month" or "3 May" meant on the day on which it was said.

`resolve` finds the words of time in an English statement, computes the days that they mean from the day of
the message, and writes the date in their place. Vague words ("recently", "soon") mean nothing here. Where a
date has no year, the nearest one in the direction of the statement's tense is meant.
"""

import calendar
import datetime as dt
import re
from dataclasses import dataclass

from dateutil.relativedelta import relativedelta

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}
NUMBERS = {
    word: number
    for number, words in enumerate(
        (
            "",
            "a an one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
        )
    )
    for word in words.split()
}

_DAY = rf"(?P<day>{'|'.join(DAYS)})"
_MONTH_NAMES = "|".join(f"{name[:3]}(?:{name[3:]})?" if name != "may" else "may" for name in MONTHS)
_MONTH_NAMES = _MONTH_NAMES.replace("sep(?:tember)?", "sept?(?:ember)?")
_NUMBER = rf"(?P<number>\d+|{'|'.join(NUMBERS)}|a couple of)"
_UNIT = r"(?P<unit>day|week|fortnight|month|year)s?"
ORDINALS = (  # noqa: SIM905 - a list of words is read more easily
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth"
    " fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third"
    " twenty-fourth twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth"
    " thirty-first"
).split()
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
    days = _days(kind, groups, said_on or dt.date.max, _direction(text, match, intro))
    if days is None:
        return None
    first, last, precision = days
    closes = intro in _CLOSING or bool(_DEADLINE.search(before))
    if closes and precision == "month":
        # Until May is until it begins.
        last = first
    words = _words(first, last, precision)
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


def _days(kind: str, groups: dict, day: dt.date, direction: int) -> tuple[dt.date, dt.date, str] | None:
    """First day, last day, and how exactly they are known: day | week | month | season | year."""
    try:
        return _READERS[kind](groups, day, direction)
    except (ValueError, OverflowError):
        return None


Days = tuple[dt.date, dt.date, str]
"""First day, last day, and what kind of span they are."""


def _one(day: dt.date) -> Days:
    return day, day, "day"


def _weekday(groups: dict, day: dt.date, direction: int) -> Days:
    wanted, which = DAYS.index(groups["day"]), groups.get("which", "")
    ahead = (wanted - day.weekday()) % 7
    if which in ("last", "past", "this past"):
        return _one(day - dt.timedelta(days=(7 - ahead) if ahead else 7))
    if which in ("next", "coming", "this coming"):
        return _one(day + dt.timedelta(days=ahead or 7))
    if direction < 0:
        return _one(day - dt.timedelta(days=(7 - ahead) % 7 or (7 if which else 0)))
    return _one(day + dt.timedelta(days=ahead or (0 if which == "this" else 7)))


def _weekday_week(groups: dict, day: dt.date, direction: int) -> Days:
    ahead = (DAYS.index(groups.get("day") or groups["later"]) - day.weekday()) % 7
    return _one(day + dt.timedelta(days=ahead + 7))


def _week(groups: dict, day: dt.date, direction: int) -> Days | None:
    step = {"last": -1, "this": 0, "next": 1}[groups["which"]]
    unit = groups["span"]
    if unit in ("week", "weekend"):
        monday = day - dt.timedelta(days=day.weekday()) + dt.timedelta(weeks=step)
        if unit == "week":
            return monday, monday + dt.timedelta(days=6), "week"
        if step < 0 and day.weekday() == 6:
            monday = day - dt.timedelta(days=13)
        return monday + dt.timedelta(days=5), monday + dt.timedelta(days=6), "weekend"
    if unit == "month":
        return _month_of(day + relativedelta(months=step, day=1))
    return _year_of(day.year + step)


def _month_of(day: dt.date) -> Days:
    last = calendar.monthrange(day.year, day.month)[1]
    return day.replace(day=1), day.replace(day=last), "month"


def _year_of(year: int) -> Days:
    return dt.date(year, 1, 1), dt.date(year, 12, 31), "year"


def _count(word: str) -> int:
    return int(word) if word.isdigit() else 2 if word == "a couple of" else NUMBERS[word]


def _moved(groups: dict, day: dt.date, sign: int) -> Days | None:
    number, unit = _count(groups["number"]) * sign, groups["unit"]
    if unit == "fortnight":
        number, unit = 2 * number, "week"
    moved = day + relativedelta(**{f"{unit}s": number})
    # "Two months ago" names a month, "two years ago" a year.
    return {"day": _one, "week": _one, "month": _month_of, "year": lambda d: _year_of(d.year)}[unit](moved)


def _date(groups: dict, day: dt.date, direction: int) -> Days:
    month, number = _month_number(groups["month"]), _ordinal(groups["dom"])
    if year := groups.get("year"):
        return _one(dt.date(int(year), month, number))
    if which := groups.get("which"):
        return _one(dt.date(day.year + {"last": -1, "this": 0, "next": 1}[which], month, number))
    return _one(_nearest([dt.date(day.year + step, month, number) for step in (-1, 0, 1)], day, direction))


def _ordinal(word: str) -> int:
    return int(word) if word.isdigit() else ORDINALS.index(word.replace(" ", "-")) + 1


def _range(groups: dict, day: dt.date, direction: int) -> Days:
    last, start = _date(groups, day, direction)[1], int(groups["start"])
    # From 28 to 3 June is from May on.
    first = last.replace(day=start) if start <= last.day else last + relativedelta(months=-1, day=start)
    if first.day != start:
        raise ValueError(f"no day {start} in that month")
    return first, last, "range"


def _nearest(days: list[dt.date], day: dt.date, direction: int) -> dt.date:
    """The nearest in the direction; without one, the nearest at all."""
    fitting = [found for found in days if (found - day).days * direction >= 0] or days
    return min(fitting, key=lambda found: abs((found - day).days))


def _month_number(name: str) -> int:
    return next(number for number, month in enumerate(MONTHS, 1) if month.startswith(name[:3]))


def _month(groups: dict, day: dt.date, direction: int) -> Days | None:
    number = _month_number(groups["month"])
    if year := groups.get("year"):
        first = dt.date(int(year), number, 1)
    elif which := groups.get("year_which"):
        first = dt.date(day.year + {"last": -1, "this": 0, "next": 1}[which], number, 1)
    elif which := groups.get("which"):
        aim = {"last": -1, "next": 1, "this": 0}[which]
        months = [dt.date(day.year + step, number, 1) for step in (-1, 0, 1)]
        # In March, last March is a year ago.
        others = [month for month in months if not aim or month != day.replace(day=1)]
        first = _nearest(others, day, aim)
    else:
        months = [dt.date(day.year + step, number, 1) for step in (-1, 0, 1)]
        own = day.replace(day=1)
        first = own if own in months else _nearest(months, day, direction)
    found = _month_of(first)
    if edge := groups.get("edge", ""):
        ends = "end" in edge
        return _one(found[1] if ends else found[0]) if "middle" not in edge else found
    return found


def _season(groups: dict, day: dt.date, direction: int) -> Days | None:
    number, year = SEASONS[groups["season"]], groups.get("year")
    if year:
        first = dt.date(int(year), number, 1)
    else:
        aim = {"last": -1, "next": 1}.get(groups.get("which", ""), direction)
        first = _nearest([dt.date(day.year + step, number, 1) for step in (-1, 0, 1)], day, aim)
    return first, first + relativedelta(months=3, days=-1), f"season {groups['season']}"


def _day_of_month(groups: dict, day: dt.date, direction: int) -> Days | None:
    number = _ordinal(groups.get("dom") or groups["word"])
    months = [day + relativedelta(months=step, day=1) for step in (-1, 0, 1)]
    days = [m.replace(day=number) for m in months if number <= calendar.monthrange(m.year, m.month)[1]]
    return _one(_nearest(days, day, direction))


def _holiday(groups: dict, day: dt.date, direction: int) -> Days | None:
    name = groups["name"].replace("’", "'")
    month, number = {"christmas eve": (12, 24), "christmas": (12, 25), "new year's eve": (12, 31)}.get(
        name, (1, 1)
    )
    return _one(
        _nearest([dt.date(day.year + step, month, number) for step in (-1, 0, 1)], day, direction or 1)
    )


_READERS = {
    "iso": lambda groups, day, direction: _one(dt.date.fromisoformat(groups["iso"])),
    "range": _range,
    "before_yesterday": lambda groups, day, direction: _one(day - dt.timedelta(days=2)),
    "after_tomorrow": lambda groups, day, direction: _one(day + dt.timedelta(days=2)),
    "yesterday": lambda groups, day, direction: _one(day - dt.timedelta(days=1)),
    "tomorrow": lambda groups, day, direction: _one(day + dt.timedelta(days=1)),
    "today": lambda groups, day, direction: _one(day),
    "weekday_week": _weekday_week,
    "weekday": _weekday,
    "week": _week,
    "season": _season,
    "ago": lambda groups, day, direction: _moved(groups, day, -1),
    "in": lambda groups, day, direction: _moved(groups, day, 1),
    "date": _date,
    "date_us": _date,
    "month": _month,
    "day_of_month": _day_of_month,
    "end_of_year": lambda groups, day, direction: _one(dt.date(day.year, 12, 31)),
    "holiday": _holiday,
    "from_today": lambda groups, day, direction: _moved(groups, day, 1),
    "year": lambda groups, day, direction: _year_of(int(groups["year"])),
}


def _words(first: dt.date, last: dt.date, precision: str) -> str:
    """How a text names these days."""
    if precision == "range":
        return f"{first.isoformat()} to {last.isoformat()}"
    if precision == "week":
        return f"the week of {first.isoformat()}"
    if precision == "weekend":
        return f"the weekend of {first.isoformat()}"
    if precision == "month":
        return f"{MONTHS[first.month - 1].capitalize()} {first.year}"
    if precision == "year":
        return str(first.year)
    if precision.startswith("season"):
        return f"{precision.split()[1]} {first.year}"
    return first.isoformat()
