import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.consolidate.candidates import (
    Pairs,
    comparable_starts,
    own_turns,
    pair_scores,
    similar_pairs,
    slot_pairs,
    total_order,
    union,
    with_ingestion,
)
from schemas.store import EVIDENCE, TIME


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def records(*rows: tuple) -> pa.Table:
    """(user, hour or None, session, turns, id), ingested on the first day, or on the day that stands last."""
    return pa.table(
        {
            "user_id": pa.array([row[0] for row in rows]),
            "session_time": pa.array(
                [None if row[1] is None else dt.datetime(2026, 1, 1, row[1], tzinfo=dt.UTC) for row in rows],
                TIME,
            ),
            "ingested_at": pa.array(
                [dt.datetime(2026, 2, (*row, 1)[5], tzinfo=dt.UTC) for row in rows], TIME
            ),
            "session_id": pa.array([row[2] for row in rows]),
            "evidence": pa.array(
                [[{"session_id": session, "turn_index": turn} for session, turn in row[3]] for row in rows],
                pa.list_(EVIDENCE),
            ),
            "record_id": pa.array([row[4] for row in rows]),
        }
    )


def in_order(table: pa.Table) -> list[str]:
    return table.column("record_id").take(pa.array(total_order(table))).to_pylist()


def found(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.targets.tolist(), pairs.sources.tolist(), strict=True))


def by_hand(vectors, is_new, top_k, min_similarity) -> set[tuple[int, int]]:
    """The definition, a loop over all pairs."""
    wanted = set()
    for target in range(len(vectors)):
        sources = [s for s in range(target + 1, len(vectors)) if is_new[target] or is_new[s]]
        scored = [(float(pair_scores(vectors, np.array([target]), np.array([s]))[0]), s) for s in sources]
        scored = sorted(((score, s) for score, s in scored if score >= min_similarity), reverse=True)
        wanted.update((target, s) for _, s in scored[:top_k])
    return wanted


def test_order_is_time_then_session_then_turn_then_id():
    table = records(
        ("u", 2, "a", [("a", 0)], "late"),
        ("u", 1, "b", [("b", 0)], "second session"),
        ("u", 1, "a", [("a", 3)], "later turn"),
        ("u", 1, "a", [("a", 1)], "y"),
        ("u", 1, "a", [("a", 1)], "x"),
        ("u", None, "z", [("z", 9)], "time unknown"),
    )
    assert in_order(table) == ["time unknown", "x", "y", "later turn", "second session", "late"]


def test_the_turn_is_the_last_one_of_the_own_session():
    table = records(("u", 1, "a", [("a", 1), ("a", 4), ("b", 9)], "x"), ("u", 1, "a", [], "y"))
    assert own_turns(table).tolist() == [4, -1]


def test_equal_timestamps_never_make_two_memories_each_other_s_target():
    table = records(*(("u", 1, "a", [("a", 0)], name) for name in "cab"))
    assert in_order(table) == ["a", "b", "c"]
    pairs = similar_pairs(unit(np.ones((3, 4))), np.ones(3, bool), top_k=5, min_similarity=0.5)
    assert found(pairs) == {(0, 1), (0, 2), (1, 2)}
    assert not found(pairs) & {(source, target) for target, source in found(pairs)}


def test_a_pair_needs_a_new_side():
    vectors = unit(np.ones((4, 8)))
    assert found(similar_pairs(vectors, np.zeros(4, bool), top_k=9, min_similarity=0)) == set()
    one = np.array([False, False, True, False])
    assert found(similar_pairs(vectors, one, top_k=9, min_similarity=0)) == {(0, 2), (1, 2), (2, 3)}


def test_ties_go_to_the_newer_source():
    pairs = similar_pairs(unit(np.ones((5, 8))), np.ones(5, bool), top_k=2, min_similarity=0.5)
    assert {source for target, source in found(pairs) if target == 0} == {3, 4}


@pytest.mark.parametrize("block", [1, 3, 4096])
@given(
    num=st.integers(1, 24),
    seed=st.integers(0, 2**32 - 1),
    top_k=st.integers(1, 6),
    min_similarity=st.sampled_from([-1.0, 0.0, 0.5, 0.9]),
    share=st.sampled_from([0.0, 0.2, 1.0]),
)
@settings(max_examples=60)
def test_pairs_are_exactly_those_of_the_definition_for_any_block(
    block, num, seed, top_k, min_similarity, share
):
    rng = np.random.default_rng(seed)
    # Few distinct vectors, so that ties are common.
    vectors = unit(rng.standard_normal((6, 5)))[rng.integers(0, 6, num)]
    is_new = rng.random(num) < share
    pairs = similar_pairs(vectors, is_new, top_k=top_k, min_similarity=min_similarity, block=block)
    assert found(pairs) == by_hand(vectors, is_new, top_k, min_similarity)
    assert (pairs.sources > pairs.targets).all()
    assert np.allclose(pairs.scores, (vectors[pairs.targets] * vectors[pairs.sources]).sum(axis=1), atol=1e-5)


