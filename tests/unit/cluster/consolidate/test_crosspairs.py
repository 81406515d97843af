"""The cross-encoder of pairs: what it reads, what it may do, and that its answers do not hang on chance."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cluster.consolidate.crosspairs import (
    MAX_TOKENS,
    SETTINGS_FILE,
    SHIPPED,
    CrossPairModel,
    CrossSettings,
    PairReader,
    crosspairs_fingerprint,
    day_relation,
    mixed,
    token_ids,
)
from cluster.consolidate.fold import Memory, Question, Source
from cluster.consolidate.pairs import LABELS, PairDecider, PairModel
from cluster.consolidate.without_model import FINGERPRINTS, LOADED, WITHOUT_MODEL
from cluster.models import cross_encoder
from cluster.models.cross_encoder import BASE, WEIGHTS_FILE, load_base
from cluster.models.sources import model_folder
from jobs.evaluate.pairs import consolidate_pairs, mistakes, pairs_board, read_pairs
from tests.tiny import tiny_reader

PAIRS = [
    ("User plans to adopt a dog.", "User has adopted a dog."),
    ("User rents a flat in Leith.", "User bought a house, and gave the flat in Leith back on 2025-03-01."),
    ("User likes tea.", "User likes cake."),
]


def write_weights(folder, base, rank: int = 2, seed: int = 0, factor: float = 1.0) -> int:
    """Random weights for every linear layer of a base, with settings; how many numbers."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    bert, _ = load_base(base)
    parts = {}
    for name, module in bert.encoder.named_modules():
        if isinstance(module, torch.nn.Linear):
            rows, columns = module.weight.shape
            parts[f"encoder.{name}.lora_A"] = torch.randn(rank, columns, generator=generator) / columns**0.5
            parts[f"encoder.{name}.lora_B"] = factor * torch.randn(rows, rank, generator=generator) / 4
    parts["head.weight"] = torch.randn(len(LABELS), bert.config.hidden_size, generator=generator)
    parts["head.bias"] = torch.zeros(len(LABELS))
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: part.half() for name, part in parts.items()}, folder / WEIGHTS_FILE)
    settings = CrossSettings(min_delete=0.6, min_unite=0.8, wording_weight=0.3)
    (folder / SETTINGS_FILE).write_text(settings.model_dump_json())
    return sum(part.numel() for part in parts.values())


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_reader(folder)
    return folder


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    write_weights(folder, base)
    return folder


class Fixed:
    """Says the same of every pair, and remembers what it was asked."""

    def __init__(self, **scores: float):
        self.found, self.asked = {"delete": 0.0, "unite": 0.0} | scores, []

    def scores(self, pairs):
        self.asked += pairs
        return [self.found for _ in pairs]


def model_of(reader: Fixed, wording: Fixed, **settings: float) -> CrossPairModel:
    defaults = {"min_delete": 0.6, "min_unite": 0.8, "wording_weight": 0.3}
    return CrossPairModel(reader, wording, CrossSettings(**(defaults | settings)))


def question(older: str, *newer: str) -> Question:
    def memory(number: int, text: str) -> Memory:
        return Memory(str(number), 1, "u", f"2026-0{number + 1}-05T12:00:00+00:00", f"s{number}", 0, text)

    return Question(
        memory(0, older), tuple(Source(memory(number, text), 0.8) for number, text in enumerate(newer, 1))
    )


# --- what it reads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("older", "newer", "relation"),
    [
        ("User sings.", "User sang.", "no day"),
        ("User's test is on 2026-01-20.", "User passed.", "old day"),
        ("User sings.", "User quit on 2026-01-20.", "new day"),
        ("User's test is on 2026-01-20.", "The test of 2026-01-20 was moved to 2026-02-11.", "later day"),
        ("User's test is on 2026-02-11.", "User's test is on 2026-01-20.", "earlier day"),
        ("User's test is on 2026-01-20.", "User has an appointment on 2026-01-20.", "same day"),
    ],
)
def test_the_last_days_of_both_texts_are_compared(older, newer, relation):
    assert day_relation(older, newer) == relation


