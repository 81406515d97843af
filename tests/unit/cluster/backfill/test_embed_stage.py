"""The embedding of answers: rows of the tables, made once, and made again after answers that are others."""

import json

import pyarrow as pa
import pytest

from cluster.backfill.embed_stage import EmbedStage
from cluster.backfill.encode_stage import EncodeStage
from cluster.embed.embedder import TEXTS
from cluster.store.files import Files
from cluster.store.staging import take_out
from schemas.profiles.embedder import EvolvableProfile
from schemas.store import REJECTIONS_SCHEMA, SEGMENTS_SCHEMA, records_schema, turns_schema
from tests.dying import Killed
from tests.unit.cluster.backfill.scripted import (
    EMBEDDER,
    ENCODER,
    PROFILE,
    actor,
    cut,
    encoded,
    planned,
    segment_ids,
    session,
    table,
    turn,
)


def test_a_worker_that_cannot_embed_gives_the_batch_back(files, batch, encoder, embedder, monkeypatch):
    def broken(texts):
        raise RuntimeError("out of memory")

    row = actor(files)(batch)
    with monkeypatch.context() as patch:
        patch.setattr(embedder, "embed", broken)
        failed = EmbedStage(ENCODER, EMBEDDER, files)(row)
    assert "RuntimeError: out of memory" in failed.failure
    done = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(batch))
    assert (done.failure, done.num_records, done.num_segments_encoded) == ("", 4, 0)
    assert type(failed) is type(done), "rows of one dataset have the same columns"


def test_encoded_segments_become_rows_of_the_tables(files, batch, encoder, embedder):
    ids = segment_ids(files, batch)
    encoder.poison = {ids[3]}
    row = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(batch))
    assert (row.num_turns, row.num_records, row.num_rejections, row.dim) == (8, 3, 1, 2)
    assert (row.num_segments, row.embed_load_s) == (4, 0.25)
    run_columns = {"active", "run_id", "closed_run_id", "created_at", "updated_at", "encoder", "embedder"}
    schemas = {
        "turns": turns_schema(2),
        "records": records_schema(2),
        "segments": SEGMENTS_SCHEMA,
        "rejections": REJECTIONS_SCHEMA,
    }
    for name, schema in schemas.items():
        missing = set(schema.names) - set(table(files, name, row).column_names)
        assert missing <= run_columns | {"decision_id", "closed_reason"}
    turns = table(files, "turns", row).to_pylist()
    assert turns[0]["vector"] == embedder.embed([turns[0]["content"]])[0]
    assert len({turn["turn_id"] for turn in turns}) == 8
    record = table(files, "records", row).to_pylist()[1]
    assert record["evidence"] == [{"session_id": "session0", "turn_index": 2}]
    assert (record["revision"], record["normalized_text"]) == (1, f"fact: {record['semantic_text']}")
    ledger = table(files, "segments", row).to_pylist()
    assert [(found["outcome"], found["num_records"]) for found in ledger[2:]] == [
        ("complete", 1),
        ("rejected", 0),
    ]
    (rejection,) = table(files, "rejections", row).to_pylist()
    assert (rejection["stage"], rejection["source"], rejection["reason"]) == (
        "encoder",
        ids[3],
        "encoder_error",
    )
    assert "--retry-rejected" in rejection["detail"]


READS_ENGLISH = PROFILE.model_copy(update={"required_role": "user", "languages": ("en",)})
SPANISH = "Vivo en Sevilla y trabajo de camarero."


