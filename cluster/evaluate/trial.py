"""An encoder on trial: segments in, answers with their times out, and what can be said of each answer.

The measures of a segment are defined here once, for every encoder:

  schema_ok   every part of it was answered whole and valid, halving included; no rejection
  complete    the first answer was whole and valid: neither cut nor halved
  failure     the reason of its first rejection; `missed`: no record, although a user states something of
              himself; `refused`: records, but the verifier's rules (cluster.distill.verifier) refuse
              every one
  silent      it gives no record
  statements  how many the rule-based teacher (cluster.distill.extractor) finds, and how many of them are
              held by some record
  scores      0 to 5 on the four dimensions, of what did not fail and has records

Without a judge the scores are proxies by rule, and comparable with nobody else's:

  atomicity           share of the records with one clause
  self_containedness  share that neither opens with a pronoun nor leans on another text
  entity_coverage     share of the names and numbers in the cited turns that some record has
  evidence_alignment  share that names and counts nothing beyond its evidence, and repeats no other
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import pyarrow as pa

from cluster.backfill.encoder import Encoder, Encoding
from cluster.distill.extractor import extract
from cluster.distill.verifier import RULES, Evidence, states_something, verify
from cluster.language.grammar import clauses
from cluster.language.words import words
from cluster.models.paid_answers import CapReached
from schemas.judge import WEIGHTS, Scores
from schemas.profiles.encoder import EncoderProfile
from schemas.record import EncodedRecord
from schemas.store import RECORD_TYPE, SEGMENT_SCHEMA

if TYPE_CHECKING:
    from cluster.distill.judge import Judge

SAME = 0.75
"""Share of a statement's words that a record has which holds it."""

_NAME_OR_NUMBER = re.compile(r"\b(?:[A-Z][\w'’-]+|\d[\d.,:/-]*)")


@dataclass(frozen=True)
class TrialBatch:
    """Segments to be encoded. `alone` times every one by itself: latency, where a batch gives throughput."""

    segments: Annotated[tuple[dict, ...], pa.list_(pa.struct(list(SEGMENT_SCHEMA)))]
    alone: bool


@dataclass(frozen=True)
class Assessment:
    """The measures of one segment, see above."""

    segment_id: str
    schema_ok: bool
    complete: bool
    states_something: str
    """What a user says that is worth a record; empty where nothing is."""
    num_statements: int
    num_statements_held: int
    num_records: int
    num_refused: int
    failure: str
    scores: dict[str, float] | None
    """None where there is nothing to score."""
    prompt_tokens: int
    output_tokens: int
    records: Annotated[tuple[dict, ...], pa.list_(RECORD_TYPE)]
    """With evidence counted within the segment."""
    rejected: tuple[str, ...]
    cited: tuple[int, ...]


@dataclass(frozen=True)
class Tried:
    """What came of a batch. `seconds`: of each segment when alone, else of the batch."""

    rows: tuple[Assessment, ...]
    seconds: tuple[float, ...]
    alone: bool

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class AnswersToJudge:
    """Of some segments the current turns and the records, with evidence counted within the segment."""

    current: Annotated[tuple[list, ...], pa.list_(SEGMENT_SCHEMA.field("current").type)]
    records: Annotated[tuple[list, ...], pa.list_(pa.list_(RECORD_TYPE))]


@dataclass(frozen=True)
class AnswerScores:
    """Scores of one answer, or why there are none; neither where the judge was not asked."""

    scores: dict[str, float] | None = None
    reason: str = ""


@dataclass(frozen=True)
class JudgedAnswers:
    """Of each answer its scores."""

    answers: tuple[AnswerScores, ...]


class Trial:
    """Actor: segments -> what the encoder makes of them. The model is loaded with the first batch."""

    def __init__(self, profile: EncoderProfile, engine: dict):
        self._profile, self._options = profile, engine
        self._encoder: Encoder | None = None

    def __call__(self, batch: TrialBatch) -> Tried:
        segments = list(batch.segments)
        if self._encoder is None:
            self._encoder = Encoder(self._profile, **self._options)
            # The first call computes the prefix that all later ones share.
            self._encoder.encode(segments[:1])
        encodings, seconds = timed(segments, self._encoder.encode, batch.alone)
        rows = [
            assess(segment, encoding, self._profile)
            for segment, encoding in zip(segments, encodings, strict=True)
        ]
        return Tried(tuple(rows), tuple(seconds), batch.alone)


