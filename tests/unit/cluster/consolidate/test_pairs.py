"""The pair model: what it may do, what it never does, and that the shipped one is worth having."""

import json
import shutil

import numpy as np
import pytest

from cluster.consolidate.fold import Memory, Question, Source
from cluster.consolidate.pair_features import features, is_contained, may_replace, whose
from cluster.consolidate.pairs import (
    LABELS,
    NUM_BUCKETS,
    SETTINGS_FILE,
    SHIPPED,
    PairDecider,
    PairModel,
    PairSettings,
    pairs_fingerprint,
)
from cluster.consolidate.rules import Rules


def memory(number: int, text: str, tags: tuple[str, ...] = ()) -> Memory:
    time = f"2026-0{number + 1}-05T12:00:00+00:00"
    return Memory(str(number), 1, "u", time, f"s{number}", 0, text, tags=tags)


def question(older: str, *newer: str) -> Question:
    sources = tuple(Source(memory(number, text), 0.8) for number, text in enumerate(newer, 1))
    return Question(memory(0, older), sources)


def sure_of(label: str) -> PairModel:
    """A model that answers the same to everything."""
    bias = np.full(len(LABELS), -9.0, np.float32)
    bias[LABELS.index(label)] = 9.0
    weights = np.zeros((NUM_BUCKETS, len(LABELS)), np.float32)
    return PairModel(weights, bias, PairSettings(min_delete=0.9, min_unite=0.9))


def test_what_is_learned_of_one_name_or_number_holds_for_another():
    first = features("User works for Deloitte in Perth since 2019.", "User left Deloitte on 2025-03-01.")
    second = features("User works for Nokia in Espoo since 2003.", "User left Nokia on 2024-11-30.")
    assert first == second


def test_whose_tells_people_apart():
    assert whose("User lives in Oslo.", "User moved to Bergen.") == "same"
    assert whose("User lives in Oslo.", "User's brother moved to Bergen.") == "other"
    assert whose("User's son Max has a cold.", "User's son Ben is well again.") == "other"
    assert whose("User's sister Lena lives in Graz.", "User's cousin Lena moved to Linz.") == "other"
    assert whose("User's sister Lena lives in Graz.", "Lena moved to Linz.") == "named"
    assert whose("用户住在杭州。", "用户的弟弟搬到了深圳。") == "other"


@pytest.mark.parametrize(
    "older, newer",
    [
        ("User lives in Oslo.", "User's friend Tom no longer lives in Oslo."),
        ("User went to Japan in 2019.", "User went to Japan again in 2024."),
        ("User toured Japan in May.", "User no longer lives in Japan."),
        ("User is a roofer.", "User quit the choir."),
        ("User smokes a pipe.", "User has given up sugar."),
    ],
)
def test_another_person_a_past_event_and_the_end_of_something_else_replace_nothing(older, newer):
    assert not may_replace(older, newer)
    assert PairDecider(sure_of("delete")).decide([question(older, newer)])[0].action == "ignore"


def test_the_end_of_what_is_named_may_replace_it():
    assert may_replace("User sings in a choir.", "User quit the choir.")
    assert may_replace("User works for Deloitte.", "User left Deloitte.")


def test_a_text_is_united_only_with_one_that_says_all_of_it():
    assert is_contained("User has a dog.", "User has a three-year-old dog called Pixel.")
    assert not is_contained("User has two dogs, Mo and Pixel.", "User has a dog called Pixel.")
    assert not is_contained("User eats fish.", "User does not eat fish.")
    unite = PairDecider(sure_of("unite"))
    (verdict,) = unite.decide([question("User has a dog.", "User has a dog called Pixel.")])
    assert (verdict.action, verdict.text) == ("update", "User has a dog called Pixel.")
    assert unite.decide([question("User has a dog.", "User has a parrot.")])[0].action == "ignore"


def test_the_verdict_names_the_newest_source_that_replaces_the_target():
    decider = PairDecider(sure_of("delete"))
    (verdict,) = decider.decide(
        [question("User rents a flat.", "User bought a flat.", "User sold the flat.")]
    )
    assert (verdict.action, verdict.reason) == ("delete", "replaced by 2")


def test_what_a_guard_refuses_stays_and_the_decision_says_why():
    decider = PairDecider(sure_of("delete"))
    (verdict,) = decider.decide([question("User has a boat.", "User sold the boat trailer.")])
    assert (verdict.action, verdict.outcome) == ("delete", "refused")
    assert verdict.reason == "it is about a part or another thing"


def test_a_refusal_of_the_newest_source_leaves_an_older_one_to_be_asked():
    asked = question("User has a boat.", "User sold the boat.", "User sold the boat trailer.")
    (verdict,) = PairDecider(sure_of("delete")).decide([asked])
    assert (verdict.outcome, verdict.reason) == ("applied", "replaced by 1")


def test_memories_of_other_tags_replace_nothing():
    older, newer = memory(0, "User rents a shop.", ("home",)), memory(1, "User left the shop.", ("work",))
    asked = Question(older, (Source(newer, 0.9),))
    assert PairDecider(sure_of("delete")).decide([asked])[0].action == "ignore"


def test_a_model_that_is_not_sure_changes_nothing():
    unsure = sure_of("delete")
    unsure.bias[:] = 0
    assert (
        PairDecider(unsure).decide([question("User rents a flat.", "User left the flat.")])[0].action
        == "ignore"
    )


def test_what_the_rules_are_sure_of_is_done_whatever_the_model_says():
    asked = question("User lives in Oslo.", "User moved to Bergen.")
    assert Rules().judge(asked).action == "delete"
    assert PairDecider(sure_of("keep")).decide([asked])[0].action == "delete"


def test_the_fingerprint_changes_with_weights_and_thresholds(tmp_path):
    shutil.copytree(SHIPPED, tmp_path / "same")
    shutil.copytree(SHIPPED, tmp_path / "other")
    settings = json.loads((tmp_path / "other" / SETTINGS_FILE).read_text())
    (tmp_path / "other" / SETTINGS_FILE).write_text(json.dumps(settings | {"min_delete": 0.123}))
    assert pairs_fingerprint(tmp_path / "same") == pairs_fingerprint()
    assert pairs_fingerprint(tmp_path / "other") != pairs_fingerprint()


def test_a_saved_model_answers_as_before(tmp_path):
    model = PairModel.load()
    model.save(tmp_path)
    pair = "User plans to adopt a dog.", "User has adopted a dog."
    assert PairModel.load(tmp_path).probabilities(*pair) == model.probabilities(*pair)


def test_the_shipped_model_closes_plans_and_states_that_are_over_and_keeps_the_like():
    replaced = [
        ("User is pruning the vineyard.", "User has finished pruning the vineyard."),
        ("User has a hearing test on 2026-01-20.", "User's hearing test was moved to 2026-02-11."),
        ("User's accountant is called Petra.", "User's new accountant is called Yusuf."),
    ]
    kept = [
        ("User is pruning the vineyard.", "User's cousin has finished pruning the vineyard."),
        ("User has a hearing test on 2026-01-20.", "User has an X-ray on 2026-02-11."),
        ("User's accountant is called Petra.", "User's gardener is called Yusuf."),
    ]
    decider = PairDecider()
    assert [one.action for one in decider.decide([question(*pair) for pair in replaced])] == ["delete"] * 3
    assert [one.action for one in decider.decide([question(*pair) for pair in kept])] == ["ignore"] * 3
