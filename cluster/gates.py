"""Gates: what of an encoder's records is refused before it is stored, and why.

A small model now and then writes what nobody said. Each gate looks at one record beside the words that it
rests on; the first that refuses gives the reason. They are for English unless they say otherwise.

| gate            | refuses a record                                                                  |
|-----------------|-----------------------------------------------------------------------------------|
| `invented`      | with a name or number that stands nowhere in what the model was shown             |
| `unsupported`   | of whose content words few stand there                                            |
| `negation_lost` | that says what its evidence denies, or denies what it says                        |
| `not_speech`    | of what is quoted, pasted, played or imagined                                     |
| `nothing_said`  | of a turn that only asks                                                          |
| `repeated`      | that another record of the same turns tells whole, in any language with spaces    |

One more, `unsure`, looks at no words and needs no language: where a profile sets `min_confidence` it refuses
what the model itself was not sure of. See cluster.confidence.
"""

import re
from collections.abc import Iterable

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_NUMBER_WORDS = dict(
    zip(
        # A list of words is read more easily.
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
        sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty
        ninety""".split(),  # noqa: SIM905
        map(str, [*range(21), *range(30, 100, 10)]),
        strict=True,
    )
)
_FRAME = frozenset(
    """user users user's assistant a an the is are was were has have had be been being do does did not no
    never and or of in on at to for from with by as that this it its his her their they he she who which
    called named live lives works likes wants plans prefers uses about into than then also very there one
    some any will would can could should must may might longer more i im you we my our me us your am ve ll re
    don""".split()  # noqa: SIM905
)
"""Words that say little of what a statement is about."""

_ARTICLES = frozenset(("a", "an", "the"))

NEGATION = re.compile(
    r"\b(?:not|never|no|nor|none|nobody|nothing|neither|without|cannot|cant|dont|doesnt|didnt|isnt|wasnt|wont"
    r"|aint|havent|hasnt|quit|quits|stopped|stop|gave up|avoids?|unable|refuses?|hates?|dislikes?|lost|except"
    r"|free)\b|n['’]t\b",
    re.IGNORECASE,
)
"""Words of an English statement that deny, or may stand for a denial."""

_DENIES = re.compile(
    r"\b(?:not|never|no longer|cannot|without|neither|nor|dont|doesnt|didnt|isnt|wasnt|wont|aint|havent"
    r"|hasnt)\b|n['’]t\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.!?;\n]+[.!?;]*")
_TASK_ON_TEXT = re.compile(
    r"\b(?:proof-?read|translate|summari[sz]e|rewrite|rephrase|paraphrase|edit|correct|fix the grammar|tl;?dr"
    r"|make (?:this|it) (?:shorter|better|more|sound)|what (?:does|do) (?:this|he|she|they) mean|reply to"
    r"|draft a (?:reply|response)|answer this)\b[^\n]{0,80}?[:\n]",
    re.IGNORECASE,
)
_PLAYED = re.compile(
    r"\b(?:you are (?:now )?(?-i:[A-Z])\w+(?=,)|act as|pretend (?:to be|you|that)|role-?play"
    r"|imagine (?:you|that|i)|let['’]?s play|in character|persona)\b",
    re.IGNORECASE,
)
_CHAT_LINE = re.compile(r"^\s*(?:\[[^\]]{3,24}\]\s*)?[A-Z][\w .'-]{0,24}: \S", re.MULTILINE)
_IF = re.compile(
    r"^\W*(?:(?:and|but|so|what|ok|well)\W+)*(?:if|suppose|say|what if|imagine)\b", re.IGNORECASE
)
_STATES = re.compile(
    r"\b(?:i|i['’](?:m|ve|d|ll)|im|ive|my|mine|me|myself|we|we['’](?:re|ve|d|ll)|our|ours|us|ma|am)\b",
    re.IGNORECASE,
)


def refusal(text: str, evidence: Iterable[str], shown: Iterable[str], gates: Iterable[str]) -> str:
    """Name of the first of `gates` that refuses a record; empty if none does.

    `evidence` are the turns that the record rests on, `shown` all that the model saw.
    """
    evidence, shown = list(evidence), list(shown)
    return next((name for name in gates if name in GATES and GATES[name](text, evidence, shown)), "")


def repeated(records: list[tuple[str, set[int]]]) -> set[int]:
    """Positions of records, given as text and turns, that another of them tells whole: with the same words or
    more, of the same turns, and denying as it does. Of equals the first stays."""
    told = [
        set(map(str.casefold, _WORD.findall(text) + _NUMBER.findall(text))) - _ARTICLES for text, _ in records
    ]
    denies = [bool(NEGATION.search(text)) for text, _ in records]
    return {
        one
        for one, (_, turns) in enumerate(records)
        if any(
            other != one
            and denies[other] == denies[one]
            and turns <= records[other][1]
            and (told[one] < told[other] or (told[one] == told[other] and other < one))
            for other in range(len(records))
        )
    }


def _stem(word: str) -> str:
    word = re.sub(r"['’]s?$", "", word.casefold())
    return re.sub(r"(?:ing|ed|es|s|ly|er)$", "", word) if len(word) > 3 else word


def _content(text: str) -> set[str]:
    """Stems of the words that say what a statement is about."""
    text = NEGATION.sub(" ", text)
    return {_stem(word) for word in _WORD.findall(text) if word.casefold() not in _FRAME and len(word) > 1}


def _words(texts: Iterable[str]) -> set[str]:
    found = {_stem(word) for text in texts for word in _WORD.findall(text)}
    return found | {part for word in found for part in re.split(r"['’-]", word)}


def _numbers(texts: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for text in texts:
        for number in _NUMBER.findall(text):
            found |= {number, number.replace(",", ""), *re.findall(r"\d+", number)}
        found |= {
            _NUMBER_WORDS[word.casefold()] for word in _WORD.findall(text) if word.casefold() in _NUMBER_WORDS
        }
    return found


def _invented(text: str, evidence: list[str], shown: list[str]) -> bool:
    known = _numbers(shown)
    if any(number not in known and number.replace(",", "") not in known for number in _NUMBER.findall(text)):
        return True
    words = _words(shown) | {"user", "assistant"}
    joined = " ".join(shown).casefold()
    return any(
        index and word[0].isupper() and _stem(word) not in words and word.casefold() not in joined
        for index, word in enumerate(_WORD.findall(text))
    )


def _unsupported(text: str, evidence: list[str], shown: list[str]) -> bool:
    wanted = _content(text)
    return len(wanted & _words(shown)) < MIN_SUPPORT * len(wanted)


MIN_SUPPORT = 0.34
"""Share of a record's content words that must stand in what the model was shown."""


def _negation_lost(text: str, evidence: list[str], shown: list[str]) -> bool:
    if NEGATION.search(text):
        return not any(map(NEGATION.search, shown))
    wanted = _content(text)
    sentences = [sentence for turn in evidence for sentence in _SENTENCE.findall(turn)]
    if not (wanted and sentences):
        return False
    best = max(sentences, key=lambda sentence: len(wanted & _content(sentence)))
    # Only a sentence that the record tells whole may refuse it: in a longer one something else is denied.
    told = _content(best)
    return bool(_DENIES.search(best)) and len(wanted & told) >= 0.75 * len(told)


def _not_speech(text: str, evidence: list[str], shown: list[str]) -> bool:
    return all(map(_is_no_speech, evidence)) if evidence else False


def _is_no_speech(turn: str) -> bool:
    if _PLAYED.search(turn) or len(_CHAT_LINE.findall(turn)) >= 3:
        return True
    if match := _TASK_ON_TEXT.search(turn):
        # What stands before the text that is handed in may be told by the user.
        return not _STATES.search(turn[: match.start()])
    return all(_IF.match(sentence) for sentence in _SENTENCE.findall(turn))


def _nothing_said(text: str, evidence: list[str], shown: list[str]) -> bool:
    only_asks = bool(evidence) and all(turn.rstrip().endswith("?") for turn in evidence)
    return only_asks and not any(map(_STATES.search, evidence))


GATES = {
    "invented": _invented,
    "unsupported": _unsupported,
    "negation_lost": _negation_lost,
    "not_speech": _not_speech,
    "nothing_said": _nothing_said,
}
