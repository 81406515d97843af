"""Requests in batches of a provider cost half, are found again after a kill, and are never paid for twice."""

import pytest

from cluster.models.asking import Answer, Request
from cluster.models.batch_api import Provider
from cluster.models.batches import BatchEndpoint
from cluster.models.endpoint import EndpointConfig, EndpointError
from cluster.models.paid_answers import Budget, Responses
from cluster.models.prompt import Chat
from cluster.store.files import Files
from tests import endpoint as served
from tests.dying import killed_before
from tests.endpoint import Happening

ANSWER = Answer("{}", True, 100, 10)
PRICES = {"prompt_price": 1000.0, "output_price": 2000.0}
COST = (100 * 1000.0 + 10 * 2000.0) / 1e6
"""Of a direct answer."""


def asks(count: int) -> list[Request]:
    chats = [Chat([{"role": "user", "content": f"{i} " + "x" * 30}]) for i in range(count)]
    return [Request(chat, '{"type": "object"}', 10, f"key{i}") for i, chat in enumerate(chats)]


def config(server, **settings) -> EndpointConfig:
    settings = {"max_retries": 3, "batch": True, "batch_poll_s": 0.01, **PRICES} | settings
    return EndpointConfig(**served.table(server.base_url, **settings))


def responses(folder) -> Responses:
    return Responses(Files(str(folder), "ledger"), "teacher", "f")


def client(folder, server, *, budget=None, **settings) -> BatchEndpoint:
    return BatchEndpoint(config(server, **settings), responses(folder), budget or Budget())


def plain(messages: list[dict]) -> str:
    return "{}"


def serve(reply=plain, **options) -> served.Endpoint:
    faults = {name: options.pop(name) for name in list(options) if hasattr(served.Faults, name)}
    return served.Endpoint(reply, faults=served.Faults(**faults), **options)


def is_clean(folder, server) -> bool:
    """Whether nothing lies at the provider, and the ledger waits for nothing."""
    return not server.batches.files and not Files(str(folder), "ledger").paths("batches")


def test_answers_come_in_order_at_the_price_of_batches_and_leave_nothing_at_the_provider(tmp_path):
    with serve() as server:
        endpoint = client(tmp_path, server, batch_max_requests=5)
        assert endpoint.ask(asks(12)) == [ANSWER] * 12
        assert server.batches.num_created == 3 and set(server.paid.values()) == {1}
        assert is_clean(tmp_path, server) and len(server.batches.was_deleted) == 6
    assert endpoint.budget.cost == pytest.approx(12 * COST / 2)
    assert (endpoint.budget.reserved_tokens, endpoint.counts["num_batches"]) == (0, 3)
    ledger = responses(tmp_path)
    assert (ledger.spent, ledger.spent_in_batches) == ((1200, 120), (1200, 120))
    assert ledger.cost(config(server)) == pytest.approx(12 * COST / 2)
    assert ledger.cost(config(server, batch_price_factor=0.25)) == pytest.approx(12 * COST / 4)


def test_a_request_in_a_batch_is_the_request_that_is_sent_alone(tmp_path):
    with serve() as server:
        settings = {"extra_body": {"seed": 7}}
        client(tmp_path / "a", server, **settings).ask(asks(1))
        client(tmp_path / "b", server, batch=False, **settings).ask(asks(1))
        in_batch, alone = server.requests
    assert in_batch == alone and in_batch["seed"] == 7


def test_what_was_paid_for_one_way_is_not_paid_for_the_other_way(tmp_path):
    with serve() as server:
        client(tmp_path, server, batch=False).ask(asks(2))
        assert client(tmp_path, server).ask(asks(4)) == [ANSWER] * 4
        assert client(tmp_path, server, batch=False).ask(asks(5)) == [ANSWER] * 5
        assert set(server.paid.values()) == {1} and len(server.paid) == 5
    assert responses(tmp_path).cost(config(server)) == pytest.approx(3 * COST + 2 * COST / 2)


STEPS = [
    *((Files, name) for name in ("put", "delete")),
    *((Provider, name) for name in ("upload", "create", "look", "lines", "delete")),
]


