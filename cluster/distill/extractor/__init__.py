"""The rule-based teacher: what a user tells of themselves, as memory records. No model, no randomness.

    extract(segment) -> [{"evidence_turns": [0], "memory_type": "fact",
                          "semantic_text": "User lives in Lyon and works as a nurse.", "entities": ["Lyon"]}]

It rewrites near to the words, so that a small model can learn the mapping from examples: a user turn is cut
into sentences, greetings, asides and requests are cut off (`sentences`), clauses in which the user tells
something of themselves are kept (`selection`), what leans on the sentence before gets what it needs to be
understood (`statements`), and "I" becomes "User" (`person`). Records stand in the order of the text. A
segment with requests, reactions and general talk only has no record; what the assistant says never is one.
Dates stay as they are said: a record is stored with its session's date. English only.

Two to six thousand segments a second on one core.
"""

import re

from cluster.distill.extractor.person import is_past, third_person
from cluster.distill.extractor.sentences import sentences
from cluster.distill.extractor.statements import statements

MAX_RECORDS = 4
MAX_TEXT_CHARS = 160
MAX_ENTITIES = 3
MAX_ENTITY_CHARS = 32
"""The limits of the default profile."""

MAX_PART_CHARS = 20_000
"""What follows in a longer part is pasted material, not conversation."""


def extract(
    segment: dict, *, max_records: int = MAX_RECORDS, max_text_chars: int = MAX_TEXT_CHARS
) -> list[dict]:
    """A row of SEGMENT_SCHEMA -> candidate records, in the order of the text.

    A record has the keys of the default profile: `evidence_turns` (one index into `segment["current"]`,
    always a user's part), `memory_type`, `semantic_text` (at most `max_text_chars` characters, begins with a
    capital, ends with a full stop), `entities` (at most 3 of 32 characters, each stands in the text).
    Statements over the limit of records are left out from the end; a repeated statement is not repeated.
    """
    records, seen = [], set()
    for index, part in enumerate(segment["current"]):
        if part["role"] != "user":
            continue
        said = statements(part["text"][:MAX_PART_CHARS], max_text_chars)
        for statement in said:
            text = _finished(third_person(statement), max_text_chars)
            if text.lower() in seen or len(text) < 12:
                continue
            seen.add(text.lower())
            records.append(
                {
                    "evidence_turns": [index],
                    "memory_type": memory_type(statement),
                    "semantic_text": text,
                    "entities": entities(text),
                }
            )
    return records[:max_records]


def asking(segment: dict) -> dict | None:
    """The segment with only questions left of what users say, for examples without anything to remember.

    People ask for advice and tell of themselves in one breath, so a teacher's answers hold few of those.
    None where a user's part has no question that tells nothing, or where nothing was taken away.
    """
    current, is_shorter = [], False
    for part in segment["current"]:
        if part["role"] == "user":
            said = sentences(part["text"][:MAX_PART_CHARS])
            kept = [sentence for sentence in said if sentence.endswith("?") and not _tells(sentence)]
            if not kept:
                return None
            is_shorter |= len(kept) < len(said)
            part = part | {"text": " ".join(kept)}
        current.append(part)
    return segment | {"current": current} if is_shorter else None


def _tells(sentence: str) -> bool:
    return bool(extract({"current": [{"role": "user", "text": sentence}]}))


# --- the record's fields ------------------------------------------------------------------------------------

_PREFERENCE = re.compile(
    r"\b(?:I|we)(?:'m|'ve|'d| am| have| would)? (?:\w+ly |also |just |always |not |do |don't )*"
    r"(?:like|love|prefer|enjoy|hate|dislike|adore|interested in|a (?:\w+ )?fan of|into|fond of|obsessed|"
    r"passionate|enjoyed|loved|liked|drawn to|excited about)\b|\b(?:my|our) favou?rite\b",
    re.I,
)
_CONSTRAINT = re.compile(
    r"\b(?:can't|cannot|allergic|intolerant|must|have to|don't (?:eat|drink|have|want)|not allowed|budget|"
    r"no more than|only available|avoid|need to|unable)\b",
    re.I,
)
_TIME = re.compile(
    r"\b(?:yesterday|today|tomorrow|tonight|ago|just|recently|last|next|this (?:week|month|year|"
    r"morning|weekend)|"
    r"(?:on|in) (?:january|february|march|april|may|june|july|august|september|october|november|december)|"
    r"\d{1,2}(?:st|nd|rd|th)|\d{1,2}/\d{1,2})\b",
    re.I,
)


def memory_type(statement: str) -> str:
    """preference | constraint | event | fact of a first-person clause."""
    if _PREFERENCE.search(statement):
        return "preference"
    if _CONSTRAINT.search(statement):
        return "constraint"
    verbs = re.findall(r"\b(?:I|[Ww]e) (?:(?:just|recently|also|actually|finally|once) )*([a-z]+)", statement)
    if any(is_past(verb) for verb in verbs) or ((verbs or "I'm" in statement) and _TIME.search(statement)):
        return "event"
    return "fact"


_NAME = re.compile(
    r"\"(?P<title>[^\"]{2,40})\"|"
    r"\b[A-Z][\w&'-]*(?:(?: (?:of|the|de|la|&|for))* (?:[A-Z][\w&'-]*|\d+[A-Za-z]*\b))*"
)
_NO_NAME = re.compile(
    r"\b(?:User(?:'s)?|I|OK|AM|PM|It|The|They|He|She|We|My|January|February|March|April|May|June|July|August|"
    r"September|October|November|December|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)s?\b"
)


def entities(text: str) -> list[str]:
    """Names and titles of a record's text, in order: capitalised words and what stands in quotation marks."""
    found = []
    for match in _NAME.finditer(text):
        name = match["title"] or match[0]
        if not match["title"]:
            # The first word has a capital anyhow, so has the one behind a full stop.
            begins = match.start() == 0 or text[: match.start()].endswith((". ", "! ", "? "))
            if begins or _NO_NAME.match(name):
                name = name.partition(" ")[2]
                if begins and not re.match(r"[A-Z]", name):
                    continue
            if _NO_NAME.match(name):
                continue
        name = name.strip(" .,'-").removesuffix("'s")
        if 2 <= len(name) <= MAX_ENTITY_CHARS and name[:1].isupper() and name not in found:
            found.append(name)
    return found[:MAX_ENTITIES]


def _finished(text: str, max_chars: int) -> str:
    text = " ".join(text.split()).strip(" ,;:-–—.!…")
    if len(text) >= max_chars:
        text = _shortened(text, max_chars - 1)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _shortened(text: str, max_chars: int) -> str:
    """Cut at the last boundary of a clause, or else of a word, that leaves at least half."""
    head = text[: max_chars + 1]
    cuts = [
        match.start()
        for match in re.finditer(r"[,;:] | - | (?:and|but|so|which|because|that|where|who) ", head)
    ]
    cuts = [cut for cut in cuts if cut > max_chars // 2]
    cut = cuts[-1] if cuts else head.rfind(" ")
    return text[: cut if cut > 0 else max_chars].strip(" ,;:-–—")
