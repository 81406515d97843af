"""What somebody states of himself in English, told from questions and requests, sentence by sentence."""

import re

OF_SELF = r"i|i['’](?:m|ve|d|ll)|im|ive|my|mine|me|myself|we|we['’](?:re|ve|d|ll)|our|ours|us"
"""Words by which people speak of themselves, alternatives of a regular expression."""

_SELF = re.compile(rf"\b(?:{OF_SELF})\b", re.IGNORECASE)

# A point ends no sentence before a digit, after a title, nor in "a.m." where a small letter follows.
_POINT_WITHIN = r"\b(?:mrs?|ms|dr|prof|st|vs|approx|no(?=\. ?\d))\.|\b[a-z]\.(?= ?(?-i:[a-z\d]))|\.(?=\d)"
_SENTENCE = re.compile(rf"(?:{_POINT_WITHIN}|[^.!?\n])+[.!?]*", re.IGNORECASE)
_LETTER = re.compile(r"\w")
_ASKS = re.compile(
    r"^\W*(?:(?:so|and|also|ok(?:ay)?|thanks?(?: you)?|please|hi|hello|hey)\W+)*"
    r"(?:can|could|would|will|do|does|did|is|are|should|shall|may|might|what|how|why|when|where|who|which|whose"
    r"|tell|give|show|help|let|explain|write|list|suggest|recommend)\b",
    re.IGNORECASE,
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, and what stands in lines of its own."""
    return [sentence.strip() for sentence in _SENTENCE.findall(text) if _LETTER.search(sentence)]


def statements(text: str) -> list[str]:
    """Sentences that say something of who says them, and are neither questions nor requests."""
    return [
        sentence
        for sentence in sentences(text)
        if _SELF.search(sentence) and not sentence.endswith("?") and not _ASKS.match(sentence)
    ]
