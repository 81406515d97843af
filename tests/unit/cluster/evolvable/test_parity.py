"""The numbers of the published implementation, recorded once, against ours on the same weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from cluster.evolvable.embedder import EvolvableEmbedder
from cluster.evolvable.model import EvolvableModel
from cluster.evolvable.stream import Conversation
from cluster.evolvable.tokens import Tokens, exchanges_of
from tests.tiny import tiny_base, tiny_config, tiny_tokenizer
from tests.unit.cluster.evolvable.parity import CONFIG, GRADS, dialogue, fill, forward

RECORDED = json.loads((Path(__file__).parent / "reference.json").read_text())
"""MiG-NJU/EvoEmbedding at a040ef1, float32, dropout 0; its chunk limits and token ids set to CONFIG's."""


@pytest.fixture(scope="module")
def embedder():
    config = tiny_config(**CONFIG)
    model = EvolvableModel(config, tiny_base(hidden_size=16))
    fill(model)
    return EvolvableEmbedder(model.eval(), Tokens(config, tiny_tokenizer()))


@pytest.fixture(scope="module")
def step(embedder):
    return forward(embedder.model, embedder.tokens, dialogue())


def test_latents(step):
    latents = step["latents"].detach().numpy()
    assert latents.shape == (36, 16)
    np.testing.assert_allclose(latents[:8].ravel(), RECORDED["latents_first"], atol=1e-4)
    np.testing.assert_allclose(latents[-4:].ravel(), RECORDED["latents_last"], atol=1e-4)


def test_vectors(step):
    np.testing.assert_allclose(step["vectors"].detach().numpy().ravel(), RECORDED["vectors"], atol=1e-4)


def test_losses(step):
    assert step["lm_loss"].item() == pytest.approx(RECORDED["lm_loss"], abs=1e-4)
    assert step["contrastive_loss"].item() == pytest.approx(RECORDED["contrastive_loss"], abs=1e-4)


def test_gradients_run_through_all_chunks(embedder):
    model = embedder.model
    model.zero_grad()
    step = forward(model, embedder.tokens, dialogue())
    (step["lm_loss"] + step["contrastive_loss"]).backward()
    parameters = dict(model.named_parameters())
    for name in GRADS:
        gradient = parameters[name].grad
        norm, first = RECORDED["gradients"][name]
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-4), name
        assert gradient.flatten()[0].item() == pytest.approx(first, abs=1e-4), name


def test_wavefront_gives_the_vectors_of_training(embedder):
    *history, last = exchanges_of(dialogue())[0]
    (embedded,) = embedder.wavefront.run([Conversation("c", history)])
    vectors = np.reshape(RECORDED["vectors"], (-1, 12))
    np.testing.assert_allclose(embedded.vectors, vectors[:-1], atol=1e-4)
    query = embedder.wavefront.query(embedded.state, last.user)
    np.testing.assert_allclose(query, vectors[-1], atol=1e-4)


def test_encode_messages(embedder):
    vectors = embedder.encode_messages(dialogue()[:-1])
    assert (vectors.shape, vectors.dtype) == ((13, 12), np.float32)
    np.testing.assert_allclose(vectors.ravel(), RECORDED["encode_messages"], atol=1e-4)


def test_rerank(embedder):
    messages = dialogue()
    candidates = [message["content"] for message in messages[:20]]
    query = messages[-2]["content"]
    ranked, indices = embedder.rerank(query, candidates, return_indices=True)
    assert indices == RECORDED["rerank"]
    assert ranked == [candidates[index] for index in indices]
    assert embedder.rerank(query, candidates, top_k=3) == ranked[:3]
    assert embedder.rerank(query, []) == []
