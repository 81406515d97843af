"""The stages of a backfill as workers run them, on small archives.

Stand-ins: a tokenizer whose tokens are words, and an encoder and embedder that follow a script. What the
stages stage, reuse, reject and redact is the real thing.
"""

import datetime as dt
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.backfill import stages
from cluster.backfill.archive import BadRow, inspect_file, list_files, plan_units
from cluster.backfill.encoder import Encoding
from cluster.backfill.ledger import Ledger
from cluster.backfill.redact import compiled
from cluster.backfill.stages import (
    NOTHING_FORGOTTEN,
    EmbedStage,
    EncodeStage,
    cut_unit,
    encoded_folder,
    plan_path,
    rejection_row,
    segments_paid,
)
from cluster.embed.embedder import TEXTS
from cluster.forget.forgotten import WITHHELD, Forgotten
from cluster.runtime.rows import of_table, to_table
from cluster.store.attempts import MAX_DEATHS
from cluster.store.files import Files
from cluster.store.staging import take_out
from schemas.archive import ARCHIVE_SCHEMA
from schemas.carriers import UnitCut
from schemas.profile import EmbedderProfile, EncoderProfile, EvolvableProfile
from schemas.store import REJECTIONS_SCHEMA, SEGMENTS_SCHEMA, records_schema, turns_schema
from tests.dying import Killed

PROFILE = EncoderProfile(
    name="scripted",
    base="none",
    base_hash="0" * 16,
    system_prompt="Remember.",
    user_template="{previous}\n{current}",
    max_turns=2,
    max_current_tokens=16,
    max_context_tokens=4,
)
EMBEDDER = EmbedderProfile(name="scripted", model="none", model_hash="0" * 16)
ENCODER = PROFILE.fingerprint

# Put together from pieces, so that scanners of this repository have nothing to report.
PASSWORD = "hunter" + "2!"
TOKEN = "ghp_" + "a1B2" * 9
CARD = "4111" + " 1111" * 3
PEM = "\n".join(
    ["-----BEGIN RSA " + "PRIVATE KEY-----", "MIIEow" + "A1b+" * 14, "-----END RSA PRIVATE KEY-----"]
)
SECRETS = [PASSWORD, TOKEN, CARD, "MIIEow"]


def word_offsets(texts):
    return [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]


@pytest.fixture(autouse=True)
def tokenizer(monkeypatch):
    monkeypatch.setattr(stages, "_tokenizer", lambda profile: None)
    monkeypatch.setattr(stages, "tokenizer_offsets", lambda tokenizer: word_offsets)


@pytest.fixture
def files(tmp_path):
    return Files(str(tmp_path / "store"), "staging")


def session(number, num_turns=4, **changes):
    return {
        "user_id": "user",
        "conversation_id": None,
        "session_id": f"session{number}",
        "session_time": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "turns": [turn(f"Turn {index} of session {number}") for index in range(num_turns)],
    } | changes


def turn(content, role="user"):
    return {"role": role, "content": content, "speaker": None, "time": None}


# --- cut ----------------------------------------------------------------------------------------------


def cut(
    tmp_path,
    files,
    rows,
    ledger=None,
    batch_size=3,
    forgotten=NOTHING_FORGOTTEN,
    mask_contacts=False,
    redaction_rules=(),
    profile=PROFILE,
    **options,
):
    """Cut an archive of these rows; the results of its row groups."""
    archive = tmp_path / "archive"
    archive.mkdir(exist_ok=True)
    schema = pa.schema([pa.field(field.name, field.type) for field in ARCHIVE_SCHEMA])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), archive / "a.parquet", **options)
    inspected = [inspect_file(str(archive), path) for path in list_files(str(archive))]
    return [
        cut_unit(
            unit,
            archive=str(archive),
            profile=profile,
            ledger=ledger or ledger_of([]),
            batch_size=batch_size,
            files=files,
            forgotten=forgotten,
            mask_contacts=mask_contacts,
            redaction_rules=redaction_rules,
        )
        for unit in plan_units(inspected)
    ]


def planned(files, results):
    """Staged segments, in the order of the batches."""
    batches = [batch.batch_id for result in results for batch in result.batches]
    return [row for batch_id in batches for row in files.get_table(plan_path(batch_id)).to_pylist()]


