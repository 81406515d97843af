"""The stages of a backfill, as workers run them. Rows between them are references; data is in staged files.

    unit of the archive --cut--> plan/BATCH --encode--> encoded/ENCODER/BATCH/ --embed--> tables/.../ENCODED/

A batch's id is a hash of its segments, and each stage stages at once what it made. An answer that is there
has been paid for and is not asked for again, in whichever batch it stands: it is known by its segment's id.
Rows of the tables go by a hash of the answers that they were made from. That is all there is to resuming.
"""

import collections
import functools
import hashlib
import re
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster.backfill.archive import Unit, read_unit
from cluster.backfill.encoder import OTHER_LANGUAGE, Encoder, Encoding, skipped
from cluster.backfill.ledger import Ledger
from cluster.backfill.redact import Rules, redact, redact_turns
from cluster.backfill.segmenter import Offsets, cut_session, tokenizer_offsets
from cluster.embed.embedder import TEXTS, Embedder
from cluster.forget.forgotten import WITHHELD, Forgotten
from cluster.models.endpoint import CapReached
from cluster.models.sources import tokenizer_folder
from cluster.store.attempts import Attempts, WorkerSick
from cluster.store.files import Files
from cluster.store.staging import Sealed, known_columns, put_as_content
from schemas.carriers import BadRow, Batch, EmbeddedBatch, EncodedBatch, UnitCut
from schemas.identity import joined
from schemas.profile import EmbedderProfile, EncoderProfile
from schemas.store import (
    REJECTIONS_SCHEMA,
    SEGMENT_SCHEMA,
    SEGMENTS_SCHEMA,
    encoded_schema,
    records_schema,
    turns_schema,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

OUTCOMES = ("complete", "split", "partial", "rejected", "skipped")

MAX_WAIT_S = 300
"""A worker that has given batches back waits no longer than this before it takes the next one."""

ENGINE_FAILURES = ("encoder_error", "encoder_crashed")
"""Reasons of a rejection that are no answer of the model."""

MAX_RAW_CHARS = 20_000
"""Of a rejected row's raw text, this much is kept."""

_ESCAPED_SPACE = re.compile(r"\\(?:[nrtvf]|x[0-2][0-9a-f]|x[7-9a][0-9a-f]|u20[0-9a-f]{2}|u3000|ufeff)")


NOTHING_FORGOTTEN = Forgotten("", frozenset())


# --- cut ----------------------------------------------------------------------------------------------


def cut_unit(
    unit: Unit,
    *,
    archive: str,
    profile: EncoderProfile,
    ledger: Ledger,
    batch_size: int,
    files: Files,
    forgotten: Forgotten = NOTHING_FORGOTTEN,
    leave_out: Callable[[dict], str] | None = None,
    mask_contacts: bool = False,
    redaction_rules: Rules = (),
) -> UnitCut:
    """Stage: read a row group, redact, cut into segments, and stage what is not paid for yet as batches.

    `leave_out` gives the reason why a session, as the archive has it, is not wanted; empty where it is.
    """
    offsets = segment_offsets(profile)
    wanted: dict[str, Any] = {"contacts": mask_contacts, "rules": redaction_rules}
    pending, batches, closed, bad = [], [], [], []
    left_out: collections.Counter[str] = collections.Counter()
    num_sessions = num_segments = num_redactions = num_forgotten = 0
    for row in read_unit(archive, unit):
        ids: tuple[object, object] = (
            (row.user_id, row.session_id) if isinstance(row, BadRow) else (row["user_id"], row["session_id"])
        )
        if forgotten.has_session(*ids):
            num_forgotten += 1
            continue
        if isinstance(row, BadRow):
            withheld = {"raw": "", "detail": WITHHELD} if forgotten.may_show(*ids, row.raw) else {}
            bad.append(replace(row, **withheld))
            continue
        if leave_out and (reason := leave_out(row)):
            left_out[reason] += 1
            continue
        num_sessions += 1
        contents = redact_turns([turn["content"] for turn in row["turns"]], **wanted)
        for turn, redacted in zip(row["turns"], contents, strict=True):
            speaker = redact(turn["speaker"] or "", **wanted)
            turn["content"], turn["speaker"] = redacted.text, speaker.text or turn["speaker"]
            num_redactions += sum(redacted.counts.values()) + sum(speaker.counts.values())
        num_forgotten += forgotten.blank_turns(row) > 0
        segments = cut_session(row, offsets, profile)
        known = ledger.of_session(row["user_id"], row["session_id"])
        current_ids = {segment["segment_id"] for segment in segments}
        closed += ledger.gone(row["user_id"], row["session_id"], current_ids)
        # A segment that is known but to be encoded again gives way to its own successor.
        again = [segment for segment in segments if not known.get(segment["segment_id"], False)]
        closed += [segment["segment_id"] for segment in again if segment["segment_id"] in known]
        num_segments += len(segments)
        pending += again
        # At once: a row group of long sessions is more than a worker should hold.
        while len(pending) >= batch_size:
            batches.append(_stage_batch(pending[:batch_size], profile, files))
            pending = pending[batch_size:]
    if pending:
        batches.append(_stage_batch(pending, profile, files))
    rejections = f"rejections/{unit.unit_id}.parquet"
    if bad:
        files.put_rows(rejections, [rejection_row(row, redaction_rules) for row in bad], REJECTIONS_SCHEMA)
    return UnitCut(
        unit_id=unit.unit_id,
        num_sessions=num_sessions,
        num_segments=num_segments,
        num_redactions=num_redactions,
        num_forgotten=num_forgotten,
        left_out=dict(left_out),
        num_rejections=len(bad),
        rejections=rejections if bad else "",
        batches=tuple(batches),
        closed_segments=tuple(closed),
    )


def _stage_batch(batch: list[dict], profile: EncoderProfile, files: Files) -> Batch:
    """Put the segments of a batch; its reference."""
    batch_id = hashlib.sha256("".join(s["segment_id"] for s in batch).encode()).hexdigest()[:24]
    files.put_rows(plan_path(batch_id), batch, SEGMENT_SCHEMA)
    unasked = [skipped(segment, profile) for segment in batch]
    return Batch(
        batch_id,
        num_segments=len(batch),
        num_tokens=sum(s["num_tokens"] for s, one in zip(batch, unasked, strict=True) if one is None),
        num_other_language=sum(bool(one and one.refusals) for one in unasked),
    )


def segment_offsets(profile: EncoderProfile) -> Offsets:
    """What cluster.backfill.segmenter cuts sessions by, with the tokenizer of the profile's base."""
    return tokenizer_offsets(_tokenizer(profile))


@functools.lru_cache(maxsize=2)
def _tokenizer(profile: EncoderProfile) -> "Tokenizer | PreTrainedTokenizerBase":
    folder = tokenizer_folder(profile)
    if (folder / "tokenizer.json").is_file():
        # Importing transformers would cost every worker ten seconds for the same tokenizer.
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).backend_tokenizer


