"""check_session: what becomes an archive row, and what is refused with which words."""

import datetime as dt

import pyarrow as pa
import pytest

from schemas.archive import ARCHIVE_SCHEMA, MAX_TURN_CHARS, InvalidSession, check_session

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
        ({"turns": [TURN, TURN | {"content": " \n"}]}, r"turns\[1\]\.content"),
        ({"turns": [TURN | {"content": ["text"]}]}, r"turns\[0\]\.content"),
        ({"turns": [TURN | {"content": "a" * (MAX_TURN_CHARS + 1)}]}, "1000001 characters"),
        ({"turns": [TURN | {"speaker": 7}]}, r"turns\[0\]\.speaker=7"),
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


@pytest.mark.parametrize("field", ["content", "speaker"])
def test_refuses_turns_that_have_no_utf8(field):
    with pytest.raises(InvalidSession, match=rf"turns\[0\]\.{field}: lone surrogate"):
        check_session(row(turns=[TURN | {field: "a\udc00"}]))


def test_refuses_a_time_that_leaves_the_calendar_in_utc():
    """The first hour of year 1 east of Greenwich lies before it in UTC; it raised OverflowError."""
    zone = dt.timezone(dt.timedelta(hours=14))
    with pytest.raises(InvalidSession, match="session_time=0001-01-01"):
        check_session(row(session_time=dt.datetime(1, 1, 1, tzinfo=zone)))


@pytest.mark.parametrize("changes", [{"user_id": deep_list()}, {"turns": [{"role": deep_list()}]}])
def test_refuses_what_is_too_deep_to_show(changes):
    with pytest.raises(InvalidSession, match="nested too deeply"):
        check_session(row(**changes))


def test_messages_stay_short():
    with pytest.raises(InvalidSession) as error:
        check_session(row(conversation_id=["x" * 10_000]))
    assert len(str(error.value)) < 200
