"""What somebody states of himself, told from questions and requests."""

import pytest

from cluster.language.statements import sentences, statements


def test_a_sentence_ends_at_its_mark_or_its_line_and_not_within_a_number():
    assert sentences("It is 1.5 km!! Really?\nNo\n\n ...ok.") == ["It is 1.5 km!!", "Really?", "No", "ok."]


def test_a_point_of_a_title_or_of_an_hour_ends_no_sentence():
    said = "My teacher is Mrs. Abara. I start at 4 a.m. tomorrow. I moved to St. Ives at 5 p.m."
    assert sentences(said) == [
        "My teacher is Mrs. Abara.",
        "I start at 4 a.m. tomorrow.",
        "I moved to St. Ives at 5 p.m.",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I live in Oslo. Do you know it? Tell me about my street.", ["I live in Oslo."]),
        ("im 40. Our cat is Bo", ["im 40.", "Our cat is Bo"]),
        ("It rains. Mine is a small mind.", ["Mine is a small mind."]),
        ("Can you help me. What do I do?", []),
    ],
)
def test_a_statement_is_about_the_speaker_and_asks_for_nothing(text, found):
    assert statements(text) == found
