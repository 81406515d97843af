"""The judge: a language model that scores records, and its rubric."""

from typing import Self

from pydantic import Field, model_validator

from schemas.profiles.model import ModelProfile, check_template


class JudgeProfile(ModelProfile):
    """A model that scores, and the rubric that it is given."""

    system_prompt: str
    """The rubric: what each of the four dimensions means, and what its scores stand for."""
    user_template: str
    """The user message; `{current}` and `{records}` are filled in."""
    max_segment_tokens: int = Field(2048, ge=64)
    """Tokens of turns and records together, for a local model; a longer prompt is not judged."""
    max_tokens: int = Field(96, ge=32)
    """Tokens of one answer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_template(self.user_template, "{current}", "{records}")
        return self

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together; the fixed text is estimated as for an encoder."""
        fixed_tokens = len(self.system_prompt + self.user_template) // 2
        return fixed_tokens + self.max_segment_tokens + self.max_tokens + 128
