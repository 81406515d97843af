"""Paid answers: an engine within `Paid` is asked once for each answer, within caps, many requests at a time.

The ledger has one durable file an answer, so that a killed run pays for nothing twice. A request's key is a
hash of all that decides its answer. Before it is sent, `asked/.../KEY` is put; when its answer is there,
`answers/.../KEY-PROMPT-OUTPUT.json`, whose name holds the tokens, so that one listing tells what was spent. A
request that was asked and has no answer was in flight when its run was killed: it is *in doubt*, the server
may have answered and charged it. Nothing that a client can do tells the two apart; what is in doubt is
bounded by the requests in flight, counted, and asked again under the same idempotency key.

Answers out of a provider's batch (cluster.models.batches) have another price. They lie beside the others, as
`KEY-PROMPT-OUTPUT-batch.json`.
"""

import contextlib
import functools
import re
import threading
from collections import Counter, deque
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.models.asking import Answer, Engine, Request
from cluster.models.endpoint import Endpoint, EndpointError, Unanswered, is_odd
from cluster.runtime import tick
from cluster.store.files import Files
from schemas.endpoint import EndpointConfig

IN_BATCH = "batch"
"""Marks the name of an answer that came in a batch."""


MAX_FAILURES = 8
"""After so many requests in a row that failed for good, an endpoint is taken for gone."""

COUNTS = ("num_asked", "num_in_doubt", "num_retried", "num_failed", "num_capped")
"""Of requests: sent, sent again because a kill left open whether they were paid, 429 and 5xx seen, without an
answer, not sent for a cap."""

_FENCED = re.compile(r"\s*```\w*\s*\n(.*?)\n\s*```\s*", re.DOTALL)


class CapReached(Exception):
    """The run's cap is reached; what was answered until now is kept."""


class Responses:
    """Answers of one model in one role (`teacher`, `judge`), of an output folder.

    `spent` holds the tokens of all answers of the role, those of other models and prompts included;
    `spent_in_batches` those of them that came in batches.
    """

    def __init__(self, files: Files, role: str, fingerprint: str):
        self.files, self.role, self.fingerprint = files, role, fingerprint
        self._asked, self._answered = f"asked/{role}/{fingerprint}", f"answers/{role}/{fingerprint}"
        self.spent = self.spent_in_batches = (0, 0)
        self._paths: dict[str, str] = {}
        self.refresh()
        asked = {path.rpartition("/")[2] for path in files.paths(self._asked)}
        self.in_doubt = asked - self._paths.keys()
        """Keys of requests that were in flight when an earlier run was killed."""

    @property
    def num_answers(self) -> int:
        """Answers of this fingerprint."""
        return len(self._paths)

    def refresh(self) -> None:
        """List the ledger again: workers of a killed run may have kept an answer meanwhile."""
        direct, in_batches = [0, 0], [0, 0]
        for path in self.files.paths(f"answers/{self.role}"):
            folder, _, name = path.rpartition("/")
            key, *tokens = name.removesuffix(".json").split("-")
            spent = in_batches if tokens[2:] == [IN_BATCH] else direct
            spent[0], spent[1] = spent[0] + int(tokens[0]), spent[1] + int(tokens[1])
            if folder == self._answered:
                self._paths[key] = path
        self.spent = (direct[0] + in_batches[0], direct[1] + in_batches[1])
        self.spent_in_batches = (in_batches[0], in_batches[1])

    def cost(self, config: EndpointConfig) -> float:
        """What all answers of the role cost, at this endpoint's prices."""
        in_batches = self.spent_in_batches
        direct = (self.spent[0] - in_batches[0], self.spent[1] - in_batches[1])
        return config.cost(*direct) + config.cost(*in_batches, in_batch=True)

    def has(self, key: str) -> bool:
        return key in self._paths

    def get(self, key: str) -> Answer | None:
        path = self._paths.get(key)
        found = self.files.get_json(path) if path else None
        return Answer(**found) if found else None

    def asking(self, key: str) -> None:
        """Note that the request is about to be sent."""
        self.files.put(f"{self._asked}/{key}", b"")

    def put(self, key: str, answer: Answer, *, in_batch: bool = False) -> None:
        """Keep the answer; when this returns, it is paid for the last time."""
        tokens = f"{answer.prompt_tokens}-{answer.output_tokens}" + (f"-{IN_BATCH}" if in_batch else "")
        path = f"{self._answered}/{key}-{tokens}.json"
        self.files.put_json(path, answer.kept)
        self._paths[key] = path
        self.not_answered(key)

    def not_answered(self, key: str) -> None:
        """The request ended, so it is no longer in doubt."""
        self.files.delete([f"{self._asked}/{key}"])


