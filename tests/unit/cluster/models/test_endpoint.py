"""An endpoint is asked once for each answer, backs off when told to, and stops at its caps."""

import gc
import json

import pytest

from cluster.models.asking import Answer, Request
from cluster.models.endpoint import Endpoint, EndpointConfig, EndpointError
from cluster.models.paid_answers import MAX_FAILURES, Budget, Paid, Responses
from cluster.models.prompt import Chat
from cluster.runtime import report_to
from cluster.store.files import Files
from tests import endpoint as served
from tests.endpoint import Happening


def asks(count: int) -> list[Request]:
    chat = Chat([{"role": "user", "content": "x" * 30}])
    return [Request(chat, '{"type": "object"}', 10, f"key{i}") for i in range(count)]


def client(folder, server, *, budget=None, **config) -> Paid:
    settings = {"max_retries": 4, "concurrency": 4} | config
    return Paid(
        Endpoint(EndpointConfig(**served.table(server.base_url, **settings))),
        Responses(Files(str(folder), "ledger"), "teacher", "f"),
        budget or Budget(),
    )


def test_answers_come_in_order_side_by_side_and_are_never_paid_twice(tmp_path):
    with served.Endpoint(lambda messages: "{}", latency_s=0.05) as server:
        answers = client(tmp_path, server).ask(asks(12))
        assert answers == [Answer("{}", True, 100, 10)] * 12
        assert 1 < server.max_in_flight <= 4
        assert client(tmp_path, server).ask(asks(13)) == [Answer("{}", True, 100, 10)] * 13
        assert set(server.paid.values()) == {1} and len(server.paid) == 13


def test_the_answer_is_held_to_the_schema_and_the_key_is_sent(tmp_path):
    with served.Endpoint(lambda messages: "{}") as server:
        client(tmp_path, server, extra_body={"seed": 7}).ask(asks(1))
        (body,) = server.requests
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (10, 0.0, 7)
    assert set(server.paid) == {"key0"}


@pytest.mark.parametrize("refusal", [429, 503])
def test_too_many_requests_and_server_errors_are_tried_again(tmp_path, refusal):
    with served.Endpoint(lambda messages: "{}", num_refused=3, refusal=refusal) as server:
        endpoint = client(tmp_path, server, concurrency=2)
        assert all(endpoint.ask(asks(4)))
    assert endpoint.counts["num_retried"] == 3
    assert endpoint.counts["num_failed"] == 0


@pytest.mark.parametrize("happens", ["dropped", "lost", "cut", "ended"])
def test_an_answer_that_does_not_arrive_whole_is_asked_for_again_under_its_key(tmp_path, happens):
    network = Happening(lambda name, times: happens if times == 0 else "")
    with served.Endpoint(lambda messages: "{}", knows_keys=True, network=network) as server:
        endpoint = client(tmp_path, server)
        assert endpoint.ask(asks(4)) == [Answer("{}", True, 100, 10)] * 4
        assert set(server.paid.values()) == {1} and len(server.paid) == 4
        assert server.num_repeated == (0 if happens == "dropped" else 4)
    assert endpoint.counts["num_failed"] == 0 and not endpoint.responses.files.paths("asked")


def test_what_fails_for_good_is_left_open_and_asked_again_by_the_next_run(tmp_path):
    with served.Endpoint(lambda messages: "{}", num_refused=2) as server:
        first = client(tmp_path, server, max_retries=0, concurrency=1)
        assert [answer is None for answer in first.ask(asks(3))] == [True, True, False]
        assert first.counts["num_failed"] == 2
        assert all(client(tmp_path, server, max_retries=0).ask(asks(3)))
        assert set(server.paid.values()) == {1}


def test_progress_counts_what_was_answered_alone(tmp_path):
    """A run of which every request failed said that it was nearly done."""
    seen = []
    with served.Endpoint(lambda messages: "{}", num_refused=2) as server, report_to(seen.append):
        client(tmp_path, server, max_retries=0, concurrency=1).ask(asks(3))
    with pytest.raises(EndpointError), report_to(seen.append):
        client(tmp_path, server, max_retries=0).ask(asks(20))
    assert sum(seen) == 1


