"""Training of the evolvable model: what is measured, and the loop of a Ray Train worker."""

import json
import math
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cluster.evaluate.scoring import mean, recall_at, reciprocal_rank
from cluster.evolvable.model import EvolvableModel
from cluster.evolvable.tokens import Tokens
from cluster.models.sources import model_folder
from cluster.train.evolvable_loss import losses, ranks_of
from cluster.train.evolvable_samples import History, Reading, Readings, histories_of, read_rows
from cluster.train.settings import (
    COMPLETE,
    EvolvableSettings,
    LoraSettings,
    Recipe,
    TrainingError,
    last_checkpoint,
)
from cluster.train.whitening import whiten

NUM_CHECKPOINTS = 2


# --- measuring ------------------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(
    model: EvolvableModel,
    readings: Sequence[Reading],
    settings: EvolvableSettings,
    *,
    with_queue: bool = True,
) -> dict[str, float | None]:
    """Means over the questions: both terms of the loss, and `measures` of the ranking."""
    was_training = model.training
    model.eval()
    found = [losses(model, [reading], settings, with_queue=with_queue) for reading in readings]
    model.train(was_training)
    terms: dict[str, float | None] = {
        "lm_loss": torch.cat([one.lm for one in found]).mean().item(),
        "contrastive_loss": torch.cat([one.contrastive for one in found]).mean().item(),
    }
    return terms | measures([ranks for one in found for ranks in one.ranks])


def measures(ranks: Sequence[np.ndarray]) -> dict[str, float | None]:
    """Recall of evidence within the first 5 and 10, and the mean reciprocal rank of the first found."""
    return {
        "recall_at_5": mean(recall_at(each, 5) for each in ranks),
        "recall_at_10": mean(recall_at(each, 10) for each in ranks),
        "mrr": mean(reciprocal_rank(each) for each in ranks),
    }


