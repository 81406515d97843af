"""The words of a text."""

import re


def words(text: str) -> set[str]:
    """In lower case, numbers included."""
    return set(re.findall(r"\w+", text.casefold()))
