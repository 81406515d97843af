"""What a student is taught of a memory: what it is shown, and no guess."""

import pytest

from cluster.distill.derivable import derivable
from schemas.record import EncodedRecord


def memory(text: str) -> EncodedRecord:
    return EncodedRecord(evidence_turns=[0], memory_type="fact", semantic_text=text, entities=[])


@pytest.mark.parametrize(
    ("text", "shown", "told"),
    [
        ("User's daughter Hania got grade 8.", "hania get grade 8", "Hania got grade 8."),
        ("User's younger son Tendai has mocks.", "Tendai has mocks", "Tendai has mocks."),
        ("User met User's boss Hector.", "met Hector today", "User met Hector."),
    ],
)
def test_who_a_named_person_is_stays_out_where_nobody_says_it(text, shown, told):
    assert derivable(memory(text), [shown]).semantic_text == told


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("User's daughter Hania got grade 8.", "my daughter hania got grade 8"),
        ("User's mother Ada is out of hospital.", "my mum Ada is out of hospital"),
        ("User's firm Zibi Build has a van.", "zibi build has van now"),
        ("User's child lives in Oslo.", "she lives in Oslo"),
    ],
)
def test_a_relation_that_is_told_and_all_that_is_none_stay(text, shown):
    assert derivable(memory(text), [shown]).semantic_text == text


def test_a_memory_with_a_name_or_number_from_elsewhere_is_not_taught():
    assert derivable(memory("User needs IELTS 7."), ["For nursing it is 7 in everything"]) is None
    assert derivable(memory("User goes on the 26th."), ["we go soon"]) is None
    assert derivable(memory("User needs IELTS 7."), ["IELTS", "7 in everything"])
    assert derivable(memory("User's wife cries."), ["she cries at films"]) is None