def test_a_common_slot_pairs_memories_however_far_apart():
    vectors = unit(np.eye(4))
    names = [{"home"}, {"job"}, {"home"}, {"home", "job"}]
    new = np.array([False, False, False, True])
    assert found(slot_pairs(vectors, new, names, names)) == {(0, 3), (1, 3), (2, 3)}
    late = np.array([True, False, False, False])
    assert found(slot_pairs(vectors, late, names, names)) == {(0, 2), (0, 3)}


def test_what_cannot_replace_is_no_source_by_slot():
    """Liking tea and liking jazz share a slot, and a call about the two would be wasted."""
    names, new = [{"like"}, {"like"}, {"like"}], np.ones(3, bool)
    assert found(slot_pairs(unit(np.eye(3)), new, names, [set(), set(), set()])) == set()
    assert found(slot_pairs(unit(np.eye(3)), new, names, [set(), {"like"}, set()])) == {(0, 1)}


def test_a_slot_with_many_values_gives_few_pairs():
    vectors, names = unit(np.ones((500, 4))), [{"like"}] * 500
    pairs = slot_pairs(vectors, np.ones(500, bool), names, names, max_sources=3)
    assert len(pairs.targets) <= 3 * 500


def test_union_has_each_pair_once():
    one = Pairs(np.array([0, 1]), np.array([2, 2]), np.array([0.5, 0.6], np.float32))
    two = Pairs(np.array([0, 0]), np.array([1, 2]), np.array([0.1, 0.5], np.float32))
    assert sorted(found(union(one, two))) == [(0, 1), (0, 2), (1, 2)]
    assert len(union(one, two).targets) == 3


def test_of_sessions_with_one_time_or_none_the_later_ingested_is_the_newer():
    table = records(
        ("u", 1, "a", [("a", 0)], "dated, second night", 2),
        ("u", 1, "b", [("b", 0)], "dated, first night", 1),
        ("u", None, "c", [("c", 0)], "undated, second night", 2),
        ("u", None, "d", [("d", 0)], "undated, first night", 1),
    )
    assert in_order(table) == [
        "undated, first night",
        "undated, second night",
        "dated, first night",
        "dated, second night",
    ]


def test_dated_and_undated_memories_are_compared_apart():
    table = records(
        ("u", None, "a", [], "1"), ("u", None, "b", [], "2"), ("u", 1, "c", [], "3"), ("v", 1, "d", [], "4")
    )
    assert comparable_starts(table).tolist() == [0, 2, 3]


def test_a_time_that_is_not_plausible_orders_nothing():
    table = records(("u", 1, "a", [], "1"), ("u", 2, "b", [], "2"))
    now = dt.datetime(2024, 12, 31, 1, tzinfo=dt.UTC)
    known = with_ingestion(table.rename_columns({"ingested_at": "created_at"}), now)
    assert [time is None for time in known.column("session_time").to_pylist()] == [True, True]
    known = with_ingestion(table.rename_columns({"ingested_at": "created_at"}), now.replace(year=2025))
    assert [time is None for time in known.column("session_time").to_pylist()] == [False, True]


def test_a_session_came_in_when_its_first_memory_did():
    """A segment that is encoded again must not carry its session past another."""
    table = records(
        ("u", 1, "a", [], "1", 5),
        ("u", 1, "a", [], "2", 3),
        ("u", 1, "b", [], "3", 4),
        ("v", 1, "a", [], "4", 7),
    )
    now = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    known = with_ingestion(table.rename_columns({"ingested_at": "created_at"}), now)
    assert [time.day for time in known.column("ingested_at").to_pylist()] == [3, 3, 4, 7]


def test_sessions_whose_ids_hold_nul_came_in_each_for_itself():
    """Regression: "a" and "b\\0c" were the same as "a\\0b" and "c", so one user's order hung on another's."""
    table = records(("a", 1, "b\0c", [], "1", 5), ("a\0b", 1, "c", [], "2", 3))
    now = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    known = with_ingestion(table.rename_columns({"ingested_at": "created_at"}), now)
    assert [time.day for time in known.column("ingested_at").to_pylist()] == [5, 3]
