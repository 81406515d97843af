"""An evolvable model as LightMem's text embedder and reranker; stand-ins take the place of its factories.

tests/interchange/test_lightmem.py has its own code run on it, and a real Qdrant.
"""

import importlib
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest

from cluster.evolvable.stream import Conversation
from cluster.evolvable.tokens import Exchange
from jobs.common.lightmem_evolvable import MODEL_NAME, POSITION, Vector, register
from tests.lightmem import QUESTION, Entries
from tests.tiny import save_tiny_model

TEXTS = ("User lives in Oslo.", "User has a cat.", "User plays chess.", "User lives in Rome.")


class Qdrant(Entries):
    """LightMem's Qdrant; a collection outlives it."""

    collections: dict[str, dict] = {}  # noqa: RUF012 - a stand-in

    def __init__(self, config):
        super().__init__()
        self.rows = self.collections.setdefault(config["collection_name"], {})
        self.dims = config["embedding_model_dims"]

    def reset(self):
        self.rows.clear()


def factory(classes):
    """As LightMem's: a class by its name in a table, made of `configs`."""

    class Factory:
        _MODEL_MAPPING = classes

        @classmethod
        def from_config(cls, config):
            made = cls._MODEL_MAPPING[config.model_name]
            if isinstance(made, str):
                module, name = made.rsplit(".", 1)
                made = getattr(importlib.import_module(module), name)
            return made(config=config.configs)

    return Factory


class TextEmbedderConfig:
    def __init__(self, model_name, configs):
        assert model_name in self._model_list
        keys = {"model": None, "embedding_dims": None, "model_kwargs": None}
        self.model_name, self.configs = model_name, SimpleNamespace(**keys | configs)


class EmbeddingRetrieverConfig:
    def __init__(self, model_name, configs):
        module, name = self._model_list[model_name].rsplit(".", 1)
        config_class = getattr(importlib.import_module(module), name)
        self.model_name, self.configs = model_name, config_class(**configs)


