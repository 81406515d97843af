"""How a model is asked: requests in, answers out.

    encoder, decider, teacher, judge, answerer  -- Request -->  Engine  -- Answer -->  the same

An Engine is vLLM or transformers on this worker (cluster.models.engine), a model behind an endpoint
(cluster.models.endpoint), or one of these within `Paid`, which keeps what is paid for
(cluster.models.paid_answers).
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

from cluster.models.confidence import Token
from cluster.models.prompt import Chat, Prompt

TOO_LONG = re.compile(
    r"context.?length|context.?window|maximum context|max_model_len|prompt is too long|input is too long"
    r"|too many (?:input )?tokens|reduce the length",
    re.IGNORECASE,
)
"""How engines say that a prompt has too many tokens."""

KEPT = ("text", "complete", "prompt_tokens", "output_tokens", "refusal")
"""Fields of an answer that are stored."""


@dataclass(frozen=True)
class Request:
    """One call."""

    prompt: Prompt
    schema: str | None
    """JSON schema that the answer is held to; None for plain text."""
    max_tokens: int
    """Of the answer."""
    key: str = ""
    """Names it among paid answers. Not given: of a chat, a hash over all of it."""

    def __post_init__(self) -> None:
        if not self.key and isinstance(self.prompt, Chat):
            schema = json.loads(self.schema) if self.schema else None
            object.__setattr__(self, "key", request_key(self.messages, schema, self.max_tokens))

    @property
    def messages(self) -> list[dict]:
        """Those of a chat."""
        assert isinstance(self.prompt, Chat), "an endpoint is asked with messages"
        return self.prompt.messages


@dataclass(frozen=True)
class Answer:
    """What a model answered. `complete` is False where a token limit cut the text."""

    text: str
    complete: bool = True
    prompt_tokens: int = 0
    output_tokens: int = 0
    refusal: str = ""
    """Why the request itself was refused; then there is no text, and asking again is of no use."""
    _: KW_ONLY
    cached_tokens: int = 0
    tokens: Sequence[Token] = ()
    """The text's tokens with their log-probabilities, where the engine was asked for them."""
    repeats: bool = False
    """The model said the same over and over, and was stopped: what came before is all that it had to say."""

    @property
    def kept(self) -> dict:
        """The fields that are stored."""
        return {name: getattr(self, name) for name in KEPT}

    @property
    def is_unread(self) -> bool:
        """Refused before a model read it, so that it cost nothing."""
        return bool(self.refusal and not self.prompt_tokens)

    @property
    def reason(self) -> str:
        """Why there is no answer: `prompt_too_long`, `refused`, or empty where there is one."""
        if self.is_unread and TOO_LONG.search(self.refusal):
            return "prompt_too_long"
        return "refused" if self.refusal else ""


Generate = Callable[[list[Request]], list[Answer]]


class Engine(Protocol):
    """What every engine has."""

    @property
    def tokenizer(self) -> Any:
        """Makes prompts, see cluster.models.prompt; None where the engine is asked with chat messages."""
        ...

    def generate(self, requests: list[Request]) -> list[Answer]:
        """Answers in order."""
        ...


def request_key(*parts: object) -> str:
    """32 hex digits over whatever decides an answer."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
