"""Training a calibration: what counts as right, what is learned of it, and that nothing is asked twice."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.backfill import encoder
from cluster.backfill.calibration import FILE, Calibration
from cluster.evaluate.memories import matches
from cluster.models import resolve
from cluster.models.confidence import Confidence
from jobs.common.cli import JobError, UsageError
from jobs.common.gold import as_found
from jobs.sample.written import CORPUS
from jobs.train import calibration as job
from jobs.train.calibration import (
    CalibrationConfig,
    Written,
    as_record,
    entailment_model,
    fit,
    measure,
    memories_of,
    read_labelled,
    run,
    unread_of,
    with_entailment,
)
from jobs.train.corpus import RECORDS


def row(number: int, is_right: bool) -> Written:
    """Right ones were said so; of wrong ones half of the words were."""
    text = f"User has a boat called Nr{number}."
    said = f"I have a boat called Nr{number}." if is_right else f"I saw a boat. Nr{number} is a street."
    return Written(f"u{number % 4}", text, [("user", said)], 0.5 + number % 7 / 20, 0.2, is_right)


def probability(calibration: Calibration, row: Written) -> float:
    [found] = calibration.probabilities([row.rated._replace(known=Confidence(0.6, 0.2))])
    return found


ROWS = [row(number, number % 3 == 0) for number in range(60)]


def test_what_was_said_so_becomes_likelier_than_what_was_put_together():
    found = fit(ROWS, strength=0.1)
    right, wrong = (probability(found, one) for one in (ROWS[0], ROWS[1]))
    assert right > 0.5 > wrong
    told = measure(found, ROWS)
    assert told["area"] == 1.0 > told["area_by_tokens"]
    for bound in told["bounds"]:
        if bound["num_kept"] == 20:
            assert (bound["right_kept"], bound["kept_right"]) == (1.0, 1.0)
            assert bound["by_tokens_right"] < 1
            break
    else:
        pytest.fail("no bound keeps the right ones alone")


@pytest.mark.parametrize("rows", [[], ROWS[:1], [row(0, True)] * 5])
def test_records_that_are_all_right_or_none_teach_nothing(rows):
    with pytest.raises(JobError, match="right and wrong ones are needed"):
        fit(rows, strength=0.1)


def labelled(path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


MARKED = {
    "session_id": "s",
    "text": "User has a boat.",
    "evidence": [["user", "I have a boat."]],
    "mean": 0.9,
    "least": 0.4,
    "label": "good",
}


def test_records_that_readers_marked_count_as_much_as_is_asked_for(tmp_path):
    rows = read_labelled(labelled(tmp_path / "a", MARKED, MARKED | {"label": "vague"}))
    assert [row.is_right for row in rows] == [True, False]
    # Here what was said so is wrong, and counts little or much.
    against = [replace(one, is_right=not one.is_right) for one in ROWS]
    least, most = (fit(ROWS, 0.1, against, weight) for weight in (0.1, 10.0))
    said_so = ROWS[0]
    low, high = (probability(one, said_so) for one in (most, least))
    assert low < 0.5 < high


def test_the_corpus_has_marked_records_of_which_a_third_is_good():
    rows = read_labelled(str(CORPUS / "records.jsonl"))
    assert len(rows) > 1_000 and 0.3 < sum(row.is_right for row in rows) / len(rows) < 0.35


@pytest.mark.parametrize(
    "row", [{}, MARKED | {"evidence": [["user"]]}, MARKED | {"evidence": None}], ids=repr
)
def test_a_line_that_is_no_marked_record_is_named(tmp_path, row):
    with pytest.raises(UsageError, match=r"--labelled .*: line 2: .*; give text, evidence"):
        read_labelled(labelled(tmp_path / "a", MARKED, row))
    with pytest.raises(UsageError, match="no such file"):
        read_labelled(str(tmp_path / "b"))


GOLD = {
    "user_id": "u",
    "session_id": "s",
    "language": "en",
    "evidence_turns": [2],
    "is_must": True,
    "keys": [["Oslo"]],
    "semantic_text": "User lives in Oslo.",
    "memory_id": "m",
}


def write_gold(archive, *rows: dict) -> str:
    (archive / "_gold").mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (archive / "_gold" / "memories.jsonl").write_text(lines)
    return str(archive)


def test_a_record_is_right_if_it_states_a_memory_of_its_turn():
    record = {"record_id": "r", "semantic_text": "User lives in Oslo.", "evidence_turns": [2]}
    memory, segment = as_found(GOLD), {"user_id": "u", "session_id": "s"}
    assert matches(as_record(segment, record), memory)
    assert not matches(as_record(segment, record | {"evidence_turns": [0]}), memory)
    assert not matches(as_record(segment | {"user_id": "v"}, record), memory)


def test_people_of_other_languages_teach_nothing(tmp_path):
    archive = write_gold(tmp_path, GOLD, GOLD | {"user_id": "v", "language": "zh"})
    assert memories_of(archive, ("en",), "--train").keys() == {"u"}
    assert memories_of(archive, (), "--train").keys() == {"u", "v"}
    with pytest.raises(UsageError, match=r"--tune .*: nobody writes fr"):
        memories_of(archive, ("fr",), "--tune")


def test_the_encoder_is_asked_once_and_settings_may_change(tmp_path, monkeypatch):
    asked = []

    def encode(_, archive, memories):
        asked.append(Path(archive).name)
        return ROWS

    monkeypatch.setattr(job, "encode", encode)
    monkeypatch.setattr(encoder, "Encoder", lambda profile: None)
    monkeypatch.setattr(
        resolve, "resolve_encoder", lambda profile: profile.model_copy(update={"base_hash": "sha256:0"})
    )
    train, tune = (write_gold(tmp_path / name, GOLD) for name in ("train", "tune"))
    config = CalibrationConfig(train=train, tune=tune, output=str(tmp_path), strength=0.1)
    summary = run(config)
    assert asked == ["train", "tune"] and summary["num_records"] == {"train": 60, "tune": 60}
    first = Calibration.load(tmp_path)
    run(config.model_copy(update={"strength": 0.001}))
    assert asked == ["train", "tune"] and Calibration.load(tmp_path) != first
    card = (tmp_path / "README.md").read_text()
    assert str(summary["tune"]["area"]) in card and "| min_confidence |" in card
    assert json.loads((tmp_path / FILE).read_text())["weights"]


class Reads:
    """An entailment model that knows what is right."""

    def odds(self, claims):
        right = {row.text for row in ROWS if row.is_right}
        return [3.0 if claim.text in right else -3.0 for claim in claims]


def test_a_model_that_tells_more_than_the_words_counts_for_more():
    words = Calibration({}, 0.0)
    found = with_entailment(words, Reads(), ROWS)
    assert found.entailment.read > 0.5
    assert measure(words, ROWS)["area"] == 0.5 and measure(found, ROWS)["area"] == 1.0


def test_marked_records_say_what_the_model_counts_for_as_much_as_is_asked_for():
    words, against = Calibration({}, 0.0), [replace(one, is_right=not one.is_right) for one in ROWS]
    some, many = (with_entailment(words, Reads(), ROWS, against, weight) for weight in (0.1, 10.0))
    assert some.entailment.read > 0 > many.entailment.read


def test_what_the_model_counts_for_is_learned_of_marked_records_that_it_has_not_read():
    rows = read_labelled(str(RECORDS))
    unread = unread_of(rows)
    kept_back = {row.user_id for row in unread}
    assert 400 < len(unread) < 700 and not kept_back & {row.user_id for row in rows if row not in unread}
    assert {row.is_right for row in unread} == {True, False}
    # The model reads whole turns, not what the encoder cited of them.
    assert any(row.told != [text for _, text in row.evidence] for row in unread)


def test_a_folder_without_an_entailment_model_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--entailment .*: no weights.safetensors; give what jobs.train"):
        entailment_model(str(tmp_path))
