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

import json
import re
import time
from collections.abc import Callable

from cluster.backfill.encoder import Encoder, Encoding
from cluster.distill.extractor import extract
from cluster.distill.verifier import RULES, Evidence, states_something, verify
from cluster.language.grammar import read
from cluster.language.words import words
from schemas.judge import WEIGHTS, Scores
from schemas.profile import EncoderProfile
from schemas.record import EncodedRecord

SAME = 0.75
"""Share of a statement's words that a record has which holds it."""

_NAME_OR_NUMBER = re.compile(r"\b(?:[A-Z][\w'’-]+|\d[\d.,:/-]*)")


class Trial:
    """Actor: {batch, alone} -> {rows, seconds} as JSON. The model is loaded with the first batch.

    `alone` times every segment of the batch by itself: latency, where a whole batch gives throughput.
    """

    def __init__(self, profile: EncoderProfile, engine: dict, batches):
        """`batches` is a Ray reference to lists of rows of SEGMENT_SCHEMA."""
        self._profile, self._options, self._batches = profile, engine, batches
        self._encoder: Encoder | None = None

    def __call__(self, row: dict) -> dict:
        import ray

        segments = ray.get(self._batches)[row["batch"]]
        if self._encoder is None:
            self._encoder = Encoder(self._profile, **self._options)
            # The first call computes the prefix that all later ones share.
            self._encoder.encode(segments[:1])
        encodings, seconds = timed(segments, self._encoder.encode, row["alone"])
        rows = [
            assess(segment, encoding, self._profile)
            for segment, encoding in zip(segments, encodings, strict=True)
        ]
        return {"batch": row["batch"], "result": json.dumps({"rows": rows, "seconds": seconds})}


class Judging:
    """Actor: {batch} -> {scores} as JSON: of each answer its scores, or why there are none.

    `make` makes a cluster.distill.judge.Judge where it works; `answers` is a Ray reference to batches of
    (segment, records with local evidence).
    """

    def __init__(self, make: Callable, answers):
        self._make, self._answers, self._judge = make, answers, None

    def __call__(self, row: dict) -> dict:
        import ray

        self._judge = self._judge or self._make()
        found = self._judge.score(ray.get(self._answers)[row["batch"]])
        scores = [
            score.model_dump(include=set(WEIGHTS)) if isinstance(score, Scores) else score for score in found
        ]
        return {"batch": row["batch"], "scores": json.dumps(scores)}


def timed(segments: list[dict], encode, alone: bool) -> tuple[list[Encoding], list[float]]:
    """Encodings in order, and the seconds of each segment when alone, else of the batch."""
    encodings, seconds = [], []
    for batch in [[segment] for segment in segments] if alone else [segments]:
        started_s = time.monotonic()
        encodings += encode(batch)
        seconds.append(time.monotonic() - started_s)
    return encodings, seconds


def assess(segment: dict, encoding: Encoding, profile: EncoderProfile) -> dict:
    """The measures of one segment; `scores` is None where there is nothing to score."""
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
    return {
        "segment_id": segment["segment_id"],
        "schema_ok": not encoding.rejections,
        "complete": encoding.outcome in ("complete", "skipped"),
        "states_something": states,
        **statements(segment, records),
        "num_records": len(records),
        "num_refused": len(records) - len(kept),
        "failure": failure,
        "scores": proxies(segment, records, profile) if records and not failure else None,
        "prompt_tokens": encoding.prompt_tokens,
        "output_tokens": encoding.output_tokens,
        "records": [record.model_dump() for record in records],
        "rejected": [rejection["raw"] for rejection in encoding.rejections],
        "cited": sorted({turn for record in encoding.records for turn in record["evidence_turns"]}),
    }


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
        "atomicity": sum(len(read(record.semantic_text).clauses) <= 1 for record in records) / len(records),
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
