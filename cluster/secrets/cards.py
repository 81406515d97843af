"""Numbers of payment cards whose brand, length and check digit agree."""

import re
from itertools import combinations, pairwise

from stdnum import luhn

from cluster.secrets import Spans

# Digits, spaces and dashes; not the tail of a fraction, phone number, path or longer name.
_DIGIT_RUN = re.compile(r"([0-9](?<![\w+/].)(?<![0-9]\..)(?<!\w-.)[0-9 -]{11,}+)([\w/]|\.[0-9])?")
_GROUP = re.compile(r"[0-9]+")
_CARD_GROUPS = ((4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4))
_MAX_GROUPS = 8  # a card, its expiry date and its code; longer rows of numbers are tables
# Visa, Mastercard, American Express, Diners Club, JCB; Discover, UnionPay and Maestro. Without the brand,
# one order number, ISBN or IMEI in ten would pass: the check digit is all that is left.
_CARD = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]\d\d|22[2-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}|"
    r"3(?:0[0-5]|[689]\d)\d{11}|35[2-8]\d{13}|(?:6[0245-9]|5[06-8])\d{14,17}"
)


def find(text: str) -> Spans:
    """Card numbers, alone or among other groups of digits."""
    for run in _DIGIT_RUN.finditer(text):
        groups = [m.span() for m in _GROUP.finditer(text, *run.span(1))]
        if run[2] and run[1][-1].isdigit():
            groups.pop()  # the last number goes on: a word, a date or a fraction
        num = len(groups)
        windows = combinations(range(num + 1), 2) if num <= _MAX_GROUPS else pairwise(range(num + 1))
        for first, last in windows:
            window = groups[first:last]
            sizes = tuple(end - start for start, end in window)
            digits = "".join(text[start:end] for start, end in window)
            grouped = len(window) in (1, num) or sizes in _CARD_GROUPS
            if grouped and _CARD.fullmatch(digits) and luhn.is_valid(digits):
                yield window[0][0], window[-1][1], "card_number"
