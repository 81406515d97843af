"""The encoding of batches: nothing is paid for twice, and who is to blame for a death is found out."""

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.backfill import encode_stage
from cluster.backfill.embed_stage import EmbedStage
from cluster.backfill.encode_stage import EncodeStage
from cluster.backfill.staged import plan_path, segments_paid
from cluster.models.paid_answers import CapReached
from cluster.runtime.sharing import SharedLock
from cluster.store.crash_markers import MAX_DEATHS
from tests.dying import Killed
from tests.unit.cluster.backfill.scripted import (
    EMBEDDER,
    ENCODER,
    PROFILE,
    ScriptedEncoder,
    actor,
    cut,
    encoded,
    encoded_paths,
    outcomes,
    planned,
    segment_ids,
    session,
)


def test_a_batch_is_encoded_as_one(files, batch, encoder):
    row = actor(files)(batch)
    ids = segment_ids(files, batch)
    assert encoder.calls == [ids]
    assert [found["segment_id"] for found in encoded(files, batch)] == ids
    assert [found["records"][0]["semantic_text"] for found in encoded(files, batch)][1] == (
        "The user said Turn 2 of session 0"
    )
    assert (row.num_segments, row.num_segments_encoded, row.num_segments_rejected) == (4, 4, 0)
    assert (row.num_complete, row.prompt_tokens, row.cached_tokens) == (4, 40, 16)
    assert (row.output_tokens, row.num_calls, row.encode_load_s) == (20, 4, 0.5)


def test_what_is_encoded_is_not_paid_for_again(files, batch, encoder):
    actor(files)(batch)
    before = {path: files.get(path) for path in encoded_paths(files, batch)}
    row = actor(files, attempt="attempt2")(batch)
    assert (len(encoder.calls), encoder.num_loads) == (1, 1)  # it does not even load the model
    assert {path: files.get(path) for path in encoded_paths(files, batch)} == before
    assert (row.num_segments, row.num_segments_encoded, row.num_complete) == (4, 0, 4)
    assert (row.prompt_tokens, row.encode_load_s) == (0, 0.0)


def test_another_profile_is_another_encoding(files, batch, encoder):
    actor(files)(batch)
    other = PROFILE.model_copy(update={"max_tokens": 99})
    EncodeStage(other, files, "attempt1", {}, {})(batch)
    assert len(files.paths(f"encoded/{other.fingerprint}")) == 1
    assert len(files.paths(f"encoded/{ENCODER}")) == 1


def test_the_model_is_loaded_once_an_actor(tmp_path, files, encoder):
    (result,) = cut(tmp_path, files, [session(0), session(1)], batch_size=2)
    stage = actor(files)
    assert [stage(batch).encode_load_s for batch in result.batches] == [0.5, 0.0]
    assert encoder.num_loads == 1


def test_segments_of_which_none_is_asked_about_load_no_model(files, batch, encoder):
    profile = PROFILE.model_copy(update={"required_role": "assistant"})
    row = EncodeStage(profile, files, "attempt1", {}, {})(batch)
    assert (row.num_segments, row.num_skipped, encoder.num_loads) == (4, 4, 0)


def test_a_poisoned_segment_costs_itself(files, batch, encoder):
    ids = segment_ids(files, batch)
    encoder.poison = {ids[2]}
    row = actor(files)(batch)
    assert encoder.calls == [ids, *([segment_id] for segment_id in ids)]
    assert outcomes(files, batch) == dict.fromkeys(ids, "complete") | {ids[2]: ["encoder_error"]}
    assert (row.num_segments_rejected, row.num_rejected, row.num_complete) == (1, 1, 3)
    rejected = encoded(files, batch)[2]
    assert (rejected["outcome"], rejected["records"]) == ("rejected", [])
    assert "ValueError: poisoned" in rejected["rejections"][0]["raw"]
    assert rejected["rejections"][0]["turns"] == [0, 1]
    assert rejected["turns"], "the turns themselves stay searchable"


def test_a_segment_at_which_processes_die_again_and_again_costs_itself(files, batch, encoder):
    """Ray starts a dead actor anew with the same row. Answers to the others are staged as they come."""
    ids = segment_ids(files, batch)
    encoder.poison, encoder.error = {ids[1]}, Killed
    for _ in range(1 + MAX_DEATHS):  # as a batch, then segment by segment
        with pytest.raises(Killed):
            actor(files)(batch)
    actor(files)(batch)
    assert outcomes(files, batch) == dict.fromkeys(ids, "complete") | {ids[1]: ["encoder_crashed"]}
    assert encoder.calls == [ids, [ids[0]], [ids[1]], [ids[2]], [ids[3]], [ids[1]], [ids[1]]]


