"""Which language a text is in, as far as one question goes: is it surely in none of some languages?

Precision comes first. "None of them" is said only where py3langid gives those languages next to no
probability, for the text as it stands and without its names, and no sentence of it looks like one of theirs.
A short or ambiguous text, a list of names, code, JSON or a mixture may be in any language.

The answer is a function of the text alone. The package's version is pinned, because another version may
answer otherwise. Its model takes 0.8 s and 80 MB a process, and is loaded when a text is first asked about.
"""

import functools
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

MIN_BYTES = 15
"""Bytes, in UTF-8, of the letters that a text must have outside of names: three short English words, five
Chinese characters. A shorter one is judged by what stands around it, of which there must be twice as much."""

MAX_PROBABILITY = 0.005
"""A text that may be in one of the languages with at least this probability counts as being in it."""

MAX_SHORT = 0.05
"""The same for a text that is too short, of which little is known."""

MAX_SENTENCE, MIN_SENTENCE_BYTES = 0.1, 8
"""A text with a sentence, of so many bytes of letters, that is in one of the languages with at least this
probability is mixed. These five were chosen on the train and tune people of the written corpus, and its
single segments."""

_KIN = {"en": ("pcm",), "zh": ("yue", "wuu"), "no": ("nn",)}
"""Languages that short texts in another are taken for; who reads the other reads much of these."""

_NO_LANGUAGE = "zxx"

_UNSPOKEN = re.compile(r"\S*(?:://|www\.|@)\S*|\[[^\]\n]{0,40}\]|`[^`]*`")
"""Addresses, markers of what was left out, and code."""

_BREAK = re.compile(r"[.!?;:\n。！？；：\"“”«»„()]+|(?<!\w)['‘’]|['‘’](?!\w)")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def other_language(text: str, languages: Collection[str], around: str = "") -> str:
    """Code of the language that a text is most likely in, if that is surely none of `languages`; else "".

    `around` is what was said about it, the text included: it decides where the text alone is too short.
    """
    text = _UNSPOKEN.sub(" ", text)
    if _num_bytes(_without_names(text)) < MIN_BYTES:
        if not _without_names(text) or _probability(text, languages) >= MAX_SHORT:
            return ""
        text = _UNSPOKEN.sub(" ", around)
        if _num_bytes(_without_names(text)) < 2 * MIN_BYTES:
            return ""
    if any(_probability(one, languages) >= MAX_PROBABILITY for one in (text, _without_names(text))):
        return ""
    sentences = (one for one in _BREAK.split(text) if _num_bytes(one) >= MIN_SENTENCE_BYTES)
    if any(_probability(one, languages) >= MAX_SENTENCE for one in sentences):
        return ""
    return _identifier().rank(text)[0][0]


def _probability(text: str, languages: Collection[str]) -> float:
    counted = {_NO_LANGUAGE, *languages, *(kin for one in languages for kin in _KIN.get(one, ()))}
    return sum(probability for language, probability in _identifier().rank(text) if language in counted)


def _without_names(text: str) -> str:
    """Its words that have no capital: names of people and places tell little of who speaks of them."""
    return " ".join(word for word in _WORD.findall(text) if not word[0].isupper())


def _num_bytes(text: str) -> int:
    return len("".join(filter(str.isalpha, text)).encode("utf-8", "replace"))


@functools.cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
