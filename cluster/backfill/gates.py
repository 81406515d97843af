"""Gates: what of an encoder's records is refused before it is stored, and why.

A small model now and then writes what nobody said. Each gate looks at one record beside the words that it
rests on; the first that refuses gives the reason. They are for English; of other languages they know what
people are called in records, of German that every noun has a capital, and of Chinese that no spaces part its
words.

| gate            | refuses a record                                                                  |
|-----------------|-----------------------------------------------------------------------------------|
| `invented`      | with a name or number that stands nowhere in what the model was shown, in no way  |
|                 | of writing it ("eleven fifty" is 1,150, "sept" September), or with a relation     |
|                 | that nobody tells ("User's wife")                                                 |
| `unsupported`   | of whose content words few stand there                                            |
| `negation_lost` | that says what its evidence denies, or denies what it says                        |
| `not_speech`    | of what is quoted, pasted, played or imagined                                     |
| `nothing_said`  | of a turn that only asks                                                          |
| `repeated`      | that another record of the same turns tells whole, in any language with spaces    |

With `invented` or `unsupported` a record is also kept without those values of extra fields of which its turns
say no word (`extra_value`). A value that is one of a field's choices is not looked at.

One more, `unsure`, looks at no words and needs no language: where a profile sets `min_confidence` it refuses
what the model itself was not sure of. See cluster.models.confidence. And `language` refuses no record but a
whole segment, before the model is asked about it.
"""

import re
from collections.abc import Iterable

from cluster.language.content import NEGATION, WORD, content_words, stem, stems, without_possessive
from cluster.language.identify import other_language
from cluster.language.numbers import NUMBER, are_spoken_known, is_known_number, numbers_of
from cluster.language.people import untold_relations
from cluster.language.statements import OF_SELF, statements

_OF_TIME = (  # noqa: SIM905
    "monday tuesday wednesday thursday friday saturday sunday january february march april may june july"
    " august september october november december"
).split()
"""Names that people shorten, and that are no one's."""

_ARTICLES = frozenset(("a", "an", "the"))

_DENIES = re.compile(
    r"\b(?:not|never|no longer|cannot|without|neither|nor|dont|doesnt|didnt|isnt|wasnt|wont|aint|havent"
    r"|hasnt|(?<!say )no(?! (?:problem|worries|idea|doubt|wonder|matter)))\b"
    r"|n['’]t\b(?! (?:wait|forget|only|just))",
    re.IGNORECASE,
)
_MAY_DENY = re.compile(
    r"\b(?:nope|nah|naw|nae|(?:will|can|din|did|is|was|has|do)n(?:ae|y)|non-?\w+|forgot|scratch|conceded"
    r"|all but|ditched|dropped|instead of|nicht|kein\w*|nie|nunca|sin|pas|jamais|hindi|wala)\b|不|没|无|别",
    re.IGNORECASE,
)
"""Words that stand for a denial now and then: enough for a record that denies to rest on them."""