def test_few_deaths_accuse_nobody(files, batch, encoder):
    """Regression: a segment at which a process had died once was rejected, though it can be encoded."""
    ids = segment_ids(files, batch)
    encoder.poison, encoder.error = {ids[1]}, Killed
    for _ in range(MAX_DEATHS):
        with pytest.raises(Killed):
            actor(files)(batch)
    encoder.poison = set()
    actor(files)(batch)
    assert outcomes(files, batch) == dict.fromkeys(ids, "complete")


def test_two_segments_that_kill_the_process(files, batch, encoder):
    ids = segment_ids(files, batch)
    encoder.poison, encoder.error = {ids[0], ids[3]}, Killed
    for _ in range(1 + 2 * MAX_DEATHS):
        with pytest.raises(Killed):
            actor(files)(batch)
    actor(files)(batch)
    assert [name for name in outcomes(files, batch).values() if name == ["encoder_crashed"]] == [
        ["encoder_crashed"]
    ] * 2


def test_a_killed_run_does_not_make_the_next_one_suspicious(files, batch, encoder):
    """Markers belong to an attempt: a run that was killed from outside accuses no segment."""
    ids = segment_ids(files, batch)
    encoder.poison, encoder.error = {ids[1]}, Killed
    for _ in range(2):
        with pytest.raises(Killed):
            actor(files)(batch)
    encoder.poison, encoder.calls = set(), []
    actor(files, attempt="attempt2")(batch)
    assert encoder.calls == [ids[1:]], "what was answered is not paid for again"
    assert outcomes(files, batch) == dict.fromkeys(ids, "complete")


def test_a_killed_batch_goes_on_segment_by_segment(files, batch, encoder):
    """After an out-of-memory kill, smaller calls may pass: nothing is rejected that can be encoded."""
    ids = segment_ids(files, batch)
    encoder.poison, encoder.error = {ids[1]}, Killed
    with pytest.raises(Killed):
        actor(files)(batch)
    encoder.poison, encoder.calls = set(), []
    actor(files)(batch)
    assert encoder.calls == [[segment_id] for segment_id in ids]
    assert outcomes(files, batch) == dict.fromkeys(ids, "complete")


# --- sick workers ------------------------------------------------------------------------------------------


def test_an_encoder_that_fails_on_everything_rejects_nothing(files, batch, encoder):
    encoder.poison = set(segment_ids(files, batch))
    for _ in range(2):
        row = actor(files)(batch)
        assert "all 4 segments" in row.failure and "ValueError: poisoned" in row.failure
        assert not encoded_paths(files, batch)
    encoder.poison = set()
    assert actor(files)(batch).failure == ""
    assert set(outcomes(files, batch).values()) == {"complete"}


def test_a_worker_at_which_every_process_dies_gives_the_batch_back(files, batch, encoder):
    ids = segment_ids(files, batch)
    encoder.poison, encoder.error = set(ids), Killed
    for _ in range(1 + MAX_DEATHS):
        with pytest.raises(Killed):
            actor(files)(batch)
    row = actor(files)(batch)
    assert row.failure == f"its processes died {MAX_DEATHS} times, at {MAX_DEATHS} different inputs"
    assert len(encoder.calls) == 1 + MAX_DEATHS
    encoder.poison = set()
    actor(files)(batch)
    assert set(outcomes(files, batch).values()) == {"complete"}, "another worker is well"


def test_a_batch_that_fails_whole_is_to_blame_where_the_worker_still_does_another(files, two, encoder):
    first, second = two
    actor(files)(first)
    ids, encoder.calls = segment_ids(files, second), []
    encoder.poison = set(ids)
    row = actor(files)(second)
    assert (row.failure, row.num_segments_rejected) == ("", 2)
    assert encoder.calls == [ids, segment_ids(files, first)[:1], [ids[0]], [ids[1]]]
    assert set(map(tuple, outcomes(files, second).values())) == {("encoder_error",)}


@pytest.mark.parametrize("error", [ValueError, Killed])
def test_a_worker_that_fails_on_what_others_have_done_gives_the_batch_back(files, two, encoder, error):
    """Also with a single segment left, of which alone nobody could say who is to blame."""
    first, second = two
    actor(files)(first)
    encoder.poison, encoder.error = set(segment_ids(files, first) + segment_ids(files, second)), error
    for _ in range(1 + MAX_DEATHS if error is Killed else 0):
        with pytest.raises(Killed):
            actor(files)(second)
    assert "had been encoded before" in actor(files)(second).failure
    assert not encoded_paths(files, second)


