"""Both terms of the loss are there, as published, and fall; samples without labels are refused."""

import json

import numpy as np
import pytest
import torch

from cluster.evolvable.samples import histories_of, read_rows, reading_of
from cluster.evolvable.training import Training, contrastive_loss, evaluate, losses, represent, texts_of
from cluster.evolvable.whitening import whiten
from cluster.training.settings import EvolvableSettings, Recipe, TrainingError
from tests.tiny import tiny_base, tiny_config, tiny_model, tiny_tokenizer, tiny_tokens
from tests.unit.cluster.evolvable.parity import CONFIG, EVIDENCE, dialogue, fill, forward, turn_texts

CITIES = ("Lyon", "Oslo", "Quito", "Turin", "Perth", "Osaka", "Cairo", "Delhi")
SETTINGS = EvolvableSettings(pass_tokens=2000)


def sample(number: int, num_turns: int = 6) -> dict:
    """Every exchange names a place; the question names one of them."""
    places = [CITIES[(number + turn) % len(CITIES)] for turn in range(num_turns)]
    wanted = number % num_turns
    messages = []
    for place in places:
        messages += [{"role": "user", "content": f"in {place}"}, {"role": "assistant", "content": "ok"}]
    question, answer = f"{places[wanted]}?", f"turn {wanted}"
    turns = [f"User: in {place}\nAssistant: ok" for place in places]
    return {
        "messages": [
            *messages,
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        "meta": {"turns": [*turns, question], "evidence_turns": [wanted]},
    }


def readings(*samples: dict):
    return [reading_of(history, tiny_tokens()) for history in histories_of(samples, "train")[0]]


def training(model, samples: list[dict], **recipe) -> Training:
    recipe = {"learning_rate": 1e-2, "schedule": "constant", "accumulation": 2, "max_steps": 20} | recipe
    return Training(model, readings(*samples), Recipe(**recipe), SETTINGS)


# --- the loss -------------------------------------------------------------------------------------------


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


# --- learning -------------------------------------------------------------------------------------------


def test_both_terms_fall_and_recall_rises():
    samples = [sample(number) for number in range(8)]
    model = tiny_model().train()
    before = evaluate(model, readings(*samples), SETTINGS)
    steps = training(model, samples, accumulation=8)
    entries = [steps.step(number) for number in range(1, 21)]
    after = evaluate(model, readings(*samples), SETTINGS)
    assert after["contrastive_loss"] < 0.6 * before["contrastive_loss"]
    assert after["lm_loss"] < before["lm_loss"]
    assert after["mrr"] > before["mrr"]
    assert entries[-1]["contrastive_loss"] < entries[0]["contrastive_loss"]


def test_a_step_does_not_depend_on_how_it_is_cut_into_passes():
    samples = [sample(number, 4 + number) for number in range(4)]
    weights = []
    for batch_size, accumulation in ((1, 4), (4, 1), (2, 2)):
        steps = training(tiny_model(), samples, batch_size=batch_size, accumulation=accumulation)
        steps.step(1)
        weights.append(steps.model.memory_queries.grad.clone())
    torch.testing.assert_close(weights[1], weights[0], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(weights[2], weights[0], atol=1e-5, rtol=1e-3)


def test_a_training_goes_on_where_it_stopped(tmp_path):
    samples = [sample(number) for number in range(5)]
    whole = training(tiny_model().train(), samples, max_steps=6)
    for number in range(1, 7):
        whole.step(number)
    first = training(tiny_model().train(), samples, max_steps=6)
    for number in range(1, 4):
        first.step(number)
    first.save(tmp_path, 3, [{"step": 3}])
    second = training(tiny_model(seed=9).train(), samples, max_steps=6)
    assert second.resume(tmp_path) == (3, [{"step": 3}])
    # The base is not in a checkpoint, and here was drawn with another seed.
    second.model.load_state_dict(first.model.state_dict())
    for number in range(4, 7):
        second.step(number)
    for left, right in zip(whole.parameters, second.parameters, strict=True):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=0)


def test_every_epoch_has_every_conversation_once():
    steps = training(tiny_model(), [sample(number) for number in range(5)])
    epochs = [[index for n in range(3) for index in steps.drawn(first + n)] for first in (1, 4)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3, 4]] * 2
    assert epochs[0] != epochs[1]


def test_the_rate_rises_and_falls_to_its_floor():
    steps = training(tiny_model(), [sample(0)], schedule="cosine", warmup=0.1, max_steps=100)
    rates = [steps.rate(number) for number in range(1, 101)]
    assert rates[0] == pytest.approx(1e-3) and max(rates) == rates[9] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-3, rel=0.05)


def test_projections_may_learn_slower_than_adapters():
    model = tiny_model()
    settings = SETTINGS.model_copy(update={"projection_rate": 0.1})
    steps = Training(model, readings(sample(0)), Recipe(learning_rate=1e-3, schedule="constant"), settings)
    steps.step(1)
    rates = {id(weight): group["lr"] for group in steps.optimizer.param_groups for weight in group["params"]}
    assert rates.keys() == {id(weight) for weight in steps.parameters}
    assert {rates[id(weight)] for weight in model.adapter_parameters()} == {1e-3}
    assert {rates[id(weight)] for weight in model.projection_parameters()} == {1e-4}


def test_whitening_spreads_what_all_but_coincides():
    """Over documents and questions alike: no common direction, the same spread in every direction."""
    model, read = tiny_model(), readings(*(sample(number) for number in range(8)))
    texts = [
        text for one in read for kind in texts_of(one, model.empty_queue(), model.config) for text in kind
    ]

    def mean_cosine() -> float:
        vectors = torch.stack(represent(model, texts, 2000))
        return (vectors @ vectors.T).mean().item()

    assert mean_cosine() > 0.9
    whiten(model, read, 2000)
    assert mean_cosine() < 0.3
    assert model.mem_to_emb[-1].weight.requires_grad


# --- samples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("meta"), "row 1 is no sample"),
        (lambda row: row["meta"].pop("evidence_turns"), "row 1 is no sample"),
        (lambda row: row["meta"].update(evidence_turns=[6]), r"evidence_turns \[6\], but only 6 turns"),
        (lambda row: row["messages"].pop(), "does not end with question and answer"),
        (lambda row: row["meta"].update(turns=[]), "row 1 is no sample"),
    ],
)
def test_a_row_that_would_train_without_the_contrastive_term_is_refused(change, message):
    rows = [sample(0), sample(1)]
    change(rows[1])
    with pytest.raises(TrainingError, match=message):
        histories_of(rows, "train")


def test_samples_without_evidence_are_counted():
    rows = [sample(0), sample(1)]
    rows[0]["meta"]["evidence_turns"] = []
    histories, left_out = histories_of(rows, "train")
    assert (len(histories), left_out) == (1, {"no_evidence": 1})


def test_sets_are_read_from_parquet_and_from_json_lines(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from schemas.training import EVOLVABLE_SCHEMA

    rows = [sample(number) for number in range(3)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(read_rows(tmp_path, "train")) == rows
    named = [{"task": "evolvable", "source_id": "q", "user_id": "u"} | row for row in rows]
    pq.write_table(pa.Table.from_pylist(named, schema=EVOLVABLE_SCHEMA), tmp_path / "validation.parquet")
    assert list(read_rows(tmp_path, "validation")) == rows
    pq.write_table(pa.table({"messages": [1]}), tmp_path / "other.parquet")
    with pytest.raises(TrainingError, match="lacks meta"):
        list(read_rows(tmp_path, "other"))
    with pytest.raises(TrainingError, match="no_such"):
        list(read_rows(tmp_path, "no_such"))
