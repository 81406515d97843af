"""The written corpus: whole, consistent, and split by people."""

import datetime as dt
import json
from collections import Counter

import pytest

from cluster.evaluate.memories import Found, denies, holds_keys, score
from jobs.common.cli import UsageError
from jobs.common.gold import as_found
from jobs.sample.__main__ import SampleConfig, run
from jobs.sample.written import CORPUS, SPLITS, read_people, read_segments
from schemas.archive import check_session
from schemas.record import MEMORY_TYPES

CORPUS_OF = {split: read_people((split,)) for split in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
def test_every_session_is_a_row_of_an_archive(split):
    for row in CORPUS_OF[split].sessions:
        assert check_session(row) == row


@pytest.mark.parametrize("split", SPLITS)
def test_every_memory_rests_on_turns_and_holds_its_own_keys(split):
    turns = {row["session_id"]: len(row["turns"]) for row in CORPUS_OF[split].sessions}
    for row in CORPUS_OF[split].memories:
        assert row["memory_type"] in MEMORY_TYPES
        assert row["evidence_turns"] and max(row["evidence_turns"]) < turns[row["session_id"]]
        assert row["keys"] and holds_keys(row["semantic_text"], row["keys"]), row["memory_id"]
        for day in row["temporal"].values():
            assert not day or dt.date.fromisoformat(day)


def test_gold_measured_against_itself_is_perfect():
    rows = [row for row in CORPUS_OF["tune"].memories if row["language"] == "en"]
    memories = [as_found(row) for row in rows]
    board = score(memories, memories)
    assert (board["recall"], board["precision"]) == (1.0, 1.0)
    assert board["num_negations_lost"] == board["num_numbers_lost"] == 0


def test_a_lost_negation_and_a_changed_number_are_counted():
    turn = frozenset({("s", 0)})
    memories = [
        Found(id="m1", user_id="u", text="User does not eat fish.", turns=turn, keys=(("fish",),)),
        Found(id="m2", user_id="u", text="User has 13 hens.", turns=turn, keys=(("13",), ("hens",))),
    ]
    records = [
        Found(id="r1", user_id="u", text="User eats fish.", turns=turn),
        Found(id="r2", user_id="u", text="User has 31 hens.", turns=turn),
        Found(id="r3", user_id="v", text="User has 13 hens.", turns=turn),
    ]
    board = score(records, memories)
    assert (board["negations_lost"], board["numbers_lost"]) == (["r1"], ["r2"])
    assert (board["recall"], board["precision"]) == (0.0, 0.0)


def test_no_person_stands_in_two_splits_and_the_splits_are_as_the_guide_says():
    people = {split: {row["user_id"] for row in found.sessions} for split, found in CORPUS_OF.items()}
    assert [len(people[split]) for split in SPLITS] == [20, 10, 10]
    assert not people["train"] & people["test"] | people["train"] & people["tune"]
    assert not people["tune"] & people["test"]
    assert sum(len(found.sessions) for found in CORPUS_OF.values()) >= 600
    assert sum(len(found.memories) for found in CORPUS_OF.values()) >= 2000
    assert sum(len(found.questions) for found in CORPUS_OF.values()) >= 500


def test_a_third_of_the_segments_has_nothing_to_remember():
    single = read_segments()
    told = {row["session_id"] for row in single.memories}
    assert 0.33 <= 1 - len(told) / len(single.sessions) <= 0.5


def test_questions_rest_on_turns_and_know_the_outdated_ones():
    turns = {row["session_id"]: len(row["turns"]) for row in CORPUS_OF["tune"].sessions}
    for row in CORPUS_OF["tune"].questions:
        assert bool(row["evidence"]) == (row["question_type"] != "never")
        assert all(
            turn["turn_index"] < turns[turn["session_id"]] for turn in row["evidence"] + row["outdated"]
        )
    kinds = Counter(row["question_type"] for row in CORPUS_OF["tune"].questions)
    assert {"current", "past", "order", "count", "family", "date", "assistant", "never"} <= kinds.keys()
    assert any(row["outdated"] for row in CORPUS_OF["tune"].questions)


def test_the_sample_of_a_language_has_only_its_people(tmp_path):
    run(SampleConfig(archive=tmp_path, people="train", language="zh"))
    rows = [json.loads(line) for line in (tmp_path / "_gold" / "memories.jsonl").read_text().splitlines()]
    assert len({row["user_id"] for row in rows}) == 3
    assert {row["language"] for row in rows} == {"zh"}


def test_statements_deny_by_their_words():
    assert all(
        map(denies, ["User never flies.", "User doesn't smoke.", "用户不吃鱼。", "Der Nutzer hat kein Auto."])
    )
    assert not any(map(denies, ["User flies often.", "User knows Nora.", "用户住在上海。"]))


def test_the_corpus_is_small_enough_to_travel():
    assert sum(path.stat().st_size for path in CORPUS.rglob("*.jsonl")) < 6 << 20


def test_only_those_who_are_named_are_written_and_a_name_that_nobody_has_is_told(tmp_path):
    summary = run(SampleConfig(archive=str(tmp_path / "a"), people="tune", persons=["otti-bristol"]))
    assert summary["num_users"] == 1
    with pytest.raises(UsageError, match="--persons nobody-nowhere: nobody of --people tune"):
        run(SampleConfig(archive=str(tmp_path / "b"), people="tune", persons=["nobody-nowhere"]))
