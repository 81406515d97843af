"""An evolvable model as LightMem's text embedder and reranker.

    from jobs.common.lightmem_evolvable import register
    register()                                    # once; then, in LightMem's configuration, both of:
    {"text_embedder": {"model_name": "slowwave_evolvable", "configs": {"model": FOLDER}},
     "embedding_retriever": {"model_name": "slowwave_evolvable", "configs": {
        "model": FOLDER, "num_candidates": 50,
        "collection_name": "me", "path": "./qdrant", "on_disk": True}}}

An evolvable vector depends on what was said before, of which LightMem's `embed(text)` knows nothing. So the
embedder hands the text on with its vector, and the retriever, around LightMem's own Qdrant, keeps the memory:
a collection is one conversation, its entries in the order in which they came. An entry has the vector made
with the memory before it, which never changes; a question is read with the memory of all. LightMem has no
place for a reranker, so the retriever is one, too: of the nearest entries, the best answers come first.

A collection that is opened again is read again, as its entries then stand.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.profiles.embedder import EvolvableProfile

if TYPE_CHECKING:
    from cluster.evolvable.embedder import EvolvableEmbedder
    from cluster.evolvable.state import State
    from cluster.evolvable.tokens import Exchange

MODEL_NAME = "slowwave_evolvable"

POSITION = "slowwave_position"
"""Key in an entry's payload: where in the conversation it stands. LightMem keeps it when it rewrites one."""


class RetrieverConfig(BaseModel):
    """Settings of the retriever; what is not named here is for LightMem's Qdrant."""

    model_config = ConfigDict(
        frozen=True, extra="allow", use_attribute_docstrings=True, protected_namespaces=()
    )

    model: str
    """Folder that jobs.train wrote, folder of a released checkpoint, or its hub id."""
    model_kwargs: dict[str, Any] = {}
    """Other settings of an embedder profile's `[turns]`, such as `base`."""
    num_candidates: int = Field(50, ge=0)
    """So many of the nearest entries are put into the order in which they answer the question. 0: the order
    of the vectors stays."""
    embedding_model_dims: int | None = None
    """Length of the vectors: the model's, or not given."""


def register() -> None:
    """Make LightMem know both under `slowwave_evolvable`. ImportError when LightMem is not installed."""
    from lightmem.configs.retriever.embeddingretriever.base import EmbeddingRetrieverConfig
    from lightmem.configs.text_embedder.base import TextEmbedderConfig
    from lightmem.factory.retriever.embeddingretriever.factory import EmbeddingRetrieverFactory
    from lightmem.factory.text_embedder.factory import TextEmbedderFactory

    TextEmbedderFactory._MODEL_MAPPING[MODEL_NAME] = f"{__name__}.{EvolvableTextEmbedder.__name__}"
    EmbeddingRetrieverFactory._MODEL_MAPPING[MODEL_NAME] = f"{__name__}.{EvolvableRetriever.__name__}"
    EmbeddingRetrieverConfig._model_list[MODEL_NAME] = f"{__name__}.{RetrieverConfig.__name__}"
    if MODEL_NAME not in TextEmbedderConfig._model_list:
        TextEmbedderConfig._model_list.append(MODEL_NAME)


@functools.cache
def _load(profile: EvolvableProfile) -> "EvolvableEmbedder":
    """Embedder and retriever name one model, and share it."""
    from cluster.evolvable.turns import load_evolvable

    return load_evolvable(profile)


def _model(
    model: str | None, settings: Mapping[str, Any] | None, name: str, dim: int | None
) -> "EvolvableEmbedder":
    """The model; ValueError where none is named, or key `name` says another length of its vectors."""
    if not model:
        raise ValueError("model: is missing; name the folder of an evolvable model, or its hub id")
    loaded = _load(EvolvableProfile.model_validate({**(settings or {}), "model": model}))
    if dim not in (None, loaded.dim):
        raise ValueError(
            f"{name}={dim}: the vectors of {model} have {loaded.dim} numbers; give that, or none"
        )
    return loaded


# --- embedder -------------------------------------------------------------------------------------------


class Vector(list[float]):
    """A vector on its way through LightMem, with the text that it is of."""

    def __init__(self, numbers: Iterable[float], text: str):
        super().__init__(numbers)
        self.text = text


class EvolvableTextEmbedder:
    """A text alone, without a memory: what LightMem compares when it looks where the subject changes. Entries
    and questions get the vectors of EvolvableRetriever."""

    def __init__(self, config: Any):
        """`config`: LightMem's, of whose keys `model`, `model_kwargs` and `embedding_dims` count."""
        self.config, self.total_calls = config, 0
        self._model = _model(config.model, config.model_kwargs, "embedding_dims", config.embedding_dims)

    def embed(self, text: str) -> Vector:
        """Floats [E], unit norm."""
        self.total_calls += 1
        (vector,) = self._model.encode_messages([{"role": "user", "content": text}])
        return Vector(vector.tolist(), text)

    def get_stats(self) -> dict[str, int | None]:
        """Calls so far, in LightMem's names; it shows None for the tokens of local models."""
        return {"total_calls": self.total_calls, "total_tokens": None}


