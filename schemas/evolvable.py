"""Evolvable embeddings: the constants of a model, as its folder keeps them.

The defaults are the published ones (EvoEmbedding, arXiv 2606.21649).
"""

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from schemas.settings import Settings

Dtype = Literal["float32", "bfloat16", "float16"]


class EvolvableShape(Settings):
    """The constants that do not depend on base and adapters."""

    model_config = ConfigDict(protected_namespaces=())

    num_latents: int = Field(16, ge=1)
    """Latent vectors that one exchange leaves in the memory."""
    num_words: int = Field(0, ge=0)
    """Of these, the first so many start as the exchange's rarest words, to which the model adds what it
    learns: a memory that can be read before anything is learned. At most `num_latents`; 0: as published."""
    queue_capacity: int = Field(512, ge=1)
    """Latent vectors that the queue holds; the oldest leave first."""
    query_capacity: int | None = Field(None, ge=0)
    """Of these, a question is read with the newest so many; not given: with all, as published. What was said
    last says little about a question that comes days later."""
    max_chunk_turns: int = Field(16, ge=1)
    """Exchanges that are memorised in one pass over the model."""
    max_chunk_tokens: int = Field(2048, ge=1)
    """Tokens of conversation in such a pass. A longer exchange makes a chunk of its own."""
    max_turn_tokens: int = Field(4096, ge=32)
    """Longer exchanges are cut to this. The published model has no limit and fails where memory ends."""
    embedding_dim: int = Field(1024, ge=1)
    """Length of the vectors."""
    query_std: float = Field(0.02, gt=0)
    """Standard deviation of the memory queries at the start."""
    end_of_text: str = "<|endoftext|>"
    """The token that ends a document or a query; its hidden state becomes the vector."""
    query_instruction: str = (
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
    )
    """Stands before a query (Qwen3-Embedding's retrieval instruction)."""

    @model_validator(mode="after")
    def _words_fit(self) -> Self:
        if self.num_words > self.num_latents:
            raise ValueError(
                f"num_words={self.num_words}: at most num_latents={self.num_latents} latents can be words"
            )
        return self

    def asked_with(self, latents: Any) -> Any:
        """Of a conversation's latents [n, H], those with which a question is read."""
        capacity = self.queue_capacity if self.query_capacity is None else self.query_capacity
        return latents[max(0, len(latents) - min(capacity, self.queue_capacity)) :]


class EvolvableConfig(EvolvableShape):
    """What makes an evolvable model, apart from weights. Written into a saved model's `evolvable.json`."""

    base: str
    """The frozen causal language model: hub id, local folder, or `package:NAME`."""
    base_revision: str | None = None
    """Hub revision of the base."""
    lora_r: int = Field(64, ge=1)
    """Rank of both adapters."""
    lora_alpha: int = Field(128, ge=1)
    """Scale of both adapters, times the rank."""
    lora_dropout: float = Field(0.1, ge=0, lt=1)
    """While training."""
    lora_targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Linear layers of the base that get adapters."""
    dtype: Dtype = "float32"
    """Of the frozen base."""
    trainable_dtype: Dtype = "float32"
    """Of adapters, memory queries and projections."""
