"""Training of a cross-encoder (cluster.models.cross_encoder): a LoRA adapter on every linear layer of its
base, and its head.

One process, on a GPU where there is one, else on this process's cores. Every epoch has a seed of its own, so
that a training that goes on from a checkpoint gives what an uninterrupted one gives.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.models.cross_encoder import WEIGHTS_FILE, load_base, logits_of
from cluster.runtime import Progress
from cluster.train.settings import CrossRecipe

WINDOW = 16
"""Of so many batches each has pairs of like length, so that padding costs little."""


@dataclass(frozen=True)
class Learned:
    """What is learned of one row."""

    row: list[int]
    """Token ids, as the cross-encoder will read them."""
    label: int
    """Its logit is to be the highest."""
    weight: float = 1.0


@dataclass(frozen=True)
class Epoch:
    """One time through everything."""

    number: int
    """From 1."""
    loss: float
    """Mean over its rows, while they were learned."""
    parts: dict
    """Name -> tensor, as CrossEncoder.load reads them."""


def train_cross_encoder(
    base: Path, learned: list[Learned], num_labels: int, recipe: CrossRecipe, *, seed: int, checkpoint: Path
) -> Iterator[Epoch]:
    """Epochs as they end, each to be saved by the caller: its checkpoint is written when the next is asked
    for. Goes on from a checkpoint, which must be of the same training."""
    import torch
    from peft import LoraConfig, get_peft_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    bert, _ = load_base(base)
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=adapted(range(recipe.first_layer, bert.config.num_hidden_layers)),
    )
    bert = get_peft_model(bert, lora).to(device)
    head = torch.nn.Linear(bert.config.hidden_size, num_labels)
    torch.nn.init.zeros_(head.weight)
    # What is common is not to be learned first.
    head.bias.data = torch.tensor(shares(learned, num_labels)).log()
    head.to(device)
    adapter = {name: one for name, one in bert.named_parameters() if one.requires_grad}
    learner = torch.optim.AdamW(
        [
            {"params": list(adapter.values()), "lr": recipe.learning_rate},
            {"params": list(head.parameters()), "lr": recipe.learning_rate * recipe.head_rate},
        ],
        weight_decay=recipe.weight_decay,
    )
    num_steps = recipe.num_epochs * -(-len(learned) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        learner, lambda step: rate_at(step, num_steps, recipe.warmup)
    )
    rows = [one.row for one in learned]
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
        bert.train(recipe.dropout > 0)
        progress = Progress(f"epoch {number}", "examples", len(rows), every_s=10)
        total, num_read = 0.0, 0
        for batch in batches(rows, recipe.batch_size, random.Random(f"{seed} {number}")):
            logits = logits_of(bert, head, [rows[index] for index in batch])
            wanted = torch.tensor([learned[index].label for index in batch], device=device)
            counts = torch.tensor([learned[index].weight for index in batch], device=device)
            losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none") * counts
            # Over a constant: a row weighs the same, whatever it shares a batch with.
            (losses.sum() / recipe.batch_size).backward()
            torch.nn.utils.clip_grad_norm_([*adapter.values(), *head.parameters()], 1.0)
            learner.step()
            schedule.step()
            learner.zero_grad()
            total += losses.sum().item()
            num_read += len(batch)
            progress.advance(len(batch), f"mean loss {total / num_read:.3f}")
        weights = {name: one.detach() for name, one in adapter.items()}
        parts = adapter_parts(weights, recipe.alpha / recipe.rank)
        parts |= {f"head.{name}": one for name, one in head.state_dict().items()}
        yield Epoch(number, total / len(rows), {name: one.cpu().clone() for name, one in parts.items()})
        state = {
            "epoch": number,
            "adapter": weights,
            "head": head.state_dict(),
            "learner": learner.state_dict(),
            "schedule": schedule.state_dict(),
        }
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, unfinished := checkpoint.with_suffix(".unfinished"))
        os.replace(unfinished, checkpoint)


def adapted(blocks: range) -> str:
    """Pattern of the names of the adapted layers: all linear ones of these blocks of BertModel."""
    return rf".*encoder\.layer\.({'|'.join(map(str, blocks))})\..*(query|key|value|dense)"


def shares(learned: list[Learned], num_labels: int) -> list[float]:
    """Weight of each label among all, one added to each."""
    totals = [1 + sum(one.weight for one in learned if one.label == label) for label in range(num_labels)]
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
