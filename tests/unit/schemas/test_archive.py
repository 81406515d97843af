"""check_session: what becomes an archive row, and what is refused with which words."""

import datetime as dt

import pyarrow as pa
import pytest

from schemas.archive import (
    ARCHIVE_SCHEMA,
    EMPTY,
    MAX_TURN_CHARS,
    InvalidSession,
    check_session,
    mend_session,
)

TURN = {"role": "user", "content": "I moved to Oslo."}


def row(**changes):
    return {"user_id": "u1", "session_id": "s1", "turns": [TURN]} | changes


def deep_list(depth=100_000):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_fills_missing_fields_with_none():
    assert check_session(row()) == {
        "user_id": "u1",
        "conversation_id": None,
        "session_id": "s1",
        "session_time": None,
        "turns": [TURN | {"speaker": None, "time": None}],
    }


def test_row_survives_arrow():
    time = dt.datetime(2024, 5, 1, 9, 30, tzinfo=dt.UTC)
    checked = check_session(row(session_time=time, turns=[TURN | {"speaker": "Ada", "time": time}]))
    assert pa.Table.from_pylist([checked], schema=ARCHIVE_SCHEMA).to_pylist() == [checked]


def test_naive_time_is_utc_and_zoned_time_is_converted():
    naive = check_session(row(session_time=dt.datetime(2024, 5, 1, 9)))
    zone = dt.timezone(dt.timedelta(hours=2))
    zoned = check_session(row(session_time=dt.datetime(2024, 5, 1, 11, tzinfo=zone)))
    assert naive["session_time"] == zoned["session_time"] == dt.datetime(2024, 5, 1, 9, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_id": None}, "user_id=None"),
        ({"user_id": "  "}, "user_id='  '"),
        ({"user_id": 7}, "user_id=7"),
        ({"session_id": ""}, "session_id=''"),
        ({"conversation_id": 7}, "conversation_id=7"),
        ({"turns": []}, r"turns=\[\]"),
        ({"turns": None}, "turns=None"),
        ({"turns": ["hello"]}, r"turns\[0\]='hello'"),
        ({"turns": [TURN | {"role": "narrator"}]}, "role='narrator'.*user, assistant, system, tool"),
        ({"turns": [TURN | {"content": " \n"}]}, r"turns\[0\]\.content"),
        ({"turns": [TURN | {"content": ["text"]}]}, r"turns\[0\]\.content"),
        ({"turns": [TURN | {"time": "today"}]}, r"turns\[0\]\.time='today'"),
        ({"session_time": 1714555800}, "session_time=1714555800"),
    ],
)
def test_refuses_and_names_the_field(changes, message):
    with pytest.raises(InvalidSession, match=message):
        check_session(row(**changes))


@pytest.mark.parametrize("field", ["user_id", "session_id", "conversation_id"])
def test_refuses_ids_that_have_no_utf8(field):
    """A lone surrogate in an id passed the check and then stopped the Parquet writer."""
    with pytest.raises(InvalidSession, match=f"{field}: lone surrogate at 1"):
        check_session(row(**{field: "a\ud800"}))


# --- one odd part ---------------------------------------------------------------------------------------

