"""Evolvable embedder: wavefront against one conversation at a time, on a tiny random model.

    python -m tests.benchmarks.bench_evolvable
    python -m tests.benchmarks.bench_evolvable --num-conversations 64 --hidden-size 64 --num-layers 4

Ragged synthetic conversations with the published constants (16 latents, queue of 512, chunks of 16 turns or
2,048 tokens). Three ways to the same vectors, which are compared:

  turn_by_turn   one conversation after the other, each turn as it comes: open chunk read anew, one document
  by_chunk       one conversation after the other, whole chunks, documents in batches of 2,048 tokens: what
                 the published code does
  wavefront      all conversations side by side

FLOPs are counted by torch in the calls as they are; the floor is the same work without a padded token.
"""

import argparse
import json
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cluster.evolvable.model import Chunk, EvolvableModel, Text
from cluster.evolvable.stream import Conversation, Wavefront
from cluster.evolvable.tokens import Exchange, Tokens
from tests.tiny import tiny_base, tiny_config, tiny_tokenizer

PUBLISHED = {"num_latents": 16, "queue_capacity": 512, "max_chunk_turns": 16, "max_chunk_tokens": 2048}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-conversations", type=int, default=64)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--num-layers", type=int, default=4)
    parser.add_argument("--max-turns", type=int, default=40, help="a conversation has 4 to this many")
    parser.add_argument("--memory-tokens", type=int, default=16_384)
    parser.add_argument("--retriever-tokens", type=int, default=16_384)
    options = parser.parse_args()
    base = tiny_base(hidden_size=options.hidden_size, num_layers=options.num_layers)
    config = tiny_config(**PUBLISHED, embedding_dim=options.hidden_size, lora_r=8, lora_alpha=16)
    model, tokens = EvolvableModel(config, base).eval(), Tokens(config, tiny_tokenizer())
    conversations = make_conversations(options.num_conversations, options.max_turns)
    num_turns = sum(len(c.exchanges) for c in conversations)
    wide = {"memory_tokens": options.memory_tokens, "retriever_tokens": options.retriever_tokens}
    narrow = {"max_active": 1, "memory_tokens": 1, "retriever_tokens": 2048}
    with torch.inference_mode():
        turn_by_turn(model, tokens, conversations[:1])  # warms up
        ways = {
            "turn_by_turn": timed(lambda: turn_by_turn(model, tokens, conversations)),
            "by_chunk": timed(lambda: by_conversation(model, tokens, conversations, narrow)),
            "wavefront": timed(lambda: wavefront(model, tokens, conversations, wide)),
        }
        flops = {
            name: counted(lambda settings=settings: wavefront(model, tokens, conversations, settings))
            for name, settings in {
                "wavefront": wide,
                "floor": {"memory_tokens": 1, "retriever_tokens": 1},
            }.items()
        }
    vectors = {name: found for name, (_, (found, _)) in ways.items()}
    states = [state for state, _ in ways["wavefront"][1][1].values()]
    work = ways["wavefront"][1][1][conversations[0].key][1]
    report = {
        "num_conversations": len(conversations),
        "num_turns": num_turns,
        "num_threads": torch.get_num_threads(),
        "model": f"llama, {options.num_layers} layers of {options.hidden_size}, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters, float32",
        "turns_per_s": {name: round(num_turns / seconds, 1) for name, (seconds, _) in ways.items()},
        "times_turn_by_turn": round(ways["turn_by_turn"][0] / ways["wavefront"][0], 2),
        "times_by_chunk": round(ways["by_chunk"][0] / ways["wavefront"][0], 2),
        "largest_difference": max(
            float(np.abs(vectors["wavefront"][key] - vectors[name][key]).max())
            for name in ("turn_by_turn", "by_chunk")
            for key in vectors["wavefront"]
        ),
        "mflop_per_turn": {name: round(count / num_turns / 1e6, 1) for name, count in flops.items()},
        "times_floor": round(flops["wavefront"] / flops["floor"], 3),
        "num_batches": work.num_batches,
        "state_kib": {
            "mean": round(np.mean([s.num_bytes for s in states]) / 1024, 1),
            "max": round(max(s.num_bytes for s in states) / 1024, 1),
        },
    }
    print(json.dumps(report))


def make_conversations(count: int, max_turns: int) -> list[Conversation]:
    """4 to `max_turns` exchanges of 20 to 400 bytes, most of them short; a byte is a token."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
    conversations = []
    for number in range(count):
        sizes = np.clip(rng.lognormal(4.0, 0.8, (rng.integers(4, max_turns + 1), 2)), 10, 200).astype(int)
        exchanges = [Exchange(*("".join(rng.choice(letters, size)) for size in pair)) for pair in sizes]
        conversations.append(Conversation(str(number), exchanges))
    return conversations


def turn_by_turn(model, tokens, conversations: list[Conversation]):
    """As a service would: nothing is batched, the open chunk is read with every new turn."""
    config, vectors = model.config, {}
    for conversation in conversations:
        log, snapshot, chunk, found = model.empty_queue(), model.empty_queue(), [], []
        for number, exchange in enumerate(conversation.exchanges):
            ids = tokens.memory_ids(exchange, first=number == 0)
            too_long = sum(map(len, chunk)) + len(ids) > config.max_chunk_tokens
            if chunk and (len(chunk) == config.max_chunk_turns or too_long):
                snapshot, chunk = log[-config.queue_capacity :], []
            text = Text(log[-config.queue_capacity :], tokens.document_ids(exchange.text))
            found.append(model.represent([text])[0].numpy())
            chunk.append(ids)
            (latents,) = model.memorize([Chunk(snapshot, chunk, len(chunk) - 1)])
            log = torch.cat([log, latents[0]])
        vectors[conversation.key] = np.stack(found)
    return vectors, {}


def by_conversation(model, tokens, conversations: list[Conversation], settings: dict):
    vectors = {}
    for conversation in conversations:
        vectors |= wavefront(model, tokens, [conversation], settings)[0]
    return vectors, {}


def wavefront(model, tokens, conversations: list[Conversation], settings: dict):
    """Vectors by conversation, and by conversation its state with the work of all."""
    front = Wavefront(model, tokens, **settings)
    results = list(front.run(conversations))
    return {r.key: r.vectors for r in results}, {r.key: (r.state, front.work) for r in results}


def timed(work):
    started_s = time.monotonic()
    result = work()
    return time.monotonic() - started_s, result


def counted(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


if __name__ == "__main__":
    main()
