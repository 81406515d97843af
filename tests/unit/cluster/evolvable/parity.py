"""The setting in which the published implementation was recorded, see test_parity.py."""

import math
import zlib

import numpy as np

from tests.tiny import lm_loss

CONFIG = {
    "num_latents": 3,
    "queue_capacity": 18,
    "max_chunk_turns": 5,
    "max_chunk_tokens": 260,
    "embedding_dim": 12,
    "lora_r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
}
EVIDENCE = [2, 9]
GRADS = ("memory_queries", "latent_to_mem.0.weight", "mem_to_latent.0.bias", "mem_to_emb.2.weight")


def fill(model) -> None:
    """Every weight from its own name, so that nothing depends on how libraries draw random numbers."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            numbers = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(parameter.shape))
            if parameter.dim() > 1:
                numbers = numbers / math.sqrt(parameter.shape[-1])
            if parameter.shape[-2:-1] == parameter.shape[-1:]:
                numbers = numbers * 0.5 + np.eye(parameter.shape[-1])
            offset = 1.0 if "norm" in name else 0.0
            parameter.copy_(torch.from_numpy(numbers * (0.1 if offset else 0.6) + offset))


def dialogue() -> list[dict]:
    """13 exchanges of ragged lengths, one of them longer than a chunk; the last is question and answer."""
    rng = np.random.default_rng(7)
    messages = []
    for number, length in enumerate([3, 9, 1, 20, 4, 2, 70, 5, 6, 1, 8, 3]):
        words = [f"{number}{chr(97 + letter)}" for letter in rng.integers(0, 26, length)]
        messages.append({"role": "user", "content": " ".join(words)})
        messages.append({"role": "assistant", "content": " ".join(words[::-2]) + "."})
    messages.append({"role": "user", "content": "where is 2q?"})
    messages.append({"role": "assistant", "content": "behind 9f."})
    return messages


def turn_texts(messages: list[dict]) -> list[str]:
    """The exchanges as the retriever reads them, and the question."""
    history = messages[:-2]
    texts = [
        f"User: {history[i]['content']}\nAssistant: {history[i + 1]['content']}"
        for i in range(0, len(history), 2)
    ]
    return [*texts, messages[-2]["content"]]


def forward(model, tokens, messages: list[dict]) -> dict:
    """One training step's numbers: latents [K * turns, H], vectors [turns + 1, E], both losses."""
    import torch

    from cluster.evolvable.model import Answer, Chunk, Text
    from cluster.evolvable.tokens import exchanges_of

    config = model.config
    *history, last = exchanges_of(messages)[0]
    log, snapshot, chunk = model.empty_queue(), model.empty_queue(), []
    memories = [log]
    for ids in tokens.memory_ids(history):
        is_full = len(chunk) == config.max_chunk_turns
        if chunk and (is_full or sum(map(len, chunk)) + len(ids) > config.max_chunk_tokens):
            snapshot, chunk = log[-config.queue_capacity :], []
        (latents,) = model.memorize([Chunk(snapshot, [*chunk, ids], len(chunk))])
        chunk.append(ids)
        log = torch.cat([log, latents.flatten(0, 1)])
        memories.append(log[-config.queue_capacity :])
    documents = tokens.document_ids([exchange.text for exchange in history])
    texts = [Text(*row) for row in zip(memories, documents, strict=False)]
    texts.append(Text(memories[-1], *tokens.query_ids([last.user])))
    vectors = torch.cat([model.represent([text]) for text in texts])
    scores = vectors[:-1] @ vectors[-1] / 0.1
    negatives = torch.stack([s for i, s in enumerate(scores) if i not in EVIDENCE])
    terms = [torch.logsumexp(torch.cat([scores[i : i + 1], negatives]), 0) - scores[i] for i in EVIDENCE]
    return {
        "latents": log,
        "vectors": vectors,
        "lm_loss": lm_loss(model, [Answer(memories[-1], *tokens.answer_ids(last, first=False))]),
        "contrastive_loss": sum(terms) / len(terms) * math.log(len(negatives) + 1),
    }