def test_a_run_killed_before_any_step_goes_on_and_pays_once(tmp_path, monkeypatch):
    with serve() as server:
        begun = killed_before(
            monkeypatch,
            STEPS,
            -1,
            lambda: client(tmp_path / "whole", server, batch_max_requests=2).ask(asks(3)),
        )
        assert server.batches.num_created == 2 and "killed" not in begun
    whole = responses(tmp_path / "whole").cost(config(server))
    for number in range(len(begun)):
        folder = tmp_path / str(number)
        with serve() as server:

            def work(folder=folder, server=server):
                assert client(folder, server, batch_max_requests=2).ask(asks(3)) == [ANSWER] * 3

            assert killed_before(monkeypatch, STEPS, number, work)[-1] == "killed"
            work()
            assert set(server.paid.values()) == {1} and len(server.paid) == 3, begun[number]
            assert server.batches.num_created == 2, begun[number]
            assert is_clean(folder, server), begun[number]
        assert responses(folder).cost(config(server)) == pytest.approx(whole), begun[number]


@pytest.mark.parametrize("fault", ["num_busy", "num_lost_uploads", "num_lost_creates", "num_late_creates"])
def test_no_batch_is_created_twice_whatever_answer_gets_lost(tmp_path, fault):
    with serve(**{fault: 2}) as server:
        # Other people's batches are on the list before ours.
        for name in "abc":
            file = server.batches._store(f"{name}.jsonl", b"")
            server.batches._create({"input_file_id": file["id"], "metadata": None})
            del server.batches.files[file["id"]]
        assert client(tmp_path, server, batch_max_requests=2).ask(asks(4)) == [ANSWER] * 4
        assert server.batches.num_created == 3 + 2 and set(server.paid.values()) == {1}
        assert is_clean(tmp_path, server)


