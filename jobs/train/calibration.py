"""Train the calibration of an encoder: how likely each of its records is right.

    python -m jobs.sample --people tune --persons SIX OF THEM --archive TRAIN
    python -m jobs.sample --people tune --persons TWO OTHERS --archive TUNE
    python -m jobs.train.calibration --train TRAIN --tune TUNE --output DIR

    python -m jobs.train.calibration --train TRAIN --tune TUNE --output DIR --labelled FILE --entailment MODEL

Take people from whom the adapter has not learned: about the others it is too sure.

The encoder encodes the people of two archives whose language it reads; a record is right if it states a
memory that was written down for them, in the archive's folder `_gold`. Learned from TRAIN, measured on TUNE.
`--labelled` adds records that readers have marked, which need no memories that somebody wrote down: FILE has
one a line, as jobs/sample/corpus/records.jsonl, and what is `good` there is right. `--entailment` also learns
the weight of an entailment model's answer, from TRAIN and from those marked records that this model has not
read: MODEL is what jobs.train.entailment left. What the encoder wrote lies in the output folder, so that the
same command with other settings need not ask again. Copy calibration.json into the adapter's folder, set
`calibrated = true` in its profile, and choose `min_confidence` by the table in the card. It takes some
fifteen minutes on two cores, nearly all for the encoder.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from cluster.backfill.calibration import Calibration, Entailment, Rated, Turn, Weight
from cluster.backfill.entailment import Claim
from cluster.models.confidence import Confidence
from jobs.common.cli import JobConfig, JobError, LocalFolder, UsageError, main, say
from jobs.common.gold import as_found, read_gold
from jobs.common.markdown import render
from jobs.common.run import absolute, load_profile
from jobs.train.corpus import GOOD, is_measured, read_marked
from jobs.train.entailment_examples import claim_of, turns_of_segments

if TYPE_CHECKING:
    import numpy as np

    from cluster.backfill.encoder import Encoder
    from cluster.backfill.entailment import EntailmentModel
    from cluster.evaluate.memories import Found


class CalibrationConfig(JobConfig):
    """Settings of the training of a calibration."""

    train: LocalFolder
    """Archive with a folder `_gold`, to learn from."""
    tune: LocalFolder
    """Another one, of other people, to measure on."""
    output: LocalFolder
    """Folder for calibration.json, a card, and what the encoder wrote."""
    profile: str = "default"
    """The encoder: a name, a TOML file, or the folder of an adapter."""
    labelled: str | None = None
    """JSON lines with more records to learn from, with `text`, `evidence`, `mean`, `least` and `label`."""
    labelled_weight: float = Field(0.25, gt=0)
    """How much one of these counts; one of TRAIN counts 1."""
    strength: float = Field(0.003, gt=0)
    """Inverse of the regularisation."""
    entailment: LocalFolder | None = None
    """Folder of an entailment model, whose word is weighed too."""


@dataclass(frozen=True)
class Written:
    """A record that the encoder wrote, and whether it states a memory of its person."""

    user_id: str
    text: str
    evidence: list[Turn]
    mean: float
    least: float
    is_right: bool
    told: list[str] = field(default_factory=list)
    before: str = ""
    """The whole turns, and the one before: see cluster.backfill.entailment."""

    @property
    def rated(self) -> Rated:
        claim = Claim(self.text, tuple(self.told), self.before)
        return Rated(claim, self.evidence, Confidence(self.mean, self.least))


def run(config: CalibrationConfig) -> dict:
    """Encode, learn, measure, write the calibration, return the summary."""
    started_s = time.monotonic()
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    train, tune = written(config, output)
    parts = (("train", train), ("tune", tune))
    for name, rows in parts:
        say(f"[calibration] {name}: {len(rows)} records, {sum(row.is_right for row in rows)} of them right")
    labelled = read_labelled(config.labelled) if config.labelled else []
    calibration = fit(train, config.strength, labelled, config.labelled_weight)
    if config.entailment:
        model, unread = entailment_model(config.entailment), unread_of(labelled)
        calibration = with_entailment(calibration, model, train, unread, config.labelled_weight)
    calibration.save(output)
    summary = {
        "status": "done",
        "output": config.output,
        "profile": config.profile,
        "num_people": {name: len({row.user_id for row in rows}) for name, rows in parts},
        "num_records": {name: len(rows) for name, rows in parts},
        "num_labelled": len(labelled),
        "tune": measure(calibration, tune),
    }
    (output / "README.md").write_text(render("train/calibration.md.j2", summary=summary))
    return summary | {"seconds": round(time.monotonic() - started_s, 1)}


# --- what the encoder writes ----------------------------------------------------------------------------


def written(config: CalibrationConfig, output: Path) -> tuple[list[Written], list[Written]]:
    """Of the people of both parts, out of the output folder or from the encoder."""
    from cluster.backfill.encoder import Encoder
    from cluster.models.resolve import resolve_encoder
    from cluster.models.sources import ModelError
    from schemas.profiles.encoder import EncoderProfile

    given = load_profile("encoders", config.profile, EncoderProfile)
    try:
        profile = resolve_encoder(
            EncoderProfile.model_validate(
                given.model_dump()
                | {"calibrated": False, "entailment": False, "min_confidence": 0.0, "engine": "vllm"}
            )
        )
    except ModelError as error:
        raise JobError(str(error)) from error
    found: list[list[Written]] = []
    encoder = None
    for name, archive in (("train", config.train), ("tune", config.tune)):
        memories = memories_of(archive, profile.languages, f"--{name}")
        file = output / f"{name}-records-{profile.fingerprint}.jsonl"
        if not file.is_file():
            encoder = encoder or Encoder(profile)
            write(file, encode(encoder, archive, memories))
        found.append(read(file))
    return found[0], found[1]


class _Numbering:
    """A Rater that gives each record a number in the place of a probability, and notes what it rests on."""

    def __init__(self) -> None:
        self.noted: list[Rated] = []

    def probabilities(self, records: list[Rated]) -> list[float]:
        first = len(self.noted)
        self.noted += records
        return list(map(float, range(first, len(self.noted))))


Memories = dict[str, list["Found"]]
"""User -> what was written down for him."""


def memories_of(archive: str, languages: tuple[str, ...], option: str) -> Memories:
    """Of an archive's people who write one of these languages; of all, where none is given."""
    found: Memories = {}
    for row in read_gold(f"{archive}/_gold", option):
        if not languages or row["language"] in languages:
            found.setdefault(row["user_id"], []).append(as_found(row))
    if not found:
        raise UsageError(f"{option} {archive}: nobody writes {', '.join(languages)}; give another archive")
    return found


