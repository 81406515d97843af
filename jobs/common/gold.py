"""What people wrote down of the conversations of an archive: the folder `_gold` that jobs.sample leaves."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.common.cli import UsageError

if TYPE_CHECKING:
    from cluster.evaluate.memories import Found


def read_gold(folder: str, option: str = "--gold") -> list[dict]:
    """Rows of memories.jsonl. UsageError where there are none, or none with keys."""
    path = Path(folder) / "memories.jsonl"
    if not path.is_file():
        raise UsageError(f"{option} {folder}: has no memories.jsonl; give the folder _gold of a sample")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row.get("keys")]
    if not rows:
        raise UsageError(f"{option} {folder}: its memories have no keys; make the sample without --num-users")
    return rows


def as_found(row: dict) -> "Found":
    """Such a row, to be compared with records."""
    from cluster.evaluate.memories import Found

    return Found(
        id=row["memory_id"],
        user_id=row["user_id"],
        text=row["semantic_text"],
        turns=frozenset((row["session_id"], turn) for turn in row["evidence_turns"]),
        keys=tuple(map(tuple, row["keys"])),
        is_must=row["is_must"],
    )
