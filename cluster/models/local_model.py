"""A model on this worker, asked as one behind an endpoint is: each answer is kept and not paid twice."""

import functools
from collections.abc import Mapping, Sequence
from typing import Protocol

from cluster.models.endpoint import Ask
from cluster.models.engine import Request, VllmEngine
from cluster.models.paid_answers import Answer, Responses
from cluster.models.prompt import Chat, as_prompt
from schemas.profile import ModelProfile


class AskedModel(Protocol):
    """What a LocalModel and an Endpoint have: requests in, answers out, through the ledger."""

    @property
    def counts(self) -> Mapping[str, int]:
        """What it was asked, and what became of that."""
        ...

    def ask(self, asks: list[Ask]) -> Sequence[Answer | None]:
        """Answers in order; None where a cap or a failure left one open."""
        ...


class LocalModel:
    """vLLM on this worker. Loading waits for work. `schema`: what every answer is held to."""

    def __init__(self, profile: ModelProfile, schema: str | None, responses: Responses, engine: dict):
        self.counts = {"num_asked": 0}
        self._profile, self._schema, self._responses = profile, schema, responses
        self._load = functools.cache(functools.partial(VllmEngine, profile, **engine))

    def ask(self, asks: list[Ask]) -> list[Answer]:
        answers = {ask.key: self._responses.get(ask.key) for ask in asks}
        missing, requests = [], []
        for ask in asks:
            if answers[ask.key] is None:
                prompt = as_prompt(ask.messages, self._load().tokenizer)
                assert not isinstance(prompt, Chat)
                if len(prompt) + ask.max_tokens > self._profile.max_model_len:
                    answers[ask.key] = Answer("", refusal=f"prompt_too_long: {len(prompt)} tokens")
                    continue
                missing.append(ask)
                requests.append(Request(prompt, self._schema))
        self.counts["num_asked"] += len(missing)
        replies = self._load().generate(requests) if requests else []
        for ask, reply in zip(missing, replies, strict=True):
            answer = Answer(reply.text, reply.complete, reply.prompt_tokens, reply.output_tokens)
            self._responses.put(ask.key, answer)
            answers[ask.key] = answer
        return [one for ask in asks if (one := answers[ask.key]) is not None]
