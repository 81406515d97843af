"""What a hit looks like to a person."""

import datetime as dt

import pytest

from jobs.query import line

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
