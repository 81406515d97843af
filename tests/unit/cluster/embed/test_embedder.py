"""What an embedder gives to its model, and what becomes of the vectors; the model is scripted."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from cluster.embed import embedder
from cluster.embed.embedder import Embedder
from cluster.models.sources import ModelError
from schemas.profiles.embedder import EmbedderProfile


class Scripted:
    """Two dimensions, by the length of the text; keeps what it was given."""

    def __init__(self, *arguments, **options):
        self.given = []

    def get_embedding_dimension(self):
        return 2

    def encode(self, texts, **options):
        self.given += texts
        angles = np.array([len(text) / 10 for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.fixture
def load(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Scripted))
    monkeypatch.setattr(embedder, "embedder_folder", lambda profile: "folder")
    return lambda **values: Embedder(EmbedderProfile(name="e", model="owner/model", **values))


def test_texts_of_the_store_and_questions_each_stand_behind_their_own_prompt(load):
    loaded = load(query_prompt="query: ", passage_prompt="passage: ")
    texts = loaded.embed(["I live in Oslo.", "I live in Oslo.", "hi"])
    questions = loaded.embed_queries(["Where do I live?"])
    assert loaded.model.given == ["passage: I live in Oslo.", "passage: hi", "query: Where do I live?"]
    assert texts.shape == (3, 2) and questions.shape == (1, 2)
    assert np.array_equal(texts[0], texts[1])


def test_the_centre_is_taken_from_every_vector_which_keeps_norm_1(load):
    plain, centred = load(), load(centre=(0.5, 0.25))
    for ask in (Embedder.embed, Embedder.embed_queries):
        before, after = ask(plain, ["hello", "hi"]), ask(centred, ["hello", "hi"])
        moved = before - np.array([0.5, 0.25])
        assert np.allclose(after, moved / np.linalg.norm(moved, axis=1, keepdims=True), atol=1e-6)
        assert after.dtype == np.float32


def test_a_centre_of_another_length_than_the_vectors_is_refused(load):
    with pytest.raises(ModelError, match="centre has 3 numbers, the vectors of owner/model have 2"):
        load(centre=(0.1, 0.2, 0.3))
