"""What a hit looks like to a person."""

import datetime as dt

import pytest

from jobs.cli import parse_config
from jobs.query import QueryConfig, line

TURN = {
    "kind": "turn",
    "score": 0.5,
    "session_id": "s1",
    "turn_index": 3,
    "session_time": dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
    "role": "assistant",
    "content": "I got\na dog.",
}


@pytest.mark.parametrize(("speaker", "shown"), [(None, "assistant"), ("Bob", "Bob")])
def test_a_turn_is_shown_with_who_said_it(speaker, shown):
    assert (
        line(TURN | {"speaker": speaker}) == f"0.5000  turn         {shown}: I got a dog.  [2026-03-01, s1#3]"
    )


def test_a_record_is_shown_with_its_evidence():
    record = {
        "kind": "record",
        "score": 0.25,
        "memory_type": "fact",
        "semantic_text": "User has a dog.",
        "session_time": None,
        "evidence": [{"session_id": "s1", "turn_index": 0}, {"session_id": "s1", "turn_index": 2}],
    }
    assert line(record) == "0.2500  fact         User has a dog.  [no date, from s1#0, s1#2]"


def test_a_record_that_something_has_replaced_is_shown_with_its_end():
    record = {
        "kind": "record",
        "score": 0.25,
        "memory_type": "fact",
        "semantic_text": "User lives in Oslo.",
        "session_time": dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
        "evidence": [{"session_id": "s1", "turn_index": 0}],
        "since": dt.date(2026, 3, 1),
        "until": dt.date(2026, 4, 2),
        "replaced_by": "r2",
    }
    assert line(record).endswith("[2026-03-01, until 2026-04-02, from s1#0]")


def test_days_are_given_as_dates(capsys):
    needed = ["--store", "s", "--user-id", "u", "--text", "?"]
    config = parse_config(QueryConfig, "A job.", [*needed, "--at", "2025-03-01"])
    assert (config.at, config.asked_on) == (dt.date(2025, 3, 1), None)
    with pytest.raises(SystemExit):
        parse_config(QueryConfig, "A job.", [*needed, "--at", "soon"])
    assert "at='soon'" in capsys.readouterr().err
