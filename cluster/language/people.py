"""What people are to somebody: words that tell who "Lena" is in "my sister Lena"."""

import re
from collections.abc import Iterable

from cluster.language.content import WORD, stem, stems, without_possessive

RELATIONS = frozenset(
    """mother father mum mom dad parents brother sister siblings son daughter child children kids baby wife
    husband spouse partner boyfriend girlfriend fiance fiancee ex ex-wife ex-husband uncle aunt cousin nephew
    niece grandmother grandfather grandma grandpa gran grandparents grandson granddaughter grandchild
    grandchildren mother-in-law father-in-law brother-in-law sister-in-law parents-in-law stepson stepdaughter
    stepfather stepmother friend friends flatmate roommate neighbour neighbor colleague boss manager landlord
    landlady tenant twin godson goddaughter classmate teacher trainer employee apprentice assistant
    therapist doctor dentist babysitter cleaner family in-laws client customer""".split()  # noqa: SIM905
)

_COUPLE = (
    "wife husband spouse partner missus hubby married marry wedding boyfriend girlfriend fiance fiancee bf gf"
    " himself herself"
)
_CHILD = (
    "child children kid kids baby babies boy boys girl girls son sons daughter daughters little toddler wean"
    " weans eldest youngest pregnant yo yr mth granny"
)
_TOLD_BY = {
    "brother": "bro brothers siblings",
    "sister": "sis sisters siblings",
    "siblings": "brother sister brothers sisters",
    "parents": "mother father mum mom mam dad parent folks",
    "grandparents": "grandmother grandfather gran nan grandma grandad grandpa",
    "grandchildren": "grandkids grandchild grandson granddaughter",
    "grandmother": "lola nonna oma abuela nani",
    "grandfather": "grandad granddad lolo nonno opa",
    "mother": "mither amma nanay mums granny",
    "father": "tatay baba appa granddad",
    "neighbour": "next",
    "neighbor": "next",
    "niece": "nieces",
    "nephew": "nephews",
    "friend": "mate buddy pal bestie bff friends friendship",
    "colleague": "coworker co-worker workmate work team office shift",
    "boss": "manager supervisor chief foreman director works",
    "manager": "boss supervisor",
    "flatmate": "roommate housemate flat",
    "roommate": "flatmate housemate dorm",
    "doctor": "dr gp doc clinic surgery consultant",
    "teacher": "class school lesson lessons miss sir",
    **dict.fromkeys(("wife", "husband", "spouse", "partner", "boyfriend", "girlfriend"), _COUPLE),
    **dict.fromkeys(("child", "children", "kids", "baby", "son", "daughter"), _CHILD),
}
"""Other words by which people tell such a relation."""

_SAY_LITTLE = frozenset(
    "assistant client customer family employee friends tenant partner child children kids baby".split()  # noqa: SIM905
)
_ENGLISH = re.compile(r"\b(?:the|my|i|is|and|you|she|he|we)\b")
_OTHER = re.compile(
    r"\b(?:der|die|das|und|ist|meine?r?|mi|mis|el|los|que|mon|ma|mes|les?|est|et|une?)\b|[\u0370-\u9fff]"
)
_OF_NAME = re.compile(r"\b[Uu]ser's (?:[a-z-]+ ){0,2}?(?P<relation>[a-z][a-z-]*) (?=[^\W\d_a-z])")


def untold_relations(text: str, shown: Iterable[str]) -> set[str]:
    """Relations that a statement names and these texts do not, in no way of saying them. None of texts in
    another language, and of words that may be for anybody ("child", "client")."""
    spoken = {without_possessive(word) for word in WORD.findall(text.casefold())}
    named = (spoken & RELATIONS) - _SAY_LITTLE
    if not named:
        return set()
    shown = list(shown)
    known, said = stems(shown), " ".join(shown).casefold()
    if _OTHER.search(said) and not _ENGLISH.search(said):
        return set()

    def is_told(word: str) -> bool:
        if stem(word) in known:
            return True
        ways = (word, word.replace("-", " "), *_TOLD_BY.get(word, "").split())
        return any(re.search(rf"\b{way}s?\b", said) for way in ways)

    return {word for word in named if not is_told(word)}


def as_told(text: str, shown: Iterable[str]) -> str:
    """A statement in which who a named person is stays out where these texts do not say so: "Hania got grade
    8" for "User's daughter Hania got grade 8"."""
    untold = untold_relations(text, shown)
    return _OF_NAME.sub(lambda match: "" if match["relation"] in untold else match[0], text)
