"""The embedder: texts in, unit-normalised float32 vectors out."""

import time

import numpy as np

from cluster.models.sources import ModelError, embedder_folder
from schemas.archive import spoken
from schemas.profiles.embedder import EmbedderProfile

TEXTS = {"turns": spoken, "records": lambda row: row["semantic_text"]}
"""Tables that have vectors, and what these are of: row -> text."""


class Embedder:
    """A loaded sentence-transformers model. `dim` is the vectors' length."""

    def __init__(self, profile: EmbedderProfile):
        started_s = time.monotonic()
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.profile = profile
        self.model = SentenceTransformer(
            str(embedder_folder(profile)),
            device="cuda" if torch.cuda.is_available() else "cpu",
            model_kwargs={"dtype": getattr(torch, profile.dtype)},
        )
        if profile.max_seq_len:
            self.model.max_seq_length = profile.max_seq_len
        self.dim = self.model.get_embedding_dimension()
        self.centre = np.array(profile.centre, np.float32)
        if len(self.centre) not in (0, self.dim):
            raise ModelError(
                f"embedder {profile.name!r}: centre has {len(self.centre)} numbers, the vectors of "
                f"{profile.model} have {self.dim}; give that many, or none"
            )
        self.load_s = time.monotonic() - started_s

    def embed(self, texts: list[str]) -> np.ndarray:
        """Texts of the store -> float32 [len(texts), dim], unit norm."""
        return self._vectors([self.profile.passage_prompt + text for text in texts])

    def embed_queries(self, texts: list[str]) -> np.ndarray:
        """Queries -> float32 [len(texts), dim], unit norm."""
        return self._vectors([self.profile.query_prompt + text for text in texts])

    def _vectors(self, texts: list[str]) -> np.ndarray:
        """sentence-transformers sorts by length before it batches, so padding costs little; equal texts are
        embedded once, so that they get equal vectors."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        distinct = list(dict.fromkeys(texts))
        position = {text: index for index, text in enumerate(distinct)}
        vectors = self.model.encode(
            distinct,
            batch_size=self.profile.batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        ).astype(np.float32)
        if len(self.centre):
            vectors -= self.centre
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors[[position[text] for text in texts]]
