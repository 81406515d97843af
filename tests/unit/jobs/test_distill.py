"""Leaks, duplicates, split, shares and card of a training set."""

import gzip
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.distill.examples import CHECKED_SCHEMA, completion, examine
from cluster.distill.judge import JUDGED_SCHEMA
from cluster.distill.near_duplicates import near_duplicates, signature
from cluster.distill.teacher import local_records
from cluster.profiles import SHIPPED
from cluster.store.files import Files
from jobs.common.cli import UsageError, parse_config
from jobs.common.run import load_profile
from jobs.distill.__main__ import COMMANDS, resolved
from jobs.distill.config import TASKS, EncoderSetConfig
from jobs.distill.identity import without_contacts
from jobs.distill.leaks import read_leaks
from jobs.distill.segments import Plan, collect
from jobs.distill.sets import Candidates, rejection, split, write, write_profile
from jobs.evaluate.variants import load_variants
from jobs.train import adapter as training
from jobs.train.config import EncoderTraining
from schemas.profiles.encoder import EncoderProfile
from schemas.record import EncodedRecord, parse_answer
from schemas.stage_items import JudgedPart
from schemas.training import REJECTED_SCHEMA

LONG = "I have been a nurse at the hospital of Lyon for eleven years now, and I like it."


def session(session_id: str, *texts: str, user_id: str = "u1") -> dict:
    turns = [{"role": "user", "content": text} for text in texts]
    return {"user_id": user_id, "session_id": session_id, "turns": turns}


# --- leaks ----------------------------------------------------------------------------------------------


@pytest.fixture
def longmemeval(tmp_path):
    item = {
        "question_id": "q1",
        "haystack_session_ids": ["s1"],
        "haystack_sessions": [
            [{"role": "user", "content": LONG}, {"role": "assistant", "content": "Thanks!"}]
        ],
    }
    path = tmp_path / "set.jsonl.gz"
    # The line separator stands in JSON as it is; it must not end the line.
    path.write_bytes(
        gzip.compress(json.dumps(item | {"question": "a\u2028b"}, ensure_ascii=False).encode() + b"\n")
    )
    return read_leaks((str(path),), None)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (session("s1", "Something else"), "leaked_session_id"),
        (session("s1#2", "Something else", user_id="u7"), "leaked_session_id"),
        (session("s9", "Hello", f"  {LONG.upper()}\n"), "leaked_turn_text"),
        (session("s9", "Thanks!"), ""),
        (session("s9", LONG + " Really."), ""),
    ],
)
def test_a_session_of_an_evaluation_set_is_known_by_id_and_by_text(longmemeval, found, reason):
    assert longmemeval(found) == reason


def test_locomo_sessions_are_known_with_their_sample(tmp_path):
    item = {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [{"speaker": "Ann", "text": LONG}],
        },
    }
    (tmp_path / "locomo.json").write_text(json.dumps([item]))
    leaks = read_leaks((str(tmp_path / "locomo.json"),), None)
    assert leaks(session("session_1", "x", user_id="conv-1")) == "leaked_session_id"
    assert leaks(session("session_1", "x", user_id="conv-2")) == ""
    assert leaks(session("other", LONG)) == "leaked_turn_text"


def test_sessions_are_excluded_by_name(tmp_path):
    (tmp_path / "names.txt").write_text("s1\n\ns2\n")
    leaks = read_leaks((), str(tmp_path / "names.txt"))
    assert [leaks(session(name, LONG)) for name in ("s1", "s2", "s3")] == ["excluded", "excluded", ""]


@pytest.mark.parametrize("content", ["", "[]", "nonsense", '{"a": 1}', "[3]"])
def test_a_leak_check_against_nothing_is_refused(tmp_path, content):
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(UsageError, match=r"--leak-check .*set\.json"):
        read_leaks((str(tmp_path / "set.json"),), None)


@pytest.mark.parametrize("option", ["profile", "teacher_profile"])
def test_a_profile_with_extra_fields_is_refused_before_any_work(tmp_path, option):
    shipped = (SHIPPED / "encoders" / "extractor-135m.toml").read_text("utf-8")
    field = '[[extra_fields]]\nname = "place"\ndescription = "where"\n'
    (path := tmp_path / "mine.toml").write_text(f"{shipped}\n{field}", "utf-8")
    config = EncoderSetConfig(archive="a", output=str(tmp_path), **{option: str(path)})
    with pytest.raises(UsageError, match=rf"^{option}=.*mine.toml': no training set has .*'place'.*without"):
        resolved(config)


