"""The rule-based teacher: what it keeps, how it says it, and what holds for every input."""

import random

import pytest

from cluster.distill.extractor import (
    MAX_ENTITIES,
    MAX_ENTITY_CHARS,
    MAX_RECORDS,
    MAX_TEXT_CHARS,
    asking,
    extract,
)
from cluster.distill.extractor.person import normalise, third_person
from schemas.record import MEMORY_TYPES, RecordLimits, answer_model


def part(text: str, role: str = "user", turn_index: int = 0) -> dict:
    return {"turn_index": turn_index, "role": role, "speaker": None, "text": text}


def segment(*parts: dict) -> dict:
    return {"context": [], "current": list(parts), "session_time": None}


def texts(text: str) -> list[str]:
    return [record["semantic_text"] for record in extract(segment(part(text)))]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("I live in Lyon with my wife", "User lives in Lyon with their wife"),
        ("I live in Lyon and work as a nurse", "User lives in Lyon and works as a nurse"),
        ("I like to cook and bake for my kids", "User likes to cook and bake for their kids"),
        ("My brother Tom visits me on 3 May", "User's brother Tom visits them on 3 May"),
        ("I've been to Rome and I'm in love with it", "User has been to Rome and they are in love with it"),
        ("I don't eat meat", "User does not eat meat"),
        ("I can't eat nuts", "User cannot eat nuts"),
        ("I'd like a dog", "User would like a dog"),
        ("I'd been there before", "User had been there before"),
        ("I usually carry a bag", "User usually carries a bag"),
        ("I usually read at night", "User usually reads at night"),
        ("I read it last week", "User read it last week"),
        ("I bought a lamp when I was in Oslo", "User bought a lamp when they were in Oslo"),
        ("we're getting a dog", "User and others are getting a dog"),
        ("My wife and I went to Rome", "User and their wife went to Rome"),
        ("It cost me $120", "It cost User $120"),
        ('I read "I, Robot" to my son', 'User read "I, Robot" to their son'),
        ("i have a cat and im happy", "User has a cat and they are happy"),
        ("I’m a baker", "User is a baker"),
        ("The sky is blue", "The sky is blue"),
        ("Part I of the tour", "Part I of the tour"),
    ],
)
def test_first_person_becomes_third(said, expected):
    assert third_person(normalise(said)) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "I live in Lyon and work as a nurse. Which bike lock is good?",
            ["User lives in Lyon and works as a nurse."],
        ),
        (
            "Thanks, that's great! By the way, my brother Tom visits me on 3 May.",
            ["User's brother Tom visits them on 3 May."],
        ),
        (
            "I'm planning a trip to Japan in May, what should I pack?",
            ["User is planning a trip to Japan in May."],
        ),
        (
            "Can you recommend resorts, by the way, we embark on a trip to Hawaii today!",
            ["User and others embark on a trip to Hawaii today."],
        ),
        ("Oh, and I remember I spent $80 on fruit.", ["User spent $80 on fruit."]),
        (
            "As an aspiring comedian, I'm looking for some advice on jokes.",
            ["User is an aspiring comedian."],
        ),
        (
            "Since I moved my desk last week, do you have tips for cables?",
            ["User moved their desk last week."],
        ),
        (
            "I love these ideas, especially since I just moved into a flat.",
            ["User just moved into a flat."],
        ),
        (
            "Can you show me earrings like the silver necklace I got for my friend's birthday in March?",
            ["User got the silver necklace for their friend's birthday in March."],
        ),
        (
            "When should I start, considering I like to wake up at 7:30 am?",
            ["User likes to wake up at 7:30 am."],
        ),
        (
            "I got a bed for my dog Max. It was around $40.",
            ["User got a bed for their dog Max; it was around $40."],
        ),
        (
            "Could you tell me about resizing my engagement ring? I got it a month ago.",
            ["About their engagement ring: User got it a month ago."],
        ),
    ],
)
def test_statements_are_kept_and_cleaned(said, expected):
    assert texts(said) == expected


@pytest.mark.parametrize(
    "said",
    [
        "How long should I boil an egg?",
        "I'm looking for some tips on recording podcasts. Can you help me?",
        "Wow, I love these suggestions! I'll definitely check them out.",
        "I think it's crucial that governments act. We need to do better as a society.",
        "I was wondering if you could tell me more about that.",
        "Write me a poem about the sea.",
        "I want you to act as a travel guide. I am in Istanbul and my hotel is in Beyoğlu.",
        "I can't wait to try it. Thanks for your help!",
        "```\nmy_name = 'I live in Lyon'\n```",
        "",
    ],
)
def test_requests_reactions_and_opinions_give_nothing(said):
    assert texts(said) == []


def test_only_what_users_say_counts_and_evidence_names_their_part():
    records = extract(
        segment(
            part("I live in Lyon.", "assistant"),
            part("Where do you live?", turn_index=1),
            part("I'm from Oslo, I work there.", "assistant", 2),
            part("I live in Kampala.", turn_index=3),
        )
    )
    assert [(record["evidence_turns"], record["semantic_text"]) for record in records] == [
        ([3], "User lives in Kampala.")
    ]


def test_a_repeated_statement_is_not_repeated():
    assert texts("I live in Lyon. Really, I live in Lyon!") == ["User lives in Lyon."]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("I prefer tea to coffee.", "preference"),
        ("I'm allergic to peanuts.", "constraint"),
        ("I bought a Fender Strat last week.", "event"),
        ("I live in Lyon.", "fact"),
    ],
)
def test_memory_type(said, expected):
    assert extract(segment(part(said)))[0]["memory_type"] == expected


