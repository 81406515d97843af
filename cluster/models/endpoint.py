"""A language model behind an OpenAI-compatible endpoint: many requests side by side, each answer kept.

The client library backs off on 429, 5xx, time-outs and lost connections, and waits as long as a Retry-After
says. What it gives up is left open: the next run asks again. Caps hold before a request is sent.
"""

import asyncio
import json
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.models.paid_answers import Answer, Responses
from cluster.runtime import tick
from cluster.store.crash_markers import WorkerSick
from schemas.endpoint import EndpointConfig

if TYPE_CHECKING:
    import httpx
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

CHARS_A_TOKEN = 3
"""For reserving a prompt's price before it is known; English has about four."""

MAX_FAILURES = 8
"""After so many requests in a row that failed for good, the endpoint is taken for gone."""


TOO_LONG = re.compile(
    r"context.?length|context.?window|maximum context|max_model_len|prompt is too long|input is too long"
    r"|too many (?:input )?tokens|reduce the length",
    re.IGNORECASE,
)
"""How endpoints say that a prompt has too many tokens."""

_FILTERED = re.compile(r"content.?(?:filter|policy|management)|safety|moderation", re.IGNORECASE)
"""How endpoints say that they do not like what a prompt is about."""


def is_about_request(refusal: str) -> bool:
    """Whether what was refused is this request and not the way in which all are made."""
    return bool(TOO_LONG.search(refusal) or _FILTERED.search(refusal))


class EndpointError(WorkerSick):
    """The endpoint cannot be used as configured, or is gone. What it answered before is kept."""


class CapReached(Exception):
    """The run's cap is reached; what was answered until now is kept."""


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
    changed: asyncio.Condition = field(default_factory=asyncio.Condition, repr=False)

    def fits(self, tokens: int, cost: float) -> bool:
        fits_tokens = (
            self.max_tokens is None or self.tokens + self.reserved_tokens + tokens <= self.max_tokens
        )
        return fits_tokens and (
            self.max_cost is None or self.cost + self.reserved_cost + cost <= self.max_cost + 1e-12
        )

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

    async def reserve(self, tokens: int, cost: float) -> bool:
        """Wait until the request fits beside those in flight; False when it will not."""
        async with self.changed:
            while not self.fits(tokens, cost):
                if not self.in_flight:
                    return False
                await self.changed.wait()
            self.take(tokens, cost)
            self.in_flight += 1
            return True

    async def settle(self, reserved: tuple[int, float], spent: tuple[int, float]) -> None:
        async with self.changed:
            self.give_back(reserved, spent)
            self.in_flight -= 1
            self.changed.notify_all()


@dataclass(frozen=True)
class Ask:
    """One request. `key` names it in the ledger."""

    key: str
    messages: list[dict]
    schema: dict | None
    """None: the answer is plain text."""
    max_tokens: int


COUNTS = ("num_asked", "num_in_doubt", "num_retried", "num_failed", "num_capped")
"""Of requests: sent, sent again because a kill left open whether they were paid, 429 and 5xx seen, without an
answer, not sent for a cap."""


