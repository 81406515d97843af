"""The sample world: deterministic, a valid archive, and a gold that its own text bears out."""

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.common.cli import UsageError
from jobs.sample.__main__ import SampleConfig, run
from jobs.sample.phrases import PHRASES
from schemas.archive import ARCHIVE_SCHEMA, ROW_GROUP_SESSIONS, check_session
from schemas.record import MEMORY_TYPES, SOURCE_ROLES, RecordLimits, read_record

QUESTION_TYPES = {
    "single-session-user",
    "single-session-preference",
    "multi-session",
    "temporal-reasoning",
    "knowledge-update",
}


class Sample:
    """A written sample, read back."""

    def __init__(self, folder: Path, **settings):
        self.folder = folder
        self.summary = run(SampleConfig(archive=folder, **settings))
        self.rows = [
            row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
        ]
        self.sessions = {row["session_id"]: row for row in self.rows}
        gold = folder / "_gold"
        self.memories, self.questions, self.secrets = (
            [json.loads(line) for line in (gold / f"{name}.jsonl").read_text("utf-8").splitlines()]
            for name in ("memories", "questions", "secrets")
        )
        self.manifest = json.loads((gold / "world.json").read_text("utf-8"))
        self.by_id = {memory["memory_id"]: memory for memory in self.memories}

    def turn(self, session_id: str, index: int) -> dict:
        return self.sessions[session_id]["turns"][index]

    def evidence(self, memory: dict) -> list[dict]:
        return [self.turn(memory["session_id"], index) for index in memory["evidence_turns"]]

    def digests(self) -> dict[str, str]:
        """File name to SHA-256, of everything below the folder."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Sample:
    return Sample(tmp_path_factory.mktemp("sample"), num_users=12)


def test_same_seed_gives_the_same_bytes(sample, tmp_path):
    again = Sample(tmp_path / "again", num_users=12)
    assert again.digests() == sample.digests()
    assert sorted(sample.digests()) == [
        "_gold/memories.jsonl",
        "_gold/pairs.jsonl",
        "_gold/questions.jsonl",
        "_gold/secrets.jsonl",
        "_gold/world.json",
        "sample-00000.parquet",
    ]


def test_another_seed_gives_another_world(sample, tmp_path):
    other = Sample(tmp_path / "other", num_users=12, seed=8)
    same = set(other.digests().items()) & set(sample.digests().items())
    assert {name for name, _ in same} == {"_gold/pairs.jsonl"}


def test_a_generated_world_has_the_promised_size(sample):
    counts = sample.manifest["counts"]
    assert 90 <= counts["num_sessions"] == len(sample.rows) <= 110
    assert 110 <= counts["num_segments"] <= 130
    assert counts["num_users"] == len({row["user_id"] for row in sample.rows}) == 12
    assert all(2 <= len(row["turns"]) <= 8 for row in sample.rows)
    said = [turn["content"] for row in sample.rows for turn in row["turns"] if turn["role"] == "user"]
    assert 10 <= sum(len(text.split()) for text in said) / len(said) <= 25
    assert sample.summary["status"] == "done"
    assert {name: sample.summary[name] for name in counts} == counts


def test_archive_is_valid_and_has_row_groups_of_the_agreed_size(sample):
    assert [check_session(row) for row in sample.rows] == sample.rows
    file = pq.ParquetFile(sample.folder / "sample-00000.parquet")
    assert file.schema_arrow.equals(ARCHIVE_SCHEMA)
    assert file.metadata.row_group(0).num_rows == ROW_GROUP_SESSIONS
    assert len(sample.sessions) == len(sample.rows)
    times = [row["session_time"] for row in sample.rows]
    assert times == sorted(times)


def test_user_and_assistant_take_turns(sample):
    for row in sample.rows:
        roles = [turn["role"] for turn in row["turns"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_memories_are_records_that_the_encoder_could_have_written(sample):
    limits = RecordLimits()
    for memory in sample.memories:
        record = {name: memory[name] for name in ("memory_type", "semantic_text", "entities", "temporal")}
        record |= {name: memory[name] for name in ("tags", "evidence_turns", "source_role")}
        num_turns = len(sample.sessions[memory["session_id"]]["turns"])
        assert read_record(record, num_turns).model_dump() == record
        assert len(memory["semantic_text"]) <= limits.max_text_chars
        assert all(len(item) <= limits.max_item_chars for item in memory["entities"] + memory["tags"])
    assert {memory["memory_type"] for memory in sample.memories} == set(MEMORY_TYPES)
    assert {memory["source_role"] for memory in sample.memories} == set(SOURCE_ROLES) - {""}


def test_evidence_points_at_turns_that_contain_the_value(sample):
    for memory in sample.memories:
        turns = sample.evidence(memory)
        told = [turn for turn in turns if memory["value"].lower() in turn["content"].lower()]
        assert told, memory
        assert {turn["role"] for turn in turns} == {
            "user": {"user"},
            "assistant": {"assistant"},
            "both": {"user", "assistant"},
        }[memory["source_role"]]
        assert sample.sessions[memory["session_id"]]["user_id"] == memory["user_id"]
        assert all(entity in memory["semantic_text"] for entity in memory["entities"])
        # What the assistant asks and the user answers belongs into one segment of four turns.
        assert len({index // 4 for index in memory["evidence_turns"]}) == 1


def test_contradictions_are_told_after_what_they_contradict(sample):
    superseding = [memory for memory in sample.memories if memory["supersedes"]]
    for memory in superseding:
        old = sample.by_id[memory["supersedes"]]
        assert old["fact_key"] == memory["fact_key"]
        assert old["session_time"] < memory["session_time"]
        assert old["semantic_text"] != memory["semantic_text"]
        assert old["status"] == "superseded"
        valid_from = memory["temporal"]["t_valid_from"]
        assert valid_from >= old["session_time"][:10], "holds before the old value was last said to hold"
    changed = {memory["fact_key"].split("/")[1] for memory in superseding}
    assert {topic.key for topic in PHRASES.changing} <= changed, (
        "every kind of changing fact changes somewhere"
    )


def test_some_facts_have_three_values(sample):
    num_values = Counter(memory["fact_key"] for memory in sample.memories if not memory["repeat_of"])
    assert 3 in num_values.values()


@pytest.mark.parametrize(
    "settings",
    [{"num_users": 12}, {"seed": 3, "num_users": 3, "num_weeks": 30}, {"num_users": 1, "num_weeks": 1}],
)
def test_each_fact_has_exactly_one_current_memory(tmp_path, settings):
    sample = Sample(tmp_path, **settings)
    current = Counter(memory["fact_key"] for memory in sample.memories if memory["status"] == "current")
    assert set(current) == {memory["fact_key"] for memory in sample.memories}
    assert set(current.values()) == {1}
    assert max(len(row["turns"]) for row in sample.rows) <= 8


def test_repeats_come_later_in_the_same_and_in_other_words(sample):
    repeats = [memory for memory in sample.memories if memory["repeat_of"]]
    is_same_turn = []
    for memory in repeats:
        first = sample.by_id[memory["repeat_of"]]
        assert (first["fact_key"], first["value"]) == (memory["fact_key"], memory["value"])
        assert first["session_time"] < memory["session_time"]
        assert (first["status"], memory["status"]) == ("current", "repeat")
        is_same_turn.append(sample.evidence(first)[0]["content"] == sample.evidence(memory)[0]["content"])
    assert set(is_same_turn) == {True, False}


def test_lookalikes_stay_current_beside_the_users_own_fact(sample):
    lookalikes = [memory for memory in sample.memories if memory["lookalike_of"]]
    assert len(lookalikes) == 12
    for memory in lookalikes:
        assert memory["status"] == "current" and not memory["supersedes"]
        own = [other for other in sample.memories if other["fact_key"] == memory["lookalike_of"]]
        assert memory["value"] in {other["value"] for other in own}
        assert memory["semantic_text"] not in {other["semantic_text"] for other in own}


def test_pairs_of_users_say_the_same_sentence(sample):
    shared = sample.manifest["shared_sentences"]
    assert len(shared) == 6
    for sentence in shared:
        users = {sample.sessions[session_id]["user_id"] for session_id in sentence["session_ids"]}
        assert len(users) == 2
        for session_id in sentence["session_ids"]:
            assert sentence["text"] in {turn["content"] for turn in sample.sessions[session_id]["turns"]}


def test_some_users_share_a_city_and_each_has_a_life_of_their_own(sample):
    users_by_city = defaultdict(set)
    facts_by_user = defaultdict(set)
    for memory in sample.memories:
        if memory["fact_key"].endswith("/city"):
            users_by_city[memory["value"]].add(memory["user_id"])
        if memory["status"] == "current":
            facts_by_user[memory["user_id"]].add(memory["semantic_text"])
    assert sum(len(users) > 1 for users in users_by_city.values()) >= 3
    for user_id, facts in facts_by_user.items():
        others = set().union(*(facts_by_user[other] for other in facts_by_user if other != user_id))
        assert len(facts - others) >= len(facts) / 2


def test_advice_sessions_leave_nothing_to_remember(sample):
    advice = set(sample.manifest["advice_sessions"])
    assert 15 <= len(advice) <= 30
    assert advice <= set(sample.sessions)
    for entries in (sample.memories, sample.secrets):
        assert not advice & {entry["session_id"] for entry in entries}
    assert not advice & {
        place["session_id"] for question in sample.questions for place in question["evidence"]
    }


def test_secrets_stand_in_the_archive_and_nowhere_in_the_gold_memories(sample):
    assert {secret["kind"] for secret in sample.secrets} == {
        "api_key",
        "password",
        "card_number",
        "bearer_token",
        "private_key",
    }
    gold = (sample.folder / "_gold" / "memories.jsonl").read_text("utf-8")
    for secret in sample.secrets:
        turn = sample.turn(secret["session_id"], secret["turn_index"])
        assert turn["role"] == "user"
        assert secret["secret"] in turn["content"]
        assert not any(line in gold for line in secret["secret"].splitlines())
        assert sample.sessions[secret["session_id"]]["user_id"] == secret["user_id"]
        for memory_id in secret["memories_in_turn"]:
            memory = sample.by_id[memory_id]
            assert memory["session_id"] == secret["session_id"]
            assert secret["turn_index"] in memory["evidence_turns"]
    assert any(secret["memories_in_turn"] for secret in sample.secrets)
    assert not all(secret["memories_in_turn"] for secret in sample.secrets)


def test_card_numbers_pass_their_checksum(sample):
    for secret in (secret for secret in sample.secrets if secret["kind"] == "card_number"):
        digits = [int(digit) for digit in secret["secret"] if digit.isdigit()]
        doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
        assert len(digits) == 16 and (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def test_questions_are_answered_by_their_evidence(sample):
    assert {question["question_type"] for question in sample.questions} == QUESTION_TYPES
    assert len({question["question_id"] for question in sample.questions}) == len(sample.questions)
    last = max(row["session_time"] for row in sample.rows).isoformat()
    for question in sample.questions:
        assert question["question_date"] > last
        assert question["evidence"]
        sessions = {place["session_id"] for place in question["evidence"]}
        assert all(sample.sessions[session_id]["user_id"] == question["user_id"] for session_id in sessions)
        text = " ".join(
            sample.turn(place["session_id"], place["turn_index"])["content"] for place in question["evidence"]
        )
        if question["question_type"].startswith("single-session"):
            assert len(sessions) == 1
        if question["question_type"] == "multi-session":
            assert len(sessions) > 1
        if question["question_type"].startswith(("single-session", "knowledge-update")):
            assert question["answer"].lower() in text.lower()


def test_updates_are_answered_with_the_current_value(sample):
    updates = [question for question in sample.questions if question["question_type"] == "knowledge-update"]
    assert updates
    for question in updates:
        places = {(place["session_id"], place["turn_index"]) for place in question["evidence"]}
        known = [
            memory
            for memory in sample.memories
            if memory["status"] == "current"
            and memory["value"] == question["answer"]
            and memory["supersedes"]
            and (memory["session_id"], memory["evidence_turns"][0]) in places
        ]
        assert known, question


def test_a_smaller_world_replaces_a_larger_one(tmp_path):
    """A file of the larger world that stayed behind would be read together with the smaller one."""
    large = Sample(tmp_path, num_users=300)
    assert len(large.manifest["files"]) > 1
    small = Sample(tmp_path, num_users=2)
    assert small.manifest["files"] == [path.name for path in sorted(tmp_path.glob("*.parquet"))]
    assert len({row["user_id"] for row in small.rows}) == 2


def test_a_thousand_users(tmp_path):
    large = Sample(tmp_path, num_users=1000)
    assert large.summary["num_sessions"] > 8000
    assert large.summary["seconds"] < 30
    assert len({row["turns"][0]["speaker"] for row in large.rows}) == 1000
    assert len(large.by_id) == len(large.memories)


@pytest.mark.parametrize("name", ["part-0.parquet", "2026/sample-00000.parquet"])
def test_refuses_a_folder_with_another_archive(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([], schema=ARCHIVE_SCHEMA), path)
    with pytest.raises(UsageError, match="choose an empty folder"):
        run(SampleConfig(archive=tmp_path))
    assert not (tmp_path / "_gold").exists()


def test_refuses_a_file_as_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        run(SampleConfig(archive=tmp_path / "file"))


@pytest.mark.parametrize("chosen", [{"people": "tune"}, {"segments": True}, {"language": "en"}])
def test_generated_conversations_are_not_chosen_as_written_ones_are(tmp_path, chosen):
    """They were generated, and the choice was ignored."""
    with pytest.raises(ValueError, match=f"num_users=2: generates conversations, where {next(iter(chosen))}"):
        SampleConfig(archive=str(tmp_path), num_users=2, **chosen)
