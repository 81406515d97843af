"""Evolvable embedder: wavefront against one conversation at a time, on tiny random models.

    python -m tests.benchmarks.bench_evolvable
    python -m tests.benchmarks.bench_evolvable --num-conversations 64 --sizes 32x2 64x4 --lengths 25 55

Ragged synthetic conversations with the published constants (16 latents, queue of 512, chunks of 16 turns or
2,048 tokens) over a Llama of hidden size x layers, with heads of 32. The ways:

  published_each_turn  to have vectors after each turn with the published client: its call, `encode_messages`,
                       reads the whole conversation again
  published_once       the same call when a conversation has ended: memory chunk by chunk, then all texts in
                       batches of 2,048 tokens
  turn_by_turn         one conversation after the other with a kept state, each turn as it comes: one document
                       is embedded, the open chunk is read anew
  wavefront            all conversations side by side

All but the wavefront take one conversation at a time, and are measured on every eighth, the first on every
sixteenth. The last two give the same vectors, which are compared; the published call reads all texts with the
final memory. The shorter the exchanges, the more of a single one's time is no arithmetic: a dialogue's have
some 80 tokens (LoCoMo's 71 in the median), which a median of 25 tokens a side gives. FLOPs are counted by
torch in the calls as they are; the floor is the wavefront's work without a padded token of memory.
"""

import argparse
import itertools
import json
import math
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cluster.evolvable.embedder import EvolvableEmbedder
from cluster.evolvable.model import Chunk, EvolvableModel, Text
from cluster.evolvable.stream import Conversation, Wavefront
from cluster.evolvable.tokens import Exchange, Tokens
from tests.tiny import tiny_base, tiny_config, tiny_tokenizer

