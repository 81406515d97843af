"""One way to ask any engine; what earlier releases have paid for stays paid for."""

import threading

import pytest

from cluster.models import paid_answers
from cluster.models.asking import Answer, Request
from cluster.models.endpoint import Endpoint
from cluster.models.engine import Later
from cluster.models.paid_answers import Paid, Responses
from cluster.models.prompt import Chat
from cluster.store.files import Files
from jobs.distill.paraphrase import ask_for
from schemas.endpoint import EndpointConfig
from tests import endpoint as served

MESSAGES = [
    {"role": "system", "content": "Extract."},
    {"role": "user", "content": "Wir wohnen in Köln."},
]
SCHEMA = '{"type": "object", "properties": {"b": {"type": "string"}, "a": {"enum": [1]}}}'


def responses(folder) -> Responses:
    return Responses(Files(str(folder), "ledger"), "encoder", "f")


def test_a_request_has_the_key_under_which_earlier_releases_have_paid_for_it():
    assert Request(Chat(MESSAGES), SCHEMA, 100).key == "fe92019c068eba563ecae36891dc8ee7"
    assert Request(Chat(MESSAGES), None, 100).key == "73cc21eb75ec7af0405b560ee923e6f1"
    assert ask_for("Where do I live?", 3).key == "cb6f90e50005424da6a5c5dc60720a16"
    assert Request(Chat(MESSAGES), SCHEMA, 100, "segment").key == "segment"


def test_an_answer_is_stored_as_by_earlier_releases(tmp_path):
    stored = (
        b'{"text": "K\\u00f6ln", "complete": false, "prompt_tokens": 7, "output_tokens": 3, "refusal": "no"}'
    )
    files = Files(str(tmp_path), "ledger")
    answer = Answer("Köln", False, 7, 3, "no")
    responses(tmp_path).put("k", Answer("Köln", False, 7, 3, "no", cached_tokens=5, tokens=[("K", -1.0)]))
    assert files.get("answers/encoder/f/k-7-3.json") == stored
    assert responses(tmp_path).get("k") == answer


class Local:
    """An engine on this worker, as vLLM is."""

    tokenizer = "of the model"

    def __init__(self):
        self.asked: list[list[str]] = []

    def generate(self, requests):
        self.asked.append([request.messages[0]["content"] for request in requests])
        too_long = Answer("", refusal="the prompt is too long: max_model_len=9")
        return [Answer(text, prompt_tokens=1) if len(text) < 9 else too_long for text in self.asked[-1]]


def of(*texts: str) -> list[Request]:
    return [Request(Chat([{"role": "user", "content": text}]), None, 10) for text in texts]


def test_an_engine_on_this_worker_gets_at_once_what_nobody_has_answered_and_is_loaded_for_that(tmp_path):
    loaded: list[Local] = []

    def load() -> Local:
        loaded.append(Local())
        return loaded[-1]

    first = Paid(Later(load), responses(tmp_path))
    assert [answer.text for answer in first.generate(of("a", "b", "a"))] == ["a", "b", "a"]
    assert [answer.text for answer in first.generate(of("b", "c"))] == ["b", "c"]
    assert loaded[0].asked == [["a", "b"], ["c"]] and first.counts == {"num_asked": 3}
    again = Paid(Later(load), responses(tmp_path))
    assert [answer.text for answer in again.generate(of("c", "a"))] == ["c", "a"]
    assert len(loaded) == 1 and again.counts == {"num_asked": 0}


def test_what_an_engine_has_no_room_for_is_told_apart_and_not_kept(tmp_path):
    local = Local()
    for _ in range(2):
        short, long = Paid(local, responses(tmp_path)).generate(of("a", "more than nine"))
        assert (short.reason, long.reason) == ("", "prompt_too_long")
    assert local.asked == [["a", "more than nine"], ["more than nine"]]


def test_who_is_interrupted_sends_nothing_more_and_keeps_what_was_in_flight(tmp_path, monkeypatch):
    was_interrupted = threading.Event()

    def reply(messages):
        if messages[0]["content"] != "0":
            assert was_interrupted.wait(60)
        return "yes"

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(paid_answers, "tick", interrupt)
    with served.Endpoint(reply) as server:
        asked = Paid(Endpoint(EndpointConfig(**served.table(server.base_url))), responses(tmp_path))
        with pytest.raises(KeyboardInterrupt):
            asked.generate(of(*map(str, range(30))))
        was_interrupted.set()
        for thread in threading.enumerate():
            if thread.name == "ask":
                thread.join()
        assert sum(server.paid.values()) == 2
    assert responses(tmp_path).num_answers == 2


def test_json_in_a_fence_is_the_answer_of_whoever_asks_for_json_and_is_stored_as_it_came(tmp_path):
    class Fencing(Local):
        def generate(self, requests):
            return [Answer("```json\n{}\n```", prompt_tokens=1) for _ in requests]

    chat = Chat(MESSAGES)
    requests = [Request(chat, "{}", 9), Request(chat, None, 9)]
    for _ in range(2):
        json_asked, text_asked = Paid(Fencing(), responses(tmp_path)).ask(requests)
        assert (json_asked.text, text_asked.text) == ("{}", "```json\n{}\n```")
    assert responses(tmp_path).get(requests[0].key).text == "```json\n{}\n```"
