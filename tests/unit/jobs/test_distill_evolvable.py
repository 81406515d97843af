"""Questions with marked evidence become samples that jobs.train takes."""

import json

import pyarrow.parquet as pq
import pytest

from cluster.evolvable.samples import histories_of, read_rows
from cluster.evolvable.tokens import exchanges_of
from jobs.cli import UsageError
from jobs.distill import evolvable
from jobs.distill.__main__ import run
from jobs.distill.config import DistillConfig
from jobs.distill.leaks import read_leaks
from schemas.training import EVOLVABLE_SCHEMA


def question(number: int, num_exchanges: int = 6, evidence: int = 3) -> dict:
    """Two sessions, the later one first; one exchange of the later one has the answer."""
    sessions = []
    for name in "ba":
        turns = []
        for index in range(num_exchanges):
            marked = name == "b" and index == evidence
            text = f"question {number} session {name} exchange {index}: it was place number {number}"
            turns.append({"role": "user", "content": text, "has_answer": marked})
            turns.append({"role": "assistant", "content": f"noted {index}"})
        sessions.append(turns)
    return {
        "question_id": f"q{number}",
        "question_type": "single-session-user",
        "question": f"Which place was it in {number}?",
        "answer": number,
        "haystack_dates": ["2023/05/20 (Sat) 10:00", "2023/05/09 (Tue) 02:21"],
        "haystack_session_ids": [f"b{number}", f"a{number}"],
        "haystack_sessions": sessions,
    }


def write_questions(path, *questions: dict) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in questions))
    return str(path)


def made(tmp_path, *questions: dict, **settings) -> dict[str, list[dict]]:
    path = write_questions(tmp_path / "questions.jsonl", *questions)
    config = DistillConfig(task="evolvable", output="out", questions=path, **settings)
    found = evolvable.candidates(config, read_leaks(config.leak_check, None))
    return evolvable.parts_of(found) | {"rejected": found.rejected}


def test_the_set_is_what_training_reads(tmp_path):
    questions = write_questions(tmp_path / "train.jsonl", *(question(n) for n in range(6)))
    held_back = write_questions(tmp_path / "held.jsonl", question(7))
    output = tmp_path / "set"
    summary = run(
        DistillConfig(
            task="evolvable",
            output=str(output),
            questions=questions,
            validation_questions=held_back,
            conversation_questions=3,
            max_turns=8,
            num_variants=2,
        )
    )
    assert (summary["num_train"], summary["num_validation"], summary["status"]) == (12, 1, "done")
    assert pq.read_schema(output / "train.parquet").equals(EVOLVABLE_SCHEMA)
    histories, left_out = histories_of(read_rows(output, "train"), "train")
    assert [len(history.questions) for history in histories] == [3, 3, 3, 3]
    assert not left_out
    for history in histories:
        assert len(history.exchanges) == len(history.documents) == 8
        for asked in history.questions:
            (number,) = asked.evidence
            place = asked.exchange.assistant
            assert f"session b exchange 3: it was place number {place}" in history.documents[number]
            assert asked.text == asked.exchange.user == f"Which place was it in {place}?"
    assert "single-session-user" in (output / "card.md").read_text()


def test_sessions_stand_in_time_order_and_nothing_is_cut_unasked(tmp_path):
    (sample,) = made(tmp_path, question(1), validation_fraction=0)["train"]
    turns = sample["meta"]["turns"]
    assert [turn[25:26] for turn in turns[:-1]] == ["a"] * 6 + ["b"] * 6
    assert sample["meta"]["evidence_turns"] == [9]
    assert turns[9].startswith("User: question 1 session b exchange 3") and turns[9].endswith("noted 3")
    assert [message["content"] for message in sample["messages"][-2:]] == ["Which place was it in 1?", "1"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda q: q["haystack_sessions"][0][6].update(has_answer=False), "no_evidence"),
        (lambda q: q.update(question=" "), "no_text"),
    ],
)
def test_questions_that_teach_nothing_are_rejected(tmp_path, change, reason):
    change(asked := question(1))
    parts = made(tmp_path, asked, question(2), validation_fraction=0)
    assert len(parts["train"]) == 1
    assert [(row["source_id"], row["reason"]) for row in parts["rejected"]] == [("q1", reason)]


def test_what_is_evidence_in_validation_or_an_evaluation_set_is_not_learned(tmp_path):
    shared, leaking = question(1), question(2)
    shared["haystack_session_ids"][0] = "b5"
    held_back = write_questions(tmp_path / "held.jsonl", question(5))
    evaluation = write_questions(tmp_path / "evaluation.jsonl", question(2))
    parts = made(
        tmp_path, shared, leaking, question(3), validation_questions=held_back, leak_check=(evaluation,)
    )
    assert [row["source_id"] for row in parts["train"]] == ["q3#0"]
    assert {(row["source_id"], row["reason"]) for row in parts["rejected"]} == {
        ("q1", "evidence_of_validation"),
        ("q2", "leaked_session_id"),
    }


def test_a_conversation_with_more_evidence_than_turns_is_rejected(tmp_path):
    several = question(1)
    for index in (0, 2, 4):
        several["haystack_sessions"][0][index]["has_answer"] = True
    parts = made(tmp_path, several, max_turns=3, validation_fraction=0)
    assert not parts["train"]
    assert [row["reason"] for row in parts["rejected"]] == ["too_much_evidence"]


def test_long_exchanges_become_turns_that_only_the_memory_joins(tmp_path):
    asked = question(1)
    told = asked["haystack_sessions"][0]
    told[6]["content"] = "I went to " + ", ".join(f"place {number}" for number in range(12)) + "."
    told[7]["content"] = "What a journey that was!"
    (sample,) = made(tmp_path, asked, part_tokens=32, max_parts=3, validation_fraction=0)["train"]
    *turns, _ = sample["meta"]["turns"]
    assert len(turns) == 14, "two more than exchanges"
    evidence = [turns[number] for number in sample["meta"]["evidence_turns"]]
    said = [text.removeprefix("User: ").removeprefix("Assistant: ") for text in evidence]
    assert " ".join(said) == f"{told[6]['content']} {told[7]['content']}"
    assert [text.split(":")[0] for text in evidence] == ["User", "User", "Assistant"]
    exchanges, _ = exchanges_of(sample["messages"][:-2])
    assert [exchange.text for exchange in exchanges] == turns, "the memory reads what is to be found"

    (shorter,) = made(tmp_path, asked, part_tokens=32, max_parts=2, validation_fraction=0)["train"]
    assert shorter["meta"]["turns"] == [*turns[:11], *turns[12:], asked["question"]]


def test_another_file_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"--questions .*item 1 is no question of LongMemEval"):
        made(tmp_path, {"question": "?"})
