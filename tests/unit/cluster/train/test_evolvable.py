"""Both terms fall, a training goes on where it stopped, samples without labels are refused."""

import json
import math

import pytest
import torch

from cluster.train.evolvable import Training, evaluate
from cluster.train.evolvable_samples import histories_of, read_rows
from cluster.train.settings import Recipe, TrainingError
from tests.tiny import tiny_model
from tests.unit.cluster.evolvable.conversations import SETTINGS, readings, sample


def training(model, samples: list[dict], **recipe) -> Training:
    recipe = {"learning_rate": 1e-2, "schedule": "constant", "accumulation": 2, "max_steps": 20} | recipe
    return Training(model, readings(*samples), Recipe(**recipe), SETTINGS)


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


def test_a_memory_of_words_learns_through_its_gate():
    samples = [sample(number) for number in range(4)]
    steps = training(tiny_model(num_words=2).train(), samples)
    steps.step(1)
    assert steps.model.word_memory.gate.grad.abs() > 0
    assert any(steps.model.word_memory.gate is one for one in steps.model.projection_parameters())


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


def test_projections_that_learn_slower_are_clipped_apart():
    """Beside their gradient, hardly anything of the adapters' would be left of a clipped step."""
    norms = {}
    for rate in (1.0, 0.1):
        model = tiny_model()
        settings = SETTINGS.model_copy(update={"projection_rate": rate, "clip": 1e-3})
        Training(model, readings(sample(0)), Recipe(schedule="constant"), settings).step(1)
        parts = (model.adapter_parameters(), model.projection_parameters())
        norms[rate] = [torch.stack([p.grad.norm() for p in part]).norm().item() for part in parts]
    assert norms[0.1] == pytest.approx([1e-3, 1e-3], rel=1e-3)
    assert math.hypot(*norms[1.0]) == pytest.approx(1e-3, rel=1e-3)


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