# --- duplicates -----------------------------------------------------------------------------------------


def test_near_duplicates_are_found_and_others_are_not():
    words = [f"word{i}" for i in range(120)]
    text = " ".join(words)
    near = " ".join(words[:-2])
    other = " ".join(f"other{i}" for i in range(120))
    half = " ".join(words[:60] + other.split()[:60])
    signatures = np.stack(
        [signature(item) for item in (text, other, near, text.upper(), half, "a", "a", "b")]
    )
    assert near_duplicates(signatures, 0.8).tolist() == [False, False, True, True, False, False, True, False]


# --- examples -------------------------------------------------------------------------------------------

PROFILE = load_profile("encoders", "default", EncoderProfile)


AS_DECODED = (
    '{"records": [{"evidence_turns": [0], "memory_type": "fact", "semantic_text": "User lives in Lyon.", '
    '"entities": ["Lyon"]}, {"evidence_turns": [0, 2], "memory_type": "event", '
    '"semantic_text": "User moves.", "entities": []}]}'
)
"""As the grammar lets a model write it: no other white space, keys in the profile's order."""


def test_the_completion_is_spelt_as_the_grammar_lets_a_model_write_it():
    records = parse_answer(AS_DECODED, num_turns=4)
    assert completion(records, PROFILE.fields) == AS_DECODED
    record = EncodedRecord(memory_type="fact", semantic_text="User likes crêpes.", evidence_turns=[0])
    assert (
        completion([record], ("semantic_text",)) == '{"records": [{"semantic_text": "User likes crêpes."}]}'
    )


RECORD = (
    '{{"records": [{{"memory_type": "fact", "semantic_text": "{} lives in Lyon.", "evidence_turns": [0]}}]}}'
)


def told(text: str) -> dict:
    part = {"turn_index": 4, "role": "user", "speaker": None, "text": text}
    return {"current": [part], "context": [], "session_time": None}


@pytest.mark.parametrize(
    ("text", "answer", "complete", "refusal", "verdict"),
    [
        ("I live in Lyon.", RECORD.format("User"), True, "", "records"),
        ("I live in Lyon.", RECORD.format("He"), True, "", "nothing_left"),
        ("How long is the Rhône?", '{"records": []}', True, "", "empty"),
        ("I live in Lyon.", '{"records": []}', True, "", "empty_but_stated"),
        ("I live in Lyon.", '{"records": [', True, "", "invalid_answer"),
        ("I live in Lyon.", '{"records": {}}', True, "", "invalid_answer"),
        ("I live in Lyon.", "[]", True, "", "invalid_answer"),
        ("I live in Lyon.", '{"records": []}', False, "", "cut_answer"),
        ("I live in Lyon.", "", True, "BadRequestError", "refused"),
    ],
)
def test_an_answer_teaches_records_or_silence_or_nothing(text, answer, complete, refusal, verdict):
    found, records, refused = examine(told(text), answer, complete, refusal, PROFILE)
    assert found == verdict
    assert bool(records) == (verdict == "records")
    assert bool(refused) == (verdict not in ("records", "empty"))


def test_encoded_records_are_told_in_the_segment_s_own_turns():
    current = [{"turn_index": index} for index in (6, 7, 7, 8)]
    record = {
        name: "" for name in ("memory_type", "semantic_text", "entities", "temporal", "tags", "source_role")
    }
    (local,) = local_records({"current": current}, [record | {"evidence_turns": [7, 8], "record_id": "x"}])
    assert local["evidence_turns"] == [1, 3]
    assert "record_id" not in local


# --- sets -----------------------------------------------------------------------------------------------


def example(number: int, label: str) -> dict:
    return {
        "task": "encoder",
        "source_id": f"segment-{number}",
        "user_id": f"user-{number % 20}",
        "session_id": f"session-{number}",
        "messages": [{"role": "user", "content": f"turn {number}"}],
        "completion": '{"records": []}',
        "num_turns": 1,
        "label": label,
        "origin": "rules",
        "kinds": [],
        "prompt_tokens": 3,
        "completion_tokens": 4,
    }


