"""Times in the shapes in which exports have them: what is read, and what counts as unknown."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ingest.times import first_time, read_time
from schemas.archive import is_plausible
from tests.unit.jobs.exported import conversation, message_item, node, read, utc

MAY = utc(2023, 5, 20, 2, 21)
NOW = utc(2026, 6, 1)

READ = [
    "2023-05-20T02:21:00Z",
    "2023-05-20T04:21:00.000+02:00",
    "2023-05-20 02:21",
    "2023-05-20 02:21:00 UTC",
    "2023-05-20 02:21:00.000 UTC",
    "2023-05-20 02:21:00 +0000 UTC",
    "2023-05-20 04:21:00 +0200",
    "2023/05/20 (Sat) 02:21",
    "2023/5/20 02:21:00",
    "Sat, 20 May 2023 02:21:00 GMT",
    "Sat, 20 May 2023 04:21:00 +0200",
    "20 May 2023 02:21:00 -0000",
    "Sat May 20 02:21:00 2023",
    "Sat May 20 2023 02:21:00 GMT+0000 (Coordinated Universal Time)",
    "2:21 am on 20 May, 2023",
    "May 20, 2023, 2:21 AM",
    "May 19, 2023 10:21 PM EDT",
    "20230520T022100Z",
    "20230520022100",
    1684549260,
    1684549260.0,
    1684549260000,
    1684549260000000,
    1684549260000000000,
    "1684549260",
    " 1684549260.0 ",
    "1.68454926e9",
    "1684549260000",
    "1684549260000000",
    {"$date": "2023-05-20T02:21:00Z"},
    {"$date": 1684549260000},
    {"$date": {"$numberLong": "1684549260000"}},
]


@pytest.mark.parametrize("value", READ, ids=str)
def test_a_time_is_read_in_every_shape(value):
    assert read_time(value) == MAY


@pytest.mark.parametrize("value", ["2023-05-20", "20230520", "20 May 2023", "2023/05/20", "05/20/2023"])
def test_a_day_without_an_hour_is_its_midnight(value):
    assert read_time(value) == utc(2023, 5, 20)


def test_milliseconds_as_a_string_are_not_a_date_of_the_year_1709():
    assert read_time("1709120212345") == utc(2024, 2, 28, 11, 36, 52, 345_000)


UNREADABLE = [
    *("yesterday", "noon", "10:30", "May 2023", "May", "20 May", "03/04/2023", "10/11/12", "2023-13-40"),
    *("1:56 pm on 31 June, 2023", "x" * 1000, "1" * 60, "1e400", "nan", float("nan"), float("inf"), 1e300),
    *(True, [], {}, {"$date": "soon"}, {"seconds": 5, "nanos": 1}, "²", "١٢٣"),
]


@pytest.mark.parametrize("value", UNREADABLE, ids=lambda value: repr(value)[:20])
def test_what_names_no_day_or_two_is_no_time(value):
    time, problem = first_time({"time": value}, ("time",), NOW)
    assert time is None
    assert problem.startswith("time=")


@pytest.mark.parametrize("value", [None, "", "  "])
def test_nothing_is_no_time_and_no_problem(value):
    assert first_time({"time": value}, ("time",), NOW) == (None, "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("$date"), inner, max_size=1),
    max_leaves=3,
)
DATE_LIKE = st.lists(
    st.sampled_from(
        [
            *"0123456789:/-., ",
            "2023",
            "May",
            "Sat",
            "pm",
            "T",
            "Z",
            "UTC",
            "GMT+3",
            "+",
            "(",
            ")",
            "noon",
            "e9",
        ]
    ),
    max_size=12,
).map("".join)


@given(value=JSON | DATE_LIKE)
def test_any_value_is_a_plausible_time_or_unknown(value):
    time, problem = first_time({"time": value}, ("time",), NOW)
    assert is_plausible(time, NOW) and time.utcoffset() == dt.timedelta(0) if time else len(problem) < 300


@given(time=st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2026, 6, 1)), unit=st.sampled_from([1, 1000]))
def test_the_unit_of_a_number_follows_from_its_size(time, unit):
    time = time.replace(microsecond=0, tzinfo=dt.UTC)
    assert read_time(int(time.timestamp()) * unit) == time
    assert read_time(str(int(time.timestamp()) * unit)) == time


# --- in sessions ------------------------------------------------------------------------------------


def times(row):
    return [row["session_time"], *(turn["time"] for turn in row["turns"])]


@pytest.mark.parametrize("name", ["created_at", "timestamp", "create_time", "createdAt", "time", "date"])
def test_a_session_s_time_stands_under_other_names_too(tmp_path, name):
    item = message_item(**{name: "2023-05-20T02:21:00Z"})
    (row,), notes = read(tmp_path, "messages", [item])
    assert (row["session_time"], notes) == (MAY, [])


@pytest.mark.parametrize("name", ["time", "timestamp", "created_at", "create_time", "ts"])
def test_a_message_s_time_stands_under_other_names_too(tmp_path, name):
    messages = [{"role": "user", "content": "Hi."}, {"role": "user", "content": "x", name: 1684549260}]
    (row,), notes = read(tmp_path, "messages", [message_item(messages=messages)])
    assert (times(row), notes) == ([MAY, None, MAY], [])


def test_a_session_without_a_time_takes_that_of_its_first_message_that_has_one(tmp_path):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "I live in Graz.", "time": "2023-05-20T02:21:00Z"},
        {"role": "assistant", "content": "Nice.", "time": "2023-05-20T02:22:00Z"},
    ]
    (row,), notes = read(tmp_path, "messages", [message_item(messages=messages)])
    assert (row["session_time"], notes) == (MAY, [])


def test_a_chatgpt_conversation_without_create_time_takes_its_first_message_s(tmp_path):
    mapping = {"r": node(None), "a": node("r", "user", "I moved.", create_time=1684549260.0)}
    item = conversation(mapping, "a", create_time=None, update_time=1784549260.0)
    (row,), notes = read(tmp_path, "chatgpt-export", [item], user_id="me")
    assert (row["session_time"], notes) == (MAY, [])


@pytest.mark.parametrize("value", ["9999-12-31T00:00:00Z", "1970-01-01T00:00:00Z", 0, "soon", "03/04/2023"])
def test_an_unusable_time_is_unknown_and_noted_and_the_session_is_kept(tmp_path, value):
    (row,), (note,) = read(tmp_path, "messages", [message_item(session_time=value)])
    assert row["session_time"] is None
    assert (note.kind, note.noted) == ("note", "unknown_time")
    assert f"session_id='s1', session_time={value!r}" in note.reason
    assert "it counts as unknown; its session is kept" in note.reason


def test_an_unusable_time_gives_way_to_one_that_is_usable(tmp_path):
    item = message_item(session_time="9999-12-31T00:00:00Z", created_at="2023-05-20T02:21:00Z")
    other = message_item(session_id="s2", session_time="9999-12-31T00:00:00Z")
    other["messages"][1]["time"] = 1684549260
    rows, (note,) = read(tmp_path, "messages", [item, other])
    assert [row["session_time"] for row in rows] == [MAY, MAY]
    assert "session_id='s2'" in note.reason


def test_a_time_is_ahead_of_now_by_a_day_at_most(tmp_path):
    now = dt.datetime.now(dt.UTC)
    items = [
        message_item(session_id=name, session_time=(now + dt.timedelta(hours=hours)).isoformat())
        for name, hours in (("zone", 14), ("broken", 25))
    ]
    rows, notes = read(tmp_path, "messages", items)
    assert [row["session_time"] is None for row in rows] == [False, True]
    assert len(notes) == 1