@pytest.fixture
def lightmem(monkeypatch):
    """LightMem's factories with ours registered: a maker of text embedders, and one of retrievers."""
    TextEmbedderConfig._model_list = ["huggingface"]
    EmbeddingRetrieverConfig._model_list = {"qdrant": "builtins.dict"}
    embedders, retrievers = factory({}), factory({"qdrant": Qdrant})
    base, places = (
        "lightmem",
        {
            "configs.text_embedder.base": {"TextEmbedderConfig": TextEmbedderConfig},
            "factory.text_embedder.factory": {"TextEmbedderFactory": embedders},
            "configs.retriever.embeddingretriever.base": {
                "EmbeddingRetrieverConfig": EmbeddingRetrieverConfig
            },
            "factory.retriever.embeddingretriever.factory": {"EmbeddingRetrieverFactory": retrievers},
        },
    )
    for place, names in places.items():
        module = types.ModuleType(f"{base}.{place}")
        module.__dict__.update(names)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for depth in range(place.count(".") + 1):
            parent = ".".join([base, *place.split(".")[:depth]])
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or types.ModuleType(parent))
    monkeypatch.setattr(Qdrant, "collections", {})
    register()
    register()  # twice does no harm
    assert TextEmbedderConfig._model_list == ["huggingface", MODEL_NAME]
    return SimpleNamespace(
        embedder=lambda **configs: embedders.from_config(TextEmbedderConfig(MODEL_NAME, configs)),
        retriever=lambda **configs: retrievers.from_config(
            EmbeddingRetrieverConfig(MODEL_NAME, {"collection_name": "me"} | configs)
        ),
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def wavefront(model):
    from cluster.evolvable.embedder import EvolvableEmbedder

    return EvolvableEmbedder.load(model).wavefront


def tell(embedder, retriever, texts=TEXTS, first=0):
    """As LightMem stores entries: one is embedded, then inserted."""
    for number, text in enumerate(texts, start=first):
        payload = {"memory": text, "float_time_stamp": float(number)}
        retriever.insert(vectors=[embedder.embed(text)], payloads=[payload], ids=[f"id{number}"])


def said(texts):
    return Conversation("", [Exchange(text, "") for text in texts])


def vectors_of(retriever):
    return np.array([row["vector"] for row in retriever.get_all()])


def test_entries_have_the_vectors_of_one_conversation_in_the_order_in_which_they_came(
    lightmem, model, wavefront
):
    embedder, retriever = lightmem.embedder(model=model), lightmem.retriever(model=model)
    tell(embedder, retriever)
    (whole,) = wavefront.run([said(TEXTS)])
    np.testing.assert_allclose(vectors_of(retriever), whole.vectors, atol=1e-5)
    # They are not those of the texts alone.
    alone = np.array([embedder.embed(text) for text in TEXTS])
    assert np.abs(vectors_of(retriever)[1:] - alone[1:]).max() > 0.01
    assert retriever.dims == len(alone[0]) == 16
    assert embedder.get_stats() == {"total_calls": 8, "total_tokens": None}


def test_several_entries_at_once_and_one_by_one_leave_the_same_memory(lightmem, model):
    embedder = lightmem.embedder(model=model)
    one_by_one, at_once = (lightmem.retriever(model=model, collection_name=name) for name in "ab")
    tell(embedder, one_by_one)
    # As points of an export come in: their vectors are another embedder's.
    payloads = [{"memory": text, "float_time_stamp": 0.0} for text in TEXTS]
    at_once.insert([[1.0, 0.0]] * len(TEXTS), payloads, list("wxyz"))
    np.testing.assert_allclose(vectors_of(at_once), vectors_of(one_by_one), atol=1e-5)
    at_once.insert([], [], [])
    assert len(at_once.get_all()) == len(TEXTS)


def test_a_question_is_read_with_the_memory_of_all_and_finds_by_that_vector(lightmem, model, wavefront):
    embedder, retriever = lightmem.embedder(model=model), lightmem.retriever(model=model, num_candidates=0)
    tell(embedder, retriever)
    (whole,) = wavefront.run([said(TEXTS)])
    scores = whole.vectors @ wavefront.query(whole.state, QUESTION)
    hits = retriever.search(embedder.embed(QUESTION), limit=3, return_full=True)
    assert [hit["payload"]["memory"] for hit in hits] == [TEXTS[n] for n in np.argsort(-scores)[:3]]
    assert [hit["score"] for hit in hits] == pytest.approx(np.sort(scores)[::-1][:3], abs=1e-5)
    # A question leaves nothing behind.
    assert retriever.search(embedder.embed(QUESTION), limit=3, return_full=True) == hits
    until = {"float_time_stamp": {"lte": 1.0}}
    assert {hit["id"] for hit in retriever.search(embedder.embed(QUESTION), limit=9, filters=until)} == {
        "id0",
        "id1",
    }


def test_of_the_nearest_entries_the_reranker_s_order_counts(lightmem, model):
    from cluster.evolvable.embedder import EvolvableEmbedder

    embedder = lightmem.embedder(model=model)
    plain = lightmem.retriever(model=model, num_candidates=0)
    tell(embedder, plain)
    retriever = lightmem.retriever(model=model, num_candidates=3)
    rerank = EvolvableEmbedder.load(model).rerank
    orders = set()
    for question in (QUESTION, "Which pet?", "What game?", "Who?"):
        asked = embedder.embed(question)
        nearest = [hit["payload"]["memory"] for hit in plain.search(asked, limit=3, return_full=True)]
        hits = retriever.search(asked, limit=2, return_full=True)
        # The reranker reads them as a dialogue, in the order in which they were said.
        expected = rerank(question, sorted(nearest, key=TEXTS.index), top_k=2)
        assert [hit["payload"]["memory"] for hit in hits] == expected
        assert retriever.search(asked, limit=2) == [{"id": h["id"], "score": h["score"]} for h in hits]
        orders.add(expected == nearest[:2])
    assert False in orders  # or nothing would have been reranked


def test_a_vector_without_a_text_is_searched_as_it_is(lightmem, model):
    """LightMem links entries by their own vectors when it builds its queue of updates."""
    embedder, retriever = lightmem.embedder(model=model), lightmem.retriever(model=model)
    tell(embedder, retriever)
    entry = retriever.get_all()[2]
    assert [hit["id"] for hit in retriever.search(entry["vector"], limit=1)] == [entry["id"]]


def test_a_collection_that_is_opened_again_goes_on_as_if_it_had_not_been_closed(lightmem, model, wavefront):
    embedder = lightmem.embedder(model=model)
    tell(embedder, lightmem.retriever(model=model), TEXTS[:2])
    again = lightmem.retriever(model=model)
    tell(embedder, again, TEXTS[2:], first=2)
    (whole,) = wavefront.run([said(TEXTS)])
    np.testing.assert_allclose(vectors_of(again), whole.vectors, atol=1e-5)


def test_what_lightmem_deleted_is_not_read_again(lightmem, model, wavefront):
    embedder = lightmem.embedder(model=model)
    retriever = lightmem.retriever(model=model)
    tell(embedder, retriever, TEXTS[:3])
    retriever.delete("id1")
    again = lightmem.retriever(model=model)
    tell(embedder, again, TEXTS[3:], first=3)
    (rest,) = wavefront.run([said([TEXTS[0], *TEXTS[2:]])])
    np.testing.assert_allclose(vectors_of(again)[-1], rest.vectors[-1], atol=1e-5)
    assert [row["payload"][POSITION] for row in again.get_all()] == [0, 2, 3]


def test_a_reset_empties_the_memory_too(lightmem, model, wavefront):
    embedder, retriever = lightmem.embedder(model=model), lightmem.retriever(model=model)
    tell(embedder, retriever)
    retriever.reset()
    tell(embedder, retriever, TEXTS[2:])
    (rest,) = wavefront.run([said(TEXTS[2:])])
    np.testing.assert_allclose(vectors_of(retriever), rest.vectors, atol=1e-5)


def test_what_was_not_stored_is_not_remembered(lightmem, model, wavefront, monkeypatch):
    embedder, retriever = lightmem.embedder(model=model), lightmem.retriever(model=model)
    with monkeypatch.context() as patch:
        patch.setattr(Qdrant, "insert", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            tell(embedder, retriever, TEXTS[:1])
    tell(embedder, retriever, TEXTS[1:])
    (rest,) = wavefront.run([said(TEXTS[1:])])
    np.testing.assert_allclose(vectors_of(retriever), rest.vectors, atol=1e-5)


def test_tags_of_a_host_are_stored_and_not_read(lightmem, model):
    """LightMem embeds an entry without the tags that it stores with it."""
    embedder = lightmem.embedder(model=model)
    tagged, plain = (lightmem.retriever(model=model, collection_name=name) for name in "ab")
    payload = {"memory": "[work] User lives in Oslo.", "float_time_stamp": 0.0}
    tagged.insert([embedder.embed("User lives in Oslo.")], [payload], ["a"])
    tell(embedder, plain, TEXTS[:1])
    np.testing.assert_allclose(vectors_of(tagged), vectors_of(plain), atol=1e-6)
    assert tagged.get_all()[0]["payload"]["memory"] == payload["memory"]


def test_another_embedder_s_collection_is_refused_with_what_to_do(lightmem, model):
    entry = {"id": "a", "vector": [0.0] * 16, "payload": {"memory": TEXTS[0], "float_time_stamp": 0.0}}
    Qdrant.collections["me"] = {"a": entry}
    with pytest.raises(ValueError, match=r"1 of 1 entries .* insert what its get_all gives into a new"):
        lightmem.retriever(model=model)


def test_a_wrong_length_and_a_missing_model_are_refused(lightmem, model):
    with pytest.raises(ValueError, match=r"embedding_dims=384: the vectors of .* have 16 numbers"):
        lightmem.embedder(model=model, embedding_dims=384)
    with pytest.raises(ValueError, match="embedding_model_dims=1024"):
        lightmem.retriever(model=model, embedding_model_dims=1024)
    with pytest.raises(ValueError, match="model: is missing"):
        lightmem.embedder()
    with pytest.raises(ValueError, match="max_actve"):
        lightmem.embedder(model=model, model_kwargs={"max_actve": 2})
    assert lightmem.retriever(model=model, embedding_model_dims=16).dims == 16


def test_a_vector_is_a_list_that_says_what_it_is_of():
    vector = Vector([0.5, 0.25], "Hello")
    assert (vector, vector.text) == ([0.5, 0.25], "Hello")