def test_a_dead_endpoint_is_given_up_with_a_word(tmp_path):
    with served.Endpoint(lambda messages: "{}", num_refused=10**6, refusal=500) as server:
        with pytest.raises(
            EndpointError, match=rf"{MAX_FAILURES} requests in a row failed.*InternalServerError"
        ):
            client(tmp_path, server, max_retries=0).ask(asks(30))
        assert len(server.requests) <= MAX_FAILURES + 4


def test_of_requests_that_fail_together_one_error_is_raised_and_none_is_logged(tmp_path, caplog):
    refused = served.Endpoint(lambda messages: "{}", num_refused=10**6, refusal=401)
    with refused as server, pytest.raises(EndpointError):
        client(tmp_path, server, concurrency=8).ask(asks(8))
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_refused_key_fails_at_once(tmp_path):
    with served.Endpoint(lambda messages: "{}", num_refused=10**6, refusal=401) as server:
        with pytest.raises(EndpointError, match=r"AuthenticationError.*OPENAI_API_KEY"):
            client(tmp_path, server, concurrency=1).ask(asks(30))
        assert len(server.requests) == 1


def test_a_request_that_is_refused_is_told_apart_and_not_kept(tmp_path):
    with served.Endpoint(lambda messages: "{}", num_refused=1, refusal=400) as server:
        endpoint = client(tmp_path, server, concurrency=1)
        first, second = endpoint.ask(asks(2))
    assert "BadRequestError" in first.refusal and not second.refusal
    assert Responses(Files(str(tmp_path), "ledger"), "teacher", "f").get("key0") is None


@pytest.mark.parametrize(
    ("caps", "num_answered"),
    [
        ({"max_tokens": 335}, 3),  # 110 an answer; one more would reserve 20
        ({"max_cost": 0.00025, "prompt_price": 1.0, "output_price": 2.0}, 2),  # 0.00012 an answer
        ({"max_tokens": 19}, 0),
    ],
)
def test_caps_hold_over_all_runs_and_raising_them_goes_on(tmp_path, caps, num_answered):
    prices = {name: caps.pop(name) for name in list(caps) if name.endswith("price")}
    with served.Endpoint(lambda messages: "{}") as server:
        for _ in range(2):
            endpoint = client(tmp_path, server, concurrency=1, **prices)
            spent = endpoint.responses.spent
            endpoint.budget = Budget(**caps, tokens=sum(spent), cost=endpoint.engine.config.cost(*spent))
            answers = endpoint.ask(asks(6))
            assert sum(answer is not None for answer in answers) == num_answered
            assert endpoint.counts["num_capped"] == 6 - num_answered
        assert sum(server.paid.values()) == num_answered
        assert all(client(tmp_path, server).ask(asks(6)))
        assert set(server.paid.values()) == {1}


def test_a_request_without_an_answer_is_in_doubt_and_asked_under_its_key(tmp_path):
    files = Files(str(tmp_path), "ledger")
    Responses(files, "teacher", "f").asking("key1")
    with served.Endpoint(lambda messages: "{}", knows_keys=True) as server:
        server.answer("key1", {"messages": [], "model": "m"})  # answered, and the client died
        endpoint = client(tmp_path, server)
        assert endpoint.responses.in_doubt == {"key1"}
        assert all(endpoint.ask(asks(3)))
        assert endpoint.counts["num_in_doubt"] == 1
        assert set(server.paid.values()) == {1}
    assert not Responses(files, "teacher", "f").in_doubt


def test_the_ledger_tells_what_was_spent_by_role_over_all_models(tmp_path):
    files = Files(str(tmp_path), "ledger")
    Responses(files, "teacher", "a").put("k1", Answer("{}", True, 5, 2))
    Responses(files, "teacher", "b").put("k1", Answer("[]", True, 7, 1))
    Responses(files, "judge", "a").put("k1", Answer("{}", True, 50, 20))
    ledger = Responses(files, "teacher", "b")
    assert ledger.spent == (12, 3)
    assert ledger.get("k1") == Answer("[]", True, 7, 1)
    assert json.loads(files.get("answers/teacher/b/k1-7-1.json"))["text"] == "[]"
