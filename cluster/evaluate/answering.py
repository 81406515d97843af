"""Chat messages in, answers out: a model as it is served, for measuring it."""

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import pyarrow as pa

from cluster.models.asking import Answer, Request
from cluster.models.endpoint import estimated_tokens
from cluster.models.engine import Later, make_engine
from cluster.models.prompt import Chat, Prompt, as_prompt
from schemas.profiles.model import AskedProfile
from schemas.training import MESSAGE_TYPE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Conversation = list[list[dict]]
"""Of a conversation, a list of `{role, content}`, candidates, longest first: the first that fits is asked."""


@dataclass(frozen=True)
class Asked:
    """Conversations that are asked together."""

    conversations: Annotated[tuple[Conversation, ...], pa.list_(pa.list_(pa.list_(MESSAGE_TYPE)))]


@dataclass(frozen=True)
class Said:
    """A reply; empty and not complete where no candidate of the conversation fits."""

    text: str = ""
    complete: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Answered:
    """The replies, one a conversation, and the seconds that the engine took."""

    replies: tuple[Said, ...]
    seconds: float

    def __len__(self) -> int:
        return len(self.replies)


class Answering:
    """Actor: conversations -> replies. The model is loaded with the first batch."""

    def __init__(self, profile: AskedProfile, schema: str | None, engine: dict):
        self._profile, self._schema = profile, schema
        self._engine = Later(functools.partial(make_engine, profile, **engine))

    def __call__(self, batch: Asked) -> Answered:
        limit = self._profile.max_model_len - self._profile.max_tokens
        replies, asked, requests = [], [], []
        for candidates in batch.conversations:
            prompt = fitting(candidates, self._engine.tokenizer, limit)
            replies.append(Said())
            if prompt is not None:
                asked.append(len(replies) - 1)
                requests.append(Request(prompt, self._schema, self._profile.max_tokens))
        started_s = time.monotonic()
        for number, reply in zip(asked, self._engine.generate(requests) if requests else [], strict=True):
            replies[number] = _said(reply)
        return Answered(tuple(replies), time.monotonic() - started_s)


def _said(answer: Answer) -> Said:
    tokens = (answer.prompt_tokens, answer.cached_tokens, answer.output_tokens)
    return Said(answer.text, answer.complete, *tokens)


def fitting(
    candidates: list[list[dict]], tokenizer: "PreTrainedTokenizerBase | None", limit: int
) -> Prompt | None:
    """The first conversation of at most `limit` tokens, as a prompt; None where all are longer. Without the
    tokenizer, tokens are estimated."""
    for messages in candidates:
        prompt = as_prompt(messages, tokenizer)
        if (estimated_tokens(messages) if isinstance(prompt, Chat) else len(prompt)) <= limit:
            return prompt
    return None
