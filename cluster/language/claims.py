"""When two statements say the same, and which of their words change nothing."""

import re
import unicodedata

_ADVERBS = (
    "now|currently|presently|still|already|also|usually|generally|nowadays|these days|from now on|instead"
)
FILLER = re.compile(rf"(?:^|(?<=\s))(?:{_ADVERBS})(?=[\s,.;]|$),?")
"""Words that change nothing about what is said, but perhaps since when."""
_RELATIVE_TIME = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|(?:next|last|this|coming) \w+|in \w+ (?:days?|weeks?|months?))\b"
)


def statement_key(text: str, memory_type: str = "", dates: tuple[str, str, str] = ("", "", "")) -> str:
    """Two memories of one user with the same key say the same: case, punctuation, "now" and "still" aside.

    `dates` are t_ref, t_valid_from and t_valid_to. They count where the words alone do not say when: for
    events, and for texts with "tomorrow" or "last week".
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = re.sub(r"^the user\b", "user", FILLER.sub(" ", plain))
    words = re.findall(r"[^\W_]+(?:[.,:/'-][^\W_]+)*|[+$€£%#]", plain)
    key = " ".join(words) or plain.strip()
    if _RELATIVE_TIME.search(plain):
        return "\0".join([key, *dates])
    return "\0".join([key, *dates[1:]]) if memory_type == "event" else key