def rejection_row(bad: BadRow, rules: Rules = ()) -> dict:
    """A row of REJECTIONS_SCHEMA. Raw text is redacted like every other text, then shortened."""
    raw = _redact_shown(bad.raw.encode("utf-8", "backslashreplace").decode(), rules)[:MAX_RAW_CHARS]
    content = joined(bad.source, bad.reason, raw)
    return {
        "rejection_id": hashlib.sha256(content.encode()).hexdigest()[:32],
        "stage": "archive",
        "source": bad.source,
        "user_id": bad.user_id,
        "session_id": bad.session_id,
        "reason": bad.reason,
        "detail": _redact_shown(bad.detail, rules),
        "raw": raw,
    }


def _redact_shown(text: str, rules: Rules) -> str:
    # In a repr a line break is `\n`, whose n would glue to the secret behind it and hide it.
    spaced = _ESCAPED_SPACE.sub(lambda escape: "\n" if escape[0] == r"\n" else " ", text)
    return redact(spaced, rules=rules).text


# --- encode -------------------------------------------------------------------------------------------


def plan_path(batch_id: str) -> str:
    return f"plan/{batch_id}.parquet"


def encoded_folder(encoder: str, batch_id: str) -> str:
    return f"encoded/{encoder}/{batch_id}"


