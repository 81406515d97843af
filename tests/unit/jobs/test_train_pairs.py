"""Training the pair model: what it learns from, and what it leaves."""

import json

import pytest

from cluster.consolidate.pairs import PairModel
from jobs.common.cli import UsageError
from jobs.train.pairs import Example, PairsConfig, labelled, run, training_examples


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
    found = training_examples(corpus, PairsConfig(output="", corpus=str(corpus), other_share=0))
    assert Example("User rents a shed.", "User bought the shed.", "delete") in found
    assert Example("User bought the shed.", "User has a shed.", "unite") in found
    assert Example("User has a shed.", "User painted a shed.", "keep") in found
    assert Example("User rents.", "User moved.", "delete") in found
    # A chain of links is no keep either: m3 repeats what ended m1.
    assert not [one for one in found if (one.older, one.newer) == ("User rents a shed.", "User has a shed.")]


def test_the_same_said_of_somebody_else_is_a_keep(corpus):
    found = training_examples(corpus, PairsConfig(output="", corpus=str(corpus), other_share=1))
    others = [one for one in found if one.older == "User wants a kiln." and one.newer.startswith("User's ")]
    assert [one.label for one in others] == ["keep"]
    assert others[0].newer.endswith(" bought a kiln.")


def test_nothing_is_learned_of_the_people_that_thresholds_are_chosen_on(corpus):
    (tune,) = labelled(corpus / "people" / "tune")
    assert tune not in training_examples(corpus, PairsConfig(output="", corpus=str(corpus)))


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
