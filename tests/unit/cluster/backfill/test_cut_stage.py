"""The cut: what of an archive becomes segments to encode, and what is redacted and refused on the way."""

import datetime as dt
import json

import pytest

from cluster.backfill.redact import compiled
from cluster.forget.forgotten import WITHHELD, Forgotten
from cluster.runtime.rows import of_table, to_table
from schemas.stage_items import UnitCut
from tests.unit.cluster.backfill.scripted import (
    CARD,
    ENCODER,
    PASSWORD,
    PEM,
    SECRETS,
    TOKEN,
    cut,
    ledger_of,
    planned,
    session,
    turn,
)


def test_sessions_become_batches_of_segments(tmp_path, files):
    results = cut(tmp_path, files, [session(0), session(1), session(2, num_turns=3)])
    (result,) = results
    counts = {name: count for name, count in vars(result).items() if name.startswith("num_")}
    nothing = dict.fromkeys(("num_redactions", "num_forgotten", "num_unknown_times", "num_rejections"), 0)
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


def test_times_that_count_as_unknown_are_counted_and_the_first_are_named(tmp_path, files):
    years = (1970, 2026, 9999, 1980, 1981)
    times = [dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in years]
    late = [turn("Hi."), turn("Hello.") | {"time": times[2]}]
    rows = [session(number, session_time=time) for number, time in enumerate(times)]
    (result,) = cut(tmp_path, files, [*rows, session(9, turns=late)])
    assert (result.num_sessions, result.num_unknown_times) == (6, 5)
    assert [one.partition(" ")[0] for one in result.unknown_times] == [
        f"a.parquet:{number}:" for number in (0, 2, 3)
    ]
    assert "session_time=9999-01-01" in result.unknown_times[1]


def test_bad_rows_are_staged_with_their_reason(tmp_path, files):
    (result,) = cut(tmp_path, files, [session(0), session(1, turns=[]), session(2, user_id=None)])
    assert (result.num_sessions, result.num_rejections) == (1, 2)
    rejections = files.get_table(result.rejections).to_pylist()
    assert [(row["source"], row["reason"], row["session_id"]) for row in rejections] == [
        ("a.parquet:1", "invalid_session", "session1"),
        ("a.parquet:2", "invalid_session", "session2"),
    ]
    assert len({row["rejection_id"] for row in rejections}) == 2
