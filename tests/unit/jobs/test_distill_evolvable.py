"""Questions with marked evidence become samples that jobs.train takes."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.evolvable.tokens import exchanges_of
from cluster.train.evolvable_samples import histories_of, read_rows
from jobs.common.cli import UsageError
from jobs.distill import evolvable
from jobs.distill.__main__ import run
from jobs.distill.config import EvolvableSetConfig
from jobs.distill.leaks import read_leaks
from jobs.ingest import IngestConfig
from jobs.ingest import run as ingest
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
        "answer_session_ids": [f"b{number}"],
        "haystack_dates": ["2023/05/20 (Sat) 10:00", "2023/05/09 (Tue) 02:21"],
        "haystack_session_ids": [f"b{number}", f"a{number}"],
        "haystack_sessions": sessions,
    }


def write_questions(path, *questions: dict) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in questions))
    return str(path)


def archive_of(*paths: str, format: str = "longmemeval") -> str:
    """What the questions of these files are asked of."""
    archive = str(Path(paths[0]).parent / "archive")
    ingest(IngestConfig(format=format, input=list(paths), archive=archive))
    return archive


def made(tmp_path, *questions: dict, format: str = "longmemeval", **settings) -> dict[str, list[dict]]:
    path = write_questions(tmp_path / "questions.jsonl", *questions)
    paths = [path, settings["validation_questions"]] if "validation_questions" in settings else [path]
    archive = archive_of(*paths, format=format)
    config = EvolvableSetConfig(output="out", archive=archive, questions=path, **settings)
    found = evolvable.candidates(config, read_leaks(config.leak_check, None))
    return evolvable.parts_of(found) | {"rejected": found.rejected}


def test_the_set_is_what_training_reads(tmp_path):
    questions = write_questions(tmp_path / "train.jsonl", *(question(n) for n in range(6)))
    held_back = write_questions(tmp_path / "held.jsonl", question(7))
    output = tmp_path / "set"
    summary = run(
        EvolvableSetConfig(
            output=str(output),
            archive=archive_of(questions, held_back),
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


def sample(name: str, num_sessions: int = 3, num_turns: int = 8) -> dict:
    """A dialogue of LoCoMo's form, with a question about each session."""
    conversation: dict = {"speaker_a": "Ann", "speaker_b": "Bob"}
    asked = []
    for session in range(1, num_sessions + 1):
        conversation[f"session_{session}"] = [
            {
                "speaker": "Bob" if number % 2 else "Ann",
                "dia_id": f"D{session}:{number + 1}",
                "text": f"{name} {session} {number}",
            }
            for number in range(num_turns)
        ]
        conversation[f"session_{session}_date_time"] = f"1:56 pm on {session} May, 2023"
        question = {"question": f"What of {name} {session}?", "answer": session, "category": 1}
        asked.append(question | {"evidence": [f"D{session}:{num_turns}"]})
    return {"sample_id": name, "conversation": conversation, "qa": asked}


def test_questions_to_one_dialogue_share_it_and_no_other(tmp_path):
    """Sessions have the same names in every dialogue of LoCoMo."""
    parts = made(
        tmp_path,
        sample("x"),
        sample("y"),
        format="locomo",
        conversation_questions=2,
        max_turns=10,
        validation_fraction=0,
    )
    histories, _ = histories_of(parts["train"], "train")
    assert [len(history.questions) for history in histories] == [2, 1, 2, 1]
    for history, name in zip(histories, "xxyy", strict=True):
        assert len(history.documents) == 10
        assert all(f"Ann: {name}" in text and f"Bob: {name}" in text for text in history.documents)
        for asked in history.questions:
            (number,) = asked.evidence
            assert history.documents[number].endswith(f"Bob: {name} {asked.exchange.assistant} 7")


def test_what_was_said_before_evidence_stays_with_it(tmp_path):
    settings = {"max_turns": 5, "validation_fraction": 0, "format": "locomo"}
    alone = made(tmp_path / "a", sample("x"), **settings)["train"]
    parts = made(tmp_path / "b", sample("x"), context_turns=2, **settings)["train"]
    kept = [[text[13:16] for text in one["meta"]["turns"][:-1]] for one in parts]
    for numbers, one in zip(kept, parts, strict=True):
        assert len(numbers) == 5
        place = numbers.index(f"{one['completion']} 6")
        assert numbers[place - 2 : place] == [f"{one['completion']} {before}" for before in (2, 4)]
    assert kept != [[text[13:16] for text in one["meta"]["turns"][:-1]] for one in alone]


def test_secrets_are_not_learned(tmp_path):
    (asked := question(1))["haystack_sessions"][0][6]["content"] = "my password is " + "hunter" + "2!"
    (row,) = made(tmp_path, asked, validation_fraction=0)["train"]
    assert "hunter" not in json.dumps(row["messages"] + row["meta"]["turns"])


def test_a_leak_is_found_in_a_turn_with_a_secret(tmp_path):
    """Evaluation sets are compared with what was said, not with what is left of it."""
    (asked := question(1))["haystack_sessions"][0][6]["content"] = (
        "the router in the hall is new and my password is " + "hunter" + "2!"
    )
    alone = question(9) | {"haystack_sessions": [[asked["haystack_sessions"][0][6]], []]}
    evaluation = write_questions(tmp_path / "evaluation.jsonl", alone)
    parts = made(tmp_path, asked, question(2), leak_check=(evaluation,), validation_fraction=0)
    assert [(row["source_id"], row["reason"]) for row in parts["rejected"]] == [("q1", "leaked_turn_text")]


def test_another_file_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"--questions .*item 1 is none of a known format"):
        made(tmp_path, {"question": "?"})


def test_questions_to_users_without_sessions_are_refused(tmp_path):
    archive = archive_of(write_questions(tmp_path / "one.jsonl", question(1)))
    other = write_questions(tmp_path / "other.jsonl", question(1), question(2))
    config = EvolvableSetConfig(output="out", archive=archive, questions=other)
    with pytest.raises(UsageError, match=r"--questions .*no sessions of 1 of its users \(q2\)"):
        evolvable.candidates(config, read_leaks((), None))
