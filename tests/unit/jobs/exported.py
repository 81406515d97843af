"""Items of every format that is ingested, and what becomes of them."""

import datetime as dt
import json

from hypothesis import strategies as st

from jobs.common.input_items import Rejection
from jobs.ingest import read_file
from jobs.ingest.files import find_files


def read(tmp_path, format, items, user_id=None, name="input.jsonl"):
    """Rows and rejections of `items` written as JSON lines."""
    path = tmp_path / name
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    (file,) = find_files([str(path)], format)
    found = list(read_file(file, format, user_id))
    return (
        [item[2] for item in found if not isinstance(item, Rejection)],
        [item for item in found if isinstance(item, Rejection)],
    )


def utc(*parts):
    return dt.datetime(*parts, tzinfo=dt.UTC)


def said(row):
    return [(turn["role"], turn["content"]) for turn in row["turns"]]


def message_item(**changes):
    messages = [{"role": "user", "content": "Tea, please."}, {"role": "assistant", "content": "Green?"}]
    return {"user_id": "u1", "session_id": "s1", "session_time": None, "messages": messages} | changes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


FIELDS = {
    "messages": ["user_id", "session_id", "session_time", "messages"],
    "sharegpt": ["id", "conversations"],
    "chatgpt-export": ["id", "create_time", "current_node", "mapping"],
    "longmemeval": ["question_id", "haystack_session_ids", "haystack_dates", "haystack_sessions"],
    "locomo": ["sample_id", "conversation"],
    "beam": ["batch_number", "turns", "time_anchor"],
    "realtalk": ["name", "session_1", "session_1_date_time"],
}


def node(parent, role=None, text=None, **message):
    if role is not None:
        content = {"content_type": "text", "parts": [text]} if isinstance(text, str) else text
        message = {"author": {"role": role}, "content": content} | message
    return {"parent": parent, "message": message or None, "children": []}


def conversation(mapping, current_node, **changes):
    return {
        "title": "Tea",
        "create_time": 1714554000.5,
        "mapping": mapping,
        "current_node": current_node,
        "conversation_id": "c1",
    } | changes


def question(**changes):
    return {
        "question_id": "q1",
        "question_type": "single-session-user",
        "question": "Which tea?",
        "answer": "Green",
        "question_date": "2023/06/01 (Thu) 10:00",
        "haystack_session_ids": ["late", "early"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/19 (Fri) 23:59"],
        "haystack_sessions": [
            [{"role": "user", "content": "Green tea!", "has_answer": True}],
            [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        ],
        "answer_session_ids": ["late"],
    } | changes


def sample(**changes):
    turns = [
        {"speaker": "Ana", "dia_id": "D1:1", "text": "Look, my garden."},
        {"speaker": "Ben", "dia_id": "D1:2", "text": "Lovely!", "blip_caption": "a photo of roses"},
        {"speaker": "Ana", "dia_id": "D1:3", "text": "", "blip_caption": "a photo of a gate"},
    ]
    talk = {
        "speaker_a": "Ana",
        "speaker_b": "Ben",
        "session_10_date_time": "12:05 am on 2 January, 2024",
        "session_10": [{"speaker": "Ben", "dia_id": "D10:1", "text": "Happy new year"}],
        "session_2_date_time": "1:56 pm on 8 May, 2023",
        "session_2": turns,
        "session_11_date_time": "1:00 pm on 9 May, 2024",
    }
    return {"sample_id": "conv-1", "conversation": talk | changes, "qa": []}