# --- retriever ------------------------------------------------------------------------------------------


class EvolvableRetriever:
    """LightMem's Qdrant with the memory of one conversation, see the module."""

    def __init__(self, config: RetrieverConfig):
        """ValueError for a collection whose vectors another embedder made."""
        from lightmem.configs.retriever.embeddingretriever.base import EmbeddingRetrieverConfig
        from lightmem.factory.retriever.embeddingretriever.factory import EmbeddingRetrieverFactory

        self._model = _model(
            config.model, config.model_kwargs, "embedding_model_dims", config.embedding_model_dims
        )
        settings = {**(config.model_extra or {}), "embedding_model_dims": self._model.dim}
        self._qdrant = EmbeddingRetrieverFactory.from_config(
            EmbeddingRetrieverConfig(model_name="qdrant", configs=settings)
        )
        self._num_candidates = config.num_candidates
        self._said: list[Exchange] = []
        self._state: State | None = None
        self._next = 0
        self._read_again()

    def __getattr__(self, name: str) -> Any:
        """What is not ours is Qdrant's."""
        if name == "_qdrant":  # not there yet
            raise AttributeError(name)
        return getattr(self._qdrant, name)

    def insert(
        self,
        vectors: Sequence[Sequence[float]],
        payloads: Sequence[dict],
        ids: Sequence[str] | None = None,
    ) -> None:
        """Entries that come next in the conversation. `vectors` are replaced by those that the memory makes,
        so points of an export can be given as they are."""
        pairs = zip(vectors, payloads, strict=True)
        texts = [getattr(vector, "text", payload["memory"]) for vector, payload in pairs]
        if not texts:
            return
        made, said, state = self._read(texts)
        placed = [payload | {POSITION: self._next + n} for n, payload in enumerate(payloads)]
        self._qdrant.insert(vectors=made, payloads=placed, ids=ids)
        self._said, self._state, self._next = said, state, self._next + len(texts)

    def search(
        self,
        query_vector: Sequence[float],
        limit: int = 5,
        filters: dict | None = None,
        exclude_ids: list | None = None,
        return_full: bool = False,
    ) -> list[dict]:
        """The nearest entries, of a question in the reranker's order; `score` is the vectors' cosine.

        A vector without a text, such as that of an entry, is searched as it is.
        """
        text = getattr(query_vector, "text", None)
        narrowed = {"filters": filters, "exclude_ids": exclude_ids}
        if text is None:
            return self._qdrant.search(query_vector, limit=limit, return_full=return_full, **narrowed)
        asked = self._model.wavefront.query(self._state, text.strip()).tolist()
        num_hits = max(limit, self._num_candidates)
        hits = self._qdrant.search(asked, limit=num_hits, return_full=True, **narrowed)
        hits = (self._reranked(text, hits) if self._num_candidates else hits)[:limit]
        return hits if return_full else [{"id": hit["id"], "score": hit["score"]} for hit in hits]

    def reset(self) -> None:
        """Empty the collection, and the memory."""
        self._qdrant.reset()
        self._said, self._state, self._next = [], None, 0

    def _reranked(self, question: str, hits: list[dict]) -> list[dict]:
        # Candidates are read as a dialogue: in the order in which they were said.
        hits = sorted(hits, key=lambda hit: hit["payload"][POSITION])
        texts = [hit["payload"]["memory"] for hit in hits]
        _, indices = self._model.rerank(question, texts, return_indices=True)
        return [hits[index] for index in indices]

    def _read(self, texts: Sequence[str]) -> "tuple[list[list[float]], list[Exchange], State | None]":
        """Go on with these texts: their vectors, what is said by then, and the memory of it."""
        from cluster.evolvable.stream import Conversation
        from cluster.evolvable.tokens import Exchange

        said = [*self._said, *(Exchange(text, "") for text in texts)]
        (read,) = self._model.wavefront.run([Conversation("", said, self._state)])
        if read.error:
            raise RuntimeError(f"evolvable embedder: {read.error}")
        return read.vectors.tolist(), said, read.state

    def _read_again(self) -> None:
        payloads = [entry["payload"] for entry in self._qdrant.get_all(with_vectors=False)]
        if foreign := sum(POSITION not in payload for payload in payloads):
            raise ValueError(
                f"{foreign} of {len(payloads)} entries of the collection have another embedder's vectors: "
                "insert what its get_all gives into a new collection"
            )
        payloads.sort(key=lambda payload: payload[POSITION])
        if payloads:
            _, self._said, self._state = self._read([payload["memory"] for payload in payloads])
            self._next = payloads[-1][POSITION] + 1