def test_whatever_answer_of_the_provider_ends_too_early_each_request_is_paid_once(tmp_path, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("cluster.models.batches.retry_after", lambda error, attempt: 0.0)

    def received(place: int) -> int:
        """Ask while the answer to the request of this number ends in its middle; how many requests came."""
        folder = tmp_path / str(place)
        network = Happening(lambda name, times: "ended" if name.startswith(f"{place} ") else "")
        with serve(network=network) as server:
            assert client(folder, server, batch_max_requests=2).ask(asks(3)) == [ANSWER] * 3
            assert set(server.paid.values()) == {1} and len(server.paid) == 3, server.happened
            assert is_clean(folder, server)
        return server.num_received

    for number in range(1, received(0) + 1):
        received(number)


def test_of_batches_that_nobody_lists_a_lost_creation_is_not_sent_again(tmp_path):
    with serve(num_lost_creates=1, no_lists=True) as server:
        for _ in range(2):
            with pytest.raises(EndpointError, match=r"nobody knows whether .* delete .*batches/teacher/f/"):
                client(tmp_path, server).ask(asks(2))
        assert server.batches.num_created == 1


def test_requests_that_a_batch_lost_are_in_doubt_and_sent_again(tmp_path):
    with serve(num_missing=2) as server:
        endpoint = client(tmp_path, server)
        assert endpoint.ask(asks(5)) == [ANSWER] * 5
        assert server.batches.num_created == 2 and set(server.paid.values()) == {1}
    assert endpoint.counts["num_in_doubt"] == 2 and endpoint.counts["num_asked"] == 7


def test_the_rest_of_an_expired_batch_goes_into_another_one(tmp_path):
    with serve(num_expired=1) as server:
        assert client(tmp_path, server).ask(asks(6)) == [ANSWER] * 6
        assert server.batches.num_created == 2 and set(server.paid.values()) == {1}
        assert is_clean(tmp_path, server)


def test_without_retries_the_rest_of_an_expired_batch_is_left_to_the_next_run(tmp_path):
    with serve(num_expired=1) as server:
        first = client(tmp_path, server, max_retries=0)
        assert first.ask(asks(6)) == [ANSWER] * 3 + [None] * 3
        assert first.counts["num_failed"] == 3
        assert client(tmp_path, server).ask(asks(6)) == [ANSWER] * 6
        assert set(server.paid.values()) == {1}


def test_a_batch_that_fails_again_and_again_ends_the_run_with_the_reason(tmp_path):
    with serve(num_failed=10**6) as server:
        with pytest.raises(EndpointError, match=r"failed, invalid_request: the model is not known"):
            client(tmp_path, server).ask(asks(2))
        assert server.batches.num_created == 3 and not server.paid
        assert is_clean(tmp_path, server)


def test_what_the_provider_has_no_room_for_waits_for_the_other_batches(tmp_path):
    with serve(queue=1) as server:
        assert client(tmp_path, server, batch_max_requests=1, max_retries=1).ask(asks(4)) == [ANSWER] * 4
        assert set(server.paid.values()) == {1} and len(server.paid) == 4


def test_what_somebody_cancelled_is_not_sent_again_by_that_run(tmp_path):
    with serve(num_looks=4) as server:
        reply, server.reply = server.reply, lambda messages: server.batches.cancel() or plain(messages)
        with pytest.raises(EndpointError, match=r"was cancelled; what it answered is kept"):
            client(tmp_path, server).ask(asks(8))
        assert len(server.paid) == responses(tmp_path).num_answers == 2
        server.reply = reply
        assert client(tmp_path, server).ask(asks(8)) == [ANSWER] * 8
        assert set(server.paid.values()) == {1}


def test_one_request_may_be_refused_and_another_fail_without_the_rest(tmp_path):
    failures = ["once"]

    def reply(messages):
        number = messages[0]["content"].split()[0]
        if number == "1":
            return served.Odd("the prompt is too long", status=400)
        if number == "2" and failures:
            return served.Odd(failures.pop(), status=503)
        return served.Odd("", status=500) if number == "3" else "{}"

    with serve(reply) as server:
        endpoint = client(tmp_path, server)
        answers = endpoint.ask(asks(5))
        assert [answers[i] for i in (0, 2, 4)] == [ANSWER] * 3 and answers[3] is None
        assert "too long" in answers[1].refusal and not responses(tmp_path).has("key1")
        assert endpoint.counts["num_failed"] == 1 and server.batches.num_created == 3
        assert set(server.paid.values()) == {1}


def test_a_form_that_every_request_is_refused_for_ends_the_run(tmp_path):
    with serve(lambda messages: served.Odd("unknown field", status=400)) as server:
        with pytest.raises(EndpointError, match=r"it refuses what is asked, with 400: unknown field; check"):
            client(tmp_path, server).ask(asks(9))
        assert is_clean(tmp_path, server)


@pytest.mark.parametrize(
    ("caps", "num_answered"),
    [
        # 20 tokens are reserved for a request that takes 110 then.
        ({"max_tokens": 90}, 4),
        ({"max_cost": 0.07}, 4),
        ({"max_tokens": 19}, 0),
    ],
)
def test_what_does_not_fit_a_cap_is_not_sent(tmp_path, caps, num_answered):
    with serve() as server:
        for _ in range(2):
            ledger = responses(tmp_path)
            spent = Budget(**caps, tokens=sum(ledger.spent), cost=ledger.cost(config(server)))
            endpoint = client(tmp_path, server, budget=spent)
            answers = endpoint.ask(asks(6))
            assert sum(answer is not None for answer in answers) == num_answered
            assert endpoint.counts["num_capped"] == 6 - num_answered
        assert sum(server.paid.values()) == num_answered
        assert client(tmp_path, server).ask(asks(6)) == [ANSWER] * 6
        assert set(server.paid.values()) == {1}


def leave_open(folder, server, count: int) -> None:
    """A run that has sent a batch, looked once, and waits no longer."""
    with pytest.raises(EndpointError, match=r"batch_timeout_s=0\.001: not done are batch-1 \(in_progress\)"):
        client(folder, server, batch_timeout_s=0.001).ask(asks(count))


def test_a_run_that_waited_too_long_says_so_and_the_next_one_waits_on(tmp_path):
    with serve(num_looks=4) as server:
        leave_open(tmp_path, server, 8)
        endpoint = client(tmp_path, server, batch_max_requests=1)
        assert endpoint.ask(asks(10)) == [ANSWER] * 10
        # Two requests are new; they do not wait for the batch that is open.
        assert (endpoint.counts["num_resumed"], endpoint.counts["num_asked"]) == (8, 2)
        assert server.batches.num_created == 3 and set(server.paid.values()) == {1}


def test_without_batch_what_is_open_is_cancelled_and_what_it_answered_is_kept(tmp_path):
    with serve(num_looks=4) as server:
        leave_open(tmp_path, server, 8)
        endpoint = client(tmp_path, server, batch=False)
        num_in_batch = len(server.paid)
        assert endpoint.ask(asks(8)) == [ANSWER] * 8
        assert 0 < num_in_batch < 8 and set(server.paid.values()) == {1}
        assert is_clean(tmp_path, server)
        (batch,) = server.batches.batches.values()
    assert batch["status"] == "cancelled"
    in_batches = num_in_batch * COST / 2
    assert responses(tmp_path).cost(config(server)) == pytest.approx(in_batches + (8 - num_in_batch) * COST)


def test_a_batch_of_another_model_is_left_alone_and_counts_against_the_cap(tmp_path):
    with serve(num_looks=4) as server:
        leave_open(tmp_path, server, 8)
        other = Responses(Files(str(tmp_path), "ledger"), "teacher", "g")
        endpoint = BatchEndpoint(config(server), other, Budget(max_tokens=179))
        assert endpoint.ask(asks(2)) == [None, None]
        assert server.batches.num_created == 1
        assert client(tmp_path, server).ask(asks(8)) == [ANSWER] * 8


def test_every_poll_says_how_far_the_batches_are_also_while_nobody_answers(tmp_path, capsys):
    with serve(num_looks=3) as server:
        looks = []

        def reply(messages):
            if not looks:
                looks.append(server.batches.num_looked)
                server.batches.faults.num_busy = 1
            return "{}"

        server.reply = reply
        assert client(tmp_path, server, max_retries=0).ask(asks(6)) == [ANSWER] * 6
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[teacher] ")]
    answered = [line.split()[1] for line in lines if " of 6 requests answered" in line]
    assert answered == ["2", "2", "4", "6"] and "(1 in_progress)" in lines[0]
    assert sum("no answer (RateLimitError" in line for line in lines) == 1
    assert lines[-1].startswith("[teacher] 6 of 6 requests answered in batches (1 completed)")


def test_files_that_cannot_be_deleted_now_are_deleted_by_the_next_run(tmp_path, monkeypatch):
    with serve() as server:
        with monkeypatch.context() as patch:
            delete = Provider.delete

            def busy(provider, file_id):
                server.batches.faults.num_busy = 1
                return delete(provider, file_id)

            patch.setattr(Provider, "delete", busy)
            assert client(tmp_path, server, max_retries=0).ask(asks(2)) == [ANSWER] * 2
        assert server.batches.files
        assert client(tmp_path, server).ask(asks(2)) == [ANSWER] * 2
        assert is_clean(tmp_path, server) and server.batches.num_created == 1


def test_an_endpoint_without_a_batch_api_is_named_with_the_remedy(tmp_path):
    with serve(no_batches=True) as server:
        with pytest.raises(EndpointError, match=r"NotFoundError.*batch = false asks without it"):
            client(tmp_path, server).ask(asks(2))
        assert is_clean(tmp_path, server)
        assert client(tmp_path, server, batch=False).ask(asks(2)) == [ANSWER] * 2


def test_a_batch_that_the_provider_does_not_know_is_not_sent_again(tmp_path):
    with serve(num_looks=4) as server:
        leave_open(tmp_path, server, 8)
        server.batches.batches.clear()
        with pytest.raises(EndpointError, match=r"batch batch-1: it is not known there .* paid for, anew"):
            client(tmp_path, server).ask(asks(8))
        assert server.batches.num_created == 1


def test_who_asks_in_batches_asks_the_same_model():
    alone = EndpointConfig(base_url="http://a/v1", model="m")
    in_batches = alone.model_copy(update={"batch": True, "batch_price_factor": 0.4})
    assert alone.fingerprint == in_batches.fingerprint


def test_nothing_is_asked_where_the_ledger_knows_all(tmp_path):
    with serve() as server:
        client(tmp_path, server).ask(asks(2))
    # The server is gone.
    assert client(tmp_path, server).ask(asks(2)) == [ANSWER] * 2
    assert Files(str(tmp_path), "ledger").exists("answers/teacher/f/key0-100-10-batch.json")
