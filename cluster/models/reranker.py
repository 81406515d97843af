"""A cross-encoder that reads a question beside each of the best hits: slower than vectors, and more exact."""

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


class Reranker:
    """Cross-encoder of sentence-transformers, a hub id or a folder. Loaded when it is first asked."""

    def __init__(self, model: str, max_chars: int = 2000):
        self.model, self._max_chars = model, max_chars

    @functools.cached_property
    def _encoder(self) -> "CrossEncoder":
        import torch
        from sentence_transformers import CrossEncoder

        return CrossEncoder(self.model, device="cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, question: str, texts: list[str]) -> list[float]:
        """How well each text answers the question; the greater the better."""
        pairs = [(question, text[: self._max_chars]) for text in texts]
        return [float(score) for score in self._encoder.predict(pairs, show_progress_bar=False)]
