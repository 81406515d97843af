"""What a backfill stages, and which of it is paid for.

    unit of the archive --cut_stage--> plan/BATCH --encode_stage--> encoded/ENCODER/BATCH/
        --embed_stage--> tables/.../ENCODED/

A batch's id is a hash of its segments, and each stage stages at once what it made. What units leave over is
joined to batches of several (`join_batches`). An answer that is there has been paid for and is not asked for
again, in whichever batch it stands: it is known by its segment's id.
Rows of the tables go by a hash of the answers that they were made from. That is all there is to resuming.
"""

import hashlib
from collections.abc import Iterable

import pyarrow as pa

from cluster.store.files import Files
from schemas.carriers import Batch

ENGINE_FAILURES = ("encoder_error", "encoder_crashed")
"""Reasons of a rejection that are no answer of the model."""


def plan_path(batch_id: str) -> str:
    """Of a batch's segments, rows of SEGMENT_SCHEMA."""
    return f"plan/{batch_id}.parquet"


MAX_OVER = 1.25
"""How many times the wanted size a joined batch may have."""


def join_batches(batches: Iterable[Batch], size: int) -> list[Batch]:
    """The same segments in the same order, in batches of about `size`: a unit's last batch is shorter, and so
    is the only one of a unit of short sessions."""
    groups: list[list[Batch]] = []
    for batch in batches:
        num = sum(one.num_segments for one in groups[-1]) if groups else size
        if num >= size or num + batch.num_segments > MAX_OVER * size:
            groups.append([])
        groups[-1].append(batch)
    return [_joined(group) for group in groups]


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    ids = tuple(batch.batch_id for batch in batches)
    return Batch(
        batch_id=hashlib.sha256("".join(ids).encode()).hexdigest()[:24],
        num_segments=sum(batch.num_segments for batch in batches),
        num_tokens=sum(batch.num_tokens for batch in batches),
        num_other_language=sum(batch.num_other_language for batch in batches),
        joined=ids,
    )


def encoded_folder(encoder: str, batch_id: str) -> str:
    """Of a batch's answers by the encoder with this fingerprint."""
    return f"encoded/{encoder}/{batch_id}"


def segments_paid(files: Files, encoder: str, planned: set[str]) -> dict[str, str]:
    """Answered segments that lie staged for other batches than this plan's: segment id -> path.

    There are some when a killed run is followed by one over a rewritten archive, whose batches are others.
    """
    paid: dict[str, str] = {}
    for path in files.paths(f"encoded/{encoder}"):
        if path.split("/")[2] not in planned:
            paid |= dict.fromkeys(answers(files, path, columns=["segment_id", "rejections"]), path)
    return paid


def answers(files: Files, path: str, columns: list[str] | None = None) -> dict[str, dict]:
    """Staged answers by segment. A file that is gone or damaged has none: that is only work to do again."""
    try:
        rows = files.get_table(path, columns).to_pylist()
    except (OSError, pa.ArrowInvalid):
        return {}
    return {row["segment_id"]: row for row in rows if is_answer(row)}


def is_answer(row: dict) -> bool:
    """Whether the encoder answered, well or badly. What failed for another reason is tried again."""
    return not any(rejection["reason"] in ENGINE_FAILURES for rejection in row["rejections"])
