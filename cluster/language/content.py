"""Content words: what of an English text says what it is about, without endings and everyday variants: "my
mum plays the drums" has all of "User's mother drums". Of scripts without spaces two characters are a word.
"""

import functools
import re
from collections.abc import Iterable

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_FRAME = frozenset(
    """user users user's assistant a an the is are was were has have had be been being do does did not no
    never and or of in on at to for from with by as that this it its his her their they he she who which
    called named live lives works likes wants plans prefers uses about into than then also very there one
    some any will would can could should must may might longer more i im you we my our me us your am ve ll re
    don now years year old aged dollars euros pounds percent worked out
    usuario asistente el la los las un una y de del que en es su al con para por se le lo ha tiene
    nutzer nutzers nutzerin assistent der die das den dem des und ist hat ein eine einen einem einer im
    mit zu zum zur vom von für auf sich""".split()  # noqa: SIM905 - a list of words is read more easily
)
"""Words that say little of what a statement is about."""

_SAME = {
    same: word
    for word, others in {
        "mother": "mam mum mom mama mammy mommy ma",
        "father": "dad da daddy papa",
        "grandmother": "gran nan nana grandma granny",
        "grandfather": "grandad granddad grandpa",
        "christmas": "xmas",
        "street": "st",
        "road": "rd",
        "avenue": "ave",
        "doctor": "dr",
    }.items()
    for same in others.split()
}
"""Words that people write for others, which records use."""

NEGATION = re.compile(
    r"\b(?:not|never|no|nor|none|nobody|nothing|neither|without|cannot|cant|dont|doesnt|didnt|isnt|wasnt|wont"
    r"|aint|havent|hasnt|quit|quits|stopped|stop|gave up|avoids?|unable|refuses?|hates?|dislikes?|lost|except"
    r"|free)\b|n['’]t\b",
    re.IGNORECASE,
)
"""Words of an English statement that deny, or may stand for a denial."""


@functools.lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """A word without its commonest English endings, "planned" as "plan"; three letters at least remain."""
    word = without_possessive(word.casefold())
    word = _SAME.get(word, word)
    word = re.sub(r"^(.{3,}?)(?:ings?|ers?|ied|ed|ly|ies|es|s|e|y)$", r"\1", word)
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def without_possessive(word: str) -> str:
    """ "sister" of "sister's"."""
    return re.sub(r"['’]s?$", "", word)


def _parts(text: str) -> list[str]:
    """Words of a text, those with hyphens in parts; of scripts without spaces each two characters."""
    found = []
    for word in WORD.findall(text):
        if runs := _UNSPACED.findall(word):
            found += [run[i : i + 2] for run in runs for i in range(max(1, len(run) - 1))]
        else:
            found += re.sub(r"['’](?:s|m|d|re|ve|ll)?$", "", word, flags=re.IGNORECASE).split("-")
    return found


_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]+")


def content_words(text: str) -> set[str]:
    """Stems of the words that say what a statement is about."""
    text = re.sub("用户|助手", " ", NEGATION.sub(" ", text))
    return {stem(word) for word in _parts(text) if word.casefold() not in _FRAME and len(word) > 1}


def stems(texts: Iterable[str]) -> set[str]:
    """Stems of all words of texts, to look for content words in."""
    found = {stem(part) for text in texts for part in _parts(text)}
    return found | {part for word in found for part in re.split(r"['’]", word)}


def share_told(record: str, text: str) -> float:
    """Share of a record's content words that stand in a text; 0 of one that has none."""
    wanted = content_words(record)
    return len(wanted & stems([text])) / len(wanted) if wanted else 0.0
