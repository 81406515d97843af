"""Days that words of time mean: the calendar behind `cluster.language.dates`, which finds the words."""

import calendar
import datetime as dt

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
ORDINALS = (  # noqa: SIM905 - a list of words is read more easily
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth"
    " fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third"
    " twenty-fourth twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth"
    " thirty-first"
).split()

Days = tuple[dt.date, dt.date, str]
"""First day, last day, and how exactly they are known: day | week | weekend | month | season NAME | year, or
range: both are named."""


def days_of(kind: str, groups: dict, day: dt.date, direction: int) -> Days | None:
    """What an expression means: by the words in its groups, the day on which it was said, and whether the
    statement looks ahead (1) or back (-1). None if there is no such day."""
    try:
        return _READERS[kind](groups, day, direction)
    except (ValueError, OverflowError):
        return None


def words_of(first: dt.date, last: dt.date, precision: str) -> str:
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


# --- kinds of expressions -------------------------------------------------------------------------------


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
