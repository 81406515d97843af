"""A user's text -> statements that can be understood alone, still in the first person, in order.

A sentence that leans on the one before it ("It cost me $120.") is joined to that one's statement, or, when
that one was a question, gets its subject in front: "About the waterproof car cover: it cost me $120".
"""

import re

from cluster.distill.extractor.person import mentions_speaker, normalise
from cluster.distill.extractor.selection import is_pasted, telling
from cluster.distill.extractor.sentences import clauses, sentences

_MAX_TOPIC_CHARS = 60
_GROWTH_CHARS = 12
"""How much longer a statement may get in the third person ("I'm" -> "User is", "my" -> "their")."""
_SECOND_HALF = re.compile(
    r"(?:[,;]| -|) (?:and |but |so )(?:also )?(?=(?:I|[Mm]y|[Ww]e|[Oo]ur)\b)|(?:;| -) (?=(?:I|[Mm]y|"
    r"[Ww]e|[Oo]ur)\b)"
)

_LEANING = re.compile(
    r"(?:It|They|He|She|There)(?:'\w+)?\b|(?:His|Her|Its|Their|Both|Mine|Ours)\b|"
    r"(?:This|That|These|Those)(?:'s| is| was| are| were| has| had| have| would| will| makes?| made|"
    r" means| one)\b",
    re.I,
)
_LEANING_INSIDE = re.compile(r"(?:I|[Ww]e)\b[^\"A-Z\d]*?\b(?:it|them|him|her|those|these|this)\b")
_NAMED = re.compile(r"\b(?:an?|the|my|our|some|any|two|three|new|several|every)\b", re.I)
_FIGURE = re.compile(
    r"[$€£]\s?\d|\b\d{1,2}(?::\d\d)? ?[ap]\.?m\b|"
    r"\b(?:January|February|March|April|June|July|August|September|October|November|December)\b|"
    r"\b\d+ (?:years?|months?|weeks?|days?|hours?|minutes?|miles|dollars)\b"
)
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")
_ADDRESSED = re.compile(r"\b(?:you|your)\b", re.I)
_TOPIC = re.compile(r"\b(?P<of>my|our|the|an?|some) (?P<topic>[^,;:?.!\"]+)", re.I)
_TOPIC_END = re.compile(
    r" (?:and|but|or|that|which|who|whose|when|where|while|if|so|because|since|as|is|are|was|were|"
    r"has|have|had|been|"
    r"would|will|can|could|should|to|I|we|you|it|again|now|first|lately|recently|gave|got|after|"
    r"before|using)\b.*"
)
_NO_TOPIC = re.compile(
    r"(?:way|of|same|best|own|idea|ideas|lot|bit|few|good|great|nice|tips?|advice|help|information|"
    r"info|suggestions?|"
    r"recommendations?|list|resources|area|pros|more|other|new|helpful|thanks?|one|ones|things?)\b",
    re.I,
)


def statements(text: str, max_chars: int) -> list[str]:
    """What a user's text tells of themselves, as normalised clauses in order.

    A clause that in the third person would be longer than about `max_chars` is cut in two where its second
    half can stand alone, and sentences are joined only within `max_chars`.
    """
    text = normalise(text)
    if is_pasted(text):
        return []
    is_personal = mentions_speaker(text)
    found: list[str] = []
    before, was_told = "", False
    for sentence in sentences(text):
        told = False
        for clause in clauses(sentence):
            statement = telling(clause)
            leans = bool(_LEANING.match(clause)) and not clause.endswith("?")
            is_detail = is_personal and _has_figure(clause)
            if is_detail or (leans and was_told and _NAME.search(clause)):
                statement = statement or clause
            if not statement:
                continue
            if leans or _leans_inside(statement):
                joined = f"{found[-1].rstrip('.!, ')}; {_lowered(statement)}" if was_told else ""
                if joined and len(joined) + _GROWTH_CHARS <= max_chars:
                    found[-1], told = joined, True
                    continue
                statement = _with_topic(statement, before)
            if statement:
                found.append(statement)
                told = True
        before, was_told = sentence, told
    return [piece for statement in found for piece in _halves(statement, max_chars)]


def _halves(statement: str, max_chars: int) -> list[str]:
    """ "I bought ..., and I gave ..." -> both halves, where the whole is too long for one record."""
    if len(statement) + _GROWTH_CHARS <= max_chars:
        return [statement]
    for match in reversed(list(_SECOND_HALF.finditer(statement, 30))):
        second = telling(statement[match.end() :])
        if second and match.start() + _GROWTH_CHARS <= max_chars and not _leans_inside(second):
            return [statement[: match.start()], *_halves(second, max_chars)]
    return [statement]


def _has_figure(clause: str) -> bool:
    return bool(_FIGURE.search(clause)) and not clause.endswith(("?", ":")) and not _ADDRESSED.search(clause)


def _leans_inside(statement: str) -> bool:
    """ "I got it a month ago": a pronoun for a thing before anything is named."""
    match = _LEANING_INSIDE.match(statement)
    return match is not None and not _NAMED.search(match[0])


def _with_topic(statement: str, before: str) -> str:
    """The statement behind what the sentence before it was about; empty where nothing can be found."""
    topics = sorted(_TOPIC.finditer(before), key=lambda match: match["of"].lower() not in ("my", "our"))
    for match in topics:
        topic = _TOPIC_END.sub("", match["topic"])[:_MAX_TOPIC_CHARS]
        if _NO_TOPIC.match(topic):
            continue
        owner = "their" if match["of"].lower() in ("my", "our") else "the"
        topic = re.sub(r"\b(?:my|our)\b", "their", topic).strip()
        return f"About {owner} {topic}: {_lowered(statement)}"
    return "" if _LEANING.match(statement) else statement


def _lowered(statement: str) -> str:
    return statement if statement.startswith(("I ", "I'")) else statement[0].lower() + statement[1:]