def test_entities_are_names_and_titles_in_order():
    (record,) = extract(
        segment(part('I read "The Hate U Give" by Angie Thomas on Monday with my Canon EOS 80D in the Alps.'))
    )
    assert record["entities"] == ["The Hate U Give", "Angie Thomas", "Canon EOS 80D"]


def test_a_long_statement_is_cut_at_a_clause():
    (text,) = texts("I bought " + ", ".join(f"a very nice lamp number {n}" for n in range(20)) + " in Lyon.")
    assert len(text) <= MAX_TEXT_CHARS
    assert text.endswith(tuple(f"number {n}." for n in range(20)))


def test_a_long_statement_becomes_two_where_both_halves_can_stand_alone():
    first = (
        "I bought a wireless mouse, a mechanical keyboard, a laptop stand and an arm from the shop on Main St"
    )
    second = "I gave my old keyboard, my old mouse and the broken lamp to my sister Ann in Leeds"
    assert texts(f"{first}, and {second}.") == [
        f"{first.replace('I bought', 'User bought')}.",
        "User gave their old keyboard, their old mouse and the broken lamp to their sister Ann in Leeds.",
    ]


def test_pasted_material_gives_nothing():
    article = "The committee met on Monday and discussed the budget of the school. " * 30
    assert texts(article + "My view is that we have no money.") == []


PIECES = [
    *("I", "I've", "my", "we're", "mine", "me", "and", "but", "live", "in", "Lyon", "by the way,", "Thanks,"),
    *("I remember", "since", "Can you", "which I got", "the lamp", "It", "As a", "About", "January", "User"),
    *(" ", "  ", "\n", ".", "?", "!", ",", '"', "'", "’", "```", "**", "- ", "$5", "7:00 pm", "(", ")", "["),
    *(
        "\ud800",
        "\ue000",
        "\ue0001\ue001",
        "é",
        "🙂",
        "漢字",
        "\x00",
        "\u202e",
        "\\1",
        "{0}",
        "%s",
        "x" * 300,
    ),
]


def hostile_texts():
    chance = random.Random(7)
    for _ in range(1500):
        yield "".join(
            chance.choice(PIECES) + chance.choice(("", " ", " ")) for _ in range(chance.randrange(1, 40))
        )
    for _ in range(300):
        yield "".join(chr(chance.randrange(0x110000)) for _ in range(chance.randrange(1, 60)))


def test_whatever_is_said_the_answer_is_valid_and_the_same_again():
    """No input breaks it, and the default encoder's schema accepts whatever comes out."""
    limits = RecordLimits(
        max_records=MAX_RECORDS,
        max_text_chars=MAX_TEXT_CHARS,
        max_items=MAX_ENTITIES,
        max_item_chars=MAX_ENTITY_CHARS,
    )
    fields = ("evidence_turns", "memory_type", "semantic_text", "entities")
    answer = answer_model(2, limits, fields)
    num_records = 0
    for text in hostile_texts():
        one = segment(part("Hello, how can I help?", "assistant"), part(text, turn_index=1))
        records = extract(one)
        answer.model_validate({"records": records})
        assert records == extract(one)
        for record in records:
            num_records += 1
            assert record["evidence_turns"] == [1]
            assert record["memory_type"] in MEMORY_TYPES
            assert record["semantic_text"] == " ".join(record["semantic_text"].split())
            assert all(entity in record["semantic_text"] for entity in record["entities"])
    assert num_records > 100


def test_numbers_and_names_come_from_the_turn():
    """Nothing is invented: every figure and every name of a record stands in the part that it cites."""
    said = (
        "I caught 7 bass on 7/10 with Alex at Lake Michigan! By the way, I've finished 3 of 12 issues of "
        "Wired. My sister Ann (32) moved to 14 Rue Pasteur. It cost her $1,200.50 in March."
    )
    records = extract(segment(part(said)))
    assert len(records) >= 3
    for record in records:
        words = record["semantic_text"].replace("User", "").rstrip(".").split()
        assert all(
            word.strip(".,;()") in said for word in words if any(c.isdigit() or c.isupper() for c in word)
        )


# --- questions that tell nothing ------------------------------------------------------------------------


def a_turn(role: str, text: str) -> dict:
    return {"turn_index": 0, "role": role, "text": text}


def test_a_segment_that_only_asks_is_made_of_one_that_tells_something_as_well():
    told = "I'm planning a trip to Rome. Which museums are worth a visit? My sister lives there."
    segment = {"current": [a_turn("user", told), a_turn("assistant", "The Borghese. Do you like art?")]}
    found = asking(segment)
    assert [part["text"] for part in found["current"]] == [
        "Which museums are worth a visit?",
        "The Borghese. Do you like art?",
    ]
    assert extract(segment) and not extract(found)


@pytest.mark.parametrize(
    "text",
    [
        "Which museums are worth a visit?",  # has nothing to take away
        "I'm planning a trip to Rome.",  # would be empty
        "I moved to Rome last week, which museums are worth a visit?",  # tells something while it asks
    ],
)
def test_other_segments_make_no_example_of_asking(text):
    assert asking({"current": [a_turn("user", text)]}) is None
