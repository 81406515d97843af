"""Two views beside each other: memories are matched one to one, by id, words and turns."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.report.compare import COLUMNS, KINDS, match
from schemas.store import records_schema

SCHEMA = pa.schema([records_schema(1).field(name) for name in COLUMNS])


def table(*rows):
    """(id, user, text, turns of session s)."""
    made = [
        dict(zip(COLUMNS, row[:3], strict=False))
        | {"evidence": [{"session_id": "s", "turn_index": turn} for turn in row[3:]]}
        for row in rows
    ]
    return pa.Table.from_pylist(made, schema=SCHEMA)


def matched(first, second):
    """kind -> (text of the first, text of the second), sorted."""
    found = {kind: [] for kind in KINDS}
    for row in match(table(*first), table(*second)).to_dicts():
        found[row["kind"]].append((row["first_text"], row["second_text"]))
    return {kind: sorted(pairs, key=str) for kind, pairs in found.items() if pairs}


def test_case_and_punctuation_are_no_words():
    assert matched([("a", "ann", "User lives in Oslo.", 0)], [("b", "ann", "user  lives in OSLO", 0)]) == {
        "same": [("User lives in Oslo.", "user  lives in OSLO")]
    }


def test_memories_of_two_users_are_never_matched():
    first, second = [("a", "ann", "User sings.", 0)], [("a", "bob", "User sings.", 0)]
    assert matched(first, second) == {
        "only_first": [("User sings.", None)],
        "only_second": [(None, "User sings.")],
    }


def test_other_words_of_one_turn_are_a_change_and_another_matter_of_that_turn_is_none():
    first = [("a", "ann", "User lives in Oslo.", 0), ("b", "ann", "User has a dog.", 0)]
    second = [("c", "ann", "User lives in Oslo now.", 0), ("d", "ann", "Mother plays chess.", 0)]
    assert matched(first, second) == {
        "changed": [("User lives in Oslo.", "User lives in Oslo now.")],
        "only_first": [("User has a dog.", None)],
        "only_second": [(None, "Mother plays chess.")],
    }


def test_one_id_is_one_memory_whatever_it_says():
    first, second = [("a", "ann", "User lives in Oslo.", 0)], [("a", "ann", "Ann moved.", 7)]
    assert matched(first, second) == {"changed": [("User lives in Oslo.", "Ann moved.")]}


def test_of_equal_words_those_of_a_common_turn_are_matched_first():
    first = [("a", "ann", "User ran.", 1), ("b", "ann", "User ran.", 2)]
    second = [("c", "ann", "User ran.", 2), ("d", "ann", "User ran.", 9)]
    rows = match(table(*first), table(*second)).to_dicts()
    assert {(row["first_id"], row["second_id"]) for row in rows} == {("b", "c"), ("a", "d")}
    assert {row["kind"] for row in rows} == {"same"}


def test_the_most_alike_are_matched_when_several_rest_on_one_turn():
    first = [("a", "ann", "User likes green tea in the morning.", 0), ("b", "ann", "User likes tea.", 0)]
    second = [
        ("c", "ann", "User likes green tea in the mornings.", 0),
        ("d", "ann", "User likes tea a lot.", 0),
    ]
    rows = match(table(*first), table(*second)).to_dicts()
    assert {(row["first_id"], row["second_id"]) for row in rows} == {("a", "c"), ("b", "d")}


def test_memories_without_evidence_are_matched_by_their_words():
    assert list(matched([("a", "ann", "User sings.")], [("b", "ann", "User sings")])) == ["same"]


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([("a", "ann", "x", 0)], []), ([], [("a", "ann", "x", 0)])]
)
def test_an_empty_side_has_nothing_in_common(first, second):
    kinds = [row["kind"] for row in match(table(*first), table(*second)).to_dicts()]
    assert kinds == ["only_first"] * len(first) + ["only_second"] * len(second)


side = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob"]),
        st.sampled_from(["a b c", "a b d", "A, b c!", "x"]),
        st.integers(0, 2),
    ),
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(side, side)
def test_each_memory_stands_once_and_a_swap_of_the_sides_counts_the_same(first, second):
    one = [(f"f{number}", *row) for number, row in enumerate(first)]
    two = [(f"s{number}", *row) for number, row in enumerate(second)]
    rows = match(table(*one), table(*two)).to_dicts()
    assert sorted(row["first_id"] for row in rows if row["first_id"]) == [row[0] for row in one]
    assert sorted(row["second_id"] for row in rows if row["second_id"]) == [row[0] for row in two]
    swapped = match(table(*two), table(*one)).to_dicts()
    assert sum(row["kind"] == "same" for row in rows) == sum(row["kind"] == "same" for row in swapped)