def test_users_stand_on_one_side_and_silence_has_its_share(tmp_path):
    examples = [example(i, "empty" if i % 2 else "records") for i in range(400)]
    config = EncoderSetConfig(
        archive="x",
        output=str(tmp_path),
        max_empty_fraction=0.2,
        validation_fraction=0.3,
        licence="MIT",
        jsonl=True,
    )
    found = Candidates(examples=list(examples))
    parts = split(found, config)
    users = {name: {row["user_id"] for row in rows} for name, rows in parts.items()}
    assert users["train"] and users["validation"] and not users["train"] & users["validation"]
    for rows in parts.values():
        num_empty = sum(row["label"] == "empty" for row in rows)
        assert num_empty == int(sum(row["label"] == "records" for row in rows) * 0.25)
    assert {row["reason"] for row in found.rejected} == {"empty_over_share"}
    assert len(found.rejected) + sum(map(len, parts.values())) == 400

    counts, data_hash = write(config, parts, found, {"run_id": "r"})
    again = split(Candidates(examples=examples[::-1]), config)
    assert write(config, again, Candidates(), {})[1] == data_hash, "the order of arrival does not matter"
    config = EncoderTraining(data=str(tmp_path), output="x")
    assert training.hash_data(config) == data_hash, "both cards name the same data"
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["licence"] == "MIT" and card["parts"]["train"]["num_examples"] == counts["num_train"]
    assert card["parts"]["train"]["prompt_tokens"]["sum"] == 3 * counts["num_train"]
    assert (
        f"| num_examples | {counts['num_train']} | {counts['num_validation']} |"
        in (tmp_path / "card.md").read_text()
    )
    assert pq.read_table(tmp_path / "train.parquet").num_rows == counts["num_train"]
    chats = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert len(chats) == counts["num_validation"]
    assert [message["role"] for message in chats[0]["messages"]] == ["user", "assistant"]


def test_single_records_have_their_share_of_what_is_not_empty():
    """Of a set that mostly has one record a segment, a student learns to stop after the first statement."""
    labels = ["record"] * 60 + ["records"] * 30 + ["empty"] * 110
    found = Candidates(examples=[example(number, label) for number, label in enumerate(labels)])
    config = EncoderSetConfig(
        archive="x", output="x", max_single_fraction=0.4, max_empty_fraction=0.5, validation_fraction=0
    )
    counts = Counter(row["label"] for row in split(found, config)["train"])
    assert counts == {"records": 30, "record": 20, "empty": 50}
    assert Counter(row["reason"] for row in found.rejected) == {
        "record_over_share": 40,
        "empty_over_share": 60,
    }


def test_a_set_can_be_deidentified(tmp_path):
    """Prompt and answer stay in step, a date is no phone number, and ids still tell users apart."""
    told = "Reach me at ann.lee@mail.example or +49 30 1234 5678 from 2024-05-01, I am {}."
    rows = []
    for number, user_id in enumerate(("ann-7", "ann-8", "ann-7")):
        text = told.format(user_id)
        shown = {"messages": [{"role": "user", "content": text}], "completion": text, "task": "fact_qa"}
        rows.append(example(number, "question") | shown | {"user_id": user_id})
    config = EncoderSetConfig(archive="x", output=str(tmp_path), deidentify=True, validation_fraction=0)
    found = Candidates(rejected=[rejection(rows[0], told, "judge", "")])
    write(config, {"train": rows, "validation": []}, found, {})
    written = pq.read_table(tmp_path / "train.parquet").to_pylist()
    alias = written[0]["user_id"]
    expected = f"Reach me at [email] or [phone] from 2024-05-01, I am {alias}."
    assert written[0]["messages"][0]["content"] == written[0]["completion"] == expected
    assert len({row["user_id"] for row in written}) == 2
    for name in ("train", "rejected"):
        text = json.dumps(pq.read_table(tmp_path / f"{name}.parquet").to_pylist())
        assert "mail.example" not in text and "1234" not in text and '"session-' in text
        assert "ann-" not in text
    assert json.loads((tmp_path / "card.json").read_text())["deidentified"] is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(555) 123-4567 or 555.123.4567", "[phone] or [phone]"),
        ("from 2023/05/20 (Sat) 02:21, 1200 euros, order 123-456-78", None),
        ("version 3.11.2 + 12 apples", None),
    ],
)
def test_contacts_are_told_from_other_numbers(text, expected):
    assert without_contacts(text) == (expected or text)


