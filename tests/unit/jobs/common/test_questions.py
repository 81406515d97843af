"""Questions of the evaluation: their evidence is named as jobs.ingest names sessions and turns."""

import datetime as dt
import gzip
import json

import pytest

from jobs.common.cli import UsageError
from jobs.common.input_items import Rejection
from jobs.common.questions import read_questions
from jobs.ingest import read_file
from jobs.ingest.files import find_files


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


def archived(path, format, user_id=None):
    """(user, session, turn index) -> content, as jobs.ingest reads the file."""
    (file,) = find_files([path], format)
    found = [found for found in read_file(file, format, user_id) if not isinstance(found, Rejection)]
    return {
        (row["user_id"], row["session_id"], index): turn["content"]
        for _, _, row, _ in found
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


def test_a_date_without_a_session_is_no_day_of_a_dialogue(tmp_path):
    item = locomo()
    item["conversation"]["session_2_date_time"] = "12:19 am on 4 January, 2024"
    (question,) = read_questions(write(tmp_path / "locomo.json", item))
    assert question.asked_on == dt.date(2023, 5, 8)


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


# --- BEAM and REALTALK ----------------------------------------------------------------------------------


def realtalk():
    """Turns are numbered over the whole chat, not in each session; one has no words."""
    return {
        "name": {"speaker_1": "Ann", "speaker_2": "Bob"},
        "session_1": [
            {"speaker": "Ann", "dia_id": "D1:1", "clean_text": " ", "date_time": "03.02.2024, 10:00:00"},
            {"speaker": "Bob", "dia_id": "D1:2", "clean_text": "I have a boat.", "img_file": ["x.jpg"]},
        ],
        "session_1_date_time": "03.02.2024, 10:00:00",
        "session_2": [
            {"speaker": "Bob", "dia_id": "D1:3", "clean_text": "She is red.", "blip_caption": "a boat"},
            {"speaker": "Ann", "dia_id": "D1:4", "clean_text": "Nice!"},
        ],
        "session_2_date_time": "13.02.2024, 11:30:00",
        "events_session_1": {},
        "qa": [
            {"question": "What has Bob?", "answer": "a boat", "evidence": ["D1:2-D1:3"], "category": 1},
            {"question": "Who won?", "answer": "nobody", "evidence": ["D9:9"], "category": 2},
        ],
    }


def test_realtalk_evidence_is_where_ingest_puts_it(tmp_path):
    path = write(tmp_path / "chat.json", realtalk())
    (question,) = read_questions(path)
    turns = archived(path, "realtalk")
    assert sorted(turns["Ann-Bob", *key] for key in question.evidence) == [
        "I have a boat.",
        "She is red. [image: a boat]",
    ]
    assert (question.user_id, question.question_type) == ("Ann-Bob", "multi-hop")


def test_a_question_about_a_dialogue_is_asked_on_its_last_day(tmp_path):
    (question,) = read_questions(write(tmp_path / "chat.json", realtalk()))
    assert question.asked_on == dt.date(2024, 2, 13)


def beam(folder):
    """A conversation in two batches, as it lies in its folder; one turn has no words but the plan's mark."""

    def said(number, content, **more):
        return {"id": number, "role": "user" if number % 2 == 0 else "assistant", "content": content, **more}

    batches = [
        {
            "batch_number": 1,
            "time_anchor": None,
            "turns": [
                [said(0, " ->-> 1,1", time_anchor="March-05-2024"), said(1, "Hello!")],
                [said(2, "My rent is 700. ->-> 1,2"), said(3, "Noted.")],
            ],
        },
        {"batch_number": 2, "turns": [[said(4, "My rent is 750 now. ->-> 2,1"), said(5, "That is more.")]]},
    ]
    changed = {"question": "What is my rent?", "answer": "750"}
    changed |= {"source_chat_ids": {"original_info": [2], "updated_info": [4]}}
    asked = {
        "abstention": [{"question": "Who is my boss?", "ideal_response": "unknown"}],
        "knowledge_update": [changed],
        "event_ordering": [{"question": "In which order?", "answer": "1, 2", "source_chat_ids": [3, [2, 4]]}],
    }
    (folder / "probing_questions").mkdir(parents=True)
    (folder / "chat.json").write_text(json.dumps(batches))
    return write(folder / "probing_questions" / "probing_questions.json", asked)


def test_beam_evidence_is_where_ingest_puts_it(tmp_path):
    changed, ordered = read_questions(beam(tmp_path / "7"))
    turns = {
        tuple(key): text
        for (_, *key), text in archived(str(tmp_path / "7" / "chat.json"), "beam", "7").items()
    }
    assert {turns[key] for key in changed.evidence} == {"My rent is 700.", "My rent is 750 now."}
    assert {turns[key] for key in changed.outdated} == {"My rent is 700."}
    assert {turns[key] for key in ordered.evidence} == {"Noted.", "My rent is 700.", "My rent is 750 now."}
    assert (changed.user_id, changed.question_type, changed.answer) == ("7", "knowledge_update", "750")
    assert changed.asked_on == dt.date(2024, 3, 5)


def test_questions_of_beam_without_their_conversation_are_refused(tmp_path):
    path = beam(tmp_path / "7")
    (tmp_path / "7" / "chat.json").unlink()
    with pytest.raises(UsageError, match=r"chat\.json: no such file"):
        read_questions(path)


def test_questions_of_people_say_when_they_are_asked_and_what_day_they_ask_about(tmp_path):
    asked = {"question_id": "q", "user_id": "u", "question": "?", "answer": "Rome", "question_type": "before"}
    asked |= {"evidence": [{"session_id": "s2", "turn_index": 0}], "at": "2026-03-01", "stale": ["Oslo"]}
    asked |= {"question_date": "2026-05-01T12:00:00+00:00"}
    (question,) = read_questions(write(tmp_path / "questions.jsonl", asked))
    assert (question.asked_on, question.at) == (dt.date(2026, 5, 1), dt.date(2026, 3, 1))
    assert question.stale == ("Oslo",)
    assert read_questions(write(tmp_path / "l.jsonl", longmemeval()))[0].asked_on == dt.date(2024, 1, 1)
