"""Training a cross-encoder, that of pairs, on a tiny random base."""

import random

import numpy as np
import pytest

from cluster.consolidate.crosspairs import LABELS, PairReader, token_ids
from cluster.models.cross_encoder import load_base, logits_of
from cluster.train.cross_encoder import (
    Learned,
    adapted,
    adapter_parts,
    batches,
    rate_at,
    save_parts,
    shares,
    train_cross_encoder,
)
from cluster.train.settings import CrossRecipe
from tests.tiny import tiny_reader

THINGS = ["canoe", "piano", "tent", "kiln"]
PAIRS = [(f"User wants a {one}.", f"User bought a {one}.") for one in THINGS]
PAIRS += [(f"User wants a {one}.", "User has a hat.") for one in THINGS]
NAMES = ["delete"] * len(THINGS) + ["keep"] * len(THINGS)
WEIGHTS = [1.0] * len(THINGS) + [0.5] * len(THINGS)
RECIPE = CrossRecipe(num_epochs=2, batch_size=4, learning_rate=1e-2, rank=2, alpha=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_reader(folder)
    return folder


def learned(base) -> list[Learned]:
    _, tokenizer = load_base(base)
    return [
        Learned(token_ids(tokenizer, *pair), LABELS.index(name), weight)
        for pair, name, weight in zip(PAIRS, NAMES, WEIGHTS, strict=True)
    ]


def trained(base, folder, num_epochs: int | None = None, recipe=RECIPE):
    """The first so many epochs; not given: all that are left."""
    epochs = train_cross_encoder(
        base, learned(base), len(LABELS), recipe, seed=0, checkpoint=folder / "checkpoint.pt"
    )
    if num_epochs is None:
        return list(epochs)
    # One more is asked for than is kept: the checkpoint of the last is then written.
    found = [next(epochs) for _ in range(num_epochs + 1)]
    epochs.close()
    return found[:-1]


def test_a_training_learns_what_the_labels_say(base, tmp_path):
    recipe = RECIPE.model_copy(update={"num_epochs": 30})
    *_, last = epochs = trained(base, tmp_path, recipe=recipe)
    assert [one.number for one in epochs] == list(range(1, 31))
    # Over some epochs: dropout makes the loss of one jump.
    assert sum(one.loss for one in epochs[-5:]) / 5 < epochs[0].loss / 2
    save_parts(last.parts, tmp_path)
    reader = PairReader.load(tmp_path, base)
    found = reader.probabilities(PAIRS)
    assert [LABELS[row.argmax()] for row in found] == NAMES


def test_a_training_that_goes_on_gives_what_an_uninterrupted_one_gives(base, tmp_path):
    whole = trained(base, tmp_path / "whole")
    first = trained(base, tmp_path / "parts", num_epochs=1)
    rest = trained(base, tmp_path / "parts")
    assert [one.number for one in first + rest] == [1, 2]
    for name, part in whole[-1].parts.items():
        assert np.allclose(part, rest[-1].parts[name], atol=1e-6), name
    assert trained(base, tmp_path / "parts") == [], "it is at its end"


def test_the_same_seed_gives_the_same_weights(base, tmp_path):
    one, other = (trained(base, tmp_path / name, num_epochs=1)[0] for name in ("one", "other"))
    assert one.loss == other.loss
    assert all((part == other.parts[name]).all() for name, part in one.parts.items())


def test_what_is_saved_and_loaded_answers_as_what_was_trained(base, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    bert, tokenizer = load_base(base)
    bert = get_peft_model(bert, LoraConfig(r=2, lora_alpha=6, target_modules=adapted(range(9)))).eval()
    head = torch.nn.Linear(bert.config.hidden_size, len(LABELS))
    adapter = {name: one for name, one in bert.named_parameters() if one.requires_grad}
    # Six linear layers in each of two blocks, two factors each.
    assert len(adapter) == 24
    with torch.no_grad():
        for name, one in adapter.items():
            if "lora_B" in name:
                one.normal_(0, 0.3)
        logits = logits_of(bert, head, [token_ids(tokenizer, *pair) for pair in PAIRS])
    parts = adapter_parts({name: one.detach() for name, one in adapter.items()}, 6 / 2)
    parts |= {f"head.{name}": one.detach() for name, one in head.state_dict().items()}
    save_parts(parts, tmp_path)
    found = PairReader.load(tmp_path, base).probabilities(PAIRS)
    assert np.allclose(found, logits.softmax(dim=1), atol=5e-3)


def test_every_row_is_in_one_batch_beside_rows_of_like_length():
    rows = [[0] * random.Random(number).randint(5, 60) for number in range(70)]
    found = list(batches(rows, 4, random.Random(0)))
    assert sorted(index for batch in found for index in batch) == list(range(70))
    assert max(map(len, found)) == 4
    spread = [np.ptp([len(rows[index]) for index in batch]) for batch in found]
    assert np.mean(spread) < 10
    assert found != list(batches(rows, 4, random.Random(1)))


def test_the_rate_rises_over_the_warmup_and_ends_at_nothing():
    rates = [rate_at(step, 100, 0.1) for step in range(101)]
    assert rates[0] == 0.1 and max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[100] == 0


def test_the_head_starts_from_how_common_the_labels_are(base):
    found = dict(zip(LABELS, shares(learned(base), len(LABELS)), strict=True))
    assert sum(found.values()) == pytest.approx(1)
    assert found["delete"] > found["keep"] > found["unite"] == found["update"] > 0
