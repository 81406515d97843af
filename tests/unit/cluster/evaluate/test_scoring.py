"""Measures: recall, reciprocal rank and staleness of lists in which records stand for the turns they cite."""

import numpy as np
import pytest

from cluster.evaluate.scoring import NEVER, is_stale, mean, ranks_of_turns, recall_at, reciprocal_rank


def ranks(scores, citations, num_turns):
    """Ranks of turns when hit i has scores[i] and citations[i] are its turns."""
    pairs = [(hit, turn) for hit, turns in enumerate(citations) for turn in turns]
    hits, turns = np.array(pairs, np.int64).reshape(-1, 2).T
    return ranks_of_turns(np.array(scores, np.float64), hits, turns, num_turns)


def test_a_turn_has_the_rank_of_the_first_hit_that_stands_for_it():
    found = ranks([0.1, 0.9, 0.5], [[0], [2, 3], [3]], num_turns=5)
    assert found.tolist() == [2, NEVER, 0, 0, NEVER]


def test_ties_keep_the_order_of_the_hits():
    assert ranks([0.5, 0.5, 0.5], [[2], [0], [1]], num_turns=3).tolist() == [1, 2, 0]


def test_no_hits_find_nothing():
    assert ranks([], [], num_turns=2).tolist() == [NEVER, NEVER]


@pytest.mark.parametrize(("k", "expected"), [(1, 0.25), (2, 0.25), (3, 0.5), (NEVER, 0.75)])
def test_recall_counts_what_the_first_k_hits_find(k, expected):
    assert recall_at(np.array([0, 2, 7, NEVER]), k) == expected


def test_reciprocal_rank_is_that_of_the_first_wanted_one():
    assert reciprocal_rank(np.array([4, 1, NEVER])) == 0.5
    assert reciprocal_rank(np.array([NEVER])) == 0


def test_nothing_wanted_has_no_measure_and_enters_no_mean():
    nothing = np.array([])
    assert recall_at(nothing, 5) is None
    assert reciprocal_rank(nothing) is None
    assert mean([1.0, None, 0.0]) == 0.5
    assert mean([None]) is None


@pytest.mark.parametrize(
    ("current", "outdated", "expected"),
    [
        ([3], [1], 1.0),
        ([1, 9], [3], 0.0),
        ([2], [2], 0.0),  # one record that cites both says what holds now
        ([NEVER], [5], 1.0),
        ([5], [NEVER], 0.0),
        ([NEVER], [NEVER], None),
        ([5], [], None),
    ],
)
def test_stale_is_an_outdated_statement_above_every_current_one(current, outdated, expected):
    assert is_stale(np.array(current, float), np.array(outdated, float)) == expected
