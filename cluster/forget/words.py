"""Words of a text that can tell something about somebody, in every script.

Short words count too ("MS", "HP", "G7"), but for what every text of a larger language has ("is", "on", "de").
Scripts that are written without spaces have no words to split at: short runs of their characters stand in.
"""

import re
import unicodedata
from collections.abc import Iterable

_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KATAKANA = "\u30a1-\u30ff\u31f0-\u31ff"
_HIRAGANA = "\u3041-\u309f"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff"
_SOUTH_EAST_ASIAN = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_UNSPACED = _HAN + _KATAKANA + _HIRAGANA + _HANGUL + _SOUTH_EAST_ASIAN
_RUNS = re.compile(
    rf"(?P<han>[{_HAN}]+)|(?P<katakana>[{_KATAKANA}]+)|(?P<hiragana>[{_HIRAGANA}]{{2,}})"
    rf"|(?P<hangul>[{_HANGUL}]+)|(?P<threes>[{_SOUTH_EAST_ASIAN}]+)"
    rf"|(?P<word>(?:(?![{_UNSPACED}])\w)+)"
)

_COMMON = (
    # English, what its apostrophes leave, and what every record says
    "am an as at be by do go he hi if in is it me my no of oh ok on or so to up us we ll re ve "
    "and are but for from had has have her his its not she that the their them they this was were who will "
    "with you your user assistant "
    # German, Dutch, French, Spanish, Portuguese, Italian
    "ab da du er es ja ob um wo zu de en et la le un au ce il je ne ou sa se si ta te tu va el lo ni ti ya "
    "yo em os ao eu ha al ci di ed ma mi vi ik ze "
    # Russian, Ukrainian
    "не на по он мы ты вы за из до от ко во со бы же ли но да их её ее ей им об та то ти ми ви як це "
    # Arabic, Hebrew
    "في من عن لا ما هو هي או לא של את זה אם כי"
)
_TELL_NOTHING = frozenset(_COMMON.split())
"""Words that every text has. Short ones in capitals ("IT", "US") count."""

_TELL_NOTHING_HAN = frozenset("的了是在我有不和他她它你您们這这那就也都与及很吗呢吧啊也一个個の")
"""Characters that every Chinese text has."""


def has_no_spaces(word: str) -> bool:
    """Whether it is of a script that is written without spaces."""
    return re.search(f"[{_UNSPACED}]", word) is not None


def words(text: str) -> set[str]:
    """The words that can tell something; of scripts without spaces, runs of one to three characters."""
    found: set[str] = set()
    for match in _RUNS.finditer(unicodedata.normalize("NFKC", text)):
        run, kind = match.group(), match.lastgroup
        if kind == "word":
            found |= _word(run)
        elif kind == "katakana":
            found.add(run)
        elif kind == "han":
            found |= (set(run) - _TELL_NOTHING_HAN) | _runs_of(run, 2)
        else:
            found |= _runs_of(run, 3 if kind == "threes" else 2)
    return found


def _word(run: str) -> set[str]:
    folded = run.casefold()
    if any(map(str.isdigit, folded)) or (len(folded) > 1 and folded not in _TELL_NOTHING):
        return {folded}
    # A word that tells nothing in small letters must not stand for the one in capitals.
    return {run} if len(run) < 3 and run.isupper() and run not in "IAЯАВИКОСУ" else set()


def _runs_of(run: str, length: int) -> set[str]:
    return {run[start : start + length] for start in range(max(1, len(run) - length + 1))} if run else set()


class Vocabulary:
    """A set of words that knows their inflections: "nurses" is in it where "nurse" is."""

    def __init__(self, found: Iterable[str] = ()):
        self._words: set[str] = set()
        self._by_stem: dict[str, set[str]] = {}
        self.add(found)

    def add(self, found: Iterable[str]) -> None:
        for word in set(found) - self._words:
            self._words.add(word)
            self._by_stem.setdefault(word[:_STEM], set()).add(word)

    def __contains__(self, word: str) -> bool:
        if word in self._words:
            return True
        return any(_is_inflection(word, other) for other in self._by_stem.get(word[:_STEM], ()))

    def tells(self, found: set[str]) -> bool:
        """Whether there are words, and all are in it."""
        return bool(found) and all(word in self for word in found)


_STEM = 3
"""Inflections of a word share at least this beginning."""


def _is_inflection(one: str, other: str) -> bool:
    """Whether two words differ in their endings alone: a plural, or at most three letters behind four."""
    short, long = sorted((one, other), key=len)
    if not (short.isalpha() and long.isalpha()):
        return False
    if len(short) >= 3 and long == short + "s":
        return True
    shared = max(4, len(long) - 3)
    return len(short) >= 4 and short[:shared] == long[:shared]
