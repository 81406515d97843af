"""A language model that answers questions about a user."""

from typing import Literal

from pydantic import Field

from schemas.profiles.model import AskedProfile


class AnswererProfile(AskedProfile):
    """A model that answers questions about a user, in plain text, as cluster.evaluate.qa asks."""

    ADDED = frozenset({"engine"})

    engine: Literal["vllm", "openai"] = "vllm"
    """`openai` asks the model behind `endpoint`."""

    max_prompt_tokens: int = Field(2048, ge=128)
    """Tokens of a prompt; the facts that would make it longer are left out."""
    max_tokens: int = Field(64, ge=8)
    """Tokens of one answer."""

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together."""
        return self.max_prompt_tokens + self.max_tokens
