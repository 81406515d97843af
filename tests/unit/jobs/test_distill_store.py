"""Decisions and memories of a store become examples; what leaks or is invented does not pass."""

import datetime as dt
import json

import pytest

from jobs.common.cli import UsageError
from jobs.common.run import load_profile
from jobs.distill import facts, replay
from jobs.distill.config import TASKS, DistillConfig
from jobs.distill.leaks import Leaks, text_key
from jobs.distill.paraphrase import accepted
from schemas.profiles.decider import DeciderProfile
from tests import endpoint as served
from tests.unit.cluster.store.stores import SCHEMAS, commit, vector

NO_LEAKS = Leaks(frozenset(), frozenset(), frozenset(), frozenset())


def record(record_id: str, day: str, text: str, **changes) -> dict:
    session = f"s-{day}"
    return {
        "record_id": record_id,
        "revision": 1,
        "user_id": "u1",
        "session_id": session,
        "session_time": dt.datetime.fromisoformat(f"{day}T12:00:00+00:00"),
        "memory_type": "fact",
        "semantic_text": text,
        "entities": [],
        "temporal": {"t_ref": day, "t_valid_from": "", "t_valid_to": ""},
        "evidence": [{"session_id": session, "turn_index": 0}],
        "active": True,
        "closed_reason": None,
    } | changes


def decision(target: str, sources: list[str], action: str, text: str = "", **changes) -> dict:
    return {
        "decision_id": f"d-{target}",
        "user_id": "u1",
        "target_id": target,
        "target_revision": 1,
        "source_ids": sources,
        "source_revisions": [1] * len(sources),
        "decider": "rules-1",
        "action": action,
        "text": text,
        "raw": "",
        "outcome": "applied",
    } | changes


RECORDS = [
    record("old", "2024-01-01", "User lives in Utrecht.", active=False, closed_reason="delete"),
    record("new", "2024-02-01", "User lives in Kampala.", entities=["Kampala"]),
    record("tea", "2024-01-05", "User prefers tea when ill."),
    record("club", "2024-01-07", "User joined the Fox Club.", entities=["Fox Club"]),
]
DECISIONS = [decision("old", ["new"], "delete"), decision("tea", ["new"], "ignore")]


@pytest.fixture
def stored(store):
    """Commits rows; columns that the test does not name are empty."""

    def use(**tables) -> str:
        empty = {name: dict.fromkeys(schema.names) for name, schema in SCHEMAS.items()}
        part = {
            name: [empty[name] | {"vector": vector(str(row)), "active": True} | row for row in rows]
            for name, rows in tables.items()
        }
        commit(store, "run", part)
        return store.uri

    return use


@pytest.fixture(scope="module")
def decider():
    profile = load_profile("deciders", "default", DeciderProfile)
    return profile.model_copy(update={"system_prompt": profile.system_prompt.strip()})


def config(store: str | None, **settings) -> DistillConfig:
    return TASKS[settings.get("task", "decider")](**({"store": store, "output": "y"} | settings))


def test_a_decision_is_replayed_as_the_decider_sees_it_and_spells_it(stored, decider):
    uri = stored(records=RECORDS, decisions=DECISIONS)
    found = replay.candidates(config(uri), decider, NO_LEAKS)
    delete, ignore = sorted(found.examples, key=lambda example: example["label"])
    assert delete["completion"] == '{"action": "delete", "updated_text": "", "confidence": 0.9}'
    assert delete["messages"][-1]["content"] == (
        "<STORED>\n(2024-01-01) User lives in Utrecht.\n</STORED>\n"
        "<NEWER>\n1. (2024-02-01) User lives in Kampala.\n</NEWER>"
    )
    assert (delete["source_id"], delete["user_id"], delete["origin"]) == ("d-old", "u1", "rules")
    assert ignore["label"] == "ignore"


def test_what_a_decision_may_not_say_is_refused_with_its_rule(stored, decider):
    rows = [
        decision("old", ["new"], "update", "User lives in Kampala and Oslo."),
        decision("tea", ["old"], "delete"),
        decision("club", ["new"], "update", "User joined the Fox Club."),
    ]
    uri = stored(records=RECORDS, decisions=rows)
    found = replay.candidates(config(uri), decider, NO_LEAKS)
    assert {row["source_id"]: row["reason"] for row in found.rejected} == {
        "d-old": "invented",
        "d-tea": "order",
        "d-club": "unchanged",
    }
    assert not found.examples


def test_united_repeats_and_forgotten_memories_teach_nothing(stored, decider):
    rows = [decision("old", ["new"], "unite", decider="unite"), decision("tea", ["gone"], "ignore")]
    uri = stored(records=RECORDS, decisions=rows)
    found = replay.candidates(config(uri), decider, NO_LEAKS)
    assert dict(found.left_out) == {"united_without_a_question": 1, "memory_is_gone": 1}


def test_a_memory_of_a_leaking_session_takes_its_decision_along(stored, decider):
    turn = {
        "turn_id": "t1",
        "user_id": "u1",
        "session_id": "s-2024-02-01",
        "content": "I just moved to Kampala, what a lively town it is!",
    }
    leaks = Leaks(frozenset(), frozenset(), frozenset([text_key(turn["content"])]), frozenset())
    uri = stored(records=RECORDS, decisions=DECISIONS, turns=[turn])
    found = replay.candidates(config(uri), decider, leaks)
    assert not found.examples
    assert found.left_out["leaked_turn_text"] == 2


