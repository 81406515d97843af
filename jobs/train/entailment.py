"""Train the entailment model of an encoder: the check whether turns support a record.

    python -m jobs.train.entailment --output DIR        # an hour and more on one core

The model (cluster.backfill.entailment) learns from the English people of the written corpus's part `train`
and from its single segments: their memories count as supported, the same memories falsified with other words
of their message as not supported. It also learns from the records of `--marked`, but for those of some
sessions, on which it is measured. Writes the weights and a card. Copy weights.safetensors into the folder
`entailment` beside an adapter, and let jobs.train.calibration learn its weight. Run the same command again
after a crash: it goes on after the last whole epoch.
"""

import hashlib
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from cluster.train.settings import CrossRecipe
from jobs.common.cli import JobConfig, JobError, LocalFolder, UsageError, main, say
from jobs.common.markdown import render
from jobs.train.corpus import MEASURED_SHARE, RECORDS, is_measured
from jobs.train.entailment_examples import Example, marked_examples, written_examples

if TYPE_CHECKING:
    from cluster.backfill.entailment import EntailmentModel


class EntailmentRecipe(CrossRecipe):
    """How it learns."""

    num_epochs: int = Field(1, ge=1)
    """Times through everything; the rate falls to nothing over them."""
    learning_rate: float = Field(3e-4, gt=0)
    """At the rate of the pairs it learned nothing in an epoch."""
    rank: int = Field(16, ge=1, le=256)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    first_layer: int = Field(3, ge=0)


class EntailmentConfig(JobConfig):
    """Settings of the training of an entailment model."""

    output: LocalFolder
    """Folder for weights and card."""
    marked: str = str(RECORDS)
    """JSON lines with records that readers marked: `session_id` of a single segment, `text`, `evidence` and
    `label`."""
    num_written: int = Field(4_000, ge=0)
    """So many memories are learned, half of them falsified; the others are left out."""
    written_weight: float = Field(0.5, gt=0)
    """How much one of these counts; a marked record counts 1."""
    marked_times: int = Field(3, ge=1)
    """How often a marked record comes in an epoch."""
    measured_share: float = Field(MEASURED_SHARE, gt=0, lt=1)
    """Of the sessions of the marked records so many are not learned from, but measured on.
    jobs.train.calibration learns of those that are kept back where this is left as it is."""
    seed: int = 0
    """Of what is drawn, and of new weights."""
    cross: EntailmentRecipe = EntailmentRecipe()


def run(config: EntailmentConfig) -> dict:
    """Train, measure, write weights and card, return the summary."""
    from transformers import AutoTokenizer

    from cluster.backfill.entailment import EntailmentModel, token_ids
    from cluster.models.cross_encoder import BASE
    from cluster.models.sources import ModelError, model_folder
    from cluster.train.cross_encoder import Learned, save_parts, train_cross_encoder

    started_s = time.monotonic()
    output = Path(config.output)
    try:
        base = model_folder(BASE, None)
    except ModelError as error:
        raise JobError(str(error)) from error
    learned, measured = parts_of(config)
    say(f"[entailment] {len(learned)} examples to learn from, {len(measured)} marked records to measure on")
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = [Learned(token_ids(tokenizer, one.claim), int(one.is_told), one.weight) for one in learned]
    loss = None
    for epoch in train_cross_encoder(
        base, rows, 2, config.cross, seed=config.seed, checkpoint=checkpoint_of(config)
    ):
        save_parts(epoch.parts, output)
        loss = epoch.loss
        say(f"[entailment] epoch {epoch.number}: loss {loss:.3f}")
    summary = {
        "status": "done",
        "output": config.output,
        "num_learned": len(learned),
        "loss": None if loss is None else round(loss, 4),
        "measured": measure(EntailmentModel.load(output, base), measured),
    }
    (output / "README.md").write_text(render("train/entailment.md.j2", **summary, recipe=config.cross))
    return summary | {"seconds": round(time.monotonic() - started_s, 1)}


def checkpoint_of(config: EntailmentConfig) -> Path:
    """Of a training with these settings and no other."""
    settings = config.model_dump_json(exclude={"output"}) + Path(config.marked).read_text(encoding="utf-8")
    name = hashlib.sha256(settings.encode()).hexdigest()[:16]
    return Path(config.output) / f"checkpoint-{name}.pt"


def parts_of(config: EntailmentConfig) -> tuple[list[Example], list[Example]]:
    """What is learned, and the marked records that are measured on. UsageError where a part is empty."""
    marked = list(marked_examples(config.marked))
    measured = [one for one in marked if is_measured(one.session_id, config.measured_share)]
    sessions = {one.session_id for one in measured}
    known = [one for one in marked if one.session_id not in sessions]
    if len({one.is_told for one in known}) < 2 or len({one.is_told for one in measured}) < 2:
        raise UsageError(f"--marked {config.marked}: needs good records and others, of more sessions")
    rng = random.Random(config.seed)
    written = [one for one in written_examples(seed=config.seed) if one.session_id not in sessions]
    rng.shuffle(written)
    half = config.num_written // 2
    told, spoilt = ([one for one in written if one.is_told == is_told][:half] for is_told in (True, False))
    return [
        *known * config.marked_times,
        *(replace(one, weight=one.weight * config.written_weight) for one in (*told, *spoilt)),
    ], measured


def measure(model: "EntailmentModel", examples: list[Example]) -> dict:
    """How well good records and others are told apart: the area under the receiver operating characteristic,
    and what is good among the surest ones."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    odds = np.array(model.odds([one.claim for one in examples]))
    is_good = np.array([one.is_told for one in examples])
    by_odds = is_good[np.argsort(-odds, kind="stable")]
    return {
        "num_records": len(examples),
        "good": round(float(is_good.mean()), 3),
        "area": round(float(roc_auc_score(is_good, odds)), 3),
        "good_of_surest": {
            share: round(float(by_odds[: max(1, round(share * len(by_odds)))].mean()), 3) for share in SHARES
        },
    }


SHARES = (0.1, 0.2, 0.3, 0.5)

if __name__ == "__main__":
    main(EntailmentConfig, run, __doc__)
