"""The order of hits, on rows made by hand: what counts, and what is never hidden."""

import datetime as dt

import pytest

from cluster.store.ranking import RankingSettings, content_words, rank, read_question, reciprocal_ranks

DAY = dt.date(2026, 5, 14)


def turn(name, content, cosine=0.0, **more):
    return {
        "kind": "turn",
        "session_id": name,
        "turn_index": 0,
        "content": content,
        "cosine": cosine,
        "words": 0.0,
        "session_time": None,
        **more,
    }


def record(name, text, cosine=0.0, cites=(), **more):
    return {
        "kind": "record",
        "record_id": name,
        "revision": 0,
        "semantic_text": text,
        "memory_type": "fact",
        "entities": [],
        "evidence": [{"session_id": session, "turn_index": 0} for session in cites],
        "cosine": cosine,
        "words": 0.0,
        "since": None,
        "until": None,
        "replaced_by": None,
        "session_time": None,
        **more,
    }


def order(hits, question="What is it?", asked_on=None, **more):
    asked = read_question(question, asked_on)
    return [hit.get("record_id") or hit["session_id"] for hit in rank(hits, asked, 10, **more)]


# --- vectors and words ----------------------------------------------------------------------------------


def test_the_nearest_comes_first_and_shared_words_decide_between_the_near():
    hits = [turn("a", "one", 0.5), turn("b", "two", 0.6), turn("c", "three", 0.5, words=1.0)]
    assert order(hits) == ["b", "c", "a"]


def test_a_record_comes_before_a_turn_that_is_hardly_nearer():
    assert order([turn("t", "Oslo.", 0.55), record("r", "User lives in Bergen.", 0.5)]) == ["r", "t"]
    assert order([turn("t", "Oslo.", 0.75), record("r", "User lives in Bergen.", 0.5)]) == ["t", "r"]


def test_no_more_than_k_hits_and_each_with_its_score():
    hits = rank([turn("a", "one", 0.5), turn("b", "two", 0.25)], read_question("?"), 1)
    assert [(hit["session_id"], hit["score"], "cosine" in hit) for hit in hits] == [("a", 0.5, False)]


def test_what_two_models_made_is_ranked_apart_and_merged():
    hits = [turn("a", "one", 0.9), turn("b", "two", 0.8), record("r", "three", 0.1), record("s", "four", 0.0)]
    assert order(hits, has_one_scale=False) == ["r", "a", "s", "b"]
    assert reciprocal_ranks([0.1, 0.9]) == [1 / 62, 1 / 61]


# --- a turn and what cites it ---------------------------------------------------------------------------


def test_a_turn_is_not_hidden_by_a_record_that_lacks_its_words():
    said = turn("t", "My dog Rex ate a whole pizza on the train to Graz.", 0.6)
    others = [turn(f"x{number}", f"word{number}", 0.3) for number in range(5)]
    assert order([said, record("r", "User has a dog.", 0.6, ["t"]), *others])[:2] == ["r", "t"]


def test_a_turn_is_hidden_by_a_record_that_holds_its_words():
    said = turn("t", "I live in Oslo with my cat.", 0.6)
    found = order([said, record("r", "User lives in Oslo with a cat.", 0.6, ["t"]), turn("x", "tea", 0.1)])
    assert found == ["r", "x", "t"]


def test_two_facts_of_one_turn_are_both_found():
    hits = [
        record("r", "User lives in Oslo.", 0.6, ["t"]),
        record("s", "User works at a bakery.", 0.5, ["t"]),
        record("u", "User lives in Oslo.", 0.4, ["t"]),
        turn("x", "tea", 0.1),
    ]
    assert order(hits) == ["r", "s", "x", "u"]