def test_older_newer_and_the_relation_of_their_days_are_read_in_this_order_and_cut(base):
    _, tokenizer = load_base(base)
    read = tokenizer.convert_ids_to_tokens(token_ids(tokenizer, "ab", "cd"))
    assert "".join(read).replace("Ġ", " ") == "<s>ab</s></s>cd</s></s>no day</s>"
    assert len(token_ids(tokenizer, "a" * 500, "b" * 500)) == 2 * MAX_TOKENS + len("no day") + 6


def test_what_else_is_asked_changes_no_answer(base, trained, monkeypatch):
    reader = PairReader.load(trained, base)
    found = reader.probabilities(PAIRS)
    assert found.shape == (3, len(LABELS)) and np.allclose(found.sum(axis=1), 1)
    assert np.allclose(found, np.concatenate([reader.probabilities([pair]) for pair in PAIRS]), atol=1e-5)
    monkeypatch.setattr(cross_encoder, "BATCH_TOKENS", {"cpu": 40, "cuda": 40})
    assert np.allclose(found[::-1], reader.probabilities(PAIRS[::-1]), atol=1e-5)
    assert np.ptp(found[:, 0]) > 1e-3, "it reads the texts"


def test_who_is_older_matters(base, trained):
    reader = PairReader.load(trained, base)
    older, newer = PAIRS[0]
    one, other = reader.probabilities([(older, newer), (newer, older)])
    assert not np.allclose(one, other, atol=1e-4)


def test_the_adapter_is_added_to_the_base(base, trained, tmp_path):
    write_weights(tmp_path / "none", base, factor=0.0)
    with_it, without = (PairReader.load(folder, base) for folder in (trained, tmp_path / "none"))
    assert not np.allclose(with_it.probabilities(PAIRS), without.probabilities(PAIRS), atol=1e-3)
    plain, _ = load_base(base)
    weights = plain.state_dict()
    assert all((weights[name] == one).all() for name, one in without.bert.state_dict().items())


def test_weights_of_another_base_are_refused(base, trained, tmp_path):
    from safetensors.torch import load_file, save_file

    parts = load_file(trained / WEIGHTS_FILE)
    parts["encoder.layer.7.output.dense.lora_A"] = parts["encoder.layer.0.output.dense.lora_A"].clone()
    parts["encoder.layer.7.output.dense.lora_B"] = parts["encoder.layer.0.output.dense.lora_B"].clone()
    save_file(parts, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ValueError, match="does not fit the base"):
        PairReader.load(tmp_path, base)


def test_the_real_base_reads_all_languages_alike_each_time(tmp_path):
    folder = model_folder(BASE, None)
    assert write_weights(tmp_path, folder, rank=8) == 665_092
    assert (tmp_path / WEIGHTS_FILE).stat().st_size < 3_000_000
    pairs = [PAIRS[0], ("用户住在杭州。", "用户搬到了深圳。")]
    found = CrossPairModel.load(folder, tmp_path).scores(pairs)
    assert found == CrossPairModel.load(folder, tmp_path).scores(pairs)
    assert found[0] != found[1] and all(0 <= one["delete"] <= 1 for one in found)


# --- what it does ---------------------------------------------------------------------------------------


def test_the_log_odds_of_both_models_are_added():
    read, worded = {"delete": 0.8, "unite": 0.5}, {"delete": 0.2, "unite": 0.9}
    assert mixed(read, worded, 0) == read
    assert mixed(read, worded, 1) == {"delete": 0.5, "unite": 0.9}
    assert mixed({"delete": 1.0}, {"delete": 0.0}, 1) == {"delete": 0.5}, "no certainty outweighs another"


def test_a_mix_that_is_likely_enough_deletes_and_one_that_is_not_keeps():
    asked = question("User is pruning the vineyard.", "User has finished pruning the vineyard.")
    for read, worded, action in [(0.9, 0.5, "delete"), (0.55, 0.5, "ignore"), (0.55, 0.9, "delete")]:
        decider = PairDecider(model_of(Fixed(delete=read), Fixed(delete=worded)))
        assert decider.decide([asked])[0].action == action, (read, worded)


