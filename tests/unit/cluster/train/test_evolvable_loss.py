"""Both terms of the loss are there, as published; whitening spreads vectors that all but coincide."""

import numpy as np
import pytest
import torch

from cluster.train.evolvable_loss import contrastive_loss, losses, texts_of
from cluster.train.evolvable_samples import histories_of, reading_of
from cluster.train.whitening import whiten
from tests.tiny import tiny_base, tiny_config, tiny_model, tiny_tokenizer
from tests.unit.cluster.evolvable.conversations import SETTINGS, readings, sample
from tests.unit.cluster.evolvable.parity import CONFIG, EVIDENCE, dialogue, fill, forward, turn_texts


def test_both_terms_equal_the_definition():
    """The way of batching is the only difference to the definition, which equals the published code."""
    config = tiny_config(**CONFIG)
    from cluster.evolvable.model import EvolvableModel
    from cluster.evolvable.tokens import Tokens

    model, tokens = EvolvableModel(config, tiny_base(hidden_size=16)), Tokens(config, tiny_tokenizer())
    fill(model.eval())
    messages = dialogue()
    rows = [{"messages": messages, "meta": {"turns": turn_texts(messages), "evidence_turns": EVIDENCE}}]
    (history,), _ = histories_of(rows, "train")
    found = losses(model, [reading_of(history, tokens)], SETTINGS)
    expected = forward(model, tokens, messages)
    assert found.lm.item() == pytest.approx(expected["lm_loss"].item(), abs=1e-5)
    assert found.contrastive.item() == pytest.approx(expected["contrastive_loss"].item(), abs=1e-5)
    (found.lm.sum() + found.contrastive.sum()).backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (expected["lm_loss"] + expected["contrastive_loss"]).backward()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, dict(model.named_parameters())[name].grad, atol=1e-4, rtol=1e-3)


def test_the_contrastive_term_by_hand():
    scores = torch.tensor([0.5, 0.1, 0.3, -0.2])
    positive, negative = np.exp([5, 3]), np.exp([1, -2]).sum()
    terms = -np.log(positive / (positive + negative))
    assert contrastive_loss(scores, [0, 2], SETTINGS).item() == pytest.approx(
        terms.mean() * np.log(3), abs=1e-5
    )
    plain = SETTINGS.model_copy(update={"length_weight": False})
    assert contrastive_loss(scores, [0, 2], plain).item() == pytest.approx(terms.mean(), abs=1e-5)
    assert contrastive_loss(scores, range(4), SETTINGS).item() == 0


def test_the_contrastive_term_alone_reaches_everything_but_the_base():
    model = tiny_model()
    losses(model, readings(sample(5, 14)), SETTINGS).contrastive.sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())


def test_questions_to_one_conversation_share_its_reading_and_change_nothing():
    asked_twice = [sample(2), sample(2)]
    asked_twice[1]["meta"] = asked_twice[1]["meta"] | {"evidence_turns": [4]}
    (together,) = readings(*asked_twice)
    model = tiny_model()
    found = losses(model, [together], SETTINGS)
    alone = [losses(model, readings(one), SETTINGS) for one in asked_twice]
    torch.testing.assert_close(found.contrastive, torch.cat([one.contrastive for one in alone]))
    torch.testing.assert_close(found.lm, torch.cat([one.lm for one in alone]))
    assert [ranks.tolist() for ranks in found.ranks] == [one.ranks[0].tolist() for one in alone]


def test_conversations_side_by_side_do_not_see_each_other():
    model, both = tiny_model(), readings(sample(1, 3), sample(7, 13))
    found = losses(model, both, SETTINGS)
    alone = [losses(model, [one], SETTINGS) for one in both]
    torch.testing.assert_close(
        found.contrastive, torch.cat([one.contrastive for one in alone]), atol=1e-4, rtol=0
    )


def test_truncation_cuts_the_recurrence_and_nothing_else():
    """14 exchanges are 4 chunks. The values stay; with every chunk on its own, the gradient does not."""
    model, reading = tiny_model(), readings(sample(5, 14))

    def gradient(bptt_chunks: int | None) -> torch.Tensor:
        model.zero_grad()
        found = losses(model, reading, SETTINGS.model_copy(update={"bptt_chunks": bptt_chunks}))
        found.contrastive.sum().backward()
        return model.memory_queries.grad.clone()

    full = gradient(None)
    torch.testing.assert_close(gradient(4), full)
    assert (gradient(1) - full).abs().max() > 1e-4 * full.abs().max()


def test_whitening_spreads_what_all_but_coincides():
    """Over documents and questions alike: no common direction, the same spread in every direction."""
    model, read = tiny_model(), readings(*(sample(number) for number in range(8)))
    texts = [
        text for one in read for kind in texts_of(one, model.empty_queue(), model.config) for text in kind
    ]

    def mean_cosine() -> float:
        vectors = model.represent_all(texts, 2000)
        return (vectors @ vectors.T).mean().item()

    assert mean_cosine() > 0.9
    whiten(model, read, 2000)
    assert mean_cosine() < 0.3
    assert model.mem_to_emb[-1].weight.requires_grad