def encode(encoder: "Encoder", archive: str, memories: Memories) -> list[Written]:
    """What the encoder writes of these people, and no gate refuses."""
    from cluster.backfill.archive import read_sessions
    from cluster.backfill.cut_stage import cut_sessions
    from cluster.evaluate.memories import matches

    sessions = (one for one in read_sessions(absolute(archive)) if one["user_id"] in memories)
    segments = cut_sessions(sessions, encoder.profile)
    say(f"[calibration] {archive}: {len(segments)} segments of {len(memories)} people are encoded")
    encoder.calibration = numbering = _Numbering()
    found = []
    for segment, encoding in zip(segments, encoder.encode(segments), strict=True):
        for record in encoding.records:
            if record["confidence"] is not None:
                claim, evidence, known = numbering.noted[int(record["confidence"])]
                stored = as_record(segment, record)
                is_right = any(matches(stored, memory) for memory in memories[stored.user_id])
                found.append(
                    Written(
                        stored.user_id,
                        claim.text,
                        evidence,
                        known.mean,
                        known.least,
                        is_right,
                        list(claim.told),
                        claim.before,
                    )
                )
    return found


def as_record(segment: dict, record: dict) -> "Found":
    """A record of an Encoding, to be compared with memories."""
    from cluster.evaluate.memories import Found

    turns = frozenset((segment["session_id"], turn) for turn in record["evidence_turns"])
    return Found(record["record_id"], segment["user_id"], record["semantic_text"], turns)


def write(file: Path, rows: list[Written]) -> None:
    """One line a record, complete or not there."""
    lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows]
    (unfinished := file.with_suffix(".unfinished")).write_text("".join(lines), encoding="utf-8")
    unfinished.rename(file)


def read(file: Path) -> list[Written]:
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.append(Written(**row | {"evidence": [(role, text) for role, text in row["evidence"]]}))
    return found


def read_labelled(path: str) -> list[Written]:
    """Records that readers have marked. UsageError names the first line that is not one."""
    remedy = "text, evidence (role and text of each turn), mean, least and label"
    turns, found = turns_of_segments(), []
    for one in read_marked(path, "--labelled", ("mean", "least"), remedy):
        claim = claim_of(one.text, [text for _, text in one.evidence], turns.get(one.session_id, []))
        is_right, told = one.label == GOOD, list(claim.told)
        found.append(
            Written(one.session_id, one.text, one.evidence, one.mean, one.least, is_right, told, claim.before)
        )
    return found


# --- the regression -------------------------------------------------------------------------------------


