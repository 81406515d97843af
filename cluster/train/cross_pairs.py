"""Training of the cross-encoder of pairs: a LoRA adapter on every linear layer of its base, and its head.

One process, on a GPU where there is one, else on this process's cores. Every epoch has a seed of its own, so
that a training that goes on from a checkpoint gives what an uninterrupted one gives.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.consolidate.crosspairs import LABELS, WEIGHTS_FILE, load_base, logits_of, token_ids
from cluster.runtime import Progress
from cluster.train.settings import CrossRecipe

ADAPTED = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"
"""Names of the adapted layers: all linear ones of a block of BertModel."""

WINDOW = 16
"""Of so many batches each has pairs of like length, so that padding costs little."""


@dataclass(frozen=True)
class WeightedPair:
    """What is learned of one pair."""

    older: str
    newer: str
    label: str
    weight: float = 1.0


@dataclass(frozen=True)
class Epoch:
    """One time through all pairs."""

    number: int
    """From 1."""
    loss: float
    """Mean over its pairs, while they were learned."""
    parts: dict
    """Name -> tensor, as PairReader.load reads them."""


def train_reader(
    base: Path, pairs: list[WeightedPair], recipe: CrossRecipe, *, seed: int, checkpoint: Path
) -> Iterator[Epoch]:
    """Epochs as they end, each to be saved by the caller: its checkpoint is written when the next is asked
    for. Goes on from a checkpoint, which must be of the same training."""
    import torch
    from peft import LoraConfig, get_peft_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    bert, tokenizer = load_base(base)
    lora = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=ADAPTED
    )
    bert = get_peft_model(bert, lora).to(device)
    head = torch.nn.Linear(bert.config.hidden_size, len(LABELS))
    torch.nn.init.zeros_(head.weight)
    # What is common is not to be learned first.
    head.bias.data = torch.tensor(shares(pairs)).log()
    head.to(device)
    adapter = {name: one for name, one in bert.named_parameters() if one.requires_grad}
    learner = torch.optim.AdamW(
        [
            {"params": list(adapter.values()), "lr": recipe.learning_rate},
            {"params": list(head.parameters()), "lr": recipe.learning_rate * recipe.head_rate},
        ],
        weight_decay=recipe.weight_decay,
    )
    num_steps = recipe.num_epochs * -(-len(pairs) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        learner, lambda step: rate_at(step, num_steps, recipe.warmup)
    )
    rows = [token_ids(tokenizer, one.older, one.newer) for one in pairs]
    num_done = 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        num_done = state["epoch"]
        bert.load_state_dict(state["adapter"], strict=False)
        head.load_state_dict(state["head"])
        learner.load_state_dict(state["learner"])
        schedule.load_state_dict(state["schedule"])
    for number in range(num_done + 1, recipe.num_epochs + 1):
        torch.manual_seed(seed * 1_000 + number)
        bert.train()
        progress = Progress(f"epoch {number}", "pairs", len(pairs), every_s=10)
        total, num_read = 0.0, 0
        for batch in batches(rows, recipe.batch_size, random.Random(f"{seed} {number}")):
            logits = logits_of(bert, head, [rows[index] for index in batch])
            wanted = torch.tensor([LABELS.index(pairs[index].label) for index in batch], device=device)
            weights = torch.tensor([pairs[index].weight for index in batch], device=device)
            losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none") * weights
            # Over a constant: a pair weighs the same, whatever it shares a batch with.
            (losses.sum() / recipe.batch_size).backward()
            torch.nn.utils.clip_grad_norm_([*adapter.values(), *head.parameters()], 1.0)
            learner.step()
            schedule.step()
            learner.zero_grad()
            total += losses.sum().item()
            num_read += len(batch)
            progress.advance(len(batch), f"mean loss {total / num_read:.3f}")
        learned = {name: one.detach() for name, one in adapter.items()}
        parts = adapter_parts(learned, recipe.alpha / recipe.rank)
        parts |= {f"head.{name}": one for name, one in head.state_dict().items()}
        yield Epoch(number, total / len(pairs), {name: one.cpu().clone() for name, one in parts.items()})
        state = {
            "epoch": number,
            "adapter": learned,
            "head": head.state_dict(),
            "learner": learner.state_dict(),
            "schedule": schedule.state_dict(),
        }
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, unfinished := checkpoint.with_suffix(".unfinished"))
        os.replace(unfinished, checkpoint)


def shares(pairs: list[WeightedPair]) -> list[float]:
    """Weight of each label among all, one added to each."""
    totals = [1 + sum(one.weight for one in pairs if one.label == label) for label in LABELS]
    return [total / sum(totals) for total in totals]


def rate_at(step: int, num_steps: int, warmup: float) -> float:
    """Share of the learning rate: rises over the warmup, then falls in a line to nothing."""
    rising = max(1, round(warmup * num_steps))
    return (step + 1) / rising if step < rising else max(0.0, (num_steps - step) / max(1, num_steps - rising))


def batches(rows: list[list[int]], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Indices of all rows once, in random batches; rows of like length meet."""
    order = list(range(len(rows)))
    rng.shuffle(order)
    for start in range(0, len(order), size * WINDOW):
        window = sorted(order[start : start + size * WINDOW], key=lambda index: len(rows[index]))
        found = [window[place : place + size] for place in range(0, len(window), size)]
        rng.shuffle(found)
        yield from found


def adapter_parts(adapter: dict, scale: float) -> dict:
    """peft's parameters -> `MODULE.lora_A` [rank, in], `MODULE.lora_B` [out, rank]; the latter are scaled."""
    parts = {}
    for name, tensor in adapter.items():
        module, _, factor = (
            name.removeprefix("base_model.model.").removesuffix(".default.weight").rpartition(".")
        )
        parts[f"{module}.{factor}"] = tensor * scale if factor == "lora_B" else tensor
    return parts


def save_parts(parts: dict, folder: Path) -> None:
    """In half precision."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    half = {name: part.to(torch.float16).contiguous() for name, part in parts.items()}
    save_file(half, folder / WEIGHTS_FILE)