def test_what_the_guards_forbid_is_neither_done_nor_asked_about():
    reader = Fixed(delete=1.0, unite=1.0)
    decider = PairDecider(model_of(reader, Fixed(delete=1.0, unite=1.0)))
    asked = [
        question("User sings in a choir.", "User's friend Tom quit the choir."),
        question("User smokes a pipe.", "User has given up sugar."),
    ]
    assert [one.action for one in decider.decide(asked)] == ["ignore", "ignore"]
    assert reader.asked == []


def test_all_questions_are_read_at_once_and_the_newest_source_is_named():
    reader = Fixed(delete=1.0)
    decider = PairDecider(model_of(reader, Fixed(delete=0.5)))
    asked = [
        question("User sings in a choir.", "User left the choir.", "User joined the choir of Leith."),
        question("User is pruning the vineyard.", "User has finished pruning the vineyard."),
    ]
    assert [one.reason for one in decider.decide(asked)] == ["replaced by 2", "replaced by 1"]
    assert len(reader.asked) == 3


def test_the_fingerprint_changes_with_weights_thresholds_and_weight(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "same")
    assert crosspairs_fingerprint(tmp_path / "same") == crosspairs_fingerprint(trained)
    settings = json.loads((trained / SETTINGS_FILE).read_text())
    for name in settings:
        shutil.copytree(trained, tmp_path / name)
        (tmp_path / name / SETTINGS_FILE).write_text(json.dumps(settings | {name: 0.123}))
    weights = (trained / WEIGHTS_FILE).read_bytes()
    shutil.copytree(trained, tmp_path / "weights")
    (tmp_path / "weights" / WEIGHTS_FILE).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    found = {crosspairs_fingerprint(tmp_path / name) for name in (*settings, "weights", "same")}
    assert len(found) == len(settings) + 2


def test_every_decider_without_a_profile_has_a_fingerprint():
    assert WITHOUT_MODEL.keys() == FINGERPRINTS.keys() >= set(LOADED)


# --- what ships -----------------------------------------------------------------------------------------

has_weights = pytest.mark.skipif(not (SHIPPED / WEIGHTS_FILE).is_file(), reason="no weights ship yet")


@has_weights
def test_the_shipped_model_closes_what_other_words_end_and_keeps_the_like():
    model = CrossPairModel.load(model_folder(BASE, None))
    assert (SHIPPED / WEIGHTS_FILE).stat().st_size < 3_000_000
    replaced = ("User is pruning the vineyard.", "User has finished pruning the vineyard.")
    kept = [
        ("User is pruning the vineyard.", "User's cousin has finished pruning the vineyard."),
        ("User's accountant is called Petra.", "User's gardener is called Yusuf."),
        ("User has a dog called Mo.", "User has a cat called Pixel."),
    ]
    decider = PairDecider(model)
    actions = [one.action for one in decider.decide([question(*pair) for pair in [replaced, *kept]])]
    assert actions == ["delete", "ignore", "ignore", "ignore"]
    assert isinstance(model.wording, PairModel)


@has_weights
@pytest.mark.parametrize(
    ("file", "num_keeps", "max_closed", "num_deletes"),
    # No guard was changed after the later ones had been written.
    [("update_pairs.jsonl", 407, 4, 77), ("later_pairs.jsonl", 40, 3, 24)],
)
def test_the_shipped_model_keeps_nearly_all_that_only_resembles_an_end_and_makes_the_ends(
    file, num_keeps, max_closed, num_deletes
):
    pairs = read_pairs(Path(__file__).with_name(file))
    decider = PairDecider(CrossPairModel.load(model_folder(BASE, None)))
    fates, _ = consolidate_pairs(
        pairs, lambda texts: np.ones((len(texts), 1), np.float32), decider.decide, min_similarity=0.0
    )
    board = pairs_board(pairs, fates)
    assert (board["keep_of"], board["delete_of"]) == (num_keeps, num_deletes)
    assert num_keeps - board["keep_right"] <= max_closed, mistakes(pairs, fates)
    assert board["delete_right"] == num_deletes, mistakes(pairs, fates)
