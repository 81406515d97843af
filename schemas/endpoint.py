"""Where a model behind an OpenAI-compatible endpoint is asked, how, and what its tokens cost."""

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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
    """Of sampling; 0: the most likely answer."""
    response_format: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How the answer is held to its schema, as far as the endpoint can."""
    schema_bounds: bool = True
    """The schema says how long texts and lists may be and how a date looks. False for endpoints whose strict
    schemas do not allow these keywords, such as OpenAI's own."""
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How this endpoint calls the limit of an answer's tokens."""
    extra_body: dict = {}
    """Fields of the request that only this endpoint knows."""
    prompt_price: float = Field(0.0, ge=0)
    """Price of a million prompt tokens, in any currency."""
    output_price: float = Field(0.0, ge=0)
    """Price of a million answer tokens, in the same currency."""
    batch: bool = False
    """Ask through the endpoint's batch API: files of requests, answered within a day, for less money. For a
    teacher and a judge only."""
    batch_price_factor: float = Field(0.5, ge=0)
    """What an answer costs in a batch, as a part of these prices."""
    batch_window: str = "24h"
    """Time within which the provider is to answer a batch, as its API spells it."""
    batch_max_requests: int = Field(10_000, ge=1)
    """Requests of one batch; providers take 50,000 at most."""
    batch_poll_s: float = Field(60.0, gt=0)
    """Seconds between two looks at the batches."""
    batch_timeout_s: float = Field(90_000.0, gt=0)
    """How long a run waits for batches. They go on without it, and the next run waits for them again."""

    def __hash__(self) -> int:
        # A table has none of its own, and profiles are keys of caches.
        return hash(self.model_dump_json())

    @property
    def deciding(self) -> dict:
        """The settings that can change an answer; the endpoint's address is not among them."""
        shown = self.model_dump(include={"model", "temperature", "response_format", "extra_body"})
        # Not there before a release knew it: what was paid for until then stays paid for.
        return shown if self.schema_bounds else shown | {"schema_bounds": False}

    @property
    def fingerprint(self) -> str:
        """16 hex digits over what can change an answer."""
        return hashlib.sha256(json.dumps(self.deciding, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def has_prices(self) -> bool:
        return bool(self.prompt_price or self.output_price)

    def cost(self, prompt_tokens: int, output_tokens: int, *, in_batch: bool = False) -> float:
        price = prompt_tokens * self.prompt_price + output_tokens * self.output_price
        return price * (self.batch_price_factor if in_batch else 1.0) / 1e6