class Endpoint:
    """Asks what the ledger does not know. Made and used inside one event loop at a time."""

    def __init__(self, config: EndpointConfig, responses: Responses, budget: Budget):
        self.config, self.responses, self.budget = config, responses, budget
        self.counts = Counter(dict.fromkeys(COUNTS, 0))
        self.last_error = ""
        self.is_unavailable = False
        """Whether the last answer was that none can be had: no connection, no time, 429, 502 and the like. A
        500 may be the fault of the one request."""
        self._failures_in_a_row = 0

    def ask(self, asks: list[Ask]) -> list[Answer | None]:
        """Answers in order, out of the ledger where it has them; None where a cap or a failure left it open.

        EndpointError when the endpoint refuses the key or the model, or fails request after request.
        """
        if any(ask.key in self.responses.in_doubt for ask in asks):
            self.responses.refresh()
        answers = [self.responses.get(ask.key) for ask in asks]
        # Two who ask the same are asked for once.
        missing = {ask.key: ask for ask, answer in zip(asks, answers, strict=True) if answer is None}
        found = self.found(list(missing.values()))
        return [
            found.get(ask.key) if answer is None else answer
            for ask, answer in zip(asks, answers, strict=True)
        ]

    def found(self, asks: list[Ask]) -> dict[str, Answer | None]:
        """Answers by key to what the ledger does not know."""
        return asyncio.run(self._ask_all(asks)) if asks else {}

    async def _ask_all(self, asks: list[Ask]) -> dict[str, Answer | None]:
        import openai

        # A condition belongs to the loop in which it is first waited for.
        self.budget.changed = asyncio.Condition()
        gate = asyncio.Semaphore(self.config.concurrency)
        client = openai.AsyncOpenAI(
            base_url=self.config.base_url,
            api_key=os.environ.get(self.config.api_key_env) or "none",
            timeout=self.config.timeout_s,
            max_retries=self.config.max_retries,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [self._count]}),
        )

        async def one(ask: Ask) -> tuple[str, Answer | None]:
            async with gate:
                answer = await self._ask(client, ask)
            tick()
            return ask.key, answer

        async with client:
            tasks = [asyncio.create_task(one(ask)) for ask in asks]
            # When one raises, what is in flight is paid for all the same: hear it out, and keep it.
            await asyncio.wait(tasks)
            # Of several errors one is raised; asyncio logs those that nobody has looked at.
            failed = [error for task in tasks if (error := task.exception())]
            if failed:
                raise failed[0]
            return dict(task.result() for task in tasks)

    async def _count(self, response: "httpx.Response") -> None:
        self.count_refusal(response.status_code)
        await response.aread()
        check_whole(response)

    def count_refusal(self, status: int) -> None:
        if status == 429 or status >= 500:
            self.counts["num_retried"] += 1

    async def _ask(self, client: "AsyncOpenAI", ask: Ask) -> Answer | None:
        import openai

        if self._failures_in_a_row >= MAX_FAILURES:
            raise EndpointError(self.last_error)
        reserved = self.at_most(ask)
        if not await self.budget.reserve(*reserved):
            self.counts["num_capped"] += 1
            return None
        spent = (0, 0)
        try:
            self.counts["num_asked"] += 1
            self.counts["num_in_doubt"] += ask.key in self.responses.in_doubt
            await asyncio.to_thread(self.responses.asking, ask.key)
            answer = await self._send(client, ask)
            spent = (answer.prompt_tokens, answer.output_tokens)
            self.responses.put(ask.key, answer)
            self._failures_in_a_row, self.is_unavailable = 0, False
            return answer
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            # Costs nothing and is not kept: another setting may mend it.
            if not is_about_request(refusal := short(error)):
                self._fail(error)
            self.responses.not_answered(ask.key)
            return Answer("", refusal=refusal)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            self.responses.not_answered(ask.key)
            self._failures_in_a_row = MAX_FAILURES
            self.last_error = (
                f"{self.config.base_url}, model {self.config.model!r}: {short(error)}; check base_url, "
                f"model and the key in {self.config.api_key_env}; workers of a running cluster have it where "
                "pass_env of [cluster] names it"
            )
            raise EndpointError(self.last_error) from None
        except openai.OpenAIError as error:
            self.counts["num_failed"] += 1
            self._fail(error)
            self.is_unavailable = getattr(error, "status_code", None) != 500
            if not isinstance(error, openai.APIConnectionError):
                # After a time-out or a lost connection the server may have answered all the same.
                self.responses.not_answered(ask.key)
            return None
        finally:
            await self.budget.settle(reserved, (sum(spent), self.config.cost(*spent)))

    def at_most(self, ask: Ask, *, in_batch: bool = False) -> tuple[int, float]:
        """Tokens and money that a request may cost."""
        most = (estimated_tokens(ask.messages), ask.max_tokens)
        return sum(most), self.config.cost(*most, in_batch=in_batch)

    def _fail(self, error: Exception) -> None:
        self._failures_in_a_row += 1
        count = min(self._failures_in_a_row, MAX_FAILURES)
        self.last_error = (
            f"{self.config.base_url}: {count} requests in a row failed, the last with {short(error)}; mend "
            "it and run again"
        )

    async def _send(self, client: "AsyncOpenAI", ask: Ask) -> Answer:
        # A server that knows such keys charges a repeated request once.
        done = await client.chat.completions.create(
            **self.request(ask),
            extra_body=self.config.extra_body or None,
            extra_headers={"Idempotency-Key": ask.key},
        )
        answer = read_completion(done, estimated_tokens(ask.messages))
        if answer is None:
            self.responses.not_answered(ask.key)
            raise EndpointError(self.not_a_completion)
        return answer

    def request(self, ask: Ask) -> dict[str, Any]:
        """What is sent, without the fields that only this endpoint knows."""
        sent: dict[str, Any] = {
            "model": self.config.model,
            "messages": ask.messages,
            "temperature": self.config.temperature,
            self.config.token_limit_field: ask.max_tokens,
        }
        if ask.schema and self.config.response_format != "none":
            sent["response_format"] = self._format(ask.schema)
        return sent

    @property
    def not_a_completion(self) -> str:
        return (
            f"{self.config.base_url}: it answers, but not with a chat completion; check base_url, which "
            "often ends in /v1"
        )

    def _format(self, schema: dict) -> dict:
        if self.config.response_format == "json_object":
            return {"type": "json_object"}
        schema = schema if self.config.schema_bounds else without_bounds(schema)
        return {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        }


