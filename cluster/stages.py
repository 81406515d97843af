"""The stages of a backfill, as workers run them. Rows between them are references; data is in staged files.

    unit of the archive --cut--> plan/BATCH --encode--> encoded/ENCODER/BATCH --embed--> tables/.../BATCH

A batch's id is a hash of its segments, and a stage's output for it is put at once: a stage whose output is
there has been paid for and is skipped, whoever asks again. That is all there is to resuming.
"""

import collections
import functools
import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from cluster.archive import BadRow, Unit, read_unit
from cluster.attempts import Attempts
from cluster.embedder import TEXTS, Embedder
from cluster.encoder import Encoder, Encoding
from cluster.erasure.forgotten import Forgotten
from cluster.files import Files
from cluster.ledger import Ledger
from cluster.models import tokenizer_folder
from cluster.redact import redact
from cluster.segmenter import Offsets, cut_session, tokenizer_offsets
from schemas.profile import EmbedderProfile, EncoderProfile
from schemas.store import (
    REJECTIONS_SCHEMA,
    SEGMENT_SCHEMA,
    SEGMENTS_SCHEMA,
    encoded_schema,
    records_schema,
    turns_schema,
)

OUTCOMES = ("complete", "split", "partial", "rejected", "skipped")

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
) -> dict:
    """Read a row group, redact, cut into segments, and stage what is not paid for yet as batches.

    `leave_out` gives the reason why a session, as the archive has it, is not wanted; empty where it is.
    Returns counts, `batches` (one reference each) and `closed_segments` (ids that the archive no longer has).
    """
    offsets = segment_offsets(profile)
    pending, closed, bad, left_out = [], [], [], collections.Counter()
    num_sessions = num_segments = num_redactions = num_forgotten = 0
    for row in read_unit(archive, unit):
        ids = (
            (row.user_id, row.session_id) if isinstance(row, BadRow) else (row["user_id"], row["session_id"])
        )
        if forgotten.has_session(*ids):
            num_forgotten += 1
            continue
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        if leave_out and (reason := leave_out(row)):
            left_out[reason] += 1
            continue
        num_sessions += 1
        for turn in row["turns"]:
            redacted = redact(turn["content"])
            turn["content"] = redacted.text
            num_redactions += sum(redacted.counts.values())
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
    batches = []
    for start in range(0, len(pending), batch_size):
        batch = pending[start : start + batch_size]
        batch_id = hashlib.sha256("".join(s["segment_id"] for s in batch).encode()).hexdigest()[:24]
        files.put_rows(plan_path(batch_id), batch, SEGMENT_SCHEMA)
        batches.append(
            {
                "batch_id": batch_id,
                "num_segments": len(batch),
                "num_tokens": sum(s["num_tokens"] for s in batch if profile.asks_about(s)),
            }
        )
    rejections = f"rejections/{unit.unit_id}.parquet"
    if bad:
        files.put_rows(rejections, [rejection_row(row) for row in bad], REJECTIONS_SCHEMA)
    return {
        "unit_id": unit.unit_id,
        "num_sessions": num_sessions,
        "num_segments": num_segments,
        "num_redactions": num_redactions,
        "num_forgotten": num_forgotten,
        "left_out": left_out,
        "num_rejections": len(bad),
        "rejections": rejections if bad else "",
        "batches": batches,
        "closed_segments": closed,
    }


def segment_offsets(profile: EncoderProfile) -> Offsets:
    """What cluster.segmenter cuts sessions by, with the tokenizer of the profile's base."""
    return tokenizer_offsets(_tokenizer(profile))


@functools.lru_cache(maxsize=2)
def _tokenizer(profile: EncoderProfile):
    folder = tokenizer_folder(profile)
    if (folder / "tokenizer.json").is_file():
        # Importing transformers would cost every worker ten seconds for the same tokenizer.
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).backend_tokenizer


def rejection_row(bad: BadRow) -> dict:
    """A row of REJECTIONS_SCHEMA. Raw text is redacted like every other text, then shortened."""
    raw = _redact_shown(bad.raw.encode("utf-8", "backslashreplace").decode())[:MAX_RAW_CHARS]
    content = "\0".join([bad.source, bad.reason, raw])
    return {
        "rejection_id": hashlib.sha256(content.encode()).hexdigest()[:32],
        "stage": "archive",
        "source": bad.source,
        "user_id": bad.user_id,
        "session_id": bad.session_id,
        "reason": bad.reason,
        "detail": _redact_shown(bad.detail),
        "raw": raw,
    }


def _redact_shown(text: str) -> str:
    # In a repr a line break is `\n`, whose n would glue to the secret behind it and hide it.
    return redact(_ESCAPED_SPACE.sub(lambda escape: "\n" if escape[0] == r"\n" else " ", text)).text


