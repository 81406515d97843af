"""Training an entailment model: what it learns from, and that the job leaves what an encoder loads."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.backfill.entailment import Claim, EntailmentModel
from cluster.language.people import RELATIONS
from cluster.models import sources
from jobs.common.cli import UsageError
from jobs.train import entailment as job
from jobs.train import entailment_examples
from jobs.train.entailment import EntailmentConfig, is_measured, measure, parts_of, run
from jobs.train.entailment_examples import Example, claim_of, marked_examples, spoil, written_examples
from tests.tiny import tiny_reader

SAID = "My sister Lena moved to Porto in 2021. I work at Siemens and have 3 cats."


def spoilt(text: str, others: tuple[str, ...] = (), num: int = 40) -> set[str]:
    return {one for seed in range(num) for one in spoil(text, SAID, list(others), random.Random(seed))}


def test_a_spoilt_memory_has_a_number_a_name_or_a_phrase_of_elsewhere_in_the_message():
    found = spoilt("User has 3 cats.")
    assert "User has 2021 cats." in found and "User does not have 3 cats." in found
    assert any(one.startswith(("User's ", "Lena ", "Porto ", "Siemens ")) for one in found)
    assert "User's sister Lena moved to Siemens." in spoilt("User's sister Lena moved to Porto.")
    assert "User Lena moved to Porto." in spoilt("User's sister Lena moved to Porto.")


def test_two_memories_are_joined_to_one_that_nobody_said():
    found = spoilt("User works at Siemens in Munich.", ("User's sister Lena moved to Porto.",))
    assert any(one.startswith("User works") and one.endswith("to Porto.") for one in found)


@given(st.text(max_size=80), st.text(max_size=120), st.lists(st.text(max_size=80), max_size=3), st.integers())
def test_every_text_can_be_spoilt_or_left(text, said, others, seed):
    assert all(isinstance(one, str) for one in spoil(text, said, others, random.Random(seed)))


def test_a_claim_has_the_whole_turn_of_a_sentence_and_the_turn_before():
    turns = ["Hello.", "Where do you live?", "Hm. I live in Oslo. Why?"]
    assert claim_of("User lives in Oslo.", ["I live in Oslo."], turns) == Claim(
        "User lives in Oslo.", (turns[2],), turns[1]
    )
    assert claim_of("User greets.", ["Hello."], turns) == Claim("User greets.", ("Hello.",))
    assert claim_of("User sings.", ["I sing."], turns) == Claim("User sings.", ("I sing.",))


def test_the_corpus_teaches_as_many_memories_as_spoilt_ones_and_no_computed_day():
    found = list(written_examples(seed=0))
    told = [one for one in found if one.is_told]
    assert len(told) > 8_000 and abs(len(found) - 2 * len(told)) < 200
    assert not any(entailment_examples.DAY.search(one.claim.text) for one in told)
    assert all(one.claim.told for one in found)


def test_marked_records_have_the_turns_of_their_segments():
    found = list(marked_examples(str(job.RECORDS)))
    assert len(found) > 2_000 and 0.3 < sum(one.is_told for one in found) / len(found) < 0.35
    assert {one.weight for one in found if one.is_told} == {1.0}
    assert {one.weight for one in found} == {1.0, entailment_examples.BETWEEN_WEIGHT}
    # A sentence that was asked about alone is read in its turn.
    assert any(len(one.claim.told[0]) > 2 * len(one.claim.text) for one in found)


def test_what_is_measured_on_is_not_learned_from():
    learned, measured = parts_of(EntailmentConfig(output="x", num_written=200))
    sessions = {one.session_id for one in measured}
    assert 0.1 < len(measured) / 2_437 < 0.3
    assert not sessions & {one.session_id for one in learned}
    assert sum(one.weight in (0.5, 0.25) and one.is_told for one in learned) == 100
    assert all(is_measured(one, 0.2) for one in sessions)


def test_the_surest_ones_are_the_measure():
    class Knows:
        def odds(self, claims):
            return [float(claim.text) for claim in claims]

    examples = [Example(Claim(str(number), ()), number >= 7, 1.0, "s") for number in range(10)]
    assert measure(Knows(), examples) == {
        "num_records": 10,
        "good": 0.3,
        "area": 1.0,
        "good_of_surest": {0.1: 1.0, 0.2: 1.0, 0.3: 1.0, 0.5: 0.6},
    }


@pytest.mark.parametrize("line", ["{}", "no", json.dumps({"session_id": "s", "text": "x"})])
def test_a_file_without_marked_records_is_named(tmp_path, line):
    (tmp_path / "marked").write_text(line + "\n")
    with pytest.raises(UsageError, match=r"--marked .*give JSON lines with session_id, text, evidence"):
        parts_of(EntailmentConfig(output="x", marked=str(tmp_path / "marked")))
    with pytest.raises(UsageError, match=r"--marked .*none: "):
        parts_of(EntailmentConfig(output="x", marked=str(tmp_path / "none")))


def test_records_that_are_all_good_teach_nothing(tmp_path):
    row = {"session_id": "s", "text": "User sings.", "evidence": [["user", "I sing."]], "label": "good"}
    (tmp_path / "marked").write_text(json.dumps(row) + "\n")
    with pytest.raises(UsageError, match="needs good records and others, of more sessions"):
        parts_of(EntailmentConfig(output="x", marked=str(tmp_path / "marked")))


def test_the_job_leaves_weights_and_a_card_and_goes_on_behind_the_last_epoch(tmp_path, monkeypatch):
    tiny_reader(tmp_path / "base")
    monkeypatch.setattr(sources, "model_folder", lambda *source: tmp_path / "base")
    examples = [
        Example(Claim(f"User has a {one}.", (said.format(one),)), is_told, 1.0, "s")
        for one in ("canoe", "piano", "tent", "kiln")
        for is_told, said in ((True, "I have a {}."), (False, "Good night."))
    ]
    monkeypatch.setattr(job, "parts_of", lambda config: (examples, examples))
    cross = job.EntailmentRecipe(
        num_epochs=2, batch_size=4, learning_rate=1e-2, rank=2, alpha=4, first_layer=0
    )
    config = EntailmentConfig(output=str(tmp_path / "out"), cross=cross)
    summary = run(config)
    assert summary["num_learned"] == 8 and summary["measured"]["good"] == 0.5
    assert str(summary["measured"]["area"]) in (tmp_path / "out" / "README.md").read_text()
    assert len(EntailmentModel.load(tmp_path / "out", tmp_path / "base").odds([examples[0].claim])) == 1
    # Nothing is left to learn.
    assert run(config)["loss"] is None


def test_somebody_else_is_called_by_words_that_a_reader_of_records_knows():
    assert set(entailment_examples.SOMEBODY) <= RELATIONS
