"""The embedder: a static one for all texts, and an evolvable one that may read the turns beside it."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from schemas.archive import spoken
from schemas.profiles.model import ProfileBase, fingerprint_of


class EvolvableProfile(ProfileBase):
    """An evolvable model, which reads all of a user's turns in order and keeps a memory of them."""

    NOT_IN_FINGERPRINT: ClassVar[frozenset[str]] = frozenset(
        {"model", "revision", "base", "max_active", "memory_tokens", "retriever_tokens"}
    )

    model: str
    """Hub id of a released checkpoint, or a folder: one of these, or one that jobs.train wrote."""
    revision: str | None = None
    """Hub revision."""
    base: str | None = None
    """Where the frozen base lies, when not where the model says: hub id, folder or `package:NAME`."""
    max_active: int = Field(64, ge=1)
    """Users whose turns are read side by side."""
    memory_tokens: int = Field(16_384, ge=1)
    """Tokens of a batch of chunks to be memorised, padding included."""
    retriever_tokens: int = Field(32_768, ge=1)
    """Tokens of a batch of texts with their memories, padding included."""

    model_hash: str = ""
    """Filled in when the profile is resolved; of model and base."""


class EmbedderProfile(ProfileBase):
    """A sentence-transformers model and how texts are given to it."""

    name: str
    model: str
    """Hub id, local folder, or `package:NAME`."""
    revision: str | None = None
    """Hub revision."""
    max_seq_len: int | None = None
    """Tokens of a text that are read; the model's own limit when not given."""
    query_prompt: str = ""
    """Stands before a query, for models that were trained with an instruction."""
    passage_prompt: str = ""
    """Stands before a text of the store, for models that were trained with one there too."""
    centre: tuple[float, ...] = ()
    """Taken from every vector, which then gets norm 1 again: what the vectors of all texts have in common,
    for models that find any two texts alike. A cosine then says the same as with other models; the words'
    weight in a search and the least similarity in a consolidation count on that."""
    batch_size: int = Field(32, ge=1)
    """Texts per forward pass."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    turns: EvolvableProfile | None = None
    """Makes the vectors of turns, where given; `model` then makes those of records alone."""

    model_hash: str = ""
    """Filled in when the profile is resolved."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything that can change a vector."""
        if not self.model_hash:
            raise ValueError(
                f"embedder {self.name!r} is not resolved: resolve it before asking for its fingerprint"
            )
        exclude: dict[str, Any] = dict.fromkeys(
            ("name", "model", "revision", "batch_size", "query_prompt"), True
        )
        exclude["turns"] = self.turns is None or self.turns.NOT_IN_FINGERPRINT
        # Profiles without them have the fingerprint that they had before there were any.
        exclude |= dict.fromkeys(
            [name for name in ("passage_prompt", "centre") if not getattr(self, name)], True
        )
        # What a turn looks like, as the code makes it: the same look is the same fingerprint.
        return fingerprint_of(self, exclude, turn_text=spoken({"speaker": "speaker", "content": "content"}))