class Judging:
    """Actor: answers -> their scores. `make` makes a cluster.distill.judge.Judge where it works.

    CapReached where the judge may not be asked any more: means over the others would say nothing.
    """

    def __init__(self, make: Callable[[], "Judge"]):
        self._make = make
        self._judge: Judge | None = None

    def __call__(self, batch: AnswersToJudge) -> JudgedAnswers:
        judge = self._judge = self._judge or self._make()
        segments = [{"current": current} for current in batch.current]
        found = judge.score(list(zip(segments, batch.records, strict=True)))
        if judge.counts.get("num_capped"):
            raise CapReached("max_cost: no further answer of the judge fits")
        return JudgedAnswers(tuple(map(_answer_scores, found)))


def _answer_scores(found: Scores | str | None) -> AnswerScores:
    if isinstance(found, Scores):
        return AnswerScores({name: float(getattr(found, name)) for name in WEIGHTS})
    return AnswerScores(reason=found or "")


def timed(
    segments: list[dict], encode: Callable[[list[dict]], list[Encoding]], alone: bool
) -> tuple[list[Encoding], list[float]]:
    """Encodings in order, and the seconds of each segment when alone, else of the batch."""
    encodings, seconds = [], []
    for batch in [[segment] for segment in segments] if alone else [segments]:
        started_s = time.monotonic()
        encodings += encode(batch)
        seconds.append(time.monotonic() - started_s)
    return encodings, seconds


def assess(segment: dict, encoding: Encoding, profile: EncoderProfile) -> Assessment:
    """The measures of one segment."""
    records = [_local(segment, record) for record in encoding.records]
    kept, _ = verify(segment, [record.model_dump() for record in records], profile)
    states = states_something(segment)
    failure = ""
    if encoding.rejections:
        failure = encoding.rejections[0]["reason"]
    elif not records and states:
        failure = "missed"
    elif records and not kept:
        failure = "refused"
    return Assessment(
        segment_id=segment["segment_id"],
        schema_ok=not encoding.rejections,
        complete=encoding.outcome in ("complete", "skipped"),
        states_something=states,
        **statements(segment, records),
        num_records=len(records),
        num_refused=len(records) - len(kept),
        failure=failure,
        scores=proxies(segment, records, profile) if records and not failure else None,
        prompt_tokens=encoding.prompt_tokens,
        output_tokens=encoding.output_tokens,
        records=tuple(record.model_dump() for record in records),
        rejected=tuple(rejection["raw"] for rejection in encoding.rejections),
        cited=tuple(sorted({turn for record in encoding.records for turn in record["evidence_turns"]})),
    )


def statements(segment: dict, records: list[EncodedRecord]) -> dict[str, int]:
    """Statements of users in the segment, and those of which a record has three words of four."""
    told = [words(found["semantic_text"]) for found in extract(segment)]
    held = [words(record.semantic_text) for record in records]
    num_held = sum(any(len(said & kept) >= SAME * len(said) for kept in held) for said in told)
    return {"num_statements": len(told), "num_statements_held": num_held}


def proxies(segment: dict, records: list[EncodedRecord], profile: EncoderProfile) -> dict[str, float]:
    """Scores by rule of a segment's records, 0 to 5."""
    evidence = Evidence(segment)

    def share_that_keeps(*names: str) -> float:
        kept = [
            not any(RULES[name](record, evidence, profile.limits) for name in names) for record in records
        ]
        return sum(kept) / len(kept)

    texts = {" ".join(record.semantic_text.casefold().split()) for record in records}
    cited = {index for record in records for index in record.evidence_turns}
    named = {
        match[0].casefold()
        for index in cited
        for sentence in re.split(r"(?<=[.!?\n])\s+", segment["current"][index]["text"])
        # The first word of a sentence has a capital, be it a name or not.
        for match in _NAME_OR_NUMBER.finditer(sentence, len(sentence) - len(sentence.lstrip()) + 1)
    } - {"i", "i'm", "i've", "i'd", "i'll"}
    said = " ".join(texts | {entity.casefold() for record in records for entity in record.entities})
    shares = {
        "atomicity": sum(len(clauses(record.semantic_text)) <= 1 for record in records) / len(records),
        "self_containedness": share_that_keeps("pronoun_opening", "self_contained"),
        "entity_coverage": sum(name in said for name in named) / len(named) if named else 1.0,
        "evidence_alignment": share_that_keeps("evidence", "entities", "invented")
        * len(texts)
        / len(records),
    }
    return {name: 5 * share for name, share in shares.items()}


def weighted(scores: dict[str, float]) -> float:
    """The composite of one segment's scores, 0 to 5, with the weights of LycheeMem's judge."""
    return sum(weight * scores[name] for name, weight in WEIGHTS.items())


def _local(segment: dict, record: dict) -> EncodedRecord:
    """A record with evidence counted within the segment, as the encoder wrote it."""
    cited = set(record["evidence_turns"])
    indexes = [index for index, part in enumerate(segment["current"]) if part["turn_index"] in cited]
    return EncodedRecord.model_validate(record | {"evidence_turns": indexes})