def ledger_of(segments, outcome="complete", written_by=ENCODER, **filters):
    names = ("user_id", "session_id", "segment_id", "encoder", "outcome")
    rows = [row | {"encoder": written_by, "outcome": outcome} for row in segments]
    return Ledger.of(
        pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names}), **filters
    )


def test_sessions_become_batches_of_segments(tmp_path, files):
    results = cut(tmp_path, files, [session(0), session(1), session(2, num_turns=3)])
    (result,) = results
    counts = {name: count for name, count in vars(result).items() if name.startswith("num_")}
    nothing = dict.fromkeys(("num_redactions", "num_forgotten", "num_rejections"), 0)
    assert counts == {"num_sessions": 3, "num_segments": 6} | nothing
    assert [batch.num_segments for batch in result.batches] == [3, 3]
    assert (result.rejections, result.closed_segments) == ("", ())
    segments = planned(files, results)
    assert [(s["session_id"], s["first_turn"], s["last_turn"]) for s in segments] == [
        ("session0", 0, 1),
        ("session0", 2, 3),
        ("session1", 0, 1),
        ("session1", 2, 3),
        ("session2", 0, 1),
        ("session2", 2, 2),
    ]
    assert sum(batch.num_tokens for batch in result.batches) == sum(s["num_tokens"] for s in segments)
    texts = [part["text"] for segment in segments for part in segment["current"]]
    assert texts[:4] == [f"Turn {index} of session 0" for index in range(4)]
    assert of_table(UnitCut, to_table(UnitCut, results)) == results, "it arrives as it was sent"


