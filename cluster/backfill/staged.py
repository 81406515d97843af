"""Paths of the files that a backfill stages, and which segments have a paid answer there.

    unit of the archive --cut_stage--> plan/BATCH --encode_stage--> encoded/ENCODER/BATCH/
        --embed_stage--> tables/.../ENCODED/

A batch's id is a hash of its segments. Each stage stages its result at once. Segments left over by several
units are joined to a batch (`join_batches`). A staged answer is never asked for again, whichever batch it is
in: it is found by the id of its segment. Staged rows of the tables are found by a hash of the answers that
they were made from. A run resumes from these files alone.
"""

import hashlib
from collections.abc import Iterable

import pyarrow as pa

from cluster.store.files import Files
from schemas.stage_items import Batch

ENGINE_FAILURES = ("encoder_error", "encoder_crashed")
"""Reasons of rejections for which the model gave no answer: the engine failed, or its process died."""


def plan_path(batch_id: str) -> str:
    """Path of the segments of a batch, rows of SEGMENT_SCHEMA."""
    return f"plan/{batch_id}.parquet"


MAX_OVER = 1.25
"""How many times the wanted size a joined batch may have."""


def join_batches(batches: Iterable[Batch], size: int) -> list[Batch]:
    """The same segments in the same order, in batches of about `size`: a unit's last batch is shorter, and so
    is the only one of a unit of short sessions."""
    groups: list[list[Batch]] = []
    num = size
    for batch in batches:
        if num >= size or num + batch.num_segments > MAX_OVER * size:
            groups.append([])
            num = 0
        groups[-1].append(batch)
        num += batch.num_segments
    return [_joined(group) for group in groups]


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    ids = tuple(batch.batch_id for batch in batches)
    return Batch(
        batch_id=hashlib.sha256("".join(ids).encode()).hexdigest()[:24],
        num_segments=sum(batch.num_segments for batch in batches),
        num_tokens=sum(batch.num_tokens for batch in batches),
        num_asked=sum(batch.num_asked for batch in batches),
        num_other_language=sum(batch.num_other_language for batch in batches),
        joined=ids,
    )


def encoded_folder(encoder: str, batch_id: str) -> str:
    """Folder of the answers to a batch by the encoder with this fingerprint."""
    return f"encoded/{encoder}/{batch_id}"


def segments_paid(files: Files, encoder: str, planned: set[str]) -> dict[str, str]:
    """Segments with a staged answer in other batches than those of this run: segment id -> path.

    There are some if the archive was rewritten after a killed run, so that this run has other batches.
    """
    paid: dict[str, str] = {}
    for path in files.paths(f"encoded/{encoder}"):
        if path.split("/")[2] not in planned:
            paid |= dict.fromkeys(answers(files, path, columns=["segment_id", "rejections"]), path)
    return paid


def answers(files: Files, path: str, columns: list[str] | None = None) -> dict[str, dict]:
    """Staged answers by segment id. A missing or damaged file has none: its segments are encoded again."""
    try:
        rows = files.get_table(path, columns).to_pylist()
    except (OSError, pa.ArrowInvalid):
        return {}
    return {row["segment_id"]: row for row in rows if is_answer(row)}


def is_answer(row: dict) -> bool:
    """Whether the model answered, well or badly. What the engine failed on is tried again."""
    return not any(rejection["reason"] in ENGINE_FAILURES for rejection in row["rejections"])
