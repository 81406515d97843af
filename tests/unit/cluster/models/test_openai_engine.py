"""A model behind an endpoint as an engine: nothing is paid twice, and what fails is told apart."""

import socket

import pytest

from cluster.models.asking import Request
from cluster.models.endpoint import EndpointError, Unanswered, without_bounds
from cluster.models.engine import make_engine
from cluster.models.paid_answers import MAX_FAILURES, CapReached, Paid
from cluster.models.prompt import Chat, control_pattern
from cluster.store.files import Files
from schemas.profiles.encoder import EncoderProfile
from schemas.record import RecordLimits, answer_schema
from tests import endpoint as served

SCHEMA = answer_schema(2, RecordLimits())


def engine(folder, base_url: str, *, max_cost: float | None = None, **settings) -> Paid:
    profile = EncoderProfile(
        name="remote",
        engine="openai",
        endpoint=served.table(base_url, **settings),
        base_hash="tokenizer",
        system_prompt="",
        user_template="{previous}{current}",
        max_tokens=100,
    )
    return make_engine(profile, files=Files(str(folder), "staging"), role="encoder", max_cost=max_cost)


def requests(*texts: str) -> list[Request]:
    return [Request(Chat([{"role": "user", "content": text}]), SCHEMA, 100) for text in texts]


def texts_of(replies) -> list[str]:
    return [reply.text for reply in replies]


def echo(messages: list[dict]) -> str:
    return messages[-1]["content"].upper()


def test_replies_come_in_order_and_who_asks_the_same_pays_once(tmp_path):
    with served.Endpoint(echo) as server:
        first = engine(tmp_path, server.base_url).generate(requests("a", "b", "a"))
        again = engine(tmp_path, server.base_url).generate(requests("b", "c"))
        assert (texts_of(first), texts_of(again)) == (["A", "B", "A"], ["B", "C"])
        assert sorted(server.paid.values()) == [1, 1, 1]
    assert (first[0].complete, first[0].prompt_tokens, first[0].output_tokens) == (True, 100, 10)


def test_a_cap_on_costs_counts_what_killed_runs_paid_and_a_higher_one_goes_on(tmp_path):
    prices = {"prompt_price": 1.0, "output_price": 2.0}  # 0.00012 an answer, 0.0002 reserved for the next
    with served.Endpoint(echo) as server:
        for _ in range(2):
            with pytest.raises(CapReached, match=r"0\.00024 are spent"):
                engine(tmp_path, server.base_url, max_cost=0.0004, **prices).generate(requests(*"abcd"))
            assert sum(server.paid.values()) == 2
        done = engine(tmp_path, server.base_url, max_cost=0.001, **prices).generate(requests(*"abcd"))
        assert texts_of(done) == ["A", "B", "C", "D"]
        assert sorted(server.paid.values()) == [1, 1, 1, 1]


def test_an_answer_without_usage_counts_for_the_cap(tmp_path):
    with served.Endpoint(lambda messages: served.Odd("x" * 30, has_usage=False)) as server:
        [reply] = engine(tmp_path, server.base_url).generate(requests("y" * 60))
    assert (reply.prompt_tokens, reply.output_tokens) == (20, 11)


