"""What of a memory a student can know from what it is shown.

Who wrote a memory down knew the whole conversation, and more of the people than one segment tells. A student
that learns "User's daughter Hania got grade 8" from "hania get grade 8" learns to guess who people are.
"""

from collections.abc import Iterable

from cluster.backfill.gates import refusal
from cluster.language.people import as_told
from schemas.record import EncodedRecord


def derivable(record: EncodedRecord, shown: Iterable[str]) -> EncodedRecord | None:
    """A memory as these texts tell it; None if a name, a number or a relation stands nowhere in them."""
    shown = list(shown)
    text = as_told(record.semantic_text, shown)
    if refusal(text, [], shown, ("invented",)):
        return None
    return record.model_copy(update={"semantic_text": text})