def test_a_record_behind_its_own_turn_is_hidden_where_the_turn_says_it_all():
    said = turn("t", "I work at a bakery, mostly nights.", 0.9)
    assert order([said, record("r", "User works at a bakery.", 0.5, ["t"]), turn("x", "tea", 0.1)]) == [
        *("t", "x", "r")
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I moved to Oslo", "User moves to Oslo."),
        ("My sisters' studies", "study of a sister"),
        ("I planned trips", "User plans a trip"),
        ("Straße", "STRASSE"),
    ],
)
def test_endings_and_function_words_make_no_difference(one, other):
    assert content_words(one) == content_words(other)


def test_words_of_scripts_without_spaces_are_pairs_of_characters():
    assert content_words("我住在厦门。") == {"我住", "住在", "在厦", "厦门"}
    assert content_words("The 2.3 driver") == {"2.3", "driver"}


# --- what was replaced ----------------------------------------------------------------------------------


def moved(**more):
    """Oslo until March, then Bergen; the question is nearer to Oslo."""
    old = record("oslo", "User lives in Oslo.", 0.7, ["s1"], since=dt.date(2026, 1, 1), **more)
    new = record("bergen", "User moved to Bergen.", 0.3, ["s2"], since=dt.date(2026, 3, 1))
    said = [turn("s1", "Oslo is where I live.", 0.75), turn("s2", "We have moved, Bergen it is!", 0.2)]
    return [old | {"until": dt.date(2026, 3, 1), "replaced_by": "bergen"}, new, *said]


def test_what_was_replaced_and_its_turn_stand_behind_what_replaced_it():
    found = order(moved(), "Where do I live?", DAY)
    assert found[0] == "bergen"
    assert "oslo" not in found
    assert found.index("s1") > found.index("bergen")


def test_a_turn_that_is_about_something_else_as_well_stands_by_itself():
    hits = moved()
    hits[0] |= {"cosine": 0.1}
    hits[2] |= {"cosine": 0.9, "content": "My niece Mia was born, here in Oslo."}
    assert order(hits, "Who was born?", DAY)[0] == "s1"


def test_of_a_chain_the_last_one_speaks():
    hits = moved()
    hits[1] |= {"until": dt.date(2026, 4, 1), "replaced_by": "rome"}
    hits.append(record("rome", "User has settled in Rome.", 0.1, ["s3"], since=dt.date(2026, 4, 1)))
    found = order(hits, "Where do I live?", DAY)
    assert (found[0], {"oslo", "bergen"} & {*found}) == ("rome", set())


def test_a_record_names_those_in_whose_place_it_stands_the_newest_first():
    hits = moved()
    hits[1] |= {"until": dt.date(2026, 4, 1), "replaced_by": "rome"}
    hits.append(record("rome", "User has settled in Rome.", 0.1, ["s3"], since=dt.date(2026, 4, 1)))
    best = rank(hits, read_question("Where do I live?", DAY), 1)[0]
    assert [older["text"] for older in best["replaces"]] == ["User moved to Bergen.", "User lives in Oslo."]


def test_the_same_words_on_more_evidence_replace_nothing():
    old = record("oslo", "User lives in Oslo.", 0.7, ["s1"]) | {"replaced_by": "oslo"}
    new = record("oslo", "User lives in Oslo.", 0.7, ["s1", "s2"], revision=1)
    (hit,) = rank([old, new], read_question("Where do I live?", DAY), 5)
    assert (hit["revision"], hit["replaces"]) == (1, [])


@pytest.mark.parametrize(
    "question",
    [
        "Where did I live before Bergen?",
        "Where did I use to live, I mean where I used to live?",
        "What was my previous address?",
        "Where did I live in January 2026?",
        "What was my first flat?",
        "Where did I live when I met you?",
        "我以前住在哪里？",
    ],
)
def test_questions_about_the_past_find_what_was_replaced(question):
    found = order(moved(), question, DAY)
    assert found.index("oslo") < found.index("bergen")


@pytest.mark.parametrize("question", ["Was it before or after the boat?", "What is due before next week?"])
def test_not_every_before_asks_about_the_past(question):
    assert not read_question(question, DAY).is_past