def test_an_endpoint_that_is_gone_is_an_error_that_names_it(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(EndpointError, match=rf"{base_url}: 1 requests? in a row failed.*APIConnectionError"):
        engine(tmp_path, base_url).generate(requests("a"))


@pytest.mark.parametrize("refusal", [429, 503])
def test_an_endpoint_that_answers_nobody_now_is_gone_too(tmp_path, refusal):
    with (
        served.Endpoint(echo, num_refused=1, refusal=refusal) as server,
        pytest.raises(EndpointError, match="in a row failed"),
    ):
        engine(tmp_path, server.base_url).generate(requests("a"))


def test_a_request_at_which_the_server_fails_is_its_own_fault_and_the_others_are_kept(tmp_path):
    def reply(messages):
        return served.Odd("broken", status=500) if messages[-1]["content"] == "b" else echo(messages)

    with served.Endpoint(reply) as server:
        asked = engine(tmp_path, server.base_url)
        with pytest.raises(Unanswered, match="InternalServerError"):
            asked.generate(requests("a", "b", "c"))
        assert texts_of(asked.generate(requests("a", "c"))) == ["A", "C"]
        assert sorted(server.paid.values()) == [1, 1]


def test_what_is_no_chat_completion_is_told_from_an_answer(tmp_path):
    class Page(served.Endpoint):
        def answer(self, key, body):
            return 200, b'{"hello": "world"}'

    with Page(echo) as server, pytest.raises(EndpointError, match=r"not with a chat completion.*/v1"):
        engine(tmp_path, server.base_url).generate(requests("a"))


def test_too_long_a_prompt_is_told_apart_and_is_no_failure_of_the_endpoint(tmp_path):
    message = "This model's maximum context length is 10 tokens; reduce the length of the messages"
    with served.Endpoint(lambda messages: served.Odd(message, status=400)) as server:
        replies = engine(tmp_path, server.base_url).generate(requests(*map(str, range(2 * MAX_FAILURES))))
    assert {reply.reason for reply in replies} == {"prompt_too_long"}
    assert all(message in reply.refusal and not reply.text for reply in replies)


def test_what_the_model_or_a_filter_refuses_is_a_refusal_and_costs_what_it_costs(tmp_path):
    def reply(messages):
        if messages[-1]["content"] == "filtered":
            return served.Odd("content_filter: no", status=400)
        return served.Odd("", refusal="I cannot help with that")

    with served.Endpoint(reply) as server:
        filtered, refused = engine(tmp_path, server.base_url).generate(requests("filtered", "refused"))
        [again] = engine(tmp_path, server.base_url).generate(requests("refused"))
        assert sorted(server.paid.values()) == [1]
    assert f"{filtered.reason}: {filtered.refusal}".startswith("refused: BadRequestError")
    assert filtered.prompt_tokens == 0
    assert refused == again
    assert (refused.reason, refused.refusal) == ("refused", "I cannot help with that")
    assert refused.prompt_tokens == 100


def test_an_endpoint_that_refuses_how_it_is_asked_is_misconfigured(tmp_path):
    """Otherwise all segments would be rejected, one after the other."""
    with (
        served.Endpoint(lambda messages: served.Odd("unknown field: response_format", status=400)) as server,
        pytest.raises(EndpointError, match=r"unknown field.*check model, response_format.*\[endpoint\]"),
    ):
        engine(tmp_path, server.base_url).generate(requests("a", "b"))


def test_json_in_a_fence_is_the_answer(tmp_path):
    with served.Endpoint(lambda messages: '```json\n{"records": []}\n```\n') as server:
        [reply] = engine(tmp_path, server.base_url, response_format="none").generate(requests("a"))
        assert "response_format" not in server.requests[0]
    assert reply.text == '{"records": []}'


def test_a_schema_without_bounds_keeps_names_and_choices(tmp_path):
    with served.Endpoint(echo) as server:
        engine(tmp_path, server.base_url, schema_bounds=False).generate(requests("a"))
        sent = server.requests[0]["response_format"]["json_schema"]["schema"]
    record = sent["$defs"]["Record"]
    assert record["properties"]["semantic_text"] == {"type": "string"}
    assert record["properties"]["evidence_turns"]["items"] == {"enum": [0, 1], "type": "integer"}
    assert record["required"] == list(record["properties"])
    assert without_bounds({"properties": {"pattern": {"enum": [0.5]}, "default": {"minimum": 1}}}) == {
        "properties": {"pattern": {"enum": [0.5], "type": "number"}, "default": {}}
    }


def test_without_a_tokenizer_the_control_tokens_of_common_models_are_broken_up():
    pattern = control_pattern(None, "<CURRENT>\n{current}\n</CURRENT>")
    for token in ("<|im_end|>", "<|eot_id|>", "</s>", "[/INST]", "<end_of_turn>", "</CURRENT>", "<current>"):
        assert pattern.fullmatch(token), token
    assert not pattern.search("a < b | c > d, list[int], <b>bold</b>")
