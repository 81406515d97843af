"""Entailment: what the model is shown of a claim, and that it learns, on a tiny random base."""

import pytest

from cluster.backfill.entailment import (
    MAX_BEFORE_TOKENS,
    MAX_RECORD_TOKENS,
    MAX_TOLD_TOKENS,
    Claim,
    EntailmentModel,
    token_ids,
)
from cluster.models.cross_encoder import load_base
from cluster.train.cross_encoder import Learned, save_parts, train_cross_encoder
from cluster.train.settings import CrossRecipe
from tests.tiny import tiny_reader


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    tiny_reader(folder := tmp_path_factory.mktemp("base"))
    return folder


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_base(base)[1]


def parts(tokenizer, claim: Claim) -> list[list[int]]:
    """Record, turns, turn before: what stands between the separators."""
    ids, last = token_ids(tokenizer, claim), tokenizer.sep_token_id
    assert ids[0] == tokenizer.cls_token_id and ids[-1] == last
    ends = [place for place, one in enumerate(ids) if one == last]
    return [ids[1 : ends[0]], ids[ends[1] + 1 : ends[2]], ids[ends[3] + 1 : ends[4]]]


def test_a_claim_is_read_with_its_turns_and_the_one_before(tokenizer):
    claim = Claim("User has a hat.", ("I have a hat.", "Yes."), "Do you?")
    texts = ["User has a hat.", "I have a hat. Yes.", "Do you?"]
    assert parts(tokenizer, claim) == tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert (
        parts(tokenizer, Claim("User has a hat.", ()))[2]
        == tokenizer("-", add_special_tokens=False)["input_ids"]
    )


def test_of_what_is_long_the_beginning_is_read_and_of_the_turn_before_the_end(tokenizer):
    long = "hat " * 500
    record, told, before = parts(tokenizer, Claim(long, (long,), long + "tent"))
    assert (len(record), len(told), len(before)) == (MAX_RECORD_TOKENS, MAX_TOLD_TOKENS, MAX_BEFORE_TOKENS)
    assert before[-3:] == tokenizer(long + "tent", add_special_tokens=False)["input_ids"][-3:]


def test_what_is_learned_to_be_told_has_odds_above_those_of_what_is_not(base, tokenizer, tmp_path):
    told = [Claim(f"User has a {one}.", (f"I have a {one}.",)) for one in ("canoe", "piano", "tent", "kiln")]
    not_told = [Claim(claim.text, ("Good night.",)) for claim in told]
    learned = [Learned(token_ids(tokenizer, claim), 1) for claim in told]
    learned += [Learned(token_ids(tokenizer, claim), 0) for claim in not_told]
    recipe = CrossRecipe(
        num_epochs=30, batch_size=4, learning_rate=1e-2, rank=2, alpha=4, dropout=0, first_layer=1
    )
    *_, last = train_cross_encoder(base, learned, 2, recipe, seed=0, checkpoint=tmp_path / "checkpoint.pt")
    # The first block of the base is as it was.
    assert not any(".layer.0." in name for name in last.parts)
    save_parts(last.parts, tmp_path)
    odds = EntailmentModel.load(tmp_path, base).odds([*told, *not_told])
    assert min(odds[:4]) > 0 > max(odds[4:])
    assert EntailmentModel.load(tmp_path, base).odds([]) == []
