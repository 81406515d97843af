"""What a backfill is expected to cost."""

import pyarrow as pa
import pytest

from cluster.backfill import projection
from cluster.backfill.projection import (
    COLUMNS,
    MIN_KNOWN,
    OF_A_MESSAGE,
    OF_A_TURN,
    OUTPUT_TOKENS,
    Projection,
    project,
    prompt_overhead,
)
from tests.unit.cluster.backfill.scripted import PROFILE, word_offsets


@pytest.fixture(autouse=True)
def words(monkeypatch):
    monkeypatch.setattr(projection, "segment_offsets", lambda profile: word_offsets)


def segments(*rows: tuple) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows])


OWN, SKIPPED = (PROFILE.fingerprint, 2, 300, 50), (PROFILE.fingerprint, 0, 0, 0)
ANOTHERS = ("another", 9, 9_000, 900)


def test_what_the_store_s_segments_cost_others_will_cost():
    known = [segments(*[OWN] * MIN_KNOWN, *[ANOTHERS] * 200), segments(*[SKIPPED] * 100, OWN)]
    assert project(10, 77, PROFILE, known) == Projection(20, 3_000, 500, is_of_store=True)
    assert project(0, 0, PROFILE, known) == Projection(0, 0, 0, is_of_store=True)


def test_where_little_is_known_the_profile_s_prompt_is_counted():
    known = [segments(*[OWN] * (MIN_KNOWN - 1), *[ANOTHERS] * 200)]
    # "Remember.", and a user's message of "-" for what came before.
    assert prompt_overhead(PROFILE) == 2 * OF_A_MESSAGE + 1 + len(PROFILE.no_previous.split())
    turns = OF_A_TURN * 10 * 2
    expected = Projection(10, 10 * prompt_overhead(PROFILE) + 500 + turns, 10 * OUTPUT_TOKENS, False)
    assert project(10, 500, PROFILE, known) == project(10, 500, PROFILE, []) == expected
    assert project(0, 0, PROFILE, []) == Projection(0, 0, 0, False)


def test_a_second_look_takes_more_calls():
    second = PROFILE.model_copy(update={"second_look": True})
    once, twice = project(100, 500, PROFILE, []), project(100, 500, second, [])
    assert (once.num_calls, twice.num_calls) == (100, 140)
    assert twice.prompt_tokens - once.prompt_tokens == 40 * prompt_overhead(PROFILE)