ODD_PARTS = {
    "null turn": (None, {"role": "tool", "content": EMPTY}, "empty_turn"),
    "text for a turn": ("hello", {"role": "tool", "content": "hello"}, "unknown_role"),
    "blank text": (TURN | {"content": " \n"}, {"content": EMPTY}, "empty_turn"),
    "no text": ({"role": "user"}, {"content": EMPTY}, "empty_turn"),
    "number for text": (TURN | {"content": 7}, {"content": EMPTY}, "empty_turn"),
    "unknown role": (TURN | {"role": "moderator"}, {"role": "tool", "speaker": "moderator"}, "unknown_role"),
    "no role": (TURN | {"role": None}, {"role": "tool"}, "unknown_role"),
    "speaker": (TURN | {"speaker": 7}, {}, "odd_speaker"),
    "surrogate": (TURN | {"content": "ok \ud83d"}, {"content": "ok \ufffd"}, "broken_text"),
    "surrogate amid": (TURN | {"content": "a\udc00b"}, {"content": "a\ufffdb"}, "broken_text"),
    "high before a letter": (TURN | {"content": "a\ud83db"}, {"content": "a\ufffdb"}, "broken_text"),
    "split pair": (TURN | {"content": "ok \ud83d\ude00"}, {"content": "ok \U0001f600"}, "broken_text"),
    "speaker's surrogate": (TURN | {"speaker": "A\ud800"}, {"speaker": "A\ufffd"}, "broken_text"),
    "year 9999": (TURN | {"time": dt.datetime(9999, 12, 31)}, {}, "unknown_time"),
    "year 1970": (TURN | {"time": dt.datetime(1970, 1, 1, tzinfo=dt.UTC)}, {}, "unknown_time"),
}


@pytest.mark.parametrize(("odd", "changes", "kind"), ODD_PARTS.values(), ids=ODD_PARTS)
def test_one_odd_turn_is_mended_in_its_place_and_noted(odd, changes, kind):
    whole = TURN | {"speaker": None, "time": None}
    given = row(turns=[TURN, odd, TURN])
    mended, (note,) = mend_session(given)
    assert mended["turns"] == [whole, whole | changes, whole]
    assert note.kind == kind
    assert note.reason.startswith("turns[1]")
    assert check_session(mended) == mended


def test_a_turn_over_the_limit_is_cut_at_a_word_and_marked():
    given = row(turns=[TURN | {"content": "word " * (MAX_TURN_CHARS // 5) + "password=hunter2"}])
    mended, (note,) = mend_session(given)
    content = mended["turns"][0]["content"]
    assert content.endswith(" word\n[cut: the first part of 1000016 characters]")
    assert MAX_TURN_CHARS - 100 < len(content) <= MAX_TURN_CHARS
    assert note.kind == "cut_turn"
    assert check_session(mended) == mended


def test_a_turn_of_one_word_over_the_limit_is_cut_at_the_limit():
    mended, _ = mend_session(row(turns=[TURN | {"content": "a" * (MAX_TURN_CHARS + 1)}]))
    assert len(mended["turns"][0]["content"]) == MAX_TURN_CHARS
    assert check_session(mended) == mended


# --- times ----------------------------------------------------------------------------------------------


def test_a_session_without_a_time_takes_that_of_its_first_turn_that_has_one():
    first, second = (dt.datetime(2024, 5, day, tzinfo=dt.UTC) for day in (1, 2))
    turns = [TURN, TURN | {"time": dt.datetime(9999, 1, 1)}, TURN | {"time": first}, TURN | {"time": second}]
    assert check_session(row(turns=turns))["session_time"] == first
    assert check_session(row(turns=turns, session_time=second))["session_time"] == second


def test_a_time_that_nobody_can_have_chatted_at_is_unknown():
    now = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    last = now + dt.timedelta(days=1)
    for time, is_known in {
        dt.datetime(1990, 1, 1): True,
        dt.datetime(1989, 12, 31, 23, 59): False,
        last: True,
        last + dt.timedelta(seconds=1): False,
        dt.datetime(9999, 12, 31): False,
        dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14))): False,
    }.items():
        mended, notes = mend_session(row(session_time=time), now)
        assert (mended["session_time"] is not None, len(notes)) == (is_known, not is_known)


@pytest.mark.parametrize("changes", [{"user_id": deep_list()}, {"turns": [{"role": deep_list()}]}])
def test_refuses_what_is_too_deep_to_show(changes):
    with pytest.raises(InvalidSession, match="nested too deeply"):
        check_session(row(**changes))


def test_messages_stay_short():
    with pytest.raises(InvalidSession) as error:
        check_session(row(conversation_id=["x" * 10_000]))
    assert len(str(error.value)) < 200