def read_completion(done: "ChatCompletion", prompt_tokens: int) -> Answer | None:
    """The answer in what came; None where that is no chat completion. `prompt_tokens` is believed where the
    server does not say what it counts, so that a cap holds there, too."""
    if not getattr(done, "choices", None):
        return None
    choice, usage = done.choices[0], done.usage
    text = choice.message.content or ""
    return Answer(
        text=text,
        complete=choice.finish_reason != "length",
        prompt_tokens=usage.prompt_tokens if usage else prompt_tokens,
        output_tokens=usage.completion_tokens if usage else len(text) // CHARS_A_TOKEN + 1,
        refusal=choice.message.refusal or "",
    )


def check_whole(response: "httpx.Response") -> None:
    """Raise, as for a lost connection, where the answer that was read ends too early. Where a server or a
    proxy closes the connection to end an answer, nothing else tells that from a whole one."""
    if response.status_code != 200 or "json" not in response.headers.get("content-type", ""):
        return
    try:
        json.loads(response.content)
    except ValueError:
        # The client library tries again after errors of its own HTTP library, of which there are two.
        library = sys.modules[type(response).__module__.partition(".")[0]]
        raise library.RemoteProtocolError("the answer ends too early", request=response.request) from None


BOUNDS = frozenset(
    ("minLength", "maxLength", "pattern", "minItems", "maxItems", "minimum", "maximum", "default")
)
"""Keywords of a JSON schema that strict endpoints may not know."""


def without_bounds(schema: Any) -> Any:
    """A JSON schema with BOUNDS left out and a type beside every enum, as such endpoints want it."""
    if isinstance(schema, list):
        return [without_bounds(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {name: without_bounds(item) for name, item in value.items()}
        elif key not in BOUNDS:
            found[key] = value if key in ("enum", "const") else without_bounds(value)
    if "enum" in found and all(isinstance(item, float | int) for item in found["enum"]):
        found.setdefault("type", "number")
    return found


def estimated_tokens(messages: list[dict]) -> int:
    """Tokens of a prompt whose tokenizer is not here."""
    return sum(len(message["content"]) for message in messages) // CHARS_A_TOKEN


def short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
