"""The evolvable embedder as a library: the two calls of the published client, and a loaded wavefront.

`encode_messages` reads every text with the *final* memory of the conversation, as the published client
does: a message more changes all vectors. For an index that grows use `wavefront`, whose vectors stay.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch

from cluster.evolvable.batching import chunks_of
from cluster.evolvable.model import Chunk, EvolvableModel, Text
from cluster.evolvable.stream import Conversation, Wavefront
from cluster.evolvable.tokens import Exchange, Tokens


class EvolvableEmbedder:
    """A loaded model. `dim` is the vectors' length."""

    def __init__(self, model: EvolvableModel, tokens: Tokens, **batching: Any):
        """`batching`: settings of the wavefront, see there."""
        self.model, self.tokens = model, tokens
        self.wavefront = Wavefront(model, tokens, **batching)
        self.dim = model.config.embedding_dim
        self.load_s = 0.0

    @classmethod
    def load(cls, folder: str | Path, *, base: str | None = None, **batching: Any) -> "EvolvableEmbedder":
        """From a trained folder or a released checkpoint; on the GPU if there is one."""
        started_s = time.monotonic()
        model = EvolvableModel.load(folder, base=base)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        embedder = cls(model, Tokens.of_base(model.config), **batching)
        embedder.load_s = time.monotonic() - started_s
        return embedder

    @torch.inference_mode()
    def encode_messages(self, messages: Sequence[dict]) -> np.ndarray:
        """A dialogue whose last message is the query -> float32 [pairs + 1, E], unit norm, the query last.

        Messages are paired by position, as the published client does; history is memorised as plain text
        and the query stands without instruction.
        """
        if not messages:
            raise ValueError("messages: is empty; the last message is the query, give at least that")
        texts = [pair.text for pair in _pairs(messages[:-1])]
        ids = self.tokens.document_ids([*texts, messages[-1]["content"].strip()])
        queue = self._memory(ids[:-1])
        return self.wavefront.represent([Text(queue, row) for row in ids])

    @overload
    def rerank(self, query: str, candidates: Sequence[str], top_k: int | None = None) -> list[str]: ...

    @overload
    def rerank(
        self,
        query: str,
        candidates: Sequence[str],
        top_k: int | None = None,
        *,
        return_indices: Literal[True],
    ) -> tuple[list[str], list[int]]: ...

    def rerank(
        self,
        query: str,
        candidates: Sequence[str],
        top_k: int | None = None,
        return_indices: bool = False,
    ) -> list[str] | tuple[list[str], list[int]]:
        """Candidates by relevance to the query, the best first; with `return_indices` also their positions.

        The candidates are read as a dialogue in the order given, which matters.
        """
        candidates = [str(candidate) for candidate in candidates]
        if not candidates:
            return ([], []) if return_indices else []
        exchanges = [Exchange(candidate, "") for candidate in candidates]
        (embedded,) = self.wavefront.run([Conversation("", exchanges)])
        if embedded.error:
            raise RuntimeError(f"rerank: {embedded.error}")
        scores = embedded.vectors @ self.wavefront.query(embedded.state, query.strip())
        top_k = len(candidates) if top_k is None else max(0, top_k)
        indices = np.argsort(-scores, kind="stable")[:top_k].tolist()
        ranked = [candidates[index] for index in indices]
        return (ranked, indices) if return_indices else ranked

    def _memory(self, turns: list[list[int]]) -> torch.Tensor:
        """The queue after these turns: [q, H]."""
        config, log = self.model.config, self.model.empty_queue()
        for chunk in chunks_of(turns, config):
            (latents,) = self.model.memorize([Chunk(log, chunk)])
            log = torch.cat([log, latents.flatten(0, 1)])[-config.queue_capacity :]
        return log


def _pairs(messages: Sequence[dict]) -> list[Exchange]:
    contents = [message["content"] for message in messages]
    contents += [""] * (len(contents) % 2)
    return [Exchange(*contents[start : start + 2]) for start in range(0, len(contents), 2)]