def evaluate_static(histories: Sequence[History], embedder: str) -> dict[str, float | None]:
    """The same measures for an embedder that reads every text by itself."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(model_folder(embedder, None)), device="cpu")
    ranks = []
    for history in histories:
        texts = [*history.documents, *(question.text for question in history.questions)]
        vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        documents, queries = np.split(vectors, [len(history.documents)])
        for question, query in zip(history.questions, queries, strict=True):
            ranks.append(ranks_of(documents @ query)[list(question.evidence)])
    return measures(ranks)


# --- the loop -------------------------------------------------------------------------------------------


def train_worker(job: dict) -> None:
    """Runs in every worker of a Ray Train group; the first leaves `model/` and `result.json` in the output.

    `job` holds `data`, `output`, `base`, `base_revision`, `lora`, `recipe`, `evolvable`.
    """
    import ray.train
    import ray.train.torch

    lora, recipe = LoraSettings(**job["lora"]), Recipe(**job["recipe"])
    settings = EvolvableSettings(**job["evolvable"])
    context, output = ray.train.get_context(), Path(job["output"])
    rank, num_workers = context.get_world_rank(), context.get_world_size()
    torch.manual_seed(recipe.seed)
    config = settings.model(job["base"], job["base_revision"], lora, recipe)
    if settings.start:
        model = EvolvableModel.load(model_folder(settings.start, None), **config.model_dump())
    else:
        model = EvolvableModel.from_base(config)
    model.to(ray.train.torch.get_device()).train()
    model.gradient_checkpointing = recipe.gradient_checkpointing
    tokens, histories, readings, left_out = Tokens.of_base(config), {}, {}, {}
    for part in ("train", "validation"):
        histories[part], left_out[part] = histories_of(read_rows(Path(job["data"]), part), part)
        if not histories[part]:
            raise TrainingError(f"data={job['data']}: {part} holds no sample ({dict(left_out[part])})")
        if part == "validation":
            histories[part] = histories[part][: recipe.max_validation]
        readings[part] = Readings(histories[part], tokens)
    if model.config.num_words and not settings.start:
        # By every worker for itself: the conversations are the same.
        model.word_memory.weigh(reading.turns for reading in readings["train"])
    training = Training(model, readings["train"], recipe, settings, rank, num_workers)
    done, log = training.resume(output / "checkpoints") if rank == 0 else (0, [])

    def measure(step: int) -> None:
        if rank == 0:
            found = evaluate(model, readings["validation"], settings)
            note(step, {"eval_loss": _total(found, settings), **{f"eval_{k}": v for k, v in found.items()}})

    def note(step: int, entry: dict) -> None:
        log.append({"step": step, "time": round(time.time(), 1)} | entry)
        (unfinished := output / "metrics.jsonl.unfinished").write_text(
            "".join(json.dumps(line) + "\n" for line in log)
        )
        unfinished.rename(output / "metrics.jsonl")

    if rank == 0 and not done:
        measure(0)
        if settings.whiten and not settings.start:
            drawn = [readings["train"][index] for index in training.order(0)[: settings.whiten]]
            whiten(model, drawn, settings.pass_tokens)
            measure(0)
    if num_workers > 1:
        done, log = training.share(done, log)
    for step in range(done + 1, training.num_steps + 1):
        entry = training.step(step)
        if rank == 0:
            note(step, entry)
        is_last = step == training.num_steps
        if is_last or step % recipe.eval_every_steps == 0:
            measure(step)
            # Not of every step: Ray Train fetches reports every two seconds and lets workers wait for it.
            ray.train.report(entry)
        if rank == 0 and not is_last and step % recipe.save_every_steps == 0:
            training.save(output / "checkpoints", step, log)
    if rank == 0:
        model.save(output / "model")
        beside = {"without_queue": evaluate(model, readings["validation"], settings, with_queue=False)}
        if settings.baseline:
            beside["baseline"] = evaluate_static(histories["validation"], settings.baseline)
        (output / "result.json").write_text(json.dumps(_counts(training, histories, left_out) | beside))


def _total(terms: dict[str, float], settings: EvolvableSettings) -> float:
    return settings.lm_weight * terms["lm_loss"] + settings.contrastive_weight * terms["contrastive_loss"]


def _counts(training: "Training", histories: dict[str, list[History]], left_out: dict) -> dict:
    num_documents = [len(history.documents) for history in histories["validation"]]
    return {
        "num_examples": sum(len(history.questions) for history in histories["train"]),
        "num_conversations": len(histories["train"]),
        "num_validation": sum(len(history.questions) for history in histories["validation"]),
        "num_validation_conversations": len(num_documents),
        "mean_candidates": round(float(np.mean(num_documents)), 1),
        "left_out": {part: dict(counts) for part, counts in left_out.items()},
        "num_parameters": sum(p.numel() for p in training.parameters),
        "num_steps": training.num_steps,
        "best_step": training.num_steps,
    }


class Training:
    """Model, optimizer and the order of the conversations. One worker's part of it."""

    def __init__(
        self,
        model: EvolvableModel,
        readings: Sequence[Reading],
        recipe: Recipe,
        settings: EvolvableSettings,
        rank: int = 0,
        num_workers: int = 1,
    ):
        self.model, self.readings, self.recipe, self.settings = model, readings, recipe, settings
        self.rank, self.num_workers = rank, num_workers
        self.parameters = model.trainable_parameters()
        groups = [{"params": self.parameters, "share": 1.0}]
        if settings.projection_rate < 1:
            groups = [
                {"params": model.adapter_parameters(), "share": 1.0},
                {"params": model.projection_parameters(), "share": settings.projection_rate},
            ]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.num_step = recipe.batch_size * recipe.accumulation * num_workers
        """Conversations of a step, on all workers."""
        per_epoch = math.ceil(len(readings) / self.num_step)
        self.num_steps = recipe.max_steps or max(1, math.ceil(recipe.num_epochs * per_epoch))

    def step(self, number: int) -> dict[str, float]:
        """Take step `number`, from 1; returns what is logged of it."""
        # So that a training that goes on draws the same dropout as an unbroken one.
        torch.manual_seed(hash((self.recipe.seed, number, self.rank)))
        chosen = [self.readings[index] for index in self.drawn(number)]
        num_asked = sum(len(reading.asked) for reading in chosen)
        sums = torch.zeros(3)
        self.optimizer.zero_grad()
        mine = chosen[self.rank :: self.num_workers]
        for start in range(0, len(mine), self.recipe.batch_size):
            found = losses(self.model, mine[start : start + self.recipe.batch_size], self.settings)
            terms = torch.stack([found.lm.sum(), found.contrastive.sum()]) / num_asked
            weights = terms.new_tensor([self.settings.lm_weight, self.settings.contrastive_weight])
            (terms @ weights).backward()
            # Every question of a training has evidence, so there is a recall.
            recalls = sum(recall_at(ranks, 10) or 0.0 for ranks in found.ranks) / num_asked
            sums += torch.tensor([*terms.tolist(), recalls])
        self._reduce(sums)
        rate = self.rate(number)
        norms = []
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
            norms.append(nn.utils.clip_grad_norm_(group["params"], self.settings.clip))
        norm = torch.stack(norms).norm()
        if not torch.isfinite(norm):
            raise TrainingError(f"step {number}: the gradient is not finite; lower recipe.learning_rate")
        self.optimizer.step()
        terms = dict(zip(("lm_loss", "contrastive_loss", "recall_at_10"), sums.tolist(), strict=True))
        return {
            "loss": _total(terms, self.settings),
            **terms,
            "learning_rate": rate,
            "grad_norm": norm.item(),
        }

    def drawn(self, number: int) -> list[int]:
        """Indexes of a step's conversations: every epoch has all of them once, in an order of its own."""
        per_epoch = math.ceil(len(self.readings) / self.num_step)
        epoch, place = divmod(number - 1, per_epoch)
        return self.order(epoch)[place * self.num_step : (place + 1) * self.num_step]

    def order(self, epoch: int) -> list[int]:
        """Indexes of all conversations, as they come in an epoch."""
        order = list(range(len(self.readings)))
        random.Random(f"{self.recipe.seed} {epoch}").shuffle(order)
        return order

    def rate(self, number: int) -> float:
        """Learning rate of a step."""
        num_warmup = math.ceil(self.recipe.warmup * self.num_steps)
        if number <= num_warmup:
            return self.recipe.learning_rate * number / num_warmup
        done = (number - 1 - num_warmup) / max(1, self.num_steps - num_warmup)
        share = {
            "constant": 1.0,
            "linear": 1 - done * (1 - self.settings.min_rate),
            "cosine": self.settings.min_rate
            + (1 - self.settings.min_rate) * (1 + math.cos(math.pi * done)) / 2,
        }
        return self.recipe.learning_rate * share[self.recipe.schedule]

    def _reduce(self, sums: Tensor) -> None:
        """Add up the workers' gradients and sums."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.num_workers > 1:
            for tensor in (*(parameter.grad for parameter in self.parameters), sums):
                torch.distributed.all_reduce(tensor)

    # --- checkpoints ----------------------------------------------------------------------------------

    def save(self, folder: Path, step: int, log: list[dict]) -> None:
        """Write checkpoint-STEP, and delete all but the newest ones."""
        path = folder / f"checkpoint-{step}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        state = {"parameters": self.parameters, "optimizer": self.optimizer.state_dict(), "log": log}
        torch.save(state, path / "state.pt")
        (path / COMPLETE).touch()
        for old in sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2])):
            if int(old.name.rpartition("-")[2]) <= step - NUM_CHECKPOINTS * self.recipe.save_every_steps:
                shutil.rmtree(old)

    def resume(self, folder: Path) -> tuple[int, list[dict]]:
        """Take on the newest checkpoint's state: its step, 0 when there is none, and its log."""
        path = last_checkpoint(folder)
        if path is None:
            return 0, []
        state = torch.load(path / "state.pt", map_location=self.model.device, weights_only=True)
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        return int(path.name.rpartition("-")[2]), state["log"]

    def share(self, step: int, log: list[dict]) -> tuple[int, list[dict]]:
        """The first worker's state for all workers."""
        given: list[Any] = [step, log, self.optimizer.state_dict() if self.rank == 0 else None]
        torch.distributed.broadcast_object_list(given)
        for parameter in self.parameters:
            torch.distributed.broadcast(parameter.data, 0)
        if given[0]:
            self.optimizer.load_state_dict(given[2])
        return given[0], given[1]
