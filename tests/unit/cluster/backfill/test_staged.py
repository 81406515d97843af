"""Batches of several units."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cluster.backfill.encode_stage import EncodeStage
from cluster.backfill.encoder import skipped
from cluster.backfill.staged import MAX_OVER, join_batches, segments_paid
from schemas.stage_items import Batch
from tests.unit.cluster.backfill.scripted import (
    ENCODER,
    PROFILE,
    ScriptedEncoder,
    actor,
    cut,
    encoded,
    planned,
    session,
)


def staged(sizes: list[int]) -> list[Batch]:
    return [
        Batch(f"b{place}", num, num_tokens=2 * num, num_other_language=1) for place, num in enumerate(sizes)
    ]


def test_what_units_leave_over_is_joined_and_full_batches_stay():
    joined = join_batches(staged([64, 64, 10, 64, 3, 64, 7, 8, 9]), size=64)
    assert [batch.parts for batch in joined] == [
        ("b0",),
        ("b1",),
        ("b2", "b3"),
        ("b4", "b5"),
        ("b6", "b7", "b8"),
    ]
    assert [batch.num_segments for batch in joined] == [64, 64, 74, 67, 24]
    assert [batch.batch_id for batch in joined][:2] == ["b0", "b1"]
    assert joined == join_batches(staged([64, 64, 10, 64, 3, 64, 7, 8, 9]), size=64), "their ids are stable"


@given(st.lists(st.integers(1, 40)), st.integers(1, 40))
def test_every_segment_stays_in_its_place_and_batches_are_as_large_as_they_can_be(sizes, size):
    batches = staged(sizes)
    joined = join_batches(batches, size)
    assert [part for batch in joined for part in batch.parts] == [batch.batch_id for batch in batches]
    assert len({batch.batch_id for batch in joined}) == len(joined)
    for name in ("num_segments", "num_tokens", "num_other_language"):
        assert sum(getattr(one, name) for one in joined) == sum(getattr(one, name) for one in batches)
    num = {batch.batch_id: batch.num_segments for batch in batches}
    for one, following in itertools.pairwise(joined):
        assert one.num_segments >= size or one.num_segments + num[following.parts[0]] > MAX_OVER * size
    assert all(len(one.parts) == 1 or one.num_segments <= MAX_OVER * size for one in joined)


def test_a_joined_batch_is_encoded_as_one_and_known_in_another_cut(tmp_path, files, encoder: ScriptedEncoder):
    results = cut(tmp_path, files, [session(number) for number in range(3)], batch_size=8, row_group_size=1)
    assert [len(result.batches) for result in results] == [1, 1, 1]
    (batch,) = join_batches([one for result in results for one in result.batches], size=8)
    row = actor(files)(batch)
    ids = [segment["segment_id"] for segment in planned(files, results)]
    assert encoder.calls == [ids] and [found["segment_id"] for found in encoded(files, batch)] == ids
    assert row.num_segments == row.num_segments_encoded == batch.num_segments == len(ids)
    # The same segments in the batches of their units.
    alone = [one for result in results for one in result.batches]
    paid = segments_paid(files, ENCODER, {one.batch_id for one in alone})
    assert [actor(files, "attempt2", paid)(one).num_segments_encoded for one in alone] == [0, 0, 0]


def test_a_worker_is_tried_with_a_segment_of_the_part_that_had_one_to_ask_about(tmp_path, files, encoder):
    """The first unit of the batch has nothing to ask about."""
    silent = session(0)
    for turn in silent["turns"]:
        turn["role"] = "assistant"
    results = cut(tmp_path, files, [silent, session(1)], batch_size=8, row_group_size=1)
    (batch,) = join_batches([one for result in results for one in result.batches], size=8)
    profile = PROFILE.model_copy(update={"required_role": "user"})
    stage = EncodeStage(profile, files, "attempt1", {}, {})
    asked = [segment["segment_id"] for segment in planned(files, results) if not skipped(segment, profile)]
    assert stage(batch).num_segments_encoded == batch.num_segments > len(asked) > 0
    (other,) = cut(tmp_path, files, [session(5)], batch_size=8)
    encoder.calls, encoder.poison = [], {planned(files, [other])[0]["segment_id"]}
    assert stage(other.batches[0]).num_rejected == 1
    assert encoder.calls[1] == asked[:1], "what was done well is tried before anything is accused"