def segments_paid(files: Files, encoder: str, planned: set[str]) -> dict[str, str]:
    """Answered segments that lie staged for other batches than this plan's: segment id -> path.

    There are some when a killed run is followed by one over a rewritten archive, whose batches are others.
    """
    paid: dict[str, str] = {}
    for path in files.paths(f"encoded/{encoder}"):
        if path.split("/")[2] not in planned:
            paid |= dict.fromkeys(_answers(files, path, columns=["segment_id", "rejections"]), path)
    return paid


def _answers(files: Files, path: str, columns: list[str] | None = None) -> dict[str, dict]:
    """Staged answers by segment. A file that is gone or damaged has none: that is only work to do again."""
    try:
        rows = files.get_table(path, columns).to_pylist()
    except (OSError, pa.ArrowInvalid):
        return {}
    return {row["segment_id"]: row for row in rows if is_answer(row)}


class EncodeStage:
    """Actor: plan/BATCH -> encoded/ENCODER/BATCH/, one file of answers.

    `paid` maps ids of segments that an earlier, differently cut batch has encoded to the path of the answer.
    A worker that cannot encode gives the batch back: the result's `failure` says why. First it waits
    `patience_s`, twice as long each time, so that others get the next batches. Where a cap is reached, the
    result `is_stopped` and `failure` says so.
    """

    def __init__(
        self,
        profile: EncoderProfile,
        files: Files,
        attempt: str,
        paid: dict[str, str],
        engine: dict,
        patience_s: float = 0.0,
    ):
        self._files, self._attempt, self._paid = files, attempt, paid
        self._folder = functools.partial(encoded_folder, profile.fingerprint)
        self._encoder: Encoder | None = None
        self._load_s = 0.0
        self._skipped = functools.partial(skipped, profile=profile)
        self._load = functools.partial(Encoder, profile, **engine)
        self._cap_reached = ""
        self._worker, self._patience_s, self._num_given_back = uuid.uuid4().hex, patience_s, 0

    def __call__(self, batch: Batch) -> EncodedBatch:
        started_s, self._load_s, failure = time.monotonic(), 0.0, self._cap_reached
        rows: list[dict] = []
        encoded_now: list[dict] = []
        path = ""
        try:
            # Behind a cap nothing is begun, and what is in flight comes to its end.
            if not self._cap_reached:
                path, rows, encoded_now = self._encoded(batch.batch_id)
            self._num_given_back = 0
        except CapReached as cap:
            failure = self._cap_reached = str(cap)
        except WorkerSick as sick:
            failure = str(sick)
            # Whatever is wrong with it, a new one may be well.
            self._encoder = None
            time.sleep(min(self._patience_s * 2**self._num_given_back, MAX_WAIT_S))
            self._num_given_back += 1
        outcomes = [row["outcome"] for row in rows]
        counted = ("prompt_tokens", "cached_tokens", "output_tokens", "num_calls")
        return EncodedBatch(
            batch_id=batch.batch_id,
            encoded=path,
            failure=failure,
            is_stopped=bool(self._cap_reached),
            worker=self._worker,
            num_segments=len(rows),
            num_segments_encoded=len(encoded_now),
            num_segments_rejected=sum(outcome in ("partial", "rejected") for outcome in outcomes),
            **{f"num_{name}": outcomes.count(name) for name in OUTCOMES},
            num_refused=sum(
                refusal["reason"] != OTHER_LANGUAGE for row in rows for refusal in row.get("refusals") or []
            ),
            **{name: sum(row[name] for row in encoded_now) for name in counted},
            encode_load_s=self._load_s,
            encode_s=time.monotonic() - started_s - self._load_s,
        )

    def _encoded(self, batch_id: str) -> tuple[str, list[dict], list[dict]]:
        """Path of the batch's answers, the answers, and those among them that were paid for now."""
        folder = self._folder(batch_id)
        plan = self._files.get_table(plan_path(batch_id)).to_pylist()
        rows = self._staged([segment["segment_id"] for segment in plan], self._files.paths(folder))
        missing = [segment for segment in plan if segment["segment_id"] not in rows]
        for segment, encoding in self._encode(batch_id, missing):
            rows[segment["segment_id"]] = encoded_row(segment, encoding)
        ordered = [rows[segment["segment_id"]] for segment in plan]
        table = pa.Table.from_pylist(ordered, schema=encoded_schema())
        path = put_as_content(self._files, f"{folder}/rows", table)
        # What it takes the place of: failures of an earlier attempt, single answers, what a forgetting left.
        self._files.delete([old for old in self._files.paths(folder) if old != path])
        return path, ordered, [rows[segment["segment_id"]] for segment in missing]

    def _staged(self, segment_ids: list[str], paths: list[str]) -> dict[str, dict]:
        """Answers to these segments out of the batch's own staged files, and out of other batches."""
        elsewhere = dict.fromkeys(self._paid[one] for one in segment_ids if one in self._paid)
        found: dict[str, dict] = {}
        wanted = set(segment_ids)
        for path in [*paths, *elsewhere]:
            found |= {key: row for key, row in _answers(self._files, path).items() if key in wanted}
        return found

    def _encode(self, batch_id: str, segments: list[dict]) -> list[tuple[dict, Encoding]]:
        """Encode as one batch; where that fails, or killed this actor before, find out who is to blame."""
        found = [(segment, self._skipped(segment)) for segment in segments]
        unasked = [(segment, encoding) for segment, encoding in found if encoding]
        asked = [segment for segment, encoding in found if not encoding]
        if not asked:
            return unasked
        attempts = Attempts(self._files, self._attempt, batch_id)
        # Loading waits for work: a run with nothing to encode never loads a model.
        encoder = self._loaded(attempts)
        if attempts.first():
            try:
                encodings = encoder.encode(asked)
                attempts.offer_probe(batch_id)
                return unasked + list(zip(asked, encodings, strict=True))
            except (CapReached, WorkerSick):
                attempts.give_back()
                raise
            except Exception as error:
                print(f"encoder: batch {batch_id} failed ({error}); going on segment by segment", flush=True)
        try:
            return unasked + self._encode_each(batch_id, asked, encoder, attempts)
        except (CapReached, WorkerSick):
            attempts.give_back()
            raise

    def _loaded(self, attempts: Attempts) -> Encoder:
        if self._encoder is None:
            with attempts.alone(f"load-{attempts.node}") as is_harmless:
                if not is_harmless:
                    raise WorkerSick("its processes died while they loaded the encoder")
                try:
                    self._encoder = self._load()
                except Exception as error:
                    traceback.print_exc()
                    detail = f"{type(error).__name__}: {error}"
                    raise WorkerSick(f"it cannot load the encoder: {detail}") from error
            self._load_s = self._encoder.load_s
        return self._encoder

    def _encode_each(
        self, batch_id: str, segments: list[dict], encoder: Encoder, attempts: Attempts
    ) -> list[tuple[dict, Encoding]]:
        """Encode one by one, each answer staged at once: the next segment may kill this process."""
        is_well, encodings, errors = self._passes_probe(encoder, attempts), [], []
        # First those at which nobody died, which tell whether the worker is well.
        for segment in sorted(segments, key=lambda one: attempts.num_deaths(one["segment_id"])):
            attempts.check_worker()
            with attempts.alone(segment["segment_id"]) as is_harmless:
                if not is_harmless:
                    detail = "processes of the encoder died on this segment, again and again"
                    encodings.append((segment, _failed(segment, "encoder_crashed", detail)))
                    continue
                try:
                    (encoding,) = encoder.encode([segment])
                except (CapReached, WorkerSick):
                    raise
                except Exception as error:
                    errors.append(f"{type(error).__name__}: {error}")
                    encodings.append((segment, _failed(segment, "encoder_error", errors[-1])))
                    continue
            attempts.done()
            encodings.append((segment, encoding))
            table = pa.Table.from_pylist([encoded_row(segment, encoding)], schema=encoded_schema())
            put_as_content(self._files, f"{self._folder(batch_id)}/one", table)
        if len(errors) == len(segments) > 1 and not is_well:
            # Rather than reject everybody's data.
            raise WorkerSick(
                f"all {len(errors)} segments of batch {batch_id} failed, the last with {errors[-1]}"
            )
        return encodings

    def _passes_probe(self, encoder: Encoder, attempts: Attempts) -> bool:
        """Whether this worker can encode what one has encoded in this run; False where there is nothing yet.

        WorkerSick where it cannot, or its processes died when they tried.
        """
        if (probe := attempts.probe()) is None:
            return False
        plan = self._files.get_table(plan_path(probe)).to_pylist()
        with attempts.alone(f"probe-{attempts.node}") as is_harmless:
            if not is_harmless:
                raise WorkerSick("its processes died on what had been encoded before")
            try:
                encoder.encode([next(segment for segment in plan if not self._skipped(segment))])
            except CapReached:
                raise
            except Exception as error:
                detail = f"{type(error).__name__}: {error}"
                raise WorkerSick(f"it fails on what had been encoded before, with {detail}") from error
        attempts.done()
        return True