def test_a_segment_in_a_language_that_is_not_read_costs_nothing_and_keeps_its_turns(
    tmp_path, files, encoder, embedder
):
    rows = [session(0, num_turns=1), session(1, turns=[turn(SPANISH), turn("¡Qué bien!", "assistant")])]
    [result] = cut(tmp_path, files, rows, profile=READS_ENGLISH)
    [batch], [read, unread] = result.batches, planned(files, [result])
    assert (batch.num_segments, batch.num_other_language) == (2, 1)
    assert batch.num_tokens == read["num_tokens"]

    stage = EncodeStage(READS_ENGLISH, files, "attempt1", {}, {})
    row = EmbedStage(READS_ENGLISH.fingerprint, EMBEDDER, files)(stage(batch))
    assert encoder.calls == [[read["segment_id"]]]
    assert (row.num_complete, row.num_skipped, row.num_refused) == (1, 1, 0)
    assert (row.num_records, row.num_turns, row.num_rejections) == (1, 3, 0)
    assert SPANISH in table(files, "turns", row).column("content").to_pylist()
    [rejection] = table(files, "rejections", row).to_pylist()
    assert (rejection["stage"], rejection["reason"], rejection["raw"]) == ("gate", "language", "es")
    assert rejection["detail"] == "turns [0, 1] are in 'es', a language that the encoder does not read"
    assert (rejection["source"], rejection["session_id"]) == (unread["segment_id"], "session1")

    again = EncodeStage(READS_ENGLISH, files, "attempt2", {}, {})(batch)
    assert (again.encoded, again.num_segments_encoded) == (row.encoded, 0)


def test_values_without_which_records_stay_are_counted_and_kept_aside(files, batch, encoder, embedder):
    plain = encoder.encode

    def with_values(segments):
        encodings = plain(segments)
        encodings[0].records[0]["extra"] = {"mood": "good"}
        raw = json.dumps({"place": "Oslo", "sphere": "garden"})
        encodings[0].refusals = [{"reason": "extra_value", "turns": [0], "raw": raw}]
        return encodings

    encoder.encode = with_values
    row = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(batch))
    assert (row.num_values_left_out, row.num_refused, row.num_records) == (2, 0, 4)
    assert [one["extra"] for one in table(files, "records", row).to_pylist()] == [
        [("mood", "good")],
        *[None] * 3,
    ]
    (rejection,) = table(files, "rejections", row).to_pylist()
    assert (rejection["stage"], rejection["reason"]) == ("gate", "extra_value")
    assert rejection["detail"] == "a record of turns [0] is kept without these values of extra fields"
    assert json.loads(rejection["raw"]) == {"place": "Oslo", "sphere": "garden"}


def test_a_batch_that_is_all_in_another_language_loads_no_model(tmp_path, files, encoder):
    [result] = cut(tmp_path, files, [session(0, turns=[turn(SPANISH)])])
    row = EncodeStage(READS_ENGLISH, files, "attempt1", {}, {})(result.batches[0])
    assert (row.num_segments, row.num_skipped, encoder.num_loads) == (1, 1, 0)


def test_a_turn_is_embedded_behind_its_speaker_s_name(tmp_path, files, encoder, embedder):
    """In a dialogue of two people questions ask by name, and the turns do not say who speaks."""
    turns = [turn("I got a dog.") | {"speaker": "Ann"}, turn("Lovely!", "assistant") | {"speaker": "Bob"}]
    (result,) = cut(tmp_path, files, [session(0, turns=turns)])
    row = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(result.batches[0]))
    assert embedder.texts[:2] == ["Ann: I got a dog.", "Bob: Lovely!"]
    stored = table(files, "turns", row).to_pylist()
    assert [row["content"] for row in stored] == ["I got a dog.", "Lovely!"]
    assert [TEXTS["turns"](row) for row in stored] == embedder.texts[:2], "so does jobs.reembed"


def test_an_evolvable_embedder_leaves_the_turns_for_later(files, batch, encoder, embedder):
    turns = EvolvableProfile(model="none", model_hash="1" * 16)
    profile = EMBEDDER.model_copy(update={"turns": turns})
    row = EmbedStage(ENCODER, profile, files)(actor(files)(batch))
    assert (row.num_turns, row.num_records, row.dim) == (8, 4, 2)
    assert row.users == ("user",)
    assert "vector" not in table(files, "turns", row).column_names
    assert embedder.texts == [found["records"][0]["semantic_text"] for found in encoded(files, batch)]
    again = EmbedStage(ENCODER, profile, files)(actor(files)(batch))
    assert (again.dim, again.users, embedder.num_loads) == (2, row.users, 1)


def test_what_is_embedded_is_not_embedded_again(files, batch, encoder, embedder):
    row = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(batch))
    again = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(batch))
    assert embedder.num_loads == 1
    names = ("num_turns", "num_records", "num_rejections", "dim", "num_segments")
    assert [getattr(again, name) for name in names] == [getattr(row, name) for name in names]


