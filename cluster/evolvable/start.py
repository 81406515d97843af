"""Where training may start. Hidden states of a language model all but coincide: what tells two apart is a
small part of their length. `whiten` spreads the vectors, `memory_from_retriever` what stands in the queue."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cluster.evolvable.loss import read_memory, texts_of
from cluster.evolvable.model import MEMORY_GENERATOR, RETRIEVER, EvolvableModel
from cluster.evolvable.samples import Reading

SHRINKAGE = 0.1
"""Of the covariance towards a multiple of the identity: there are hardly more samples than dimensions."""

NUM_FITS = 2
"""Latents depend on the queue before them, so its projection is fitted again to what it has changed."""


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


@torch.no_grad()
def memory_from_retriever(model: EvolvableModel, readings: Sequence[Reading], end_id: int) -> None:
    """Let the memory begin as what the retriever makes of the turns.

    The memory generator takes the retriever's weights, and every memory query the embedding of the token that
    ends a document: a latent then is much what becomes the turn's vector. The projection into the queue takes
    off the latents' mean over the readings and gives the rest the length of words. As published it is the
    identity, and hands the base inputs ten times longer than words that hardly differ from each other.
    """
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if f".{MEMORY_GENERATOR}." in name:
            parameter.copy_(parameters[name.replace(MEMORY_GENERATOR, RETRIEVER)])
    words, (into_queue,) = model.model.get_input_embeddings().weight, model.mem_to_latent
    model.memory_queries.copy_(words[end_id].expand_as(model.memory_queries))
    nn.init.eye_(into_queue.weight)
    nn.init.zeros_(into_queue.bias)
    was_training = model.training
    model.eval()
    for _ in range(NUM_FITS):
        latents = torch.cat([read_memory(model, [reading], None)[0].double() for reading in readings])
        mean = latents.mean(0)
        scale = words.double().norm(dim=1).median() / (latents - mean).norm(dim=1).median()
        nn.init.eye_(into_queue.weight).mul_(scale)
        into_queue.bias.copy_(-scale * mean)
    model.train(was_training)