HEAD_SIZE = 32
PUBLISHED = {"num_latents": 16, "queue_capacity": 512, "max_chunk_turns": 16, "max_chunk_tokens": 2048}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-conversations", type=int, default=64)
    parser.add_argument("--sizes", nargs="+", default=["32x2", "64x4"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[25, 55], help="median tokens of a side")
    parser.add_argument("--max-turns", type=int, default=40, help="a conversation has 4 to this many")
    parser.add_argument("--rounds", type=int, default=3, help="each way's best of so many counts")
    parser.add_argument("--memory-tokens", type=int, default=8192)
    parser.add_argument("--retriever-tokens", type=int, default=8192)
    parser.add_argument("--flops", action="store_true", help="count them, which takes as long again")
    options = parser.parse_args()
    settings = {"memory_tokens": options.memory_tokens, "retriever_tokens": options.retriever_tokens}
    for size, length in itertools.product(options.sizes, options.lengths):
        conversations = make_conversations(options.num_conversations, options.max_turns, length)
        hidden_size, num_layers = map(int, size.split("x"))
        base = tiny_base(
            hidden_size=hidden_size, num_layers=num_layers, num_heads=max(1, hidden_size // HEAD_SIZE)
        )
        config = tiny_config(**PUBLISHED, embedding_dim=hidden_size, lora_r=8, lora_alpha=16)
        model, tokens = EvolvableModel(config, base).eval(), Tokens(config, tiny_tokenizer())
        with torch.inference_mode():
            report = compare(model, tokens, conversations, settings, options.rounds)
            if options.flops:
                report["mflop_per_turn"] = flops(model, tokens, conversations, settings)
        print(json.dumps({"size": size, "median_side": length} | report), flush=True)


def compare(model, tokens, conversations: list[Conversation], settings: dict, rounds: int) -> dict:
    """Turns per second of all ways, and what the wavefront takes."""
    num_turns, eighth = sum(len(c.exchanges) for c in conversations), conversations[::8]
    wavefront(model, tokens, conversations[:2], settings)  # warms up
    ways = {
        "wavefront": (conversations, lambda some: wavefront(model, tokens, some, settings)),
        "turn_by_turn": (eighth, lambda some: turn_by_turn(model, tokens, some)),
        "published_once": (eighth, lambda some: published_once(model, tokens, some)),
        "published_each_turn": (eighth[::2], lambda some: published_each_turn(model, tokens, some)),
    }
    # Round by round, and of each way its best: a machine's speed changes within a minute.
    seconds, results = dict.fromkeys(ways, math.inf), {}
    for _ in range(rounds):
        for name, (some, way) in ways.items():
            took, results[name] = timed(lambda way=way, some=some: way(some))
            seconds[name] = min(seconds[name], took)
    rates = {name: sum(len(c.exchanges) for c in some) / seconds[name] for name, (some, _) in ways.items()}
    (vectors, states, work), reference = results["wavefront"], results["turn_by_turn"]
    differences = [np.abs(vectors[key] - found).max() for key, found in reference.items()]
    return {
        "num_conversations": len(conversations),
        "num_turns": num_turns,
        "tokens_per_turn": round(mean_tokens(tokens, conversations), 1),
        "num_threads": torch.get_num_threads(),
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "turns_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "wavefront_is_times": {
            name: round(rates["wavefront"] / rate, 2) for name, rate in rates.items() if name != "wavefront"
        },
        "largest_difference": float(max(differences)),
        "num_batches": work.num_batches,
        "state_kib": {
            "mean": round(np.mean([s.num_bytes for s in states]) / 1024, 1),
            "max": round(max(s.num_bytes for s in states) / 1024, 1),
        },
    }


def flops(model, tokens, conversations: list[Conversation], settings: dict) -> dict[str, float]:
    """Millions a turn."""
    num_turns = sum(len(c.exchanges) for c in conversations)
    ways = {
        "wavefront": lambda: wavefront(model, tokens, conversations, settings),
        "floor": lambda: [wavefront(model, tokens, [c], {"memory_tokens": 1}) for c in conversations],
        "turn_by_turn": lambda: turn_by_turn(model, tokens, conversations),
        "published_once": lambda: published_once(model, tokens, conversations),
    }
    return {name: round(counted(way) / num_turns / 1e6, 1) for name, way in ways.items()}


def mean_tokens(tokens: Tokens, conversations: list[Conversation]) -> float:
    """Tokens of a document in the mean."""
    texts = [exchange.text for conversation in conversations for exchange in conversation.exchanges]
    return float(np.mean(list(map(len, tokens.document_ids(texts)))))


def make_conversations(count: int, max_turns: int, length: int) -> list[Conversation]:
    """4 to `max_turns` exchanges, most of them short, of at most 400 bytes; a byte is a token."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
    conversations = []
    for number in range(count):
        sizes = np.clip(
            rng.lognormal(math.log(length), 0.8, (rng.integers(4, max_turns + 1), 2)), 5, 200
        ).astype(int)
        exchanges = [Exchange(*("".join(rng.choice(letters, size)) for size in pair)) for pair in sizes]
        conversations.append(Conversation(str(number), exchanges))
    return conversations


def turn_by_turn(model, tokens, conversations: list[Conversation]):
    """As a service would: nothing is batched, the open chunk is read with every new turn."""
    config, vectors = model.config, {}
    for conversation in conversations:
        log, snapshot, chunk, found = model.empty_queue(), model.empty_queue(), [], []
        for number, exchange in enumerate(conversation.exchanges):
            (ids,) = tokens.memory_ids([exchange], first=number == 0)
            too_long = sum(map(len, chunk)) + len(ids) > config.max_chunk_tokens
            if chunk and (len(chunk) == config.max_chunk_turns or too_long):
                snapshot, chunk = log[-config.queue_capacity :], []
            text = Text(log[-config.queue_capacity :], *tokens.document_ids([exchange.text]))
            found.append(model.represent([text])[0].numpy())
            chunk.append(ids)
            (latents,) = model.memorize([Chunk(snapshot, chunk, len(chunk) - 1)])
            log = torch.cat([log, latents[0]])
        vectors[conversation.key] = np.stack(found)
    return vectors


def published_once(model, tokens, conversations: list[Conversation]) -> None:
    """The published client's call, once for each conversation."""
    embedder = EvolvableEmbedder(model, tokens, retriever_tokens=2048, share_memory=False)
    for conversation in conversations:
        embedder.encode_messages(messages_of(conversation.exchanges))


def published_each_turn(model, tokens, conversations: list[Conversation]) -> None:
    """The same after each exchange."""
    embedder = EvolvableEmbedder(model, tokens, retriever_tokens=2048, share_memory=False)
    for conversation in conversations:
        for number in range(len(conversation.exchanges)):
            embedder.encode_messages(messages_of(conversation.exchanges[: number + 1]))


def messages_of(exchanges: list[Exchange]) -> list[dict]:
    return [{"content": side} for exchange in exchanges for side in exchange] + [{"content": "?"}]


def wavefront(model, tokens, conversations: list[Conversation], settings: dict):
    """Vectors and states by conversation, and the work of all."""
    front = Wavefront(model, tokens, **settings)
    results = list(front.run(conversations))
    return {r.key: r.vectors for r in results}, [r.state for r in results], front.work


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
