"""Numbers that an English text gives, in digits or in words, so that those of two texts can be compared."""

import itertools
import re
from collections.abc import Iterable

NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
"""A number in digits, with what groups or divides them."""

_UNITS = (  # noqa: SIM905
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
_VALUES = {word: value for value, word in enumerate(_UNITS)}
_VALUES |= {word: 10 * value for value, word in enumerate(_TENS, 2)}
_SCALES = {"hundred": 100, "thousand": 1000, "grand": 1000, "k": 1000, "mil": 1000, "million": 10**6}
_SCALES |= {"lakh": 10**5, "lakhs": 10**5}
MAX_SPOKEN = 10**9
"""Of what is larger, no multiple is said."""

_SPOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[^\w\s-]")
_GROUPED = re.compile(r"(?<=\d)[., ](?=\d{3}(?!\d))")
_PAST_HOUR = re.compile(r"\b(half|quarter) past (\w+)|\bquarter to (\w+)", re.IGNORECASE)


def is_known_number(number: str, known: set[str]) -> bool:
    """Whether a number of a record stands in `known`, in whatever way it was written."""
    plain = _plain(number)
    if plain in known or (":" in number and _is_known_time(plain, known)):
        return True
    # A year of which the last two digits were said.
    return bool(re.fullmatch(r"(?:19|20)\d\d", plain)) and f"'{plain[2:]}" in known


def _is_known_time(plain: str, known: set[str]) -> bool:
    """ "4:40" was said as 4.40, or as "four forty", 440 or 04 and 40; "16:00" as 16."""
    return bool({plain.replace(":", "."), plain.replace(":", ""), plain.removesuffix(":00")} & known)


def _plain(number: str) -> str:
    """A number without what groups its digits, and without leading zeros."""
    number = _GROUPED.sub("", number).replace(",", ".")
    return number.lstrip("0") or "0"


def numbers_of(texts: Iterable[str]) -> set[str]:
    """Numbers that stand in texts, in digits or words, plain; years told in two digits as these, with "'"."""
    found: set[str] = set()
    for text in texts:
        for number in NUMBER.findall(text) + NUMBER.findall(_GROUPED.sub("", text)):
            found |= {_plain(number), *map(_plain, re.findall(r"\d+", number))}
        found |= {f"'{year}" for year in re.findall(r"(?:['’]|\b(?:in|since|from|to|until) )(\d\d)\b", text)}
        found |= _spoken(text)
        for past, hour, next_hour in _PAST_HOUR.findall(text):
            if (value := _hour(hour or next_hour)) is not None:
                found.add(
                    f"{value}:{'30' if past.lower() == 'half' else '15'}" if past else f"{value - 1}:45"
                )
    return found


def are_spoken_known(text: str, known: set[str]) -> bool:
    """Whether numbers that a record has in words stand in `known`; "one" is too often none."""
    values = (_VALUES.get(token, 0) for token in re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text.casefold()))
    return all(str(value) in known for value in values if value > 1) or _spoken(text) <= known


def _hour(word: str) -> int | None:
    return int(word) if word.isdecimal() else _VALUES.get(word.casefold())


def _spoken(text: str) -> set[str]:
    """Numbers in words: "a hundred and fifty", "one fifty-seven" as 1 57, 57 and 157, "9k", "ninety-two"."""
    found: set[str] = set()
    run: list[tuple[float, bool]] = []
    is_open = False

    def end() -> None:
        nonlocal run, is_open
        values = [value for value, _ in run]
        found.update(map(str, values))
        found.update(f"'{value}" for value, is_word in run if is_word and 10 <= value < 100)
        for first, second in itertools.pairwise(values):
            # "nineteen ninety-two", "eleven fifty"
            if first < 100 and 10 <= second < 100:
                found.add(f"{first}{second}")
        run, is_open = [], False

    for token in _SPOKEN.findall(text.casefold()):
        value = _VALUES.get(token)
        if value is not None:
            if run and run[-1][1] and value < 10 and value and run[-1][0] % 10 == 0 and run[-1][0] >= 20:
                run[-1] = (run[-1][0] + value, True)
            elif run and is_open:
                run[-1] = (run[-1][0] + value, True)
                is_open = False
            else:
                run.append((value, True))
        elif token in _SCALES:
            run = [(1, True)] if not run or run[-1][0] >= MAX_SPOKEN else run
            # "one thousand four hundred": of what is open only the last part.
            low = run[-1][0] % 1000 if _SCALES[token] == 100 and run[-1][0] > 1000 else run[-1][0]
            run[-1] = (run[-1][0] - low + low * _SCALES[token], True)
            is_open = True
        elif token[0].isdecimal():
            end()
            if token.isdecimal() or re.fullmatch(r"\d+\.\d+", token):
                number = float(token)
                run = [(int(number) if number.is_integer() else number, False)]
        elif token == "and" and is_open:
            continue
        elif token != "a":
            end()
    end()
    return {number.removesuffix(".0") for number in found}