def is_answer(row: dict) -> bool:
    """Whether the encoder answered, well or badly. What failed for another reason is tried again."""
    return not any(rejection["reason"] in ENGINE_FAILURES for rejection in row["rejections"])


def _failed(segment: dict, reason: str, raw: str) -> Encoding:
    turns = sorted({part["turn_index"] for part in segment["current"]})
    return Encoding(outcome="rejected", rejections=[{"reason": reason, "turns": turns, "raw": raw}])


def encoded_row(segment: dict, encoding: Encoding) -> dict:
    """A row of `encoded_schema()`."""
    names = [
        "segment_id",
        "user_id",
        "conversation_id",
        "session_id",
        "session_time",
        "first_turn",
        "last_turn",
        "start_char",
        "end_char",
        "turns",
    ]
    return {name: segment[name] for name in names} | vars(encoding)


# --- embed --------------------------------------------------------------------------------------------


_EMBEDDED = ("num_records", "num_turns", "num_rejections")


class EmbedStage:
    """Actor: answers of a batch -> rows of the store's tables, with vectors, without the run's columns.

    They lie in tables/ENCODER-EMBEDDER/HASH/, where HASH is of the answers: of others, there are others.
    """

    def __init__(self, encoder: str, profile: EmbedderProfile, files: Files):
        self._files, self._profile = files, profile
        self._sealed = Sealed(files, f"tables/{encoder}-{profile.fingerprint}")
        self._embedder: Embedder | None = None
        self._load_s = 0.0

    def __call__(self, batch: EncodedBatch) -> EmbeddedBatch:
        started_s, self._load_s = time.monotonic(), 0.0
        found = vars(batch)
        if not batch.failure:
            try:
                found = found | self._embedded(Path(batch.encoded).stem.rpartition("-")[2], batch.encoded)
            except Exception as error:
                traceback.print_exc()
                found = found | {"failure": f"it cannot embed: {type(error).__name__}: {error}"}
        embed_s = time.monotonic() - started_s - self._load_s
        return EmbeddedBatch(**found, embed_load_s=self._load_s, embed_s=embed_s)

    def _embedded(self, key: str, path: str) -> dict:
        sealed = self._sealed.find(key)
        if sealed is None:
            if self._embedder is None:
                self._embedder = Embedder(self._profile)
                self._load_s = self._embedder.load_s
            segments = self._files.get_table(path).to_pylist()
            rows = self._rows(segments, self._embedder)
            tables = {name: known_columns(*of_table) for name, of_table in rows.items()}
            counts = {name: tables[name.removeprefix("num_")].num_rows for name in _EMBEDDED}
            # What a gate refused is kept beside them, but it is no failure.
            counts["num_rejections"] = sum(len(segment["rejections"]) for segment in segments)
            sealed = self._sealed.put(key, tables, dim=self._embedder.dim, **counts)
        users = self._users(sealed["tables"].get("turns")) if self._profile.turns else []
        return sealed | {"users": tuple(users)}

    def _users(self, path: str | None) -> list[str]:
        if path is None:
            return []
        return self._files.get_table(path, columns=["user_id"]).column("user_id").unique().to_pylist()

    def _rows(self, segments: list[dict], embedder: Embedder) -> dict[str, tuple[list[dict], pa.Schema]]:
        turns = [turn_row(segment, turn) for segment in segments for turn in segment["turns"]]
        records = [record_row(segment, record) for segment in segments for record in segment["records"]]
        # An evolvable embedder reads turns later, all of a user's together: see cluster.evolvable.turns.
        own_turns = [] if self._profile.turns else turns
        texts = [*map(TEXTS["turns"], own_turns), *map(TEXTS["records"], records)]
        for row, vector in zip(own_turns + records, embedder.embed(texts), strict=True):
            row["vector"] = vector
        dim = embedder.dim
        return {
            "turns": (turns, turns_schema(dim)),
            "records": (records, records_schema(dim)),
            "rejections": ([row for s in segments for row in segment_rejections(s)], REJECTIONS_SCHEMA),
            "segments": ([ledger_row(segment) for segment in segments], SEGMENTS_SCHEMA),
        }