@dataclass
class Budget:
    """Caps on tokens and money, and what was spent. None: no cap.

    A request reserves what it may cost at most; what it did cost is known with its answer.
    """

    max_tokens: int | None = None
    max_cost: float | None = None
    tokens: int = 0
    cost: float = 0.0
    reserved_tokens: int = 0
    reserved_cost: float = 0.0
    in_flight: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def fits(self, tokens: int, cost: float) -> bool:
        tokens += self.tokens + self.reserved_tokens
        cost += self.cost + self.reserved_cost
        is_cheap = self.max_cost is None or cost <= self.max_cost + 1e-12
        return is_cheap and (self.max_tokens is None or tokens <= self.max_tokens)

    def take(self, tokens: int, cost: float) -> None:
        """Reserve what a request may cost at most."""
        self.reserved_tokens += tokens
        self.reserved_cost += cost

    def give_back(self, reserved: tuple[int, float], spent: tuple[int, float]) -> None:
        """Count what was spent in the place of what was reserved for it."""
        self.reserved_tokens -= reserved[0]
        self.reserved_cost -= reserved[1]
        self.tokens += spent[0]
        self.cost += spent[1]

    def reserve(self, tokens: int, cost: float) -> bool:
        """Wait until the request fits beside those in flight; False when it will not."""
        with self.changed:
            self.changed.wait_for(lambda: self.fits(tokens, cost) or not self.in_flight)
            if is_taken := self.fits(tokens, cost):
                self.take(tokens, cost)
                self.in_flight += 1
            return is_taken

    def settle(self, reserved: tuple[int, float], spent: tuple[int, float]) -> None:
        with self.changed:
            self.give_back(reserved, spent)
            self.in_flight -= 1
            self.changed.notify_all()


