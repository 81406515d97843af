"""What a backfill does with its batches: sick workers, what is committed."""

import pytest

from cluster.backfill.table_rows import segment_rejections
from cluster.store.files import Files
from cluster.store.store import Store
from jobs.backfill import BackfillConfig, encoding
from jobs.backfill.plan import MAX_GIVEN_BACK, SPENT, Plan, Workers, staged_tables
from jobs.common.cli import JobError
from jobs.common.run import load_profile
from schemas.profiles.encoder import EncoderProfile
from schemas.stage_items import Batch, EmbeddedBatch, UnitCut, UsersRead
from schemas.store import REJECTIONS_SCHEMA, RUNS_SCHEMA


def test_a_rejection_that_is_retried_in_vain_stands_once(tmp_path):
    """Regression: each --retry-rejected added it again."""
    store = Store(str(tmp_path / "store"), must_exist=False)
    segment = {"segment_id": "5e9", "user_id": "ann", "session_id": "s1"}
    segment["rejections"] = [{"reason": "invalid_answer", "turns": [0], "raw": "{"}]
    for run_id in ("run1", "run2"):
        path = f"{run_id}.parquet"
        known = [name for name in REJECTIONS_SCHEMA.names if name in segment_rejections(segment)[0]]
        schema = REJECTIONS_SCHEMA.empty_table().select(known).schema
        Files(store.uri, "staging").put_rows(path, segment_rejections(segment), schema)
        inserts, replaces = staged_tables([EmbeddedBatch("batch", tables={"rejections": path})])
        run = dict.fromkeys(RUNS_SCHEMA.names, "") | {"run_id": run_id, "job": "backfill"}
        run |= {"started_at": "2026-01-02T03:04:05+00:00", "config": "{}", "summary": "{}"}
        store.commit(run, 4, inserts=inserts, replaces=replaces)
    (row,) = store.rows("rejections", ["rejection_id", "run_id"]).to_pylist()
    assert row["run_id"] == "run2"


def test_what_the_encoder_does_not_read_is_counted_before_it_is_asked():
    plan = Plan()
    for num_other_language, num_tokens in ((1, 5), (2, 0)):
        batch = Batch("b", 2, num_tokens=num_tokens, num_other_language=num_other_language)
        plan.add(UnitCut("unit", num_sessions=1, num_segments=4, batches=(batch,)), None)
    counts = plan.counts()
    assert (counts["num_segments_other_language"], counts["input_tokens"], plan.num_pending) == (3, 5, 4)


def test_rows_of_all_batches_are_committed():
    tables = [{"turns": f"t{number}", "segments": f"s{number}"} for number in (1, 2)]
    done = [EmbeddedBatch("batch", tables=paths) for paths in tables]
    assert staged_tables(done) == ({"turns": ["t1", "t2"], "segments": ["s1", "s2"]}, {"rejections": []})


def test_turns_that_were_read_with_all_of_their_user_s_are_committed_as_that_left_them():
    done = [EmbeddedBatch("batch", users=("ann",), tables={"turns": "bare", "records": "r1"})]
    new = UsersRead("key1", tables={"turns": "read1", "states": "s1"})
    old = UsersRead("key2", tables={"turns": "read2", "states": "s2"}, replaces=True)
    inserts, replaces = staged_tables(done, [new, old])
    assert inserts == {"records": ["r1"], "turns": ["read1"]}
    assert replaces == {"rejections": [], "turns": ["read2"], "states": ["s1", "s2"]}


def test_a_run_ends_when_every_worker_keeps_giving_back_and_none_does_anything():
    workers = Workers(2)
    assert not any(workers.has_given_back("sick") for _ in range(2 * MAX_GIVEN_BACK - 1))
    workers.has_done()
    for _ in range(MAX_GIVEN_BACK - 1):
        assert not any(workers.has_given_back(worker) for worker in ("one", "two", "three"))
    assert [workers.has_given_back(worker) for worker in ("one", "two", "three")] == [False, False, True]


BATCHES = [Batch(f"batch{number}", num_segments=1, num_tokens=5) for number in range(6)]


def result(batch, failure="", worker="well"):
    counts = dict.fromkeys((*SPENT, "num_segments", "output_tokens"), 1)
    return EmbeddedBatch(batch.batch_id, failure=failure, worker=worker, **counts)


def run_passes(tmp_path, monkeypatch, pass_):
    """encode_and_embed over these passes; the batches that each was given."""
    given = []

    def encoding_pass(config, encoder, embedder, batches, *_):
        given.append([batch.batch_id for batch in batches])
        yield from pass_(len(given), batches)

    monkeypatch.setattr(encoding, "encoding_pass", encoding_pass)
    config = BackfillConfig(archive="a", store=str(tmp_path / "store"))
    profile = load_profile("encoders", "default", EncoderProfile).model_copy(update={"base_hash": "0"})
    plan = Plan(batches=BATCHES, num_pending=len(BATCHES))
    try:
        return given, encoding.encode_and_embed(config, profile, None, plan)
    except JobError as error:
        return given, str(error)


def test_one_sick_worker_does_not_fail_a_run_while_another_is_healthy(tmp_path, monkeypatch):
    """Regression: the exception of one ended the run for all."""

    def pass_(number, batches):
        for place, batch in enumerate(batches):
            is_sick = number == 1 and place % 2
            yield result(batch, "it is broken" if is_sick else "", "sick" if is_sick else "well")

    given, done = run_passes(tmp_path, monkeypatch, pass_)
    assert given == [[batch.batch_id for batch in BATCHES], ["batch1", "batch3", "batch5"]]
    # Committed in the order of the archive, in whatever order they were done.
    assert [row.batch_id for row in done] == [batch.batch_id for batch in BATCHES]
    assert [row.prompt_tokens for row in done] == [1, 2, 1, 2, 1, 2], "paid twice"


@pytest.mark.parametrize("num_done", [0, 2])
def test_a_run_that_nobody_can_do_ends_with_the_reason(tmp_path, monkeypatch, num_done):
    def pass_(number, batches):
        for place, batch in enumerate(batches):
            yield result(batch, "" if number == 1 and place < num_done else "CUDA error 719", "sick")

    given, error = run_passes(tmp_path, monkeypatch, pass_)
    assert f"what is left, {6 - num_done} of 6 batches" in error and "CUDA error 719" in error
    assert len(given) == 1, "three in a row are enough"