@pytest.mark.parametrize("name", ["updated_text", "new_memory"])
def test_foreign_decisions_are_read_under_both_names_and_written_under_one(tmp_path, decider, name):
    row = {
        "user_id": "u9",
        "target": {"text": "User has a bicycle.", "date": "2024-01-01"},
        "sources": [{"text": "User's bicycle is green.", "date": "2024-02-01"}],
        "action": "update",
        name: "User has a green bicycle.",
    }
    path = tmp_path / "decisions.jsonl"
    path.write_text(json.dumps(row) + "\n")
    found = replay.candidates(config(None, decisions=[str(path)]), decider, NO_LEAKS)
    (example,) = found.examples
    assert json.loads(example["completion"])["updated_text"] == "User has a green bicycle."
    assert (example["origin"], example["label"]) == ("file", "update")


def test_a_foreign_line_that_is_no_decision_is_named(tmp_path, decider):
    path = tmp_path / "decisions.jsonl"
    path.write_text('{"action": "delete"}\n')
    with pytest.raises(UsageError, match=r"decisions\.jsonl:1.*KeyError"):
        replay.candidates(config(None, decisions=[str(path)]), decider, NO_LEAKS)


def test_facts_are_asked_in_several_ways_and_answered_with_their_value(stored):
    uri = stored(records=RECORDS, decisions=DECISIONS)
    found = facts.candidates(config(uri, task="fact_qa", num_questions=4), NO_LEAKS)
    asked = [e for e in found.examples if e["source_id"] == "new" and e["label"] == "question"]
    assert {example["completion"] for example in asked} == {"Kampala"}
    assert len({example["messages"][-1]["content"].rpartition("Question: ")[2] for example in asked}) == 4
    assert {kind for example in asked for kind in example["kinds"]} == {"open_book", "closed_book"}
    (club, *_) = [e for e in found.examples if e["source_id"] == "club" and e["label"] == "question"]
    assert club["completion"] == "User joined the Fox Club." or "Fox Club" in club["completion"]


def test_a_superseded_fact_is_denied_and_the_newest_wins(stored):
    uri = stored(records=RECORDS, decisions=DECISIONS)
    found = facts.candidates(config(uri, task="fact_qa"), NO_LEAKS)
    negatives = [example for example in found.examples if example["label"] == "negative"]
    assert {example["completion"] for example in negatives} == {
        "No, since 2024-02-01: User lives in Kampala."
    }
    assert all("Utrecht" in example["messages"][-1]["content"] for example in negatives)
    opened = [
        e
        for e in found.examples
        if e["source_id"] == "new" and e["label"] == "question" and e["kinds"] == ["open_book"]
    ]
    # The outdated fact stands among the known ones, before the newer.
    content = opened[0]["messages"][-1]["content"]
    assert content.index("Utrecht") < content.index("Kampala")


def test_memories_that_nobody_consolidated_are_read_newest_first(stored):
    rows = [
        record("a", "2024-01-01", "User lives in Utrecht."),
        record("b", "2024-02-01", "User lives in Kampala."),
    ]
    uri = stored(records=rows)
    found = facts.candidates(config(uri, task="fact_qa"), NO_LEAKS)
    assert {e["completion"] for e in found.examples if e["label"] == "question"} == {"Kampala"}
    assert found.coverage["num_superseded_facts"] == 1


def test_general_instructions_are_a_share_of_the_set(stored, tmp_path):
    path = tmp_path / "general.jsonl"
    rows = [{"prompt": f"Count to {i}.", "response": " ".join(map(str, range(i)))} for i in range(2, 40)]
    rows.append({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]})
    path.write_text("\n".join(map(json.dumps, rows)))
    uri = stored(records=RECORDS)
    found = facts.candidates(
        config(uri, task="fact_qa", instructions=str(path), instruction_fraction=0.25), NO_LEAKS
    )
    labels = [example["label"] for example in found.examples]
    assert labels.count("instruction") == round(0.25 * len(labels))
    assert len({e["user_id"] for e in found.examples if e["label"] == "instruction"}) == labels.count(
        "instruction"
    )


def test_an_endpoint_paraphrases_and_is_asked_once(stored, tmp_path):
    uri = stored(records=RECORDS, decisions=DECISIONS)

    def reply(messages):
        question = messages[-1]["content"]
        good = f"Please remind me: {question}"
        return json.dumps(
            {"questions": [good, good, "Is it Kampala?", "No question", question, "What about Oslo"]}
        )

    with served.Endpoint(reply) as server:
        settings = {"teacher": "openai", "teacher_endpoint": {"base_url": server.base_url, "model": "m"}}
        for _ in range(2):
            found = facts.candidates(config(uri, task="fact_qa", output=str(tmp_path), **settings), NO_LEAKS)
            asked = [example for example in found.examples if example["origin"] == "openai:m"]
            assert {(e["source_id"], e["label"]) for e in asked} == {
                ("new", "question"),
                ("tea", "question"),
                ("club", "question"),
            }
            questions = [e["messages"][-1]["content"] for e in asked if e["source_id"] == "new"]
            assert questions and all("Please remind me: " in question for question in questions)
        assert set(server.paid.values()) == {1} and len(server.requests) == 3
    capped = config(uri, task="fact_qa", output=str(tmp_path / "other"), max_tokens=1, **settings)
    assert facts.candidates(capped, NO_LEAKS).num_left == 3


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("Where is it that I live with Tom?", True),
        ("Where do I live?", False),  # Tom is lost
        ("Do I live with Tom in Lyon?", False),  # tells the answer
        ("I live with Tom", False),
        ("Where do I live with Tom and " + "x" * 200 + "?", False),
    ],
)
def test_a_phrasing_keeps_names_asks_and_does_not_tell(said, passes):
    text = json.dumps({"questions": [said]})
    assert accepted(text, "Where do I live with Tom?", "Lyon") == ([said] if passes else [])
    assert accepted("no JSON", "Where?", "Lyon") == []
