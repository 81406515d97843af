"""Where training may start: vectors of an untrained base all but coincide, and whitening spreads them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cluster.evolvable.model import EvolvableModel
from cluster.train.evolvable_loss import read_memory, texts_of
from cluster.train.evolvable_samples import Reading

SHRINKAGE = 0.1
"""Of the covariance towards a multiple of the identity: there are hardly more samples than dimensions."""


@torch.no_grad()
def whiten(model: EvolvableModel, readings: Sequence[Reading], pass_tokens: int) -> None:
    """Replace the last projection so that what it gives has zero mean and unit covariance (arXiv 2103.15316).

    Documents and questions of the readings count half each: what tells the one kind from the other says
    nothing about which belong together, and loses its weight like every other common direction.
    """
    last, found = model.mem_to_emb[-1], []
    hook = last.register_forward_hook(lambda module, inputs, output: found.append(inputs[0].double()))
    kinds: tuple[list[Tensor], list[Tensor]] = ([], [])
    was_training = model.training
    model.eval()
    try:
        for reading in readings:
            (log,) = read_memory(model, [reading], None)
            for kind, texts in zip(kinds, texts_of(reading, log, model.config), strict=True):
                model.represent_all(texts, pass_tokens)
                kind += found
                found.clear()
    finally:
        hook.remove()
        model.train(was_training)
    samples = [torch.cat(kind) for kind in kinds]
    mean = sum(rows.mean(0) for rows in samples) / 2
    covariance = sum((rows - mean).T @ (rows - mean) / len(rows) for rows in samples) / 2
    variance = covariance.diagonal().mean()
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * variance * torch.eye(len(mean)).to(covariance)
    values, vectors = torch.linalg.eigh(covariance)
    whitening = vectors / values.sqrt() @ vectors.T
    last.weight.copy_(whitening)
    last.bias.copy_(-whitening @ mean)
