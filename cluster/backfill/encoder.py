"""The encoder: from segments to memory records, with a rejection for every part that got no answer.

`encode` holds the rules and knows no engine: it asks `generate` for answers, reads them, halves a segment
whose answer was cut and asks again, and turns what still fails into a rejection with the raw text. A cut or
invalid answer is never "no memories".

cluster.models.asking says how engines are asked.
"""

import contextlib
import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cluster.backfill.calibration import Calibration, Rated, Rater
from cluster.backfill.cited import CitedRecord, cite_by_words, measured, rows_of, untold_values
from cluster.backfill.entailment import Claim
from cluster.backfill.gates import refusal, repeated, unread_language, untold
from cluster.language.people import as_told
from cluster.language.statements import sentences
from cluster.models.asking import Answer, Generate, Request
from cluster.models.confidence import Confidence, confidences
from cluster.models.engine import make_engine
from cluster.models.prompt import PromptBuilder, num_tokens
from cluster.models.sources import model_folder
from cluster.runtime import report_to
from schemas.profiles.encoder import EncoderProfile
from schemas.record import (
    EncodedRecord,
    ExtraField,
    InvalidAnswer,
    RecordLimits,
    answer_schema,
    parse_answer,
)

MIN_HALF_CHARS = 80
"""A single turn whose half would be shorter is not halved."""

OTHER_LANGUAGE = "language"
"""Reason of the refusal of a segment in a language that the profile does not read."""

EXTRA_VALUE = "extra_value"
"""Reason of the refusal of values of extra fields, without which their record stays."""


@dataclass
class _Piece:
    """A segment, or a part of one after halving, or a sentence that is asked about alone."""

    owner: int
    context: list[dict]
    current: list[dict]
    depth: int = 0
    is_second_look: bool = False


class _Written(NamedTuple):
    """A record of an answer, and the confidence in its words if they were measured."""

    record: EncodedRecord
    piece: _Piece
    known: Confidence | None


@dataclass
class Encoding:
    """A segment's answer: records of RECORD fields with absolute turn indexes, and how it came about."""

    outcome: str = "complete"
    """complete | split (halved, then complete) | partial (some part rejected) | rejected (nothing came) |
    skipped (the profile asks nothing about such segments, see `skipped`)."""
    records: list[dict] = field(default_factory=list)
    """Where the profile sets `min_confidence` each has its `confidence` too, None if it is not known: for who
    chooses that bound. It is not staged, and so not stored."""
    rejections: list[dict] = field(default_factory=list)
    refusals: list[dict] = field(default_factory=list)
    """Records that a gate refused: its name as `reason`, `turns`, and the record as `raw`; `confidence` as
    above, but a calibration rates only what the other gates let pass. Of a segment that is skipped for its
    language the one refusal, with the language as `raw`. Values of extra fields without which a record stays
    are one too, with their object as `raw`."""
    num_calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


def skipped(segment: dict, profile: EncoderProfile) -> Encoding | None:
    """The encoding of a row of SEGMENT_SCHEMA that the model is not asked about; None of all others.

    It follows from what the segment's id is a hash of, and from the profile.
    """
    if not profile.asks_about(segment):
        return Encoding(outcome="skipped")
    if language := unread_language(segment, profile.languages, profile.required_role):
        turns = sorted({part["turn_index"] for part in segment["current"]})
        refused = {"reason": OTHER_LANGUAGE, "turns": turns, "raw": language}
        return Encoding(outcome="skipped", refusals=[refused])
    return None


