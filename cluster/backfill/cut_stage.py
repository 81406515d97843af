"""The stage `cut`: a unit (row group) of the archive becomes batches of segments not paid for yet."""

import collections
import functools
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cluster.backfill.archive import Unit, read_rows
from cluster.backfill.encoder import skipped
from cluster.backfill.ledger import Ledger, digest_of
from cluster.backfill.redact import Rules, redact, redact_turns
from cluster.backfill.segmenter import Offsets, cut_session, tokenizer_offsets
from cluster.backfill.staged import plan_path
from cluster.backfill.table_rows import rejection_row
from cluster.backfill.watermark import ROW
from cluster.forget.forgotten import WITHHELD, Forgotten
from cluster.models.sources import tokenizer_folder
from cluster.store.files import Files
from schemas.profiles.encoder import EncoderProfile
from schemas.stage_items import BadRow, Batch, UnitCut
from schemas.store import REJECTIONS_SCHEMA, SEGMENT_SCHEMA

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

NOTHING_FORGOTTEN = Forgotten("", frozenset())

NUM_SHOWN = 3
"""Times of a unit, and of a run, that cannot be used, and are shown."""


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

    `leave_out` gives the reason why a session of the archive is not wanted; empty if it is wanted.
    """
    offsets = segment_offsets(profile)
    pending: list[dict] = []
    batches: list[Batch] = []
    closed: list[str] = []
    bad: list[BadRow] = []
    unknown_times: list[str] = []
    left_out: collections.Counter[str] = collections.Counter()
    num_sessions = num_segments = num_redactions = num_forgotten = 0
    rows = np.zeros(unit.num_rows, ROW)
    for read in read_rows(archive, unit):
        row = read.found
        ids: tuple[object, object] = (
            (row.user_id, row.session_id) if isinstance(row, BadRow) else (row["user_id"], row["session_id"])
        )
        if forgotten.has_session(*ids):
            num_forgotten += 1
            rows[read.number - unit.first_row]["is_forgotten"] = read.is_settled
            continue
        if isinstance(row, BadRow):
            withheld = {"raw": "", "detail": WITHHELD} if forgotten.may_show(*ids, row.raw) else {}
            bad.append(replace(row, **withheld))
            continue
        if leave_out and (reason := leave_out(row)):
            left_out[reason] += 1
            continue
        unknown_times += read.unknown_times
        num_redacted = redact_session(row, contacts=mask_contacts, rules=redaction_rules)
        is_forgotten = forgotten.blank_turns(row) > 0
        segments = cut_session(row, offsets, profile)
        if read.is_settled:
            digest = digest_of(segment["segment_id"] for segment in segments)
            rows[read.number - unit.first_row] = (digest, len(segments), num_redacted, True, is_forgotten)
        found = compare(row, segments, ledger)
        num_sessions += 1
        num_segments += len(segments)
        num_redactions += num_redacted
        num_forgotten += is_forgotten
        pending += found.to_encode
        closed += found.closed
        # Staged at once: the segments of a row group of long sessions may not fit into memory.
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
        num_unknown_times=len(unknown_times),
        unknown_times=tuple(unknown_times[:NUM_SHOWN]),
        num_rejections=len(bad),
        rejections=rejections if bad else "",
        batches=tuple(batches),
        closed_segments=tuple(closed),
        rows=rows.tobytes(),
    )


def redact_session(session: dict, *, contacts: bool, rules: Rules) -> int:
    """Redact turns and speakers of an archive row in place; returns the number of redactions."""
    num_redactions = 0
    contents = redact_turns([turn["content"] for turn in session["turns"]], contacts=contacts, rules=rules)
    for turn, content in zip(session["turns"], contents, strict=True):
        speaker = redact(turn["speaker"] or "", contacts=contacts, rules=rules)
        turn["content"], turn["speaker"] = content.text, speaker.text or turn["speaker"]
        num_redactions += sum(content.counts.values()) + sum(speaker.counts.values())
    return num_redactions


@dataclass(frozen=True)
class SessionCut:
    """A session's segments, compared with those that the store has of it."""

    to_encode: list[dict]
    """Rows of SEGMENT_SCHEMA that are not paid for."""
    closed: list[str]
    """Ids of segments of the store that are replaced, or no longer in the archive."""


def compare(session: dict, segments: list[dict], ledger: Ledger) -> SessionCut:
    """Which segments of a session are to be encoded, and which segments of the store are to be closed."""
    user_id, session_id = session["user_id"], session["session_id"]
    known, ids = ledger.of_session(user_id, session_id), [segment["segment_id"] for segment in segments]
    to_encode = [segment for segment in segments if not known.get(segment["segment_id"], False)]
    # A known segment that is encoded again replaces itself.
    again = [segment["segment_id"] for segment in to_encode if segment["segment_id"] in known]
    return SessionCut(to_encode, [*ledger.gone(user_id, session_id, set(ids)), *again])


def _stage_batch(batch: list[dict], profile: EncoderProfile, files: Files) -> Batch:
    """Stage the segments of a batch; returns the batch."""
    batch_id = hashlib.sha256("".join(s["segment_id"] for s in batch).encode()).hexdigest()[:24]
    files.put_rows(plan_path(batch_id), batch, SEGMENT_SCHEMA)
    unasked = [skipped(segment, profile) for segment in batch]
    return Batch(
        batch_id,
        num_segments=len(batch),
        num_tokens=sum(s["num_tokens"] for s, one in zip(batch, unasked, strict=True) if one is None),
        num_asked=sum(one is None for one in unasked),
        num_other_language=sum(bool(one and one.refusals) for one in unasked),
    )


def cut_sessions(sessions: Iterable[dict], profile: EncoderProfile) -> list[dict]:
    """Rows of SEGMENT_SCHEMA of sessions, without redaction and without asking what the store has."""
    offsets = segment_offsets(profile)
    return [segment for session in sessions for segment in cut_session(session, offsets, profile)]


def segment_offsets(profile: EncoderProfile) -> Offsets:
    """Token offsets for cluster.backfill.segmenter, by the tokenizer of the profile's base."""
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