def test_a_kill_between_the_tables_is_repaired(files, batch, encoder, embedder, monkeypatch):
    """The seal is put last; where it is missing, the batch is embedded again, alike."""
    row, put, puts = actor(files)(batch), Files.put, []
    complete = EmbedStage(ENCODER, EMBEDDER, files)(row)
    staged = files.paths("tables")
    whole = {path: files.get(path) for path in staged}
    for num_puts in range(len(staged)):
        files.delete(staged)
        puts.clear()

        def killed(self, path, data, num_puts=num_puts):
            if len(puts) == num_puts:
                raise Killed
            puts.append(path)
            put(self, path, data)

        with monkeypatch.context() as patch:
            patch.setattr(Files, "put", killed)
            with pytest.raises(Killed):
                EmbedStage(ENCODER, EMBEDDER, files)(row)
        assert EmbedStage(ENCODER, EMBEDDER, files)(row).num_records == complete.num_records
        assert {path: files.get(path) for path in files.paths("tables")} == whole


def test_after_other_answers_the_rows_are_others(files, batch, encoder, embedder):
    """Regression: a segment was rejected, then paid for again, and what was stored was the rejection."""
    ids = segment_ids(files, batch)
    encoder.poison = {ids[1]}
    first = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(batch))
    assert (first.num_records, first.num_rejections) == (3, 1)
    encoder.poison, encoder.calls = set(), []
    again = EmbedStage(ENCODER, EMBEDDER, files)(actor(files, attempt="attempt2")(batch))
    assert encoder.calls == [[ids[1]]], "the answers that were there are not paid for again"
    assert (again.num_records, again.num_rejections) == (4, 0)
    assert table(files, "rejections", again) is None
    assert [row["outcome"] for row in table(files, "segments", again).to_pylist()] == ["complete"] * 4


# --- what was taken out of staged files --------------------------------------------------------------------


def taken_out(files, session_id):
    """Take a session out of everything staged, as a forgetting does."""
    for path in files.paths():
        if path.endswith(".parquet"):
            sessions = files.get_table(path).column("session_id").to_pylist()
            take_out(files, path, [name == session_id for name in sessions])


def filtered_in_place(files, session_id):
    """What no program may do: the same, under the old names."""
    for path in files.paths():
        if path.endswith(".parquet"):
            found = files.get_table(path)
            keep = [row["session_id"] != session_id for row in found.to_pylist()]
            files.put_table(path, found.filter(pa.array(keep)))


@pytest.mark.parametrize("tamper", [taken_out, filtered_in_place])
def test_rows_taken_out_of_staged_files_are_made_again_and_no_other_is_lost(
    tmp_path, files, encoder, embedder, tamper
):
    """Regression: files that a forgetting had filtered between a kill and the same command were trusted by
    their names, and what had stood in them beside the forgotten was neither encoded nor stored."""
    rows = [session(0), session(1)]
    (result,) = cut(tmp_path, files, rows, batch_size=4)
    (batch,) = result.batches
    ids = segment_ids(files, batch)
    EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(batch))
    tamper(files, "session0")
    encoder.calls = []
    # The session stands in the archive still (it was another user's memory that was forgotten).
    cut(tmp_path, files, rows, batch_size=4)
    again = EmbedStage(ENCODER, EMBEDDER, files)(actor(files, attempt="attempt2")(batch))
    assert encoder.calls == [ids[:2]], "what is left of the batch's answers is not paid for again"
    assert [again.num_turns, again.num_records] == [8, 4]
    assert [table(files, name, again).num_rows for name in ("turns", "records")] == [8, 4]
    assert {row["segment_id"] for row in table(files, "segments", again).to_pylist()} == set(ids)


def test_a_damaged_staged_file_is_made_again(files, batch, encoder, embedder):
    """As a power cut leaves them: empty, or half of one."""
    whole = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(batch))
    for path in files.paths("encoded") + files.paths("tables"):
        if path.endswith(".parquet"):
            files.put(path, files.get(path)[:100])
    again = EmbedStage(ENCODER, EMBEDDER, files)(actor(files, attempt="attempt2")(batch))
    assert [again.num_records, again.num_turns] == [4, 8]
    assert again.tables == whole.tables
    assert table(files, "records", again).num_rows == 4
