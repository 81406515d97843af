"""A language model behind an OpenAI-compatible endpoint: many requests side by side, each answer kept.

The client library backs off on 429, 5xx, time-outs and lost connections, and waits as long as a Retry-After
says. What it gives up is left open: the next run asks again. Caps hold before a request is sent.
"""

import asyncio
import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.models.paid_answers import Answer, Responses

CHARS_A_TOKEN = 3
"""For reserving a prompt's price before it is known; English has about four."""

MAX_FAILURES = 8
"""After so many requests in a row that failed for good, the endpoint is taken for gone."""


class EndpointError(RuntimeError):
    """The endpoint cannot be used as configured, or is gone. What it answered before is kept."""


class EndpointConfig(BaseModel):
    """An OpenAI-compatible endpoint, and what its tokens cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base_url: str = ""
    """For example https://api.example.com/v1, or http://127.0.0.1:8000/v1 of a `vllm serve`."""
    model: str = ""
    """The model's name at the endpoint."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; an endpoint without keys needs none."""
    concurrency: int = Field(16, ge=1)
    """Requests in flight; also the most that a kill can leave in doubt."""
    timeout_s: float = Field(120.0, gt=0)
    """Of one request."""
    max_retries: int = Field(6, ge=0)
    """Of one request, after 429, 5xx, a time-out or a lost connection."""
    temperature: float = Field(0.0, ge=0)
    response_format: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How the answer is held to its schema, as far as the endpoint can."""
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How this endpoint calls the limit of an answer's tokens."""
    extra_body: dict = {}
    """Fields of the request that only this endpoint knows."""
    prompt_price: float = Field(0.0, ge=0)
    """Price of a million prompt tokens, in any currency."""
    output_price: float = Field(0.0, ge=0)
    """Price of a million answer tokens, in the same currency."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over what can change an answer; where the endpoint lies is no part of it."""
        shown = self.model_dump(include={"model", "temperature", "response_format", "extra_body"})
        return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]

    def cost(self, prompt_tokens: int, output_tokens: int) -> float:
        return (prompt_tokens * self.prompt_price + output_tokens * self.output_price) / 1e6


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

    async def reserve(self, tokens: int, cost: float) -> bool:
        """Wait until the request fits beside those in flight; False when it will not."""
        async with self.changed:
            while not self.fits(tokens, cost):
                if not self.in_flight:
                    return False
                await self.changed.wait()
            self.reserved_tokens += tokens
            self.reserved_cost += cost
            self.in_flight += 1
            return True

    async def settle(self, reserved: tuple[int, float], spent: tuple[int, float]) -> None:
        async with self.changed:
            self.reserved_tokens -= reserved[0]
            self.reserved_cost -= reserved[1]
            self.tokens += spent[0]
            self.cost += spent[1]
            self.in_flight -= 1
            self.changed.notify_all()


@dataclass(frozen=True)
class Ask:
    """One request. `key` names it in the ledger."""

    key: str
    messages: list[dict]
    schema: dict
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
        self._failures_in_a_row = 0

    def ask(self, asks: list[Ask]) -> list[Answer | None]:
        """Answers in order, out of the ledger where it has them; None where a cap or a failure left it open.

        EndpointError when the endpoint refuses the key or the model, or fails request after request.
        """
        if any(ask.key in self.responses.in_doubt for ask in asks):
            self.responses.refresh()
        answers = [self.responses.get(ask.key) for ask in asks]
        missing = [ask for ask, answer in zip(asks, answers, strict=True) if answer is None]
        found = asyncio.run(self._ask_all(missing)) if missing else {}
        return [
            found.get(ask.key) if answer is None else answer
            for ask, answer in zip(asks, answers, strict=True)
        ]

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
                return ask.key, await self._ask(client, ask)

        async with client:
            tasks = [asyncio.create_task(one(ask)) for ask in asks]
            # When one raises, what is in flight is paid for all the same: hear it out, and keep it.
            await asyncio.wait(tasks)
            return dict(task.result() for task in tasks)

    async def _count(self, response) -> None:
        if response.status_code == 429 or response.status_code >= 500:
            self.counts["num_retried"] += 1

    async def _ask(self, client, ask: Ask) -> Answer | None:
        import openai

        if self._failures_in_a_row >= MAX_FAILURES:
            raise EndpointError(self.last_error)
        num_chars = sum(len(message["content"]) for message in ask.messages)
        most = (num_chars // CHARS_A_TOKEN, ask.max_tokens)
        reserved = (sum(most), self.config.cost(*most))
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
            self._failures_in_a_row = 0
            return answer
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            # Costs nothing and is not kept: another setting may mend it.
            self._fail(error)
            self.responses.not_answered(ask.key)
            return Answer("", refusal=_short(error))
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            self.responses.not_answered(ask.key)
            self._failures_in_a_row = MAX_FAILURES
            self.last_error = (
                f"{self.config.base_url}, model {self.config.model!r}: {_short(error)}; check base_url, "
                f"model and the key in {self.config.api_key_env}"
            )
            raise EndpointError(self.last_error) from None
        except openai.OpenAIError as error:
            self.counts["num_failed"] += 1
            self._fail(error)
            if not isinstance(error, openai.APIConnectionError):
                # After a time-out or a lost connection the server may have answered all the same.
                self.responses.not_answered(ask.key)
            return None
        finally:
            await self.budget.settle(reserved, (sum(spent), self.config.cost(*spent)))

    def _fail(self, error: Exception) -> None:
        self._failures_in_a_row += 1
        self.last_error = (
            f"{self.config.base_url}: {MAX_FAILURES} requests in a row failed, the last with "
            f"{_short(error)}; mend it and run again"
        )

    async def _send(self, client, ask: Ask) -> Answer:
        formats = {
            "json_schema": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": ask.schema, "strict": True},
            },
            "json_object": {"type": "json_object"},
        }
        options = {self.config.token_limit_field: ask.max_tokens}
        if wanted := formats.get(self.config.response_format):
            options["response_format"] = wanted
        done = await client.chat.completions.create(
            model=self.config.model,
            messages=ask.messages,
            temperature=self.config.temperature,
            extra_body=self.config.extra_body or None,
            # A server that knows such keys charges a repeated request once.
            extra_headers={"Idempotency-Key": ask.key},
            **options,
        )
        choice, usage = done.choices[0], done.usage
        return Answer(
            text=choice.message.content or "",
            complete=choice.finish_reason != "length",
            prompt_tokens=usage.prompt_tokens if usage else 0,
            output_tokens=usage.completion_tokens if usage else 0,
            refusal=choice.message.refusal or "",
        )


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
