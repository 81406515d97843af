"""Training the pair model: what it learns from, and what it leaves."""

import json

import pytest

from cluster.consolidate.crosspairs import SETTINGS_FILE, CrossSettings
from cluster.consolidate.pairs import PairModel
from cluster.models import sources
from cluster.models.cross_encoder import WEIGHTS_FILE
from cluster.train import cross_encoder
from jobs.common.cli import UsageError
from jobs.train.pair_examples import Example, labelled, training_examples
from jobs.train.pair_thresholds import Limits, Scored, choose_thresholds
from jobs.train.pairs import CrossTraining, PairsConfig, best_of, is_over, run
from tests.tiny import tiny_reader


def write(path, lines: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def pair(older: str, newer: str, label: str, **more) -> dict:
    return {"older": older, "newer": newer, "label": label, **more}


@pytest.fixture
def corpus(tmp_path):
    things = ["canoe", "piano", "tent", "kiln", "drone", "loom"]
    pairs = [pair(f"User wants a {one}.", f"User bought a {one}.", "delete") for one in things]
    pairs += [pair(f"User has a {one}.", f"User owns a {one}.", "unite") for one in things]
    pairs += [pair(f"User has a {one}.", f"User has a big {one}.", "update") for one in things]
    pairs += [pair(f"User wants a {one}.", "User bought a hat.", "keep") for one in things]
    write(tmp_path / "pairs" / "a.jsonl", pairs)
    sessions = [
        {
            "kind": "session",
            "time": f"2025-0{number}-01T10:00:00Z",
            "memories": [{"id": f"m{number}", "text": text, **more}],
        }
        for number, (text, more) in enumerate(
            [
                ("User rents a shed.", {}),
                ("User bought the shed.", {"supersedes": ["m1"], "how": "delete"}),
                ("User has a shed.", {"same_as": "m2"}),
                ("User painted a shed.", {}),
            ],
            1,
        )
    ]
    labels = [pair("User rents.", "User moved.", "delete", kind="pair")]
    write(tmp_path / "people" / "train" / "x.jsonl", [{"kind": "person"}, *sessions, *labels])
    tune = [pair("User has a hat.", "User lost a hat.", "keep", kind="pair")]
    write(tmp_path / "people" / "tune" / "y.jsonl", tune)
    return tmp_path


def test_links_of_memories_are_labels_and_what_resembles_without_a_link_is_a_keep(corpus):
    found = training_examples(corpus, num_keeps=5, other_share=0, seed=0)
    assert Example("User rents a shed.", "User bought the shed.", "delete") in found
    assert Example("User bought the shed.", "User has a shed.", "unite") in found
    assert Example("User has a shed.", "User painted a shed.", "keep") in found
    assert Example("User rents.", "User moved.", "delete") in found
    # A chain of links is no keep either: m3 repeats what ended m1.
    assert not [one for one in found if (one.older, one.newer) == ("User rents a shed.", "User has a shed.")]


def test_the_same_said_of_somebody_else_is_a_keep(corpus):
    found = training_examples(corpus, num_keeps=5, other_share=1, seed=0)
    others = [one for one in found if one.older == "User wants a kiln." and one.newer.startswith("User's ")]
    assert [one.label for one in others] == ["keep"]
    assert others[0].newer.endswith(" bought a kiln.")


def test_nothing_is_learned_of_the_people_that_thresholds_are_chosen_on(corpus):
    (tune,) = labelled(corpus / "people" / "tune")
    assert tune not in training_examples(corpus, num_keeps=5, other_share=0.45, seed=0)


def test_a_training_leaves_a_model_that_has_learned_and_a_card(corpus, tmp_path):
    summary = run(PairsConfig(output=str(tmp_path / "model"), corpus=str(corpus)))
    model = PairModel.load(tmp_path / "model")
    assert model.settings.min_delete == summary["min_delete"] >= 0.7
    made, like = (
        model.probabilities("User wants a yurt.", f"User bought a {one}.") for one in ("yurt", "hat")
    )
    assert made["delete"] > like["delete"] and like["keep"] > made["keep"]
    assert "license: apache-2.0" in (tmp_path / "model" / "README.md").read_text()


def test_a_corpus_without_pairs_to_choose_thresholds_on_is_refused(corpus, tmp_path):
    (corpus / "people" / "tune" / "y.jsonl").unlink()
    with pytest.raises(UsageError, match=r"--corpus .*people/tune"):
        run(PairsConfig(output=str(tmp_path / "model"), corpus=str(corpus)))


# --- the cross-encoder ----------------------------------------------------------------------------------


@pytest.fixture
def small_base(tmp_path, monkeypatch):
    """A tiny random base in the place of the package's."""
    tiny_reader(tmp_path / "base")
    monkeypatch.setattr(sources, "model_folder", lambda source, revision: tmp_path / "base")


def cross_config(corpus, tmp_path, **cross) -> PairsConfig:
    recipe = {"num_epochs": 2, "rank": 2, "learning_rate": 1e-2} | cross
    return PairsConfig(
        decider="crosspairs",
        output=str(tmp_path / "cross"),
        corpus=str(corpus),
        cross=CrossTraining(**recipe),
    )


def test_a_cross_training_leaves_its_best_epoch_every_epoch_and_a_card(corpus, tmp_path, small_base):
    summary = run(cross_config(corpus, tmp_path))
    output = tmp_path / "cross"
    best = output / "epochs" / str(summary["epoch"])
    for name in (SETTINGS_FILE, WEIGHTS_FILE):
        assert (output / name).read_bytes() == (best / name).read_bytes()
    assert sorted(path.parent.name for path in output.glob(f"epochs/*/{WEIGHTS_FILE}")) == ["1", "2"]
    settings = CrossSettings.model_validate_json((output / SETTINGS_FILE).read_text())
    assert settings.min_delete == summary["min_delete"] >= 0.5 and settings.wording_weight == 0.3
    scores = [json.loads(line) for line in (best / "scores.jsonl").read_text().splitlines()]
    assert [one["older"] for one in scores] == ["User has a hat."]
    assert scores[0]["read"].keys() == scores[0]["worded"].keys() == {"delete", "unite"}
    text = (output / "README.md").read_text()
    assert "license: apache-2.0" in text and f"Epoch {summary['epoch']} of 2" in text


def test_a_finished_cross_training_chooses_thresholds_anew_and_one_of_other_settings_is_refused(
    corpus, tmp_path, small_base, monkeypatch
):
    first = run(cross_config(corpus, tmp_path))
    monkeypatch.setattr(cross_encoder, "train_cross_encoder", lambda *_, **__: iter(()))
    again = run(cross_config(corpus, tmp_path))
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert run(cross_config(corpus, tmp_path, least_delete=0.95))["min_delete"] >= 0.95
    settings = json.loads((tmp_path / "cross" / SETTINGS_FILE).read_text())
    assert settings["min_delete"] >= 0.95
    with pytest.raises(UsageError, match="other pairs or settings"):
        run(cross_config(corpus, tmp_path, num_epochs=5))


def results(*epochs: tuple[int, float]) -> dict[int, dict]:
    return {
        number: {"num_deletes": {"mixed": num_deletes}, "tune_loss": loss}
        for number, (num_deletes, loss) in enumerate(epochs, 1)
    }


def test_the_best_epoch_makes_most_deletes_and_then_gives_the_labels_most_probability():
    assert best_of(results((20, 0.5), (26, 0.6), (26, 0.4), (25, 0.1))) == 3


def test_a_training_ends_with_its_epochs_or_when_none_gets_better():
    recipe = CrossTraining(num_epochs=5, early_stopping=2)
    assert not is_over({}, recipe)
    assert not is_over(results((20, 0.5), (10, 0.6)), recipe)
    assert is_over(results((20, 0.5), (10, 0.6), (10, 0.6)), recipe)
    patient = CrossTraining(num_epochs=5, early_stopping=None)
    assert not is_over(results((20, 0.5), (10, 0.6), (10, 0.6)), patient)
    assert is_over(results((10, 0.6), (20, 0.5)), CrossTraining(num_epochs=2))


# --- thresholds -----------------------------------------------------------------------------------------


def given(label: str, *scores: float, allowed=("delete", "unite")) -> list[Scored]:
    return [Scored(Example("a", "b", label), allowed, {"delete": one, "unite": 0.0}) for one in scores]


def test_the_threshold_spares_as_many_labelled_keeps_as_it_must():
    tune = [*given("keep", *(number / 100 for number in range(100))), *given("delete", 0.985)]
    strict = choose_thresholds(tune, [], Limits(0.01, (0.5, 1.0), (0.8, 1.0)))["min_delete"]
    lenient = choose_thresholds(tune, [], Limits(0.01, (0.5, 0.98), (0.8, 1.0)))["min_delete"]
    touched = [sum(one.scores["delete"] >= limit for one in tune[:-1]) for limit in (strict, lenient)]
    assert touched == [0, 2]


def test_few_keeps_that_nobody_labelled_are_touched_and_no_threshold_is_below_its_least():
    alike = given("keep", *(number / 200 for number in range(200)))
    limit = choose_thresholds([], alike, Limits(0.02, (0.5, 1.0), (0.8, 1.0)))["min_delete"]
    assert sum(one.scores["delete"] >= limit for one in alike) <= 4 and limit < 0.99
    assert choose_thresholds([], [], Limits(0.02, (0.5, 1.0), (0.8, 1.0))) == {
        "min_delete": 0.5,
        "min_unite": 0.8,
    }


def test_keeps_that_the_guards_protect_anyway_raise_no_threshold():
    tune = given("keep", 0.9, allowed=())
    assert choose_thresholds(tune, [], Limits(0.01, (0.5, 1.0), (0.8, 1.0)))["min_delete"] == 0.5


def test_keeps_that_nobody_labelled_are_known_as_such(corpus):
    found = training_examples(corpus, num_keeps=5, other_share=0, seed=0)
    unsure = [(one.older, one.newer) for one in found if not one.is_sure]
    assert ("User has a shed.", "User painted a shed.") in unsure
    assert all(one.label == "keep" for one in found if not one.is_sure)
    assert ("User wants a kiln.", "User bought a hat.") not in unsure
