"""Hits as a search gives them."""

import datetime as dt

TURN = {
    "kind": "turn",
    "score": 0.5,
    "session_id": "s1",
    "turn_index": 3,
    "session_time": dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
    "role": "assistant",
    "content": "I got\na dog.",
}

RECORD = {
    "kind": "record",
    "score": 0.25,
    "memory_type": "fact",
    "semantic_text": "User has a dog.",
    "session_time": None,
    "evidence": [{"session_id": "s1", "turn_index": 0}],
}