def test_a_worker_that_cannot_load_the_encoder_gives_the_batch_back_and_waits(
    files, two, encoder, monkeypatch
):
    def broken(profile, **engine):
        raise OSError("no such device")

    waited = []
    monkeypatch.setattr(encode_stage.time, "sleep", waited.append)
    monkeypatch.setattr(encode_stage, "Encoder", broken)
    sick = EncodeStage(PROFILE, files, "attempt1", {}, {}, 30)
    rows = [EmbedStage(ENCODER, EMBEDDER, files)(sick(batch)) for batch in [*two, *two, *two]]
    assert all("OSError: no such device" in row.failure for row in rows)
    assert waited == [30, 60, 120, 240, 300, 300]
    assert {row.worker for row in rows} == {rows[0].worker}
    monkeypatch.setattr(encode_stage, "Encoder", encoder.load)
    assert actor(files)(two[0]).worker != rows[0].worker
    assert encoder.calls == [segment_ids(files, two[0])], "the next one tries the batch as a whole"


def test_a_worker_that_dies_loading_accuses_no_segment(tmp_path, files, encoder, monkeypatch):
    def deadly(profile, **engine):
        raise Killed

    (result,) = cut(tmp_path, files, [session(0, num_turns=1)])
    monkeypatch.setattr(encode_stage, "Encoder", deadly)
    for _ in range(MAX_DEATHS):
        with pytest.raises(Killed):
            actor(files)(result.batches[0])
    assert "while they loaded" in actor(files)(result.batches[0]).failure


# --- several batches in work --------------------------------------------------------------------------------

TIMEOUT_S = 300
"""For what never comes; nothing here takes a second."""


class SharedEncoder(ScriptedEncoder):
    """Several threads ask it at a time. Batches wait until `num_batches` are in work; with a `log`, the
    process dies at a poisoned segment, whatever its other threads are at."""

    def __init__(self, num_batches=2, log=None, **script):
        super().__init__(**script)
        self.all_in_work, self.counting = threading.Barrier(num_batches), threading.Lock()
        self.log, self.num_in_work, self.noted = log, 0, []

    def encode(self, segments):
        ids = [segment["segment_id"] for segment in segments]
        self.come(len(ids))
        if len(ids) > 1:
            self.all_in_work.wait(TIMEOUT_S)
        if self.log and self.poison & set(ids):
            os._exit(9)
        if self.log and self.poison and len(ids) > 1:
            threading.Event().wait()  # it dies with the other
        try:
            return super().encode(segments)
        finally:
            with self.counting:
                self.num_in_work -= 1

    def come(self, num_segments):
        """Note how many are asked about, and how many ask."""
        with self.counting:
            self.num_in_work += 1
            self.noted.append((num_segments, self.num_in_work))
            if self.log:
                with self.log.open("a") as log:
                    log.write(f"{num_segments} {self.num_in_work}\n")


def side_by_side(stage, batches):
    """Their results, each batch in a thread of its own."""
    with ThreadPoolExecutor(len(batches)) as threads:
        return list(threads.map(stage, batches, timeout=TIMEOUT_S))


def test_batches_of_one_worker_are_encoded_side_by_side(files, two, monkeypatch):
    encoder = SharedEncoder()
    monkeypatch.setattr(encode_stage, "Encoder", encoder.load)
    results = side_by_side(actor(files), two)
    assert sorted(encoder.calls) == sorted(segment_ids(files, batch) for batch in two)
    assert [set(outcomes(files, batch).values()) for batch in two] == [{"complete"}] * 2
    assert [result.batch_id for result in results] == [batch.batch_id for batch in two]
    assert (encoder.num_loads, sorted(result.encode_load_s for result in results)) == (1, [0.0, 0.5])


def test_what_may_be_to_blame_is_tried_alone(files, two, monkeypatch):
    """A batch fails beside another: its segments, and the probe, are tried when nobody else is in work."""
    first, second = two
    ids = segment_ids(files, first)
    encoder = SharedEncoder(poison={ids[0]})
    monkeypatch.setattr(encode_stage, "Encoder", encoder.load)
    side_by_side(actor(files), two)
    assert outcomes(files, first) == {ids[0]: ["encoder_error"], ids[1]: "complete"}
    assert set(outcomes(files, second).values()) == {"complete"}
    assert encoder.noted == [(2, 1), (2, 2), (1, 1), (1, 1), (1, 1)]