# --- encode -------------------------------------------------------------------------------------------


def plan_path(batch_id: str) -> str:
    return f"plan/{batch_id}.parquet"


def encoded_path(encoder: str, batch_id: str) -> str:
    return f"encoded/{encoder}/{batch_id}.parquet"


def segments_paid(files: Files, encoder: str, planned: set[str]) -> dict[str, str]:
    """Segments of encoded batches that this plan does not have: segment id -> batch id.

    There are some when a killed run is followed by one over a rewritten archive, whose batches are others.
    """
    paid = {}
    for path in files.paths(f"encoded/{encoder}"):
        batch_id = Path(path).stem
        if batch_id not in planned:
            ids = files.get_table(path, columns=["segment_id"]).column("segment_id").to_pylist()
            paid |= dict.fromkeys(ids, batch_id)
    return paid


class EncodeStage:
    """Actor: plan/BATCH -> encoded/ENCODER/BATCH.

    `paid` maps ids of segments that an earlier, differently cut batch has encoded to that batch's id.
    """

    def __init__(
        self, profile: EncoderProfile, files: Files, attempt: str, paid: dict[str, str], engine: dict
    ):
        self._files, self._attempt, self._paid = files, attempt, paid
        self._path = functools.partial(encoded_path, profile.fingerprint)
        self._encoder: Encoder | None = None
        self._asks_about = profile.asks_about
        self._load = functools.partial(Encoder, profile, **engine)

    def __call__(self, row: dict) -> dict:
        batch_id, started_s = row["batch_id"], time.monotonic()
        load_s, encoded_now = 0.0, []
        rows = self._answered(batch_id)
        if rows is None:
            plan = self._files.get_table(plan_path(batch_id)).to_pylist()
            rows = self._reuse([segment["segment_id"] for segment in plan])
            missing = [segment for segment in plan if segment["segment_id"] not in rows]
            if self._encoder is None and any(map(self._asks_about, missing)):
                # Loading waits for work: a run with nothing to encode never loads a model.
                self._encoder = self._load()
                load_s = self._encoder.load_s
            for segment, encoding in zip(missing, self._encode(batch_id, missing), strict=True):
                rows[segment["segment_id"]] = encoded_row(segment, encoding)
            encoded_now = [rows[segment["segment_id"]] for segment in missing]
            ordered = [rows[segment["segment_id"]] for segment in plan]
            self._files.put_rows(self._path(batch_id), ordered, encoded_schema())
        outcomes = [row["outcome"] for row in rows.values()]
        counted = ("prompt_tokens", "cached_tokens", "output_tokens", "num_calls")
        return {
            "batch_id": batch_id,
            "num_segments": len(rows),
            "num_segments_encoded": len(encoded_now),
            "num_segments_rejected": sum(outcome in ("partial", "rejected") for outcome in outcomes),
            **{f"num_{name}": outcomes.count(name) for name in OUTCOMES},
            **{name: sum(row[name] for row in encoded_now) for name in counted},
            "encode_load_s": load_s,
            "encode_s": time.monotonic() - started_s - load_s,
        }

    def _answered(self, batch_id: str) -> dict[str, dict] | None:
        """The batch's staged rows by segment, if it was encoded, and encoded whole."""
        if not self._files.exists(self._path(batch_id)):
            return None
        rows = {row["segment_id"]: row for row in self._files.get_table(self._path(batch_id)).to_pylist()}
        return rows if all(map(is_answer, rows.values())) else None

    def _reuse(self, segment_ids: list[str]) -> dict[str, dict]:
        """Staged rows of these segments out of other batches."""
        wanted: dict[str, set[str]] = {}
        for segment_id in segment_ids:
            if segment_id in self._paid:
                wanted.setdefault(self._paid[segment_id], set()).add(segment_id)
        found = {}
        for batch_id, ids in wanted.items():
            for row in self._files.get_table(self._path(batch_id)).to_pylist():
                if row["segment_id"] in ids and is_answer(row):
                    found[row["segment_id"]] = row
        return found

    def _encode(self, batch_id: str, segments: list[dict]) -> list[Encoding]:
        """Encode as one batch; where that fails, or killed this actor before, find the segment to blame."""
        if not any(map(self._asks_about, segments)):
            return [Encoding(outcome="skipped") for _ in segments]
        attempts = Attempts(self._files, self._attempt, batch_id)
        if attempts.first():
            try:
                return self._encoder.encode(segments)
            except Exception as error:
                print(f"encoder: batch {batch_id} failed ({error}); going on segment by segment", flush=True)
        encodings, num_failed = [], 0
        for segment in segments:
            with attempts.alone(segment["segment_id"]) as is_harmless:
                if not is_harmless:
                    detail = "the encoder's process died on this segment"
                    encodings.append(_failed(segment, "encoder_crashed", detail))
                    continue
                try:
                    encodings += self._encoder.encode([segment])
                except Exception as error:
                    num_failed += 1
                    encodings.append(_failed(segment, "encoder_error", f"{type(error).__name__}: {error}"))
        if num_failed == len(segments) and num_failed > 1:
            self._encoder = None
            # Not the segments' fault: let Ray start the actor anew rather than reject everybody's data.
            raise RuntimeError(f"encoder: all {num_failed} segments of batch {batch_id} failed")
        return encodings


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