DAMAGED = {
    "without its user": {"user_id": None},
    "without its session": {"session_id": None},
    "with a blank session": {"session_id": "  "},
    "without turns": {"turns": None},
    "with a forgotten turn": {"session_id": "session1", "turns": [turn("Gone"), turn("Left", role="nobody")]},
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_copy_of_what_is_forgotten_does_not_come_back_as_a_rejection(tmp_path, files, damage):
    forgotten = Forgotten("salt", frozenset())
    keys = [forgotten.key("session", "user", "session0"), forgotten.key("turn", "user", "session1", 0)]
    forgotten = forgotten.with_keys(keys)
    changes = {"turns": [turn("Gone"), turn("Left", role="nobody")]} | DAMAGED[damage]
    others = session(3, turns=[turn("Of bob", role="nobody")], user_id="bob")
    (result,) = cut(tmp_path, files, [session(0, **changes), others], forgotten=forgotten)
    rejected = files.get_table(result.rejections).to_pylist() if result.rejections else []
    shown = [row for row in rejected if row["user_id"] != "bob"]
    assert [(row["raw"], row["detail"]) for row in shown] == [("", WITHHELD)] * len(shown)
    assert "Gone" not in json.dumps(rejected)
    # Whose it is, and that it is nothing forgotten, is known of this one.
    assert not [row for row in rejected if row["user_id"] == "bob" and "Of bob" not in row["raw"]]


def test_row_groups_are_units(tmp_path, files):
    results = cut(tmp_path, files, [session(index) for index in range(5)], row_group_size=2)
    assert [result.num_sessions for result in results] == [2, 2, 1]
    assert len({result.unit_id for result in results}) == 3
    assert len({row["segment_id"] for row in planned(files, results)}) == 10


def test_cutting_again_stages_the_same(tmp_path, files):
    rows = [session(0), session(1)]
    first = cut(tmp_path, files, rows)
    staged = {path: files.get(path) for path in files.paths()}
    assert cut(tmp_path, files, rows) == first
    assert {path: files.get(path) for path in files.paths()} == staged


def test_what_the_ledger_knows_is_not_pending(tmp_path, files):
    rows = [session(0), session(1)]
    ledger = ledger_of(planned(files, cut(tmp_path, files, rows)))
    (again,) = cut(tmp_path, files, rows, ledger)
    assert (again.num_segments, again.batches, again.closed_segments) == (4, (), ())


def test_a_session_that_grew_changes_its_last_segment_only(tmp_path, files):
    before = planned(files, cut(tmp_path, files, [session(0, num_turns=3), session(1)]))
    grown = cut(tmp_path, files, [session(0, num_turns=6), session(1)], ledger_of(before))
    assert grown[0].closed_segments == (before[1]["segment_id"],)
    assert [(s["session_id"], s["first_turn"], s["last_turn"]) for s in planned(files, grown)] == [
        ("session0", 2, 3),
        ("session0", 4, 5),
    ]


def test_a_session_that_shrank_closes_what_it_lost(tmp_path, files):
    before = planned(files, cut(tmp_path, files, [session(0, num_turns=6)]))
    (shrunk,) = cut(tmp_path, files, [session(0, num_turns=2)], ledger_of(before))
    assert shrunk.batches == ()
    assert shrunk.closed_segments == tuple(segment["segment_id"] for segment in before[1:])


def test_an_edited_turn_closes_its_segment_and_those_that_saw_it(tmp_path, files):
    before = planned(files, cut(tmp_path, files, [session(0, num_turns=6)]))
    turns = session(0, num_turns=6)["turns"]
    turns[1]["content"] = turns[1]["content"].replace("of", "in")
    edited = cut(tmp_path, files, [session(0, turns=turns)], ledger_of(before))
    assert edited[0].closed_segments == tuple(segment["segment_id"] for segment in before[:2])
    assert [segment["first_turn"] for segment in planned(files, edited)] == [0, 2]


def test_a_session_that_is_gone_or_went_bad_keeps_its_memories(tmp_path, files):
    before = planned(files, cut(tmp_path, files, [session(0), session(1), session(2)]))
    (result,) = cut(tmp_path, files, [session(0), session(1, turns=[])], ledger_of(before))
    assert (result.closed_segments, result.batches, result.num_rejections) == ((), (), 1)


def test_another_encoder_and_rejected_ones_are_encoded_again(tmp_path, files):
    rows = [session(0)]
    before = planned(files, cut(tmp_path, files, rows))
    ids = [segment["segment_id"] for segment in before]
    for ledger in (
        ledger_of(before, outcome="partial", retry_rejected=True),
        ledger_of(before, written_by="another", encoder=ENCODER),
    ):
        results = cut(tmp_path, files, rows, ledger)
        assert [segment["segment_id"] for segment in planned(files, results)] == ids
        # Its old rows give way, else its memories stood twice.
        assert results[0].closed_segments == tuple(ids)


def staged_bytes(files):
    """Everything staged, as text: Parquet files read, in full."""
    return "\n".join(
        f"{path}\n{json.dumps(files.get_table(path).to_pylist(), default=str, ensure_ascii=False)}"
        for path in files.paths()
    )


def test_no_secret_reaches_a_staged_file(tmp_path, files):
    tell = [
        turn(f"my password is {PASSWORD}"),
        turn(f"the token is {TOKEN} ok"),
        turn(f"card {CARD}"),
        turn(PEM),
    ]
    bad = [turn(f"look:\n{TOKEN}", "alien"), turn(f"card:\t{CARD}\r\n{PEM}\npassword:\n{PASSWORD}", "alien")]
    results = cut(
        tmp_path, files, [session(0, turns=tell), session(1, turns=bad), session(2, user_id=None, turns=tell)]
    )
    assert (results[0].num_redactions, results[0].num_rejections) == (4, 2)
    staged = staged_bytes(files)
    assert [secret for secret in SECRETS if secret in staged] == []
    assert staged.count("[redacted:password]") >= 3
    # Nor do the bytes of a file hold one, in a page, a dictionary or a statistic.
    for path in files.paths():
        assert [secret for secret in SECRETS if secret.encode() in files.get(path)] == []


def test_a_speaker_s_name_is_redacted_and_what_one_turn_announces_goes_from_the_next(tmp_path, files):
    told = [turn("What's the wifi password?"), turn("aubergine"), turn("Thanks!")]
    for one, name in zip(told, ("Ann", f"Bob {TOKEN}", "Ann"), strict=True):
        one["speaker"] = name
    (result,) = cut(tmp_path, files, [session(0, turns=told)])
    staged = staged_bytes(files)
    assert result.num_redactions == 2
    assert "aubergine" not in staged and TOKEN not in staged and "Bob [redacted:api_key]" in staged


def test_contacts_are_masked_where_the_operator_asks_for_it(tmp_path, files):
    told = [turn("Call +49 30 1234567 or write to ann@example.org.")]
    cut(tmp_path, files, [session(0, turns=told)], mask_contacts=True)
    assert "Call [redacted:phone_number] or write to [redacted:email_address]." in staged_bytes(files)


def test_what_the_operator_s_rules_find_goes_from_turns_names_and_bad_rows(tmp_path, files):
    told = [turn("Look at TCK-123456.") | {"speaker": "TCK-222222"}]
    bad = session(1, turns=[turn("TCK-333333") | {"role": "wizard"}])
    rules = compiled({"ticket": r"TCK-\d{6}"})
    cut(tmp_path, files, [session(0, turns=told), bad], redaction_rules=rules)
    staged = staged_bytes(files)
    assert "Look at [redacted:ticket]." in staged and "TCK-" not in staged


def test_bad_rows_are_staged_with_their_reason(tmp_path, files):
    (result,) = cut(tmp_path, files, [session(0), session(1, turns=[]), session(2, user_id=None)])
    assert (result.num_sessions, result.num_rejections) == (1, 2)
    rejections = files.get_table(result.rejections).to_pylist()
    assert [(row["source"], row["reason"], row["session_id"]) for row in rejections] == [
        ("a.parquet:1", "invalid_session", "session1"),
        ("a.parquet:2", "invalid_session", "session2"),
    ]
    assert len({row["rejection_id"] for row in rejections}) == 2


@pytest.mark.parametrize("escape", ["\n", "\t", "\r\n", "\u00a0", "\u200b", "\u3000", "\x0b"])
def test_white_space_before_a_secret_does_not_hide_it_in_a_rejection(escape):
    r"""Regression: in a repr a line break is `\n`, whose n glued to the secret, which then was no word."""
    raw = repr({"content": f"look{escape}{TOKEN}{escape}{CARD}"})
    row = rejection_row(BadRow("a.parquet:1", "invalid_session", f"turns[0]={raw}", raw=raw))
    for name in ("raw", "detail"):
        assert TOKEN not in row[name]
        assert CARD not in row[name]
        assert "look" in row[name]


def test_a_rejection_is_the_same_however_often_it_is_read():
    one = BadRow("a.parquet:1", "invalid_session", "turns=[]", raw="{}")
    assert rejection_row(one) == rejection_row(one)
    others = [
        BadRow("a.parquet:2", "invalid_session", "turns=[]", raw="{}"),
        BadRow("a.parquet:1", "broken_text", "turns=[]", raw="{}"),
        BadRow("a.parquet:1", "invalid_session", "turns=[]", raw="{1}"),
    ]
    assert len({rejection_row(row)["rejection_id"] for row in [one, *others]}) == 4


def test_long_and_unencodable_raw_text_is_kept_in_part():
    row = rejection_row(BadRow("a.parquet:1", "invalid_session", "bad", raw="a \ud800 " * 50_000))
    assert len(row["raw"]) == stages.MAX_RAW_CHARS
    pa.Table.from_pylist([row], schema=pa.schema([field for field in REJECTIONS_SCHEMA if field.name in row]))


# --- encode -------------------------------------------------------------------------------------------


class ScriptedEncoder:
    """Stand-in for cluster.backfill.encoder.Encoder: answers one record a segment; `poison` texts make it
    fail.

    With `error` a BaseException, the process dies on them.
    """

    def __init__(self, poison=(), error=ValueError):
        self.poison, self.error, self.calls, self.num_loads, self.load_s = set(poison), error, [], 0, 0.5

    def load(self, profile, **engine):
        self.num_loads += 1
        return self

    def encode(self, segments):
        self.calls.append([segment["segment_id"] for segment in segments])
        if self.poison & {segment["segment_id"] for segment in segments}:
            raise self.error("poisoned")
        return [encoding(segment) for segment in segments]


def encoding(segment):
    text = f"The user said {segment['current'][0]['text']}"
    record = {
        "record_id": segment["segment_id"][::-1],
        "memory_type": "fact",
        "semantic_text": text,
        "entities": [],
        "temporal": {"t_ref": "2026-01-02", "t_valid_from": "", "t_valid_to": ""},
        "tags": [],
        "evidence_turns": [segment["first_turn"]],
        "source_role": "user",
    }
    return Encoding(records=[record], num_calls=1, prompt_tokens=10, cached_tokens=4, output_tokens=5)


@pytest.fixture
def encoder(monkeypatch):
    scripted = ScriptedEncoder()
    monkeypatch.setattr(stages, "Encoder", scripted.load)
    return scripted


@pytest.fixture
def batch(tmp_path, files):
    """A planned batch of four segments."""
    (result,) = cut(tmp_path, files, [session(0), session(1)], batch_size=4)
    return result.batches[0]


def segment_ids(files, batch):
    return files.get_table(plan_path(batch.batch_id)).column("segment_id").to_pylist()


def actor(files, attempt="attempt1", paid=None):
    return EncodeStage(PROFILE, files, attempt, paid or {}, {"max_num_seqs": 2})


def encoded_paths(files, batch):
    return files.paths(encoded_folder(ENCODER, batch.batch_id))


def encoded(files, batch):
    (path,) = encoded_paths(files, batch)
    return files.get_table(path).to_pylist()


def outcomes(files, batch):
    return {
        row["segment_id"]: [rejection["reason"] for rejection in row["rejections"]] or row["outcome"]
        for row in encoded(files, batch)
    }


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


@pytest.fixture
def two(tmp_path, files):
    """Two planned batches of two segments."""
    (result,) = cut(tmp_path, files, [session(0), session(1)], batch_size=2)
    return result.batches


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
    monkeypatch.setattr(stages.time, "sleep", waited.append)
    monkeypatch.setattr(stages, "Encoder", broken)
    sick = EncodeStage(PROFILE, files, "attempt1", {}, {}, 30)
    rows = [EmbedStage(ENCODER, EMBEDDER, files)(sick(batch)) for batch in [*two, *two, *two]]
    assert all("OSError: no such device" in row.failure for row in rows)
    assert waited == [30, 60, 120, 240, 300, 300]
    assert {row.worker for row in rows} == {rows[0].worker}
    monkeypatch.setattr(stages, "Encoder", encoder.load)
    assert actor(files)(two[0]).worker != rows[0].worker
    assert encoder.calls == [segment_ids(files, two[0])], "the next one tries the batch as a whole"


def test_a_worker_that_dies_loading_accuses_no_segment(tmp_path, files, encoder, monkeypatch):
    def deadly(profile, **engine):
        raise Killed

    (result,) = cut(tmp_path, files, [session(0, num_turns=1)])
    monkeypatch.setattr(stages, "Encoder", deadly)
    for _ in range(MAX_DEATHS):
        with pytest.raises(Killed):
            actor(files)(result.batches[0])
    assert "while they loaded" in actor(files)(result.batches[0]).failure


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


# --- embed --------------------------------------------------------------------------------------------


class ScriptedEmbedder:
    """Stand-in for cluster.embed.embedder.Embedder: two numbers that tell texts apart."""

    def __init__(self):
        self.texts, self.num_loads, self.load_s, self.dim = [], 0, 0.25, 2

    def load(self, profile):
        self.num_loads += 1
        return self

    def embed(self, texts):
        self.texts += texts
        return [[float(len(text)), float(sum(map(ord, text)) % 97)] for text in texts]


@pytest.fixture
def embedder(monkeypatch):
    scripted = ScriptedEmbedder()
    monkeypatch.setattr(stages, "Embedder", scripted.load)
    return scripted


def table(files, name, row):
    """A staged table that the result of the embed stage names."""
    path = row.tables.get(name)
    return files.get_table(path) if path else None


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


def test_users_whose_ids_hold_nul_share_no_id(tmp_path, files, encoder, embedder):
    """Regression: "a" with "b NUL c" and "a NUL b" with "c" had one turn between them."""
    pairs = [("a", "b\0c"), ("a\0b", "c")]
    rows = [session(0, user_id=user_id, session_id=session_id) for user_id, session_id in pairs]
    (result,) = cut(tmp_path, files, rows, batch_size=4)
    done = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(result.batches[0]))
    assert len({row["turn_id"] for row in table(files, "turns", done).to_pylist()}) == 8


def test_an_edited_turn_keeps_its_id(tmp_path, files, encoder, embedder):
    ids = []
    for text in ("first wording", "second wording"):
        (result,) = cut(tmp_path, files, [session(0, turns=[turn(text)])])
        (batch,) = result.batches
        done = EmbedStage(ENCODER, EMBEDDER, files)(actor(files)(batch))
        (row,) = table(files, "turns", done).to_pylist()
        ids.append((row["turn_id"], row["content"]))
    assert ids[0][0] == ids[1][0]
    assert ids[0][1] != ids[1][1]
