"""Both terms of the evolvable model's loss, and the ranks that come with them.

A conversation is read chunk by chunk as when it is embedded, but differentiably: the gradient of a vector
reaches the latents in its queue, and through them the chunks before (back-propagation through time). Letters
in shapes: N documents of a conversation, S questions in all, E the vectors' length, K latents a turn.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cluster.evolvable.batching import chunks_of
from cluster.evolvable.model import Answer, Chunk, EvolvableModel, Text
from cluster.models.row_batches import batches
from cluster.train.evolvable_samples import Reading
from cluster.train.settings import EvolvableSettings
from schemas.evolvable import EvolvableConfig


class Losses(NamedTuple):
    """Of each question, in the order of the readings and of their questions."""

    lm: Tensor
    """Mean cross entropy of the answer's tokens, in nats: [S]."""
    contrastive: Tensor
    """[S]."""
    ranks: list[np.ndarray]
    """Ranks from 0 of its evidence among the documents of its conversation: S times int [evidence]."""


def read_memory(model: EvolvableModel, readings: Sequence[Reading], bptt_chunks: int | None) -> list[Tensor]:
    """All latents of each conversation, oldest first: [K * turns, H] each."""
    capacity = model.config.queue_capacity
    plans = [chunks_of(reading.turns, model.config) for reading in readings]
    logs = [model.empty_queue() for _ in readings]
    for number in range(max(map(len, plans), default=0)):
        now = [index for index, plan in enumerate(plans) if number < len(plan)]
        queues = [logs[index][-capacity:] for index in now]
        if bptt_chunks and number % bptt_chunks == 0:
            queues = [queue.detach() for queue in queues]
        chunks = [Chunk(queue, plans[index][number]) for index, queue in zip(now, queues, strict=True)]
        for index, latents in zip(now, model.memorize(chunks), strict=True):
            logs[index] = torch.cat([logs[index], latents.flatten(0, 1)])
    return logs


def texts_of(reading: Reading, log: Tensor, config: EvolvableConfig) -> tuple[list[Text], list[Text]]:
    """Documents and questions of a reading, each with the queue that it is read with."""
    num_latents, capacity = config.num_latents, config.queue_capacity
    is_aligned = len(reading.documents) == len(reading.turns)
    documents = []
    for number, ids in enumerate(reading.documents):
        end = number * num_latents if is_aligned else len(log)
        documents.append(Text(log[max(0, end - capacity) : end], ids))
    return documents, [Text(config.asked_with(log), asked.query) for asked in reading.asked]


def losses(
    model: EvolvableModel,
    readings: Sequence[Reading],
    settings: EvolvableSettings,
    *,
    with_queue: bool = True,
) -> Losses:
    """Both terms for each question. `with_queue=False` reads everything with an empty memory."""
    logs = [model.empty_queue() for _ in readings]
    if with_queue:
        logs = read_memory(model, readings, settings.bptt_chunks)
    texts, answers = [], []
    for reading, log in zip(readings, logs, strict=True):
        for kind in texts_of(reading, log, model.config):
            texts += kind
        queue = log[-model.config.queue_capacity :]
        answers += [Answer(queue, *asked.answer) for asked in reading.asked]
    vectors = model.represent_all(texts, settings.pass_tokens)
    contrastive, ranks, start = [], [], 0
    for reading in readings:
        documents = vectors[start : (start := start + len(reading.documents))]
        for asked in reading.asked:
            scores = documents @ vectors[start]
            start += 1
            contrastive.append(contrastive_loss(scores, asked.evidence, settings))
            ranks.append(ranks_of(scores.detach().cpu().numpy())[list(asked.evidence)])
    logits = _in_passes(answers, settings.pass_tokens, model.answer_logits)
    lm = [
        nn.functional.cross_entropy(row, torch.tensor([a.ids[p] for p in a.positions], device=row.device))
        for row, a in zip(logits, answers, strict=True)
    ]
    return Losses(torch.stack(lm), torch.stack(contrastive), ranks)


def contrastive_loss(scores: Tensor, evidence: Sequence[int], settings: EvolvableSettings) -> Tensor:
    """Cross entropy of each evidence document among itself and all documents that are not evidence, averaged
    over the evidence, times the logarithm of the number of candidates: scalar. `scores` are cosines with the
    question, [N]."""
    is_evidence = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    is_evidence[list(evidence)] = True
    positive, negative = (scores[mask] / settings.temperature for mask in (is_evidence, ~is_evidence))
    loss = (torch.logaddexp(positive, torch.logsumexp(negative, dim=0)) - positive).mean()
    return loss * math.log(len(negative) + 1) if settings.length_weight else loss


def _in_passes(rows: list, pass_tokens: int, function: Callable[[list], Iterable[Tensor]]) -> list[Tensor]:
    """What `function` gives for each row, in the order of the rows; rows of like length share a pass."""
    found: list[Tensor | None] = [None] * len(rows)
    jobs = list(enumerate(rows))
    for batch in batches(jobs, lambda job: len(job[1].queue) + len(job[1].ids), pass_tokens):
        for (index, _), value in zip(batch, function([row for _, row in batch]), strict=True):
            found[index] = value
    return found


def ranks_of(scores: np.ndarray) -> np.ndarray:
    """Places from 0 in the order of falling scores: int [N]."""
    ranks = np.empty(len(scores), int)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return ranks
