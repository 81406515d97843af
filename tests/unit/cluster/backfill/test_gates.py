"""Gates: each refuses what it is for, and lets pass what people would have written down."""

import pytest

from cluster.backfill.gates import GATES, refusal, repeated
from schemas.profiles import encoder


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
        ("Thomas is User's brother.", "My brother is a nurse in Graz.", "invented"),
        ("User's sister is called Ina.", "My sister will finally be here for dinner.", "invented"),
        ("User has three hens.", "We have two hens.", "invented"),
        (
            "User's wife has no VAT number.",
            "I supply the adhesive, she supplies the tiles. I have no VAT number.",
            "invented",
        ),
        ("User's son plays the piano.", "that person next door plays the piano every season", "invented"),
        ("User's friend Safaricom charges 1,500.", "the Safaricom tracker, I pay 1,500", "invented"),
        ("User pays 160 a month.", "it costs me a hundred and fifty a month", "invented"),
        ("User's daughter is called Anna.", "我的女儿今年七岁，在成都上学。", "invented"),
        ("用户在上海当医生。", "我在厦门开了一家民宿。", "unsupported"),
        ("User is married.", "I'm not married and I don't want kids.", "negation_lost"),
        ("User eats meat.", "I don't eat meat, but fish is fine.", "negation_lost"),
        ("User has been to a dentist.", "Never been to a dentist, and I'm 44.", "negation_lost"),
        ("User does not live in Oslo.", "I live in Oslo. My cat is old. I don't eat fish.", "negation_lost"),
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
        ("The gearbox of User's Vivaro died.", ["van is finish. gearbox. vauxhall vivaro 2013."]),
        ("Neither User nor User's wife can swim.", ["Neither my wife nor I can swim."]),
        ("User is 54 years old.", ["am dougie, 54, drive buses in glasgow"]),
        ("User is 81 years old.", ["I am eighty-one and my name is Gwilym."]),
        ("User weighs 157 pounds.", ["One fifty-seven on the doctor's own scale."]),
        ("User has 150 euros for presents.", ["I've a hundred and fifty for the presents"]),
        ("User's prize is worth 25,000.", ["the prize is worth twenty-five thousand"]),
        ("The Consorcio pays 61,400 euros.", ["the Consorcio pays 61 400 euro"]),
        ("The rent is 1,150 dollars.", ["rent is eleven fifty"]),
        ("User's budget is 8,000.", ["my budget is 8k"]),
        ("User was an Army medic from 1992 to 1996.", ["I was Army, medic, ninety-two to ninety-six"]),
        ("User has choir practice at 6:30.", ["choir practice at half past six, I drive"]),
        ("User works from 8 to 16.", ["I work 08-16"]),
        ("User is moving in September.", ["i'm moving in sept"]),
        ("User plays chess on Sundays.", ["I play chess on sun"]),
        ("User lives on Robie Street.", ["my room is on robie st"]),
        ("User drives for Instacart.", ["I drive for insta cart"]),
        ("User drinks no Irn-Bru.", ["nae irn bru for me"]),
        ("User has no allergies.", ["Do you have any allergies?", "nope"]),
        ("User's mother lives in Crumlin.", ["my mam is in Crumlin"]),
        ("User's brother-in-law has a boat.", ["my brother in law has a boat"]),
        ("User's wife is ill.", ["the missus is ill"]),
        ("User's son started nursery.", ["my kid started nursery, he loves it"]),
        ("User's son Tarek passed.", ["Tarek passed!! he's my eldest"]),
        ("User's sister lives in Zürich.", ["Meine Schwester wohnt in Zürich."]),
        ("User drives riders for Uber.", ["I had this rider in the car today, uber guy"]),
        ("Milla got hives at the second dose.", ["Milla not, she got hives at the second dose"]),
        ("用户在厦门开了一家民宿。", ["我在厦门曾厝垵开了家民宿"]),
        ("Der Nutzer hat 62 Milchkühe bei Kempten.", ["bin bauer bei kempten, 62 milchkühe"]),
        ("User's mother takes Sinemet.", ["Mam's Sinemet went to six times a day. Redo the sheet?"]),
        (
            "User is allergic to latex.",
            ["Name: Ida Roux\nAge: 52\nJob: electrician\nAllergies: latex, allergic"],
        ),
        ("User is from Oulu.", ["Fix the grammar: 'Me and Anjali has been working.' I'm from Oulu"]),
        ("User has worked at Concentrix.", ["out of roleplay, I have worked 8 months at Concentrix"]),
    ],
)
def test_what_was_said_passes(text, turns):
    assert refused(text, *turns) == ""


def test_profiles_know_the_gates_by_name():
    assert (*GATES, "repeated") == encoder.GATES


@pytest.mark.parametrize("turn", ["a wall of 12 m ² and ½", "one hundred " * 500, "٣ ２ '", "'" * 400, ""])
def test_whatever_stands_in_a_turn_is_read(turn):
    assert refused("User has 77 hens, ² and ½.", turn) == "invented"


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