_CLAUSE = re.compile(
    r"[.!?;,:\n()–—]+|\s-\s|\b(?:but|and|because|so|since|though|cause|cos|or|which|who)\b", re.I
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
_FORM = re.compile(
    r"\W*(?:name|age|born|birthday|job|occupation|address|city|diet|allerg\w+|height|weight)\W*:", re.I
)
_OUT_OF_PLAY = re.compile(r"\b(?:out of (?:the )?(?:role-?play|character)|OOC:)", re.IGNORECASE)
_QUOTED = re.compile(r"(?<!\w)['\"“‘](?=\w)[^\n]{15,}?['\"”’](?!\w)|\n\n(?=\()")
_IF = re.compile(
    r"^\W*(?:(?:and|but|so|what|ok|well)\W+)*(?:if|suppose|say|what if|imagine)\b", re.IGNORECASE
)
# A gate lets pass what may be of the speaker: also in dialect, and where he leaves himself out ("am tired").
_STATES = re.compile(rf"\b(?:{OF_SELF}|ma|am)\b", re.IGNORECASE)


def refusal(text: str, evidence: Iterable[str], shown: Iterable[str], gates: Iterable[str]) -> str:
    """Name of the first of `gates` that refuses a record; empty if none does.

    `evidence` are the turns that the record rests on, `shown` all that the model saw.
    """
    evidence, shown = list(evidence), list(shown)
    return next((name for name in gates if name in GATES and GATES[name](text, evidence, shown)), "")


def is_told(value: str, evidence: Iterable[str]) -> bool:
    """Whether a content word or a number of a value stands in these turns. What has none may stand there."""
    said = list(evidence)
    wanted, numbers = content_words(value), NUMBER.findall(value)
    known = numbers_of(said)
    return (
        not (wanted or numbers)
        or bool(wanted & stems(said))
        or any(is_known_number(number, known) for number in numbers)
    )


def clauses_that_tell(text: str, evidence: Iterable[str]) -> list[str]:
    """Clauses of turns that hold most of a record's content words, in order."""
    wanted = content_words(text)
    clauses = [clause for turn in evidence for clause in _CLAUSE.split(turn) if clause.strip()]
    return [one for one in clauses if wanted and len(wanted & stems([one])) >= TELLING * len(wanted)]


TELLING = 0.6
"""Share of a record's content words that a clause must hold to be where it was said."""


def unread_language(segment: dict, languages: tuple[str, ...], role: str | None) -> str:
    """The language of a row of SEGMENT_SCHEMA if it is surely none of `languages`; else empty, as without
    any. What is said in this role decides; in any, if none is given."""
    if not languages:
        return ""
    said = [part["text"] for part in segment["current"] if role in (None, part["role"])]
    around = [part["text"] for part in segment["context"] + segment["current"]]
    return other_language("\n".join(said), languages, "\n".join(around))


def repeated(records: list[tuple[str, set[int]]]) -> set[int]:
    """Positions of records, given as text and turns, that another of them tells whole: with the same words or
    more, of the same turns, and denying as it does. Of equals the first stays."""
    told = [
        set(map(str.casefold, WORD.findall(text) + NUMBER.findall(text))) - _ARTICLES for text, _ in records
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


def untold(text: str, records: Iterable[str]) -> list[str]:
    """What a user's turn states of him, sentence by sentence, and no record has half the words of."""
    told = [stems([record]) for record in records]
    wanted = ((sentence, content_words(sentence)) for sentence in statements(text))
    return [
        sentence
        for sentence, words in wanted
        if words and not any(2 * len(words & record) >= len(words) for record in told)
    ]


def _invented(text: str, evidence: list[str], shown: list[str]) -> bool:
    known = numbers_of(shown)
    if any(not is_known_number(number, known) for number in NUMBER.findall(text)):
        return True
    if not are_spoken_known(text, known) or untold_relations(text, shown):
        return True
    # Where every noun has a capital, it tells no name.
    if len(_GERMAN.findall(text)) > 1:
        return False
    words, joined = stems(shown), " ".join(shown).casefold()
    squeezed = re.sub(r"[\W_]+", "", joined)
    return any(
        not _is_known_name(word, words, joined, squeezed)
        for index, word in enumerate(WORD.findall(text))
        if word[0].isupper() and (index or _opens_with_name(text))
    )


_GERMAN = re.compile(
    r"\b(?:der|die|das|und|ist|hat|nicht|ein|eine|einen|im|mit|zu|zum|zur|vom|von|für|auf|wird|sich)\b",
    re.IGNORECASE,
)


_NO_NAME = "The|Two|Three|Four|Five|Six|Half|Both|All|Most|Some|One|It|There|This|That|He|She|They|When|Where"
_OPENING_NAME = re.compile(
    rf"(?!(?:User|Assistant|{_NO_NAME})\b)[^\W\d_]+(?:['’]s\b| (?:is|was|has|had|will|does|lives|works|"
    r"wants|likes|goes|and User)\b)"
)


def _opens_with_name(text: str) -> bool:
    """Whether the first word, which has a capital anyway, is likely to be somebody's name."""
    return bool(_OPENING_NAME.match(text))


def _is_known_name(word: str, words: set[str], joined: str, squeezed: str) -> bool:
    folded = word.casefold()
    if without_possessive(folded) in ("user", "assistant", "i") or stem(word) in words:
        return True
    if all(stem(part) in words for part in folded.split("-")):
        return True
    if (name := folded.removesuffix("s")) in _OF_TIME:
        return any(re.search(rf"\b{name[:length]}s?\b", joined) for length in range(3, len(name) + 1))
    return bool(re.search(rf"(?<!\w){re.escape(folded)}", joined)) or (
        len(folded) > 5 and re.sub(r"\W", "", folded) in squeezed
    )


def _unsupported(text: str, evidence: list[str], shown: list[str]) -> bool:
    wanted, known = content_words(text), numbers_of(shown)
    numbers = set(NUMBER.findall(text))
    told = len(wanted & stems(shown)) + sum(is_known_number(number, known) for number in numbers)
    return told < MIN_SUPPORT * (len(wanted) + len(numbers))


MIN_SUPPORT = 0.3
"""Share of a record's content words and numbers that must stand in what the model was shown."""


# --- negation ---------------------------------------------------------------------------------------------


def _negation_lost(text: str, evidence: list[str], shown: list[str]) -> bool:
    denies = bool(NEGATION.search(text))
    if denies and not any(NEGATION.search(turn) or _MAY_DENY.search(turn) for turn in shown):
        return True
    wanted = content_words(text)
    clauses = [clause for turn in evidence for clause in _CLAUSE.split(turn) if clause.strip()]
    told = wanted & stems(evidence)
    # A clause of the same words as the record, all that is said of it.
    same = [
        index
        for index, clause in enumerate(clauses)
        if (own := content_words(clause))
        and told
        and told <= own
        and len(own & wanted) >= SAME_CLAUSE * len(own)
    ]
    if not denies:
        return bool(same) and all(_DENIES.search(clauses[index]) for index in same)
    if not _DENIES.search(text) or len(told) < len(wanted):
        return False
    # What stands beside it may be what denies it: "Fish? Never."
    return any(
        len(content_words(clauses[index]) - wanted) == 0
        and not any(
            _MAY_DENY.search(near) or NEGATION.search(near) for near in clauses[max(0, index - 1) : index + 2]
        )
        for index in same
    )


SAME_CLAUSE = 0.6
"""Share of a clause's content words that a record must hold to be about the same."""


# --- speech -----------------------------------------------------------------------------------------------


def _not_speech(text: str, evidence: list[str], shown: list[str]) -> bool:
    return bool(evidence) and all(_is_no_speech(turn, text) for turn in evidence)


def _is_no_speech(turn: str, text: str) -> bool:
    if match := _PLAYED.search(turn):
        # Before a play begins, people tell of themselves; so does who speaks out of it.
        return not (_OUT_OF_PLAY.search(turn) or _is_told_by(turn[: match.start()], text))
    if len(lines := _CHAT_LINE.findall(turn)) >= 3 and not any(map(_FORM.match, lines)):
        return not _is_told_by(
            "\n".join(line for line in turn.splitlines() if not _CHAT_LINE.match(line)), text
        )
    if match := _TASK_ON_TEXT.search(turn):
        # What stands before the text that is handed in may be told by the user, and what stands behind it.
        before, after = turn[: match.start()], _QUOTED.split(turn[match.start() :])[1:]
        return not (_STATES.search(before) or any(_is_told_by(part, text) for part in after))
    return all(_IF.match(sentence) for sentence in _SENTENCE.findall(turn))


def _is_told_by(speech: str, text: str) -> bool:
    """Whether this part of a turn tells of the user, and holds the words of a record."""
    wanted = content_words(text)
    told = len(wanted & stems([speech]))
    return bool(_STATES.search(speech)) and told >= max(1, 0.5 * len(wanted))


def _nothing_said(text: str, evidence: list[str], shown: list[str]) -> bool:
    return bool(evidence) and not any(
        _STATES.search(turn) or not turn.rstrip().endswith("?") or _has_statement(turn, text)
        for turn in evidence
    )


def _has_statement(turn: str, text: str) -> bool:
    """Whether a turn that ends with a question has a sentence that is no question and tells of the record."""
    wanted = content_words(text)
    told = [s for s in _SENTENCE.findall(turn) if not s.rstrip().endswith("?")]
    return 2 * len(wanted & stems(told)) >= len(wanted) > 0


GATES = {
    "invented": _invented,
    "unsupported": _unsupported,
    "negation_lost": _negation_lost,
    "not_speech": _not_speech,
    "nothing_said": _nothing_said,
}
