"""An encoder on trial: what counts as a failure, and what the scores by rule say."""

import datetime as dt

import pytest

from cluster.backfill.encoder import Encoding
from cluster.evaluate.trial import assess, timed, weighted
from schemas.profiles.encoder import EncoderProfile

PROFILE = EncoderProfile(name="x", base="x/y", system_prompt="x", user_template="{previous}{current}")
TOLD = "I live in Oslo with my cat Mimi."


def segment(*turns):
    return {
        "segment_id": "s",
        "session_time": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        "context": [],
        "current": [
            {"turn_index": 4 + index, "role": role, "speaker": None, "text": text}
            for index, (role, text) in enumerate(turns)
        ],
    }


def encoding(*texts, outcome="complete", rejections=(), turn=4):
    rows = [
        {
            "memory_type": "fact",
            "semantic_text": text,
            "entities": [],
            "tags": [],
            "temporal": {"t_ref": "2024-01-01", "t_valid_from": "", "t_valid_to": ""},
            "evidence_turns": [turn],
            "source_role": "user",
        }
        for text in texts
    ]
    return Encoding(outcome=outcome, records=rows, rejections=list(rejections))


def test_a_good_answer_has_scores_and_no_failure():
    row = assess(segment(("user", TOLD)), encoding("User lives in Oslo with a cat named Mimi."), PROFILE)
    assert (row.schema_ok, row.complete, row.failure) == (True, True, "")
    assert row.scores == {
        "atomicity": 5,
        "self_containedness": 5,
        "entity_coverage": 5,
        "evidence_alignment": 5,
    }
    assert weighted(row.scores) == 5
    assert row.cited == (4,)


def test_statements_are_counted_one_by_one():
    """Two in one message: a record of the first holds one of them, whatever turn it cites."""
    told = segment(("user", "I live in Oslo with my cat Mimi. By the way, I work as a nurse in Bergen."))
    row = assess(told, encoding("User lives in Oslo with their cat Mimi."), PROFILE)
    assert (row.num_statements, row.num_statements_held) == (2, 1)
    both = encoding("User lives in Oslo with their cat Mimi.", "User works as a nurse in Bergen.")
    assert assess(told, both, PROFILE).num_statements_held == 2
    asked = segment(("user", "What is a good bike lock?"))
    assert assess(asked, encoding("User likes bike locks."), PROFILE).num_statements == 0


@pytest.mark.parametrize(
    ("told", "made", "failure"),
    [
        (TOLD, encoding(), "missed"),
        ("What is a good bike lock?", encoding(), ""),
        (TOLD, encoding("He lives in Paris."), "refused"),
        (
            TOLD,
            encoding(outcome="rejected", rejections=[{"reason": "cut_answer", "turns": [4], "raw": "{"}]),
            "cut_answer",
        ),
    ],
)
def test_failures_have_a_class_and_no_scores(told, made, failure):
    row = assess(segment(("user", told)), made, PROFILE)
    assert (row.failure, row.scores) == (failure, None)
    assert row.schema_ok == (failure != "cut_answer")


@pytest.mark.parametrize(
    ("texts", "dimension"),
    [
        (("User lives in Oslo with a cat named Mimi and works as a nurse.",), "atomicity"),
        (("User lives in Oslo.", "She has a cat named Mimi."), "self_containedness"),
        (("User lives in Oslo.",), "entity_coverage"),
        (("User lives in Oslo.", "User lives in Bergen with Mimi."), "evidence_alignment"),
    ],
)
def test_each_score_falls_for_its_own_fault(texts, dimension):
    row = assess(segment(("user", TOLD)), encoding(*texts), PROFILE)
    assert row.scores[dimension] < 5
    assert row.scores[dimension] == min(row.scores.values())


def test_alone_times_each_segment_and_a_batch_once():
    batches = []

    def encode(segments):
        batches.append(len(segments))
        return [Encoding() for _ in segments]

    assert [len(found) for found in timed([{}, {}, {}], encode, alone=True)] == [3, 3]
    assert [len(found) for found in timed([{}, {}, {}], encode, alone=False)] == [3, 1]
    assert batches == [1, 1, 1, 3]
