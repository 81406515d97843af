"""A language model that decides updates: its prompt and its limits."""

import hashlib
import json
from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.decision import DecisionLimits
from schemas.profiles.model import AskedProfile, ProfileBase, check_template


class DecisionExample(ProfileBase):
    """A worked example, shown to the decider as an earlier exchange of the chat."""

    target: str
    """Stands where the target stands, with its date."""
    sources: str
    """Stands where the sources stand, one a line."""
    answer: str
    """The JSON that is right for it, with `, ` and `: ` as separators, as the decoder writes it."""


class DeciderProfile(AskedProfile):
    """A model that decides updates: prompt and limits."""

    ADDED = frozenset({"engine"})

    engine: Literal["vllm", "openai"] = "vllm"
    """`openai` asks the model behind `endpoint`."""

    system_prompt: str
    """Text of the system message."""
    user_template: str
    """The user message; `{target}` and `{sources}` are filled in, each memory with its date, oldest first."""
    examples: tuple[DecisionExample, ...] = ()
    """The same in every prompt, so that the prefix cache computes them once."""
    limits: DecisionLimits = DecisionLimits()
    max_source_tokens: int = Field(1024, ge=64)
    """Tokens of target and sources together; the oldest sources are left out where there are more."""
    max_tokens: int = Field(160, ge=32)
    """Tokens of one answer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_template(self.user_template, "{target}", "{sources}")
        return self

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together; the fixed text is estimated as for an encoder."""
        return self.fixed_chars // 2 + self.max_source_tokens + self.max_tokens + 128

    @property
    def model_name(self) -> str:
        """Base and adapter with their revisions, or the endpoint's model, for people; what they contain is in
        the fingerprint."""
        if self.endpoint:
            return self.endpoint.model
        parts = [(self.base, self.base_revision), (self.adapter, self.adapter_revision)]
        return " + ".join(f"{name}@{revision}" if revision else name for name, revision in parts if name)

    @property
    def prompt_fingerprint(self) -> str:
        """16 hex digits over everything that a question is wrapped in."""
        shown = self.model_dump(mode="json", include={"system_prompt", "user_template", "examples", "limits"})
        return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def fixed_chars(self) -> int:
        """Characters that every prompt has."""
        shown = [self.system_prompt, self.user_template]
        for example in self.examples:
            shown += [self.user_template, example.target, example.sources, example.answer]
        return sum(map(len, shown))
