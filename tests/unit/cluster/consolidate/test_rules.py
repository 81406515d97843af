"""The rules destroy nothing: pairs of memories, most of which stay side by side.

`update_pairs.jsonl` beside this file: the older memory is told a month before the newer one.
"""

from pathlib import Path

import numpy as np
import pytest

from cluster.consolidate.attribute_reader import read_attributes
from cluster.consolidate.rules import Rules
from cluster.language import places
from jobs.evaluate.pairs import consolidate_pairs, pairs_board, read_pairs, wilson
from tests.unit.cluster.consolidate.questions import question

PAIRS = Path(__file__).with_name("update_pairs.jsonl")


def consolidated(pairs: list[dict]) -> list[str]:
    """Fates of the older memories where every pair is compared: the same vector for every text."""
    fates, _ = consolidate_pairs(
        pairs, lambda texts: np.ones((len(texts), 1), np.float32), Rules().decide, min_similarity=0.0
    )
    return fates


def test_what_a_newer_memory_does_not_surely_replace_is_kept():
    pairs = [pair for pair in read_pairs(PAIRS) if pair["older_should"] == "keep"]
    fates = consolidated(pairs)
    touched = [(p["older"], p["newer"], f) for p, f in zip(pairs, fates, strict=True) if f != "keep"]
    assert len(pairs) >= 400 and not touched


def test_what_a_newer_memory_ends_in_so_many_words_is_deleted():
    pairs = [pair for pair in read_pairs(PAIRS) if pair["older_should"] == "delete"]
    fates = consolidated(pairs)
    left = [(p["older"], p["newer"]) for p, f in zip(pairs, fates, strict=True) if f != "delete"]
    assert len(pairs) >= 70 and not left


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("User lives in Bergen.", "User moved to Tromsø in {year}."),
        ("User works at Philips.", "User was fired in {year}."),
        ("User is single.", "User got married in {year}."),
        ("User is pregnant.", "User gave birth in {year}."),
    ],
)
def test_a_dated_event_ends_nothing_that_was_told_after_it(older, newer):
    assert Rules().judge(question(older, newer.format(year=2019))).action == "ignore"
    assert Rules().judge(question(older, newer.format(year=2026))).action == "delete"


def test_a_statement_with_more_to_say_is_not_united_with_a_shorter_one():
    asked = question("User lives in Bergen with Nora.", "User still lives in Bergen, near the harbour.")
    assert Rules().judge(asked).action == "ignore"


def test_a_choice_is_replaced_where_tags_say_that_two_compete():
    older, newer = "User prefers a window seat on planes.", "User prefers an aisle seat on planes."
    assert Rules().judge(question(older, newer)).action == "ignore"
    assert Rules().judge(question(older, newer, tags=("seat",), source_tags=("seat",))).action == "delete"


@pytest.mark.parametrize(
    "text", ["", ".", "User", "User's", "the user's", "User not", "User's 's", "is", "User and"]
)
def test_odd_texts_state_nothing_and_break_nothing(text):
    assert read_attributes(text).ends == ()


@pytest.mark.parametrize("verb", ["re-train as a nurse", "X-ray the dog", "3D-print a chair"])
def test_a_plan_given_up_in_more_than_letters_ends_nothing_and_breaks_nothing(verb):
    assert read_attributes(f"User no longer plans to {verb}.").ends == ()


def test_towns_are_apart_and_a_town_is_not_apart_from_its_country():
    bergen, oslo, norway, kreuzberg, berlin = map(
        places.find, ("Bergen", "Oslo, Norway", "Norway", "Kreuzberg", "Berlin")
    )
    assert places.are_apart(bergen, oslo) and not places.are_apart(bergen, norway)
    assert not places.are_apart(kreuzberg, berlin) and places.are_apart(berlin, norway)
    assert [places.find(name) for name in ("Linux", "Marketing", "Room 12", "Tuesday")] == [None] * 4


def test_the_interval_of_a_share_is_wilson_s():
    """134 of 134: no failure seen is not the same as none to come."""
    assert wilson(134, 134) == pytest.approx((0.97212, 1.0), abs=1e-4)
    assert wilson(19, 21) == pytest.approx((0.71085, 0.97348), abs=1e-4)


def test_every_label_is_counted_and_a_rewritten_keep_is_wrong():
    pairs = [{"older_should": "keep"}] * 3 + [{"older_should": "delete"}]
    board = pairs_board(pairs, ["keep", "update", "unite", "delete"])
    assert (board["keep_right"], board["keep_of"], board["delete_right"]) == (1, 3, 1)
    assert board["unite"] is None and board["keep_low"] < board["keep"] < board["keep_high"]