def table_path(encoder: str, embedder: str, table: str, batch_id: str) -> str:
    return f"tables/{encoder}-{embedder}/{table}/{batch_id}.parquet"


class EmbedStage:
    """Actor: encoded/ENCODER/BATCH -> rows of the store's tables, with vectors, without the run's columns."""

    def __init__(self, encoder: str, profile: EmbedderProfile, files: Files):
        self._files, self._encoder, self._profile = files, encoder, profile
        self._embedder: Embedder | None = None

    def __call__(self, row: dict) -> dict:
        started_s = time.monotonic()
        path = functools.partial(
            table_path, self._encoder, self._profile.fingerprint, batch_id=row["batch_id"]
        )
        load_s = 0.0
        # The ledger's rows are put last: where they are, the others are complete.
        if not self._files.exists(path(table="segments")):
            if self._embedder is None:
                self._embedder = Embedder(self._profile)
                load_s = self._embedder.load_s
            segments = self._files.get_table(encoded_path(self._encoder, row["batch_id"])).to_pylist()
            for table, (rows, schema) in self._rows(segments).items():
                known = [field for field in schema if rows and field.name in rows[0]]
                if rows:
                    self._files.put_rows(path(table=table), rows, pa.schema(known))
        num_rows = {}
        for table in ("records", "turns", "rejections"):
            there = self._files.exists(path(table=table))
            num_rows[table] = self._files.get_table(path(table=table), columns=[]).num_rows if there else 0
        return row | {
            **{f"num_{table}": count for table, count in num_rows.items()},
            "users": json.dumps(self._users(path(table="turns")) if self._profile.turns else []),
            "dim": self._dim(path(table="records" if self._profile.turns else "turns")),
            "embed_load_s": load_s,
            "embed_s": time.monotonic() - started_s - load_s,
        }

    def _dim(self, path: str) -> int:
        if self._embedder is not None:
            return self._embedder.dim
        return (
            self._files.get_table(path, columns=["vector"]).schema.field("vector").type.list_size
            if self._files.exists(path)
            else 0
        )

    def _users(self, path: str) -> list[str]:
        if not self._files.exists(path):
            return []
        return self._files.get_table(path, columns=["user_id"]).column("user_id").unique().to_pylist()

    def _rows(self, segments: list[dict]) -> dict[str, tuple[list[dict], pa.Schema]]:
        turns = [turn_row(segment, turn) for segment in segments for turn in segment["turns"]]
        records = [record_row(segment, record) for segment in segments for record in segment["records"]]
        # An evolvable embedder reads turns later, all of a user's together: see cluster.evolvable.turns.
        own_turns = [] if self._profile.turns else turns
        texts = [*map(TEXTS["turns"], own_turns), *map(TEXTS["records"], records)]
        for row, vector in zip(own_turns + records, self._embedder.embed(texts), strict=True):
            row["vector"] = vector
        dim = self._embedder.dim
        return {
            "turns": (turns, turns_schema(dim)),
            "records": (records, records_schema(dim)),
            "rejections": ([row for s in segments for row in segment_rejections(s)], REJECTIONS_SCHEMA),
            "segments": ([ledger_row(segment) for segment in segments], SEGMENTS_SCHEMA),
        }


_KEYS = ("segment_id", "user_id", "conversation_id", "session_id", "session_time")


def turn_row(segment: dict, turn: dict) -> dict:
    """A row of the table `turns`; its id stays when the turn's text is edited."""
    identity = "\0".join([segment["user_id"], segment["session_id"], str(turn["turn_index"])])
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
    """Rows of the table `rejections` for the parts of a segment that gave no complete answer."""
    return [
        {
            "rejection_id": hashlib.sha256(f"{segment['segment_id']}\0{index}".encode()).hexdigest()[:32],
            "stage": "encoder",
            "source": segment["segment_id"],
            "user_id": segment["user_id"],
            "session_id": segment["session_id"],
            "reason": rejection["reason"],
            "detail": f"turns {rejection['turns']} gave no complete answer; retry with --retry-rejected",
            "raw": rejection["raw"][:MAX_RAW_CHARS],
        }
        for index, rejection in enumerate(segment["rejections"])
    ]


def _keys(segment: dict) -> dict:
    return {name: segment[name] for name in _KEYS}