def fit(
    rows: list[Written], strength: float, labelled: Sequence[Written] = (), labelled_weight: float = 1.0
) -> Calibration:
    """The regression. JobError where all records are right, or none."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    num_right = sum(row.is_right for row in rows)
    if not 0 < num_right < len(rows):
        raise JobError(
            f"{len(rows)} records of the part train, {num_right} of them right: right and wrong ones "
            "are needed; look whether --profile names a trained encoder"
        )
    all_rows = [*rows, *labelled]
    counts = np.array([1.0] * len(rows) + [labelled_weight] * len(labelled))
    is_right = np.array([row.is_right for row in all_rows])
    found = [row.rated.features for row in all_rows]
    names = list(found[0])
    values = np.array([[one[name] for name in names] for one in found])
    # What is always the same says nothing.
    varies = values.std(axis=0) > LEAST_SPREAD
    names, values = [name for name, one in zip(names, varies, strict=True) if one], values[:, varies]
    means, scales = np.average(values, axis=0, weights=counts), values.std(axis=0)
    model = LogisticRegression(C=strength, max_iter=3_000)
    model.fit((values - means) / scales, is_right, sample_weight=counts)
    weights = {
        name: Weight(*(round(float(one), 4) for one in (mean, scale, weight)))
        for name, mean, scale, weight in zip(names, means, scales, model.coef_[0], strict=True)
    }
    return Calibration(weights, round(float(model.intercept_[0]), 4))


def entailment_model(folder: str) -> "EntailmentModel":
    """The trained one of a folder. UsageError where there is none."""
    from cluster.backfill.entailment import EntailmentModel
    from cluster.models.cross_encoder import BASE, WEIGHTS_FILE
    from cluster.models.sources import ModelError, model_folder

    if not (Path(folder) / WEIGHTS_FILE).is_file():
        raise UsageError(
            f"--entailment {folder}: no {WEIGHTS_FILE}; give what jobs.train.entailment has written"
        )
    try:
        return EntailmentModel.load(Path(folder), model_folder(BASE, None))
    except ModelError as error:
        raise JobError(str(error)) from error


def unread_of(labelled: list[Written]) -> list[Written]:
    """Marked records of the sessions from which jobs.train.entailment does not learn."""
    return [row for row in labelled if is_measured(row.user_id)]


def with_entailment(
    calibration: Calibration,
    model: "EntailmentModel",
    rows: list[Written],
    unread: Sequence[Written] = (),
    unread_weight: float = 1.0,
) -> Calibration:
    """The calibration with a weight for the model's word beside its own, learned of `rows` and of marked
    records. The model must have learned of none of them."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    rated = [row.rated for row in (*rows, *unread)]
    words = [calibration.odds_by_words(one) for one in rated]
    odds = np.array([words, model.odds([one.claim for one in rated])]).T
    counts = [1.0] * len(rows) + [unread_weight] * len(unread)
    is_right = [row.is_right for row in (*rows, *unread)]
    mix = LogisticRegression().fit(odds, is_right, sample_weight=counts)
    weights = (round(float(one), 4) for one in (*mix.coef_[0], mix.intercept_[0]))
    return replace(calibration, entailment=Entailment(*weights), model=model)


LEAST_SPREAD = 0.01
"""Standard deviation of a feature that is told apart."""

BOUNDS = tuple(number / 20 for number in range(2, 15))


def measure(calibration: Calibration, rows: list[Written]) -> dict:
    """How well right and wrong records are told apart, by the calibration and by the tokens alone: areas
    under the receiver operating characteristic, and what each bound would keep. A record counts by itself
    here: two that state the same memory are both right."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    is_right = np.array([row.is_right for row in rows])
    found = np.array(calibration.probabilities([row.rated for row in rows]))
    tokens = np.array([row.mean for row in rows])
    bounds = []
    for bound in BOUNDS:
        kept = found >= bound
        bounds.append(
            {
                "min_confidence": bound,
                "num_kept": int(kept.sum()),
                "right_kept": _share(kept[is_right]),
                "kept_right": _share(is_right[kept]),
                # Of as many that the tokens alone are surest of.
                "by_tokens_right": _share(is_right[np.argsort(-tokens)[: kept.sum()]]),
            }
        )
    areas = {"area": roc_auc_score(is_right, found), "area_by_tokens": roc_auc_score(is_right, tokens)}
    return {name: round(float(one), 3) for name, one in areas.items()} | {"bounds": bounds}


def _share(flags: "np.ndarray") -> float | None:
    return round(float(flags.mean()), 3) if len(flags) else None


if __name__ == "__main__":
    main(CalibrationConfig, run, __doc__)
