"""Questions of the evaluation: their evidence is named as jobs.ingest names sessions and turns."""

import gzip
import json

import pytest

from jobs.cli import UsageError
from jobs.ingest import read_file
from jobs.ingest.files import find_files
from jobs.items import Rejection
from jobs.questions import read_questions


def turn(content, role="user", **more):
    return {"role": role, "content": content, **more}


def longmemeval(**changes):
    """Dates out of order, one session id twice, an empty turn, turns without has_answer."""
    return {
        "question_id": "q1",
        "question_type": "knowledge-update",
        "question": "Where do I live?",
        "answer": "Rome",
        "question_date": "2024/01/01 (Mon) 10:00",
        "answer_session_ids": ["b", "a"],
        "haystack_session_ids": ["b", "a", "x", "x"],
        "haystack_dates": [
            "2023/05/20 (Sat) 02:21",
            "2023/05/02 (Tue) 02:21",
            "2023/05/03 (Wed) 00:10",
            "2023/05/01 (Mon) 00:10",
        ],
        "haystack_sessions": [
            [turn("hello"), turn("I moved to Rome.", has_answer=True)],
            [turn(" "), turn("ok", "assistant", has_answer=False), turn("I live in Oslo.", has_answer=True)],
            [turn("what?", has_answer=True)],
            [turn("first")],
        ],
    } | changes


def locomo():
    return {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Bob",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": ""},
                {"speaker": "Ann", "dia_id": "D1:2", "text": "I got a dog."},
                {"speaker": "Bob", "dia_id": "D1:3", "text": "", "blip_caption": "a dog"},
            ],
            "session_1_date_time": "1:56 pm on 8 May, 2023",
        },
        "qa": [
            {"question": "What did Ann get?", "answer": 1, "evidence": ["D1:2; D1:3", "D9:9"], "category": 1},
            {"question": "Never said?", "adversarial_answer": "x", "evidence": ["D1:2"], "category": 5},
        ],
    }


def write(path, *items):
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return str(path)


def archived(path, format):
    """(user, session, turn index) -> content, as jobs.ingest reads the file."""
    (file,) = find_files([path], format)
    found = [found for found in read_file(file, format, None) if not isinstance(found, Rejection)]
    return {
        (row["user_id"], row["session_id"], index): turn["content"]
        for _, _, row in found
        for index, turn in enumerate(row["turns"])
    }


def test_longmemeval_evidence_is_where_ingest_puts_it(tmp_path):
    path = write(tmp_path / "q.jsonl", longmemeval())
    (question,) = read_questions(path)
    turns = archived(path, "longmemeval")
    said = {turns[question.user_id, *key] for key in question.evidence}
    assert said == {"I moved to Rome.", "I live in Oslo.", "what?"}
    assert question.sessions == {"a", "b"}


def test_the_latest_session_with_evidence_states_the_current_value(tmp_path):
    path = write(tmp_path / "q.jsonl", longmemeval())
    (question,) = read_questions(path)
    turns = archived(path, "longmemeval")
    assert {turns["q1", *key] for key in question.outdated} == {"I live in Oslo.", "what?"}
    (other,) = read_questions(write(tmp_path / "o.jsonl", longmemeval(question_type="multi-session")))
    assert other.outdated == frozenset()


def test_locomo_evidence_is_where_ingest_puts_it(tmp_path):
    path = write(tmp_path / "locomo.json", locomo())
    (question,) = read_questions(path)
    turns = archived(path, "locomo")
    assert sorted(turns["conv-1", *key] for key in question.evidence) == ["I got a dog.", "[image: a dog]"]
    assert (question.question_type, question.answer) == ("multi-hop", "1")


def test_sample_questions_know_older_values_from_the_memories_beside_them(tmp_path):
    def memory(memory_id, session, status, value, key="city"):
        return {"memory_id": memory_id, "user_id": "u", "session_id": session, "evidence_turns": [0]} | {
            "fact_key": key,
            "status": status,
            "value": value,
        }

    write(
        tmp_path / "memories.jsonl",
        memory("1", "s1", "superseded", "Oslo"),
        memory("2", "s2", "current", "Rome"),
        memory("3", "s2", "current", "red", key="colour"),
        memory("4", "s0", "superseded", "blue", key="colour"),
    )
    asked = {"question_id": "q", "user_id": "u", "question": "?", "answer": "Rome"}
    asked |= {"question_type": "knowledge-update", "evidence": [{"session_id": "s2", "turn_index": 0}]}
    (question,) = read_questions(write(tmp_path / "questions.jsonl", asked))
    assert question.outdated == {("s1", 0)}


def test_arrays_lines_and_gzip_read_alike(tmp_path):
    item = longmemeval()
    lines = read_questions(write(tmp_path / "a.jsonl", item, item))
    array = tmp_path / "b.json"
    array.write_text(json.dumps([item, item], indent=1))
    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    assert read_questions(str(array)) == read_questions(str(packed)) == lines
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "questions"),
        ('{"a": 1}\n', "known format"),
        ('{"question_id": "q", "haystack_sessions": [], "question_type": "x"}\n', "longmemeval"),
        ("not json\n", "JSON"),
        ("[]", "holds no question"),
        ("[\n]\n", "holds no question"),
    ],
)
def test_what_is_no_question_file_is_refused(tmp_path, text, says):
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_questions(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        read_questions(str(tmp_path / "nowhere.jsonl"))