def encode(
    segments: list[dict],
    generate: Generate,
    prompt: Callable,
    profile: EncoderProfile,
    calibration: Rater | None = None,
) -> list[Encoding]:
    """Rows of SEGMENT_SCHEMA -> their encodings, in order.

    `prompt(context, current, session_time)` gives a Prompt. Without a calibration the confidence in a record
    is the mean probability of its tokens. Each round sends everything that is open as one batch: the segments
    first, then the halves of those that were cut, and where the profile has a second look the sentences that
    no record tells.
    """
    max_prompt_tokens = profile.max_model_len - profile.max_tokens
    encodings = [skipped(segment, profile) or Encoding() for segment in segments]
    found: list[list[CitedRecord]] = [[] for _ in segments]
    open_pieces = [
        _Piece(i, segment["context"], segment["current"])
        for i, segment in enumerate(segments)
        if encodings[i].outcome != "skipped"
    ]
    is_asked_again = False
    while open_pieces:
        asked, requests, pieces = [], [], []
        for piece in open_pieces:
            session_time = segments[piece.owner]["session_time"]
            asks = prompt(piece.context, piece.current, session_time)
            # Counted in parts the text fitted; joined it may not. The older context goes first.
            while piece.context and num_tokens(asks) > max_prompt_tokens:
                piece.context = piece.context[len(piece.context) // 2 + 1 :]
                asks = prompt(piece.context, piece.current, session_time)
            if num_tokens(asks) > max_prompt_tokens:
                pieces += _halve_or_reject(piece, "prompt_too_long", "", encodings[piece.owner], profile)
            else:
                asked.append(piece)
                least = profile.second_look_min_records if piece.is_second_look else 0
                schema = _schema(
                    len(piece.current),
                    profile.limits,
                    profile.fields,
                    least,
                    profile.memory_types,
                    profile.extra_fields,
                )
                requests.append(Request(asks, schema, profile.max_tokens))
        # A segment is counted once, however often it is asked about.
        with report_to(None) if is_asked_again else contextlib.nullcontext():
            answers = generate(requests) if requests else []
        is_asked_again = True
        written: list[_Written] = []
        for piece, answer in zip(asked, answers, strict=True):
            encoding = encodings[piece.owner]
            encoding.num_calls += 1
            encoding.prompt_tokens += answer.prompt_tokens
            encoding.cached_tokens += answer.cached_tokens
            encoding.output_tokens += answer.output_tokens
            records, more = _read(piece, answer, encoding, profile)
            pieces += more
            if profile.evidence_by == "words":
                records = [cite_by_words(record, piece.current, profile.required_role) for record in records]
            sure = confidences(answer.text, answer.tokens) if profile.min_confidence is not None else {}
            for record in records:
                known = sure.get(record.semantic_text)
                if "invented" in profile.gates:
                    record = _as_told(record, piece, profile)
                written.append(_Written(record, piece, known))
        # What a gate refuses need not be rated: a model may read each record that is.
        gated = [_gated(one, profile) for one in written]
        rated = _rated(written, gated, segments, profile, calibration)
        for (record, piece, _), gate, confidence in zip(written, gated, rated, strict=True):
            one = CitedRecord(record, piece.current, confidence)
            if reason := gate or _unsure(one, profile):
                encodings[piece.owner].refusals.append(_refused(reason, one, profile))
                continue
            if left_out := untold_values(one, profile):
                encodings[piece.owner].refusals.append(_left_out(left_out, one, profile))
            found[piece.owner].append(one.without_values(left_out))
        open_pieces = pieces
    for segment, encoding, kept in zip(segments, encodings, found, strict=True):
        if "repeated" in profile.gates:
            again = repeated([(one.record.semantic_text, one.turns) for one in kept])
            encoding.refusals += [_refused("repeated", kept[number], profile) for number in sorted(again)]
            kept = [one for number, one in enumerate(kept) if number not in again]
        encoding.records = rows_of(segment, kept, profile)
        if encoding.rejections:
            encoding.outcome = "partial" if encoding.records else "rejected"
    return encodings


def _read(
    piece: _Piece, answer: Answer, encoding: Encoding, profile: EncoderProfile
) -> tuple[list[EncodedRecord], list[_Piece]]:
    """The records of an answer, and the pieces to ask next: its halves instead, or sentences not covered."""
    if piece.is_second_look:
        # The segment has its answer: a second look can only add records, and its failures are ignored.
        return _complete_records(answer, piece, profile), []
    if answer.refusal:
        return [], _halve_or_reject(piece, answer.reason, answer.refusal, encoding, profile)
    smaller: list[_Piece] = []
    try:
        records = _parsed(answer, piece, profile)
    except InvalidAnswer as error:
        reason = "invalid_answer" if answer.complete else "cut_answer"
        if not (answer.repeats and error.records):
            smaller = _halve_or_reject(piece, reason, answer.text, encoding, profile)
        # Halves answer for themselves. A piece that cannot be halved keeps its complete records.
        records = [] if smaller else error.records
    if any(_at_bound(record, profile) for record in records):
        # The grammar ended the text, not the model.
        smaller = _halve_or_reject(piece, "text_at_bound", answer.text, encoding, profile)
        records = [] if smaller else [r for r in records if not _at_bound(r, profile)]
    if profile.second_look and not smaller:
        return records, _uncovered_sentences(piece, records, profile)
    return records, smaller


def _parsed(answer: Answer, piece: _Piece, profile: EncoderProfile) -> list[EncodedRecord]:
    return parse_answer(answer.text, len(piece.current), profile.memory_types, profile.extra_fields)


def _complete_records(answer: Answer, piece: _Piece, profile: EncoderProfile) -> list[EncodedRecord]:
    try:
        records = _parsed(answer, piece, profile)
    except InvalidAnswer as error:
        records = error.records
    return [record for record in records if not _at_bound(record, profile)]


def _uncovered_sentences(
    piece: _Piece, records: list[EncodedRecord], profile: EncoderProfile
) -> list[_Piece]:
    """A piece for each sentence in which a user states something that no record covers."""
    texts = [record.semantic_text for record in records]
    # A turn of one sentence would be the same question again, unless a record is required.
    least = 1 if profile.second_look_min_records else 2
    return [
        _Piece(piece.owner, [], [part | {"text": sentence}], is_second_look=True)
        for part in piece.current
        if part["role"] == "user"
        if len(sentences(part["text"])) >= least
        for sentence in untold(part["text"], texts)
    ]


@functools.lru_cache(maxsize=256)
def _schema(
    num_turns: int,
    limits: RecordLimits,
    fields: tuple[str, ...],
    min_records: int,
    types: tuple[str, ...],
    extra_fields: tuple[ExtraField, ...],
) -> str:
    return answer_schema(num_turns, limits, fields, min_records, types, extra_fields)


def _at_bound(record: EncodedRecord, profile: EncoderProfile) -> bool:
    return len(record.semantic_text) >= profile.limits.max_text_chars


def _as_told(record: EncodedRecord, piece: _Piece, profile: EncoderProfile) -> EncodedRecord:
    """The record without a guess of who a named person is."""
    text = as_told(record.semantic_text, _shown(piece.context + piece.current, profile))
    return record.model_copy(update={"semantic_text": text})


def _shown(parts: list[dict], profile: EncoderProfile) -> list[str]:
    return [profile.shown(part["text"]) for part in parts]


def _rated(
    written: list[_Written],
    gated: list[str],
    segments: list[dict],
    profile: EncoderProfile,
    calibration: Rater | None,
) -> list[float | None]:
    """The confidence in each record: what the calibration says, if no gate refuses it, or how likely its
    tokens were."""
    if calibration is None:
        return [one.known and one.known.mean for one in written]
    rated: dict[int, Rated] = {}
    for number, ((record, piece, known), gate) in enumerate(zip(written, gated, strict=True)):
        if known is not None and not gate:
            cited = [piece.current[index] for index in record.evidence_turns]
            evidence = [(part["role"], profile.shown(part["text"])) for part in cited]
            rated[number] = Rated(_claim(record, cited, segments[piece.owner], profile), evidence, known)
    found = calibration.probabilities(list(rated.values())) if rated else []
    confidence = dict(zip(rated, found, strict=True))
    return [confidence.get(number) for number in range(len(written))]


def _claim(record: EncodedRecord, cited: list[dict], segment: dict, profile: EncoderProfile) -> Claim:
    """What the record claims of its segment: the model may have been shown single sentences of its turns."""
    parts = segment["context"] + segment["current"]
    places = [
        place
        for one in cited
        for place, part in enumerate(parts)
        if part["turn_index"] == one["turn_index"] and one["text"] in part["text"]
    ]
    told = _shown([parts[place] for place in places] or cited, profile)
    before = _shown(parts[places[0] - 1 : places[0]] if places and places[0] else [], profile)
    return Claim(record.semantic_text, tuple(told), *before)


def _gated(one: _Written, profile: EncoderProfile) -> str:
    """Name of the gate that refuses the record for its words; empty if none does."""
    if not profile.gates:
        return ""
    current = one.piece.current
    parts = one.piece.context + current
    evidence = _shown([current[index] for index in one.record.evidence_turns], profile)
    speakers = [part["speaker"] or "" for part in parts]
    return refusal(one.record.semantic_text, evidence, [*_shown(parts, profile), *speakers], profile.gates)


def _unsure(one: CitedRecord, profile: EncoderProfile) -> str:
    """Name of the gate that refuses the record because it is not sure; empty if it does not. Where nothing is
    known of a record, it passes."""
    least = profile.min_confidence
    return "unsure" if one.confidence is not None and least is not None and one.confidence < least else ""


def _left_out(values: dict[str, str], one: CitedRecord, profile: EncoderProfile) -> dict:
    raw = json.dumps(values, ensure_ascii=False)
    return {"reason": EXTRA_VALUE, "turns": sorted(one.turns), "raw": raw} | measured(None, profile)


def _refused(reason: str, one: CitedRecord, profile: EncoderProfile) -> dict:
    refused = {"reason": reason, "turns": sorted(one.turns), "raw": one.record.model_dump_json()}
    return refused | measured(one.confidence, profile)


def _halve_or_reject(
    piece: _Piece, reason: str, raw: str, encoding: Encoding, profile: EncoderProfile
) -> list[_Piece]:
    halves = _halve(piece) if piece.depth < profile.max_splits else []
    if not halves:
        turns = sorted({part["turn_index"] for part in piece.current})
        encoding.rejections.append({"reason": reason, "turns": turns, "raw": raw})
    else:
        encoding.outcome = "split"
    return halves


def _halve(piece: _Piece) -> list[_Piece]:
    current = piece.current
    if len(current) > 1:
        middle = len(current) // 2
        first, second = current[:middle], current[middle:]
    else:
        text = current[0]["text"]
        earliest = max(len(text) // 4, MIN_HALF_CHARS - 1)
        middle = text.rfind(" ", earliest, len(text) // 2 + 1) + 1 or len(text) // 2
        if middle < MIN_HALF_CHARS:
            return []
        first, second = [current[0] | {"text": text[:middle]}], [current[0] | {"text": text[middle:]}]
    # The second half sees the first in place of the older context, so that no prompt grows.
    return [
        _Piece(piece.owner, piece.context, first, piece.depth + 1),
        _Piece(piece.owner, first, second, piece.depth + 1),
    ]


# --- a loaded profile ---------------------------------------------------------------------------------


class Encoder:
    """A loaded profile. `encode(segments)` as above; `load_s` is the time that loading took."""

    def __init__(self, profile: EncoderProfile, **engine_options: Any):
        started_s = time.monotonic()
        self.profile = profile
        self.engine = make_engine(profile, **engine_options)
        self.prompt = PromptBuilder(profile, self.engine.tokenizer)
        self.calibration: Rater | None = None
        if profile.calibrated:
            assert profile.adapter is not None, "the profile has seen to that"
            folder = model_folder(profile.adapter, profile.adapter_revision)
            self.calibration = Calibration.load(folder, profile.entailment)
        self.load_s = time.monotonic() - started_s

    def encode(self, segments: list[dict]) -> list[Encoding]:
        return encode(segments, self.engine.generate, self.prompt, self.profile, self.calibration)
