"""Phone numbers and mail addresses, which are masked only where an operator asks for it."""

import re

from cluster.secrets import Spans

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,5}[^\W\d_]{2,24}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w.,/:#-])(?:\+\d{7,15}|"
    r"(?:\+\d{1,3}[ ./-]?)?(?:\(\d{1,5}\)[ ./-]?)?\d{2,5}(?:[ ./-]\d{2,8}){1,5})(?![\w]|[.,/:-]\d)"
)
_DATE = re.compile(
    r"(?:19|20)\d\d[-./ ]\d{1,2}[-./ ]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ](?:19|20)?\d\d|"
    r"\d{1,3}(?:\.\d{1,3}){3}"
)


def find_contacts(text: str) -> Spans:
    """Addresses, and runs of 7 to 15 digits that are grouped as people group phone numbers."""
    if "@" in text:
        for found in _EMAIL.finditer(text):
            yield *found.span(), "email_address"
    for found in _PHONE.finditer(text):
        num_digits = sum(map(str.isdigit, found[0]))
        if 7 <= num_digits <= 15 and not _DATE.fullmatch(found[0]):
            yield *found.span(), "phone_number"