def test_of_two_batches_in_work_when_the_process_dies_only_who_kills_it_is_accused(
    files, two, tmp_path, monkeypatch
):
    """Real processes, which die with all that they are at; Ray starts another with the same batches."""
    first, second = two
    ids, log = segment_ids(files, first), tmp_path / "log"
    encoder = SharedEncoder(poison={ids[0]}, log=log)
    monkeypatch.setattr(encode_stage, "Encoder", encoder.load)
    processes = multiprocessing.get_context("fork")

    def code_of_a_process():
        process = processes.Process(target=side_by_side, args=(actor(files), two))
        process.start()
        process.join(TIMEOUT_S)
        return process.exitcode

    assert [code_of_a_process() for _ in range(1 + MAX_DEATHS)] == [9] * (1 + MAX_DEATHS)
    marked = [path.rpartition("/")[0] for path in files.paths("attempts/attempt1") if "/parts/" in path]
    assert marked == [f"attempts/attempt1/{first.batch_id}/parts/{ids[0]}"] * MAX_DEATHS
    assert code_of_a_process() == 0
    assert outcomes(files, first) == {ids[0]: ["encoder_crashed"], ids[1]: "complete"}
    assert set(outcomes(files, second).values()) == {"complete"}
    noted = log.read_text().splitlines()
    assert noted[:2] == ["2 1", "2 2"], "whole batches once, side by side"
    assert set(noted[2:]) == {"1 1"}, "then one segment after the other, with nothing beside it"


def test_a_batch_that_waits_while_another_is_tried_alone_has_not_been_tried(files, two, monkeypatch):
    """If the process dies now, it is encoded as a whole afterwards."""
    first, second = two
    waits, tried = threading.Event(), []

    class Lock(SharedLock):
        def together(self):
            if threading.current_thread().name == "second":
                waits.set()
            return super().together()

    class Encoder(ScriptedEncoder):
        def encode(self, segments):
            if len(segments) == 1 and not waits.is_set():
                thread.start()
                assert waits.wait(TIMEOUT_S)
                tried.append(files.exists(f"attempts/attempt1/{second.batch_id}/whole"))
            return super().encode(segments)

    monkeypatch.setattr(encode_stage, "SharedLock", Lock)
    encoder = Encoder(poison={segment_ids(files, first)[0]})
    monkeypatch.setattr(encode_stage, "Encoder", encoder.load)
    stage = actor(files)
    thread = threading.Thread(target=stage, args=(second,), name="second")
    stage(first)
    thread.join(TIMEOUT_S)
    assert tried == [False]
    assert segment_ids(files, second) in encoder.calls, "as a whole"


def test_a_cap_that_one_batch_reaches_leaves_what_the_other_has_done(files, two, monkeypatch):
    reached = threading.Event()

    class Encoder(SharedEncoder):
        def encode(self, segments):
            found = super().encode(segments)
            if segments[0]["segment_id"] == segment_ids(files, two[0])[0]:
                raise CapReached("max_cost: 5 are spent")
            assert reached.wait(TIMEOUT_S)
            return found

    monkeypatch.setattr(encode_stage, "Encoder", Encoder().load)
    stage = actor(files)

    def work(batch):
        result = stage(batch)
        reached.set()
        return result

    capped, done = side_by_side(work, two)
    assert (capped.is_stopped, capped.failure) == (True, "max_cost: 5 are spent")
    assert (done.is_stopped, done.failure, done.num_complete) == (False, "", 2)
    assert stage(two[0]).is_stopped, "behind the cap nothing is begun"


# --- what was paid before ----------------------------------------------------------------------------------


def test_segments_of_an_earlier_cut_are_reused(tmp_path, files, batch, encoder):
    """A killed run, then one over a grown archive: its batches are others, most of its segments are not."""
    actor(files)(batch)
    paid_ids, encoder.calls = segment_ids(files, batch), []
    (result,) = cut(tmp_path, files, [session(9), session(0), session(1)], batch_size=3)
    batches = {other.batch_id for other in result.batches}
    paid = segments_paid(files, ENCODER, batches)
    assert paid == dict.fromkeys(paid_ids, *encoded_paths(files, batch))
    rows = [actor(files, attempt="attempt2", paid=paid)(other) for other in result.batches]
    assert [len(call) for call in encoder.calls] == [2]
    assert not {segment_id for call in encoder.calls for segment_id in call} & set(paid_ids)
    assert [row.num_segments_encoded for row in rows] == [2, 0]
    assert [row.prompt_tokens for row in rows] == [20, 0]  # the third of the first batch was paid before
    found = [row for other in result.batches for row in encoded(files, other)]
    assert [row["segment_id"] for row in found] == [row["segment_id"] for row in planned(files, [result])]
    assert [row for row in found if row["segment_id"] in paid_ids] == encoded(files, batch)


def test_the_plans_own_batches_are_not_counted_as_paid(files, batch, encoder):
    assert segments_paid(files, ENCODER, set()) == {}
    actor(files)(batch)
    assert segments_paid(files, ENCODER, {batch.batch_id}) == {}
    assert segments_paid(files, "another", set()) == {}


def test_a_batch_that_was_cleaned_away_is_named(files, batch, encoder):
    files.delete([plan_path(batch.batch_id)])
    with pytest.raises(FileNotFoundError, match=batch.batch_id):
        actor(files)(batch)