def test_of_two_users_one_is_kept_for_validation(tmp_path):
    config = EncoderSetConfig(archive="x", output=str(tmp_path), validation_fraction=0.0001)
    parts = split(
        Candidates(examples=[example(i, "records") | {"user_id": f"u{i % 2}"} for i in range(8)]), config
    )
    assert [len(rows) for rows in parts.values()] == [4, 4]
    write(config, parts | {"validation": []}, Candidates(), {})
    with pytest.raises(UsageError, match=r"validation\.parquet: holds no example"):
        training.hash_data(EncoderTraining(data=str(tmp_path), output="x"))


def test_the_prompt_that_was_learned_travels_with_the_adapter(tmp_path):
    """Set, training, `--profile FOLDER`: the student's prompt, the base that was trained, this adapter."""
    (data := tmp_path / "set").mkdir()
    (adapter := tmp_path / "trained" / "adapter").mkdir(parents=True)
    taught = PROFILE.model_copy(update={"adapter": "shipped:default", "base_hash": "x", "adapter_hash": "y"})
    write_profile(EncoderSetConfig(archive="x", output=str(data)), taught)
    settings = EncoderTraining(data=str(data), output=str(adapter.parent), base="owner/base")
    training.write_profile(settings, adapter)
    made = load_profile("encoders", str(adapter), EncoderProfile)
    # What was learned of the old adapter's answers says nothing of this one's.
    expected = PROFILE.model_dump() | PROFILE.WITHOUT_ADAPTER
    assert made.model_dump() == expected | {"base": "owner/base", "adapter": str(adapter)}
    base = load_variants("encoders", [f"{adapter}:base"], EncoderProfile)[f"{adapter}:base"]
    assert (base.base, base.adapter) == ("owner/base", None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--task", "encoder"], "pass --archive"),
        (["--task", "fact_qa"], "pass --store"),
        (["--task", "decider"], "pass --store or --decisions"),
        (["--archive", "x", "--judge", "openai"], "[judge_endpoint]"),
        (["--archive", "x", "--max-cost", "1.0"], "prompt_price"),
        (["evolvable", "--archive", "x"], "pass --questions"),
        (["fact_qa", "--store", "x", "--teacher", "openai"], "[teacher_endpoint]"),
        (["encoder", "--archive", "x", "--teacher", "gold"], "pass --gold"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message, capsys):
    task, rest = COMMANDS.choose([*settings, "--output", "y"])
    with pytest.raises(SystemExit):
        parse_config(TASKS[task], "A job.", rest)
    assert message in capsys.readouterr().err


def test_what_the_judge_refuses_is_kept_as_it_was_written(tmp_path):
    record = {"memory_type": "fact", "semantic_text": "User is here.", "tags": [], "evidence_turns": [0]}
    empty = dict.fromkeys(CHECKED_SCHEMA.names)
    told = {"segment_id": "a", "user_id": "u", "verdict": "records", "records": [record]}
    files = Files(str(tmp_path), "staging")
    files.put_rows("checked", [empty | told | {"refusals": [], "memory_types": ["fact"]}], CHECKED_SCHEMA)
    files.put_rows(
        "judged", [{"segment_id": "a", "reason": "judge", "detail": "low", "scores": "{}"}], JUDGED_SCHEMA
    )
    part = JudgedPart(
        *("p", "plan", ()),
        **{"taught": "", "num_left": 0, "teach_counts": {}, "error": "", "num_to_judge": 1},
        **{"checked": "checked", "judged": "judged", "judge_counts": {}},
    )
    config = EncoderSetConfig(archive="a", output="o", judge="vllm")
    found = collect(config, files, "teacher", [part], Plan())
    (row,) = pa.Table.from_pylist(found.rejected, schema=REJECTED_SCHEMA).to_pylist()
    written = json.loads(row["candidate"])[0]
    assert written["semantic_text"] == "User is here." and "extra" not in written
    assert (row["reason"], row["detail"]) == ("judge", "low")