_KEYS = ("segment_id", "user_id", "conversation_id", "session_id", "session_time")


def turn_row(segment: dict, turn: dict) -> dict:
    """A row of the table `turns`; its id stays when the turn's text is edited."""
    identity = joined(segment["user_id"], segment["session_id"], str(turn["turn_index"]))
    return {"turn_id": hashlib.sha256(identity.encode()).hexdigest()[:32], **_keys(segment), **turn}


def record_row(segment: dict, record: dict) -> dict:
    """A row of the table `records`, first revision."""
    evidence = [
        {"session_id": segment["session_id"], "turn_index": index} for index in record["evidence_turns"]
    ]
    return {
        **_keys(segment),
        **{name: value for name, value in record.items() if name != "evidence_turns"},
        "revision": 1,
        "normalized_text": f"{record['memory_type']}: {record['semantic_text']}",
        "evidence": evidence,
    }


def ledger_row(segment: dict) -> dict:
    """A row of the table `segments`."""
    names = (
        "first_turn last_turn start_char end_char outcome num_calls prompt_tokens cached_tokens output_tokens"
    )
    return {
        **_keys(segment),
        **{name: segment[name] for name in names.split()},
        "num_records": len(segment["records"]),
    }


def segment_rejections(segment: dict) -> list[dict]:
    """Rows of the table `rejections`: parts of a segment that gave no complete answer, records that a gate
    refused, and the segment itself where its language is not read."""
    unread = "turns {turns} gave no complete answer; retry with --retry-rejected"
    return [
        *_kept_aside(segment, segment["rejections"], "encoder", unread),
        *_kept_aside(segment, segment.get("refusals") or [], "gate", "a record of turns {turns} was refused"),
    ]


_DETAILS = {OTHER_LANGUAGE: "turns {turns} are in {raw!r}, a language that the encoder does not read"}
"""What is said of a reason, where it is not what the stage says of all."""


def _kept_aside(segment: dict, found: list[dict], stage: str, detail: str) -> list[dict]:
    prefix = "" if stage == "encoder" else f"{stage} "
    return [
        {
            "rejection_id": hashlib.sha256(f"{segment['segment_id']}\0{prefix}{index}".encode()).hexdigest()[
                :32
            ],
            "stage": stage,
            "source": segment["segment_id"],
            "user_id": segment["user_id"],
            "session_id": segment["session_id"],
            "reason": rejection["reason"],
            "detail": _DETAILS.get(rejection["reason"], detail).format(**rejection),
            "raw": rejection["raw"][:MAX_RAW_CHARS],
        }
        for index, rejection in enumerate(found)
    ]


def _keys(segment: dict) -> dict:
    return {name: segment[name] for name in _KEYS}
