"""Calibration: what a record is rated by, and that its file is what was learned."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.backfill.calibration import FILE, Calibration, Entailment, Rated, Weight, features
from cluster.backfill.entailment import Claim, EntailmentModel
from cluster.models.confidence import Confidence

SURE = Confidence(0.9, 0.8)


def told(text: str, *said: str, role: str = "user") -> dict[str, float]:
    return features(text, [(role, one) for one in said], SURE)


def probability(calibration: Calibration, text: str, *said: str) -> float:
    [found] = calibration.probabilities([Rated(Claim(text, said), [("user", one) for one in said], SURE)])
    return found


def test_words_of_one_sentence_count_for_more_than_words_of_the_whole_message():
    text = "User's sister Lena lives in Porto."
    together = told(text, "My sister Lena lives in Porto. I like it here.")
    apart = told(text, "My sister is called Mia. Lena is a friend. I live in Porto.")
    assert together["told"] == apart["told"] == 1.0
    assert together["told_in_a_sentence"] == 1.0 > apart["told_in_a_sentence"]
    assert together["told_pairs"] > apart["told_pairs"]
    assert together["told_run"] > apart["told_run"]


def test_the_sentence_that_tells_most_is_the_one_that_is_looked_at():
    found = told("User works at Siemens.", "Could you check this? I work at Siemens. Maybe I will quit!")
    assert (found["sentence_asks"], found["sentence_states"], found["sentence_hedges"]) == (0, 1, 0)
    asked = told("User works at Siemens.", "Does Siemens pay well?")
    assert (asked["sentence_asks"], asked["sentence_states"], asked["sentence_of_self"]) == (1, 0, 0)


def test_relations_and_possessions_that_nobody_spoke_of_are_seen():
    found = told("User's brother has a boat.", "My sister has a boat.")
    assert (found["relations_told"], found["owned_told"]) == (0, 0)
    found = told("User's sister has a boat.", "My sister has a boat.")
    assert (found["relations_told"], found["owned_told"]) == (1, 1)


def test_the_least_likely_token_and_the_mean_are_told_apart():
    found = features("User sings.", [("user", "I sing.")], Confidence(0.9, 0.1))
    assert found["mean_probability"] == pytest.approx(-found["least_probability"])


@given(st.text(max_size=80), st.lists(st.text(max_size=120), max_size=3))
def test_every_text_and_evidence_has_the_same_features_and_a_probability(text, said):
    found = told(text, *said)
    assert found.keys() == told("User sings.", "I sing.").keys()
    weights = {name: Weight(0.5, 2.0, 0.3) for name in found}
    assert 0 <= probability(Calibration(weights, -1.0), text, *said) <= 1


def test_a_feature_counts_by_its_standard_score():
    said = "I have a cat."
    assert probability(Calibration({}, 0.0), "User has a cat.", said) == 0.5
    by_told = Calibration({"told": Weight(mean=0.5, scale=0.25, weight=1.0)}, 0.0)
    assert probability(by_told, "User has a cat.", said) == pytest.approx(0.881, abs=1e-3)
    assert probability(by_told, "User has a dog.", said) == pytest.approx(0.119, abs=1e-3)


class Believes:
    """An entailment model that finds everything told that has this word."""

    def __init__(self, word):
        self.word = word

    def odds(self, claims):
        return [4.0 if self.word in claim.text else -4.0 for claim in claims]


def test_what_a_model_reads_is_added_to_what_the_words_say():
    words = Calibration({}, 1.0)
    both = Calibration({}, 1.0, Entailment(words=2.0, read=0.5, bias=-1.0), Believes("cat"))
    # 2 * 1 + 0.5 * 4 - 1, and 2 * 1 - 0.5 * 4 - 1.
    assert probability(both, "User has a cat.", "x") == pytest.approx(0.953, abs=1e-3)
    assert probability(both, "User has a dog.", "x") == pytest.approx(0.269, abs=1e-3)
    assert probability(words, "User has a dog.", "x") == pytest.approx(0.731, abs=1e-3)


def test_a_calibration_that_knows_of_no_model_is_refused_where_the_profile_wants_one(tmp_path):
    Calibration({}, 0.0).save(tmp_path)
    with pytest.raises(ValueError, match="nothing of entailment; train it with --entailment DIR"):
        Calibration.load(tmp_path, with_entailment=True)


def test_a_saved_calibration_says_what_the_models_word_is_worth(tmp_path, monkeypatch):
    saved = Calibration({}, 0.0, Entailment(1.0, 0.5, -0.5))
    saved.save(tmp_path)
    assert Calibration.load(tmp_path) == Calibration({}, 0.0)
    model = Believes("cat")
    monkeypatch.setattr(EntailmentModel, "load", lambda *folders: model)
    assert Calibration.load(tmp_path, with_entailment=True) == replace(saved, model=model)


def test_what_is_saved_is_loaded_and_an_unknown_feature_is_refused(tmp_path):
    saved = Calibration({"told": Weight(0.5, 0.25, 1.0)}, -0.5)
    saved.save(tmp_path)
    assert Calibration.load(tmp_path) == saved
    content = json.loads((tmp_path / FILE).read_text())
    content["weights"]["astrology"] = content["weights"].pop("told")
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no such feature 'astrology'; train it again"):
        Calibration.load(tmp_path)
