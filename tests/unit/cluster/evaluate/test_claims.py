"""What a statement claims, and the questions that are asked about it."""

import pytest

from cluster.evaluate.claims import read
from cluster.evaluate.qa import Fact, questions


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        ("User lives in Lyon with two cats.", "Where do I live?", "Lyon"),
        ("User moved from Rome to Oslo.", "Where do I live?", "Oslo"),
        ("User works at Nordlys and lives in Oslo.", "Where do I work?", "Nordlys"),
        ("User works as a nurse.", "What do I work as?", "nurse"),
        ("User follows a vegan diet.", "What is my diet?", "vegan"),
        ("User's dog is called Rex.", "What is my dog called?", "Rex"),
        ("User's partner is Nadia.", "Who or what is my partner?", "Nadia"),
        ("User has a blood test on 3 May.", "When is my blood test?", "3 May"),
        ("User's blood test was moved to 5 May.", "When is my blood test?", "5 May"),
        ("User prefers tea when ill.", "What do I prefer when ill?", "tea"),
        ("User drives a red Fox.", "What do I drive?", "red Fox"),
    ],
)
def test_a_statement_of_an_attribute_is_asked_for_and_answered_in_its_own_spelling(text, question, answer):
    found = questions(Fact("m1", "u", "s", "2026-01-05", text, ("Rex",)), 6)
    assert found[0] == (question, answer) and len({asked for asked, _ in found}) == 6


@pytest.mark.parametrize(
    "text",
    [
        "User no longer lives in Lyon.",
        "User used to live in Lyon.",
        "User lived in Lyon.",
        "User left Nordlys.",
        "User does not drive a Fox.",
        "User switched from tea to coffee.",
        "Lyon!",
        "",
    ],
)
def test_what_is_denied_or_over_claims_nothing(text):
    assert read(text) == []


def test_what_claims_nothing_is_asked_for_by_what_it_names():
    fact = Fact("m1", "u", "s", "", "User no longer lives in Lyon.", ("Lyon",))
    assert questions(fact, 1) == [("What do you know about me and Lyon?", fact.text)]
    assert questions(Fact("m1", "u", "s", "", "User no longer lives there."), 1) == []
