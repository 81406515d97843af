"""What of a memory a student can know from what it is shown.

Who wrote a memory down knew the whole conversation, and more of the people than one segment tells. A student
that learns "User's daughter Hania got grade 8" from "hania get grade 8" learns to guess who people are.
"""

import re
from collections.abc import Iterable

from cluster.backfill.gates import refusal
from cluster.language.content import stem, stems
from cluster.language.people import RELATIONS
from schemas.record import EncodedRecord

_RELATED = re.compile(r"\b[Uu]ser's (?:[a-z-]+ ){0,2}?(?P<relation>[a-z][a-z-]*) (?=[^\W\d_a-z])")


def derivable(record: EncodedRecord, shown: Iterable[str]) -> EncodedRecord | None:
    """A memory as these texts tell it: who a named person is to the user stays out where they do not say so.
    None if a name or a number stands nowhere in them."""
    shown = list(shown)
    known = stems(shown)

    def name_alone(match: re.Match) -> str:
        relation = match["relation"]
        is_told = relation not in RELATIONS or stem(relation) in known or relation in " ".join(shown)
        return match[0] if is_told else ""

    text = _RELATED.sub(name_alone, record.semantic_text)
    if refusal(text, [], shown, ("invented",)):
        return None
    return record.model_copy(update={"semantic_text": text})
