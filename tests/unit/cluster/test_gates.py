"""Gates: each refuses what it is for, and lets pass what people would have written down."""

import pytest

from cluster.gates import GATES, refusal, repeated
from schemas import profile


def refused(text, *turns, gates=tuple(GATES)):
    return refusal(text, turns, turns, gates)


@pytest.mark.parametrize(
    ("text", "turn", "gate"),
    [
        ("User lives in Ulum.", "I live in Ulm and I have a cat.", "invented"),
        ("User has 14 hens.", "We have 13 hens.", "invented"),
        ("User is a Jew.", "أنا أعيش في القاهرة", "invented"),
        ("User enjoys mountain climbing trips.", "I bought a lamp for my desk.", "unsupported"),
        ("User lives in Göteborg.", "I don't live in Göteborg.", "negation_lost"),
        ("User does not eat fish.", "I eat fish.", "negation_lost"),
        ("User has two dogs.", "Proofread this: I have two dogs and work as a welder.", "not_speech"),
        ("User lives in Kyoto.", "You are Luna, you live in Kyoto and love tea.", "not_speech"),
        ("User lives in Tokyo.", "If I lived in Tokyo, what would rent cost?", "not_speech"),
        (
            "User has a boat.",
            "Ann: I have a boat\nBob: nice, I live in Oslo\nAnn: come visit\nBob: ok",
            "not_speech",
        ),
        ("User has cooked rice.", "How long can cooked rice be kept?", "nothing_said"),
    ],
)
def test_what_nobody_said_is_refused(text, turn, gate):
    assert refused(text, turn) == gate


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("User lives in Ulm.", ["I live in Ulm."]),
        ("User has two children.", ["Do you have children?", "yes, two"]),
        ("User has 2 children.", ["Do you have children?", "yes, two"]),
        ("User no longer eats fish.", ["I don't eat fish any more, doctor's orders"]),
        ("User is no longer a nurse.", ["I quit nursing, I was a nurse for ten years"]),
        ("User has a cat.", ["I live in Oslo, not in Bergen. I have a cat."]),
        ("User's budget is 1,450 euros.", ["my budget is 1450 euros"]),
        ("User is coeliac.", ["since I'm coeliac, can you swap the pasta?"]),
        ("User's wife Ines starts a new job.", ["my wife Ines has a new job. Can you draft a card for her?"]),
    ],
)
def test_what_was_said_passes(text, turns):
    assert refused(text, *turns) == ""


def test_profiles_know_the_gates_by_name():
    assert (*GATES, "repeated") == profile.GATES


@pytest.mark.parametrize(
    ("texts", "again"),
    [
        (["User drives a Volvo.", "User drives an old Volvo."], {0}),
        (["User has a cat.", "User has the cat."], {1}),
        (["User eats fish.", "User does not eat fish."], set()),
        (["User has 2 cats.", "User has 3 cats."], set()),
        (["User lives in Oslo.", "User works in Oslo."], set()),
    ],
)
def test_what_another_record_of_the_same_turns_tells_whole_is_repeated(texts, again):
    assert repeated([(text, {0}) for text in texts]) == again
    assert repeated([(text, {turn}) for turn, text in enumerate(texts)]) == set()