class Paid:
    """An engine whose answers are kept: it is asked for what the ledger does not know.

    An endpoint gets as many requests at a time as its settings say. Each is reserved in the budget, noted,
    sent, and its answer kept before the next takes its place. What the client library gives up is left open:
    the next run asks again. An engine on this worker costs nothing, and gets all requests at once.
    """

    def __init__(self, engine: Engine, responses: Responses, budget: Budget | None = None):
        self.engine, self.responses, self.budget = engine, responses, budget or Budget()
        self.counts = Counter(dict.fromkeys(COUNTS if isinstance(engine, Endpoint) else COUNTS[:1], 0))
        if isinstance(engine, Endpoint):
            engine.on_retry = functools.partial(self._count, "num_retried")
        self.last_error = ""
        self._is_gone, self._failures_in_a_row, self._lock = False, 0, threading.Lock()

    @property
    def tokenizer(self) -> Any:
        return self.engine.tokenizer

    def generate(self, requests: list[Request]) -> list[Answer]:
        """Answers to all.

        CapReached when no more may be spent; EndpointError (a WorkerSick) when the endpoint is gone or
        refuses all; Unanswered when it fails at a request. What else was answered is kept then too.
        """
        num_capped = self.counts["num_capped"]
        answers = self.ask(requests)
        found = [answer for answer in answers if answer is not None]
        if len(found) < len(answers):
            if self.counts["num_capped"] > num_capped:
                raise CapReached(f"max_cost: {self.budget.cost:.6g} are spent, and no further request fits")
            raise (EndpointError if self._is_gone else Unanswered)(self.last_error)
        odd = [one.refusal for one in found if is_odd(one)]
        if odd and isinstance(self.engine, Endpoint) and not self.responses.num_answers:
            raise self.engine.refuses_all(odd[0])
        return found

    def ask(self, requests: list[Request]) -> list[Answer | None]:
        """Answers in order, out of the ledger where it has them; None where a cap or a failure left it open.

        EndpointError when the endpoint refuses the key or the model, or fails request after request.
        """
        if any(request.key in self.responses.in_doubt for request in requests):
            self.responses.refresh()
        known = {request.key: self.responses.get(request.key) for request in requests}
        # Two who ask the same are asked for once.
        missing = {request.key: request for request in requests if known[request.key] is None}
        known |= self.found(list(missing.values()))
        return [_without_fence(known.get(request.key), request) for request in requests]

    def found(self, requests: list[Request]) -> dict[str, Answer | None]:
        """Answers by key to what the ledger does not know, and now does."""
        if isinstance(self.engine, Endpoint):
            return self._side_by_side(self.engine, requests)
        answers = self.engine.generate(requests) if requests else []
        for request, answer in zip(requests, answers, strict=True):
            self.counts["num_asked"] += not answer.is_unread
            self._put(request.key, answer)
        return {request.key: answer for request, answer in zip(requests, answers, strict=True)}

    def _side_by_side(self, endpoint: Endpoint, requests: list[Request]) -> dict[str, Answer | None]:
        answers: list[Future[Answer | None]] = [Future() for _ in requests]
        waiting = deque(zip(requests, answers, strict=True))

        def work() -> None:
            with contextlib.suppress(IndexError):
                while True:
                    request, answer = waiting.popleft()
                    try:
                        answer.set_result(self._answer(endpoint, request))
                    except BaseException as error:
                        answer.set_exception(error)

        # A process that ends waits for none of them: what is in flight then is in doubt.
        for _ in range(min(endpoint.config.concurrency, len(requests))):
            threading.Thread(target=work, name="ask", daemon=True).start()
        try:
            # When one fails, what is in flight is paid for all the same: hear it out, and keep it.
            for asked in as_completed(answers):
                if not asked.exception() and asked.result() is not None:
                    tick()
        finally:
            waiting.clear()
        return {request.key: answer.result() for request, answer in zip(requests, answers, strict=True)}

    def _answer(self, endpoint: Endpoint, request: Request) -> Answer | None:
        if self._failures_in_a_row >= MAX_FAILURES:
            raise EndpointError(self.last_error)
        reserved, spent = endpoint.at_most(request), (0, 0)
        if not self.budget.reserve(*reserved):
            self._count("num_capped")
            return None
        try:
            self._count("num_asked")
            self._count("num_in_doubt", request.key in self.responses.in_doubt)
            self.responses.asking(request.key)
            (answer,) = endpoint.generate([request])
            spent = (answer.prompt_tokens, answer.output_tokens)
            self._put(request.key, answer)
            if is_odd(answer):
                self._fails(endpoint, answer.refusal)
            else:
                self._failures_in_a_row, self._is_gone = 0, False
            return answer
        except Unanswered as error:
            self._count("num_failed")
            self._fails(endpoint, str(error))
            self._is_gone = error.is_gone
            if not error.is_in_doubt:
                self.responses.not_answered(request.key)
            return None
        except EndpointError as error:
            self.responses.not_answered(request.key)
            self._failures_in_a_row, self.last_error = MAX_FAILURES, str(error)
            raise
        finally:
            self.budget.settle(reserved, (sum(spent), endpoint.config.cost(*spent)))

    def _put(self, key: str, answer: Answer) -> None:
        if answer.is_unread:
            # It cost nothing: another setting may mend it.
            self.responses.not_answered(key)
        else:
            self.responses.put(key, answer)

    def _fails(self, endpoint: Endpoint, said: str) -> None:
        with self._lock:
            self._failures_in_a_row += 1
            count = min(self._failures_in_a_row, MAX_FAILURES)
            self.last_error = (
                f"{endpoint.config.base_url}: {count} requests in a row failed, the last with {said}; mend "
                "it and run again"
            )

    def _count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self.counts[name] += number


def _without_fence(answer: Answer | None, request: Request) -> Answer | None:
    """JSON out of the code fence that some models put it in."""
    fenced = _FENCED.fullmatch(answer.text) if answer and request.schema else None
    return replace(answer, text=fenced[1]) if answer and fenced else answer