def test_an_answer_about_a_day_has_what_was_true_then():
    hits = [hit | {"session_time": None} for hit in moved()]
    assert order(hits, at=dt.date(2026, 2, 1))[0] == "oslo"
    assert "bergen" not in order(hits, at=dt.date(2026, 2, 1))
    assert order(hits, at=dt.date(2026, 3, 1))[0] == "bergen"
    assert "oslo" not in order(hits, at=dt.date(2026, 3, 1))


def test_what_was_said_after_the_day_is_no_answer_about_it():
    late = turn("late", "Rome!", 0.9, session_time=dt.datetime(2026, 4, 1, tzinfo=dt.UTC))
    assert order([late], at=dt.date(2026, 3, 31)) == []
    assert order([late], at=dt.date(2026, 4, 1)) == ["late"]


def test_what_happened_remains_true():
    went = record("r", "User went to Rome.", 0.5, since=dt.date(2026, 2, 1), until=dt.date(2026, 2, 7))
    assert order([went], at=dt.date(2026, 5, 1)) == []
    assert order([went | {"memory_type": "event"}], at=dt.date(2026, 5, 1)) == ["r"]
    assert order([went | {"memory_type": "event"}], at=dt.date(2026, 1, 1)) == []


def test_what_is_over_stands_behind_what_holds():
    over = record("over", "User is on leave.", 0.52, until=dt.date(2026, 2, 1))
    holds = record("holds", "User is at work.", 0.5)
    assert order([over, holds], today=DAY) == ["holds", "over"]
    assert order([over, holds], "What was I doing before?", today=DAY) == ["over", "holds"]


# --- days and names -------------------------------------------------------------------------------------


def test_days_that_the_question_names_come_first():
    def said(day):
        return dt.datetime(2026, 5, day, 9, tzinfo=dt.UTC)

    hits = [turn("old", "Climbing.", 0.52, time=said(1)), turn("lately", "Judo.", 0.5, time=said(7))]
    assert order(hits, "What did I do last week?", DAY) == ["lately", "old"]
    assert order(hits, "What did I do?", DAY) == ["old", "lately"]
    assert order(hits, "What did I do on 1 May?", DAY) == ["old", "lately"]


def test_a_state_counts_for_all_days_on_which_it_held():
    lived = record("r", "User lives in Ulm.", 0.3, since=dt.date(2023, 1, 1), until=dt.date(2025, 1, 1))
    now = record("s", "User eats fish.", 0.35, since=dt.date(2026, 1, 1))
    assert order([lived, now], "Where did I live in 2024?", DAY) == ["r", "s"]


def test_rows_by_or_about_the_person_named_come_first():
    hits = [
        turn("a", "I adore jazz.", 0.5, speaker="Bob"),
        turn("b", "I adore techno.", 0.48, speaker="Ann Lee"),
        record("r", "Tea is liked.", 0.36, entities=["Ann"]),
        record("s", "Coffee is liked.", 0.37, entities=["Bob"]),
    ]
    assert order(hits, "What music does Ann adore?") == ["b", "r", "a", "s"]


def test_a_question_s_first_word_is_no_name():
    assert read_question("What does Zoë like in Łódź?").names == {"zoë", "łódź"}


# --- reranking ------------------------------------------------------------------------------------------


def test_a_reranker_decides_among_the_best():
    hits = [turn("a", "one", 0.9), turn("b", "two", 0.8), turn("c", "three", 0.7)]
    read = []

    def rerank(question, texts):
        read.append((question, texts))
        return [float(text == "two") for text in texts]

    assert order(hits, "Which?", rerank=rerank, settings=RankingSettings(reranked=2)) == ["b", "a", "c"]
    assert read == [("Which?", ["one", "two"])]


def test_nothing_is_reranked_where_nothing_is_found():
    assert order([], rerank=lambda question, texts: 1 / 0) == []
