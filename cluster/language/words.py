"""The words of a text."""

import re


def words(text: str) -> set[str]:
    """In lower case, numbers included."""
    return set(re.findall(r"\w+", text.casefold()))


def listed(text: str) -> frozenset[str]:
    """The words of a list that is written as one text."""
    return frozenset(text.split())


def base_form(verb: str) -> str:
    """A regular English verb of the third person, in lower case, without its ending: "studies" -> "study"."""
    if verb.endswith("ies"):
        return verb[:-3] + "y"
    if re.search(r"(?:ch|sh|ss|x)es$", verb):
        return verb[:-2]
    return verb[:-1] if verb.endswith("s") and not verb.endswith("ss") and len(verb) > 3 else verb
