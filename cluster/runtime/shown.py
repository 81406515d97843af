"""Text that others wrote, for a terminal or a page: nothing in it moves, colours, hides or turns around.

Characters that a terminal or a bidirectional renderer would obey are shown as their escapes, such as \\x1b.
"""

import unicodedata

JOINERS = "\u200c\u200d"
"""Invisible, but words of many languages and most emoji are spelled with them."""


def harmless(text: str) -> str:
    """The text with all such characters escaped, but for the ends of lines and tabs."""
    return "".join(char if char in "\n\t" else _shown(char) for char in text)


def one_line(text: str) -> str:
    """The same, of a text that must not pass for more than one line."""
    return "".join(map(_shown, " ".join(text.split("\n"))))


def _shown(char: str) -> str:
    # Cc: escape and other controls; Cf: bidi controls, tags and the like; Cs: halves that cannot be printed;
    # Zl, Zp: ends of lines to some.
    if char in JOINERS or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return char
    return char.encode("unicode_escape").decode()
