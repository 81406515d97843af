"""Labelled pairs of memories, for `jobs.evaluate decider --pairs`: what must stay, and what is replaced.

A line is {"older": TEXT, "newer": TEXT, "older_should": "keep" | "delete" | "unite"}: two memories of one
user, the older of day 0, the newer of day 30. Each pair goes through a whole consolidation, candidates and
fold, as a user of its own.
"""

import datetime as dt
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.common.cli import UsageError

if TYPE_CHECKING:
    import numpy as np

    from cluster.consolidate.fold import Pair

LABELS = ("keep", "delete", "unite")
DAY_0 = dt.datetime(2026, 1, 5, 12, tzinfo=dt.UTC)
DAYS_APART = 30


def read_pairs(path: str, max_questions: int | None = None) -> list[dict]:
    """The lines of a file of pairs. UsageError names the first line that is not a pair."""
    found = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--pairs {path}: {error}; name a JSONL file") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts = [row["older"], row["newer"]]
            if row["older_should"] not in LABELS or not all(isinstance(text, str) and text for text in texts):
                raise ValueError(f"older_should is {row['older_should']!r}, expected one of {LABELS}")
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"--pairs {path}: line {number}: {error!r}; a line has older, newer and older_should"
            ) from None
        found.append(row)
    if not found:
        raise UsageError(f"--pairs {path}: has no pair")
    return found[:max_questions]


def consolidate_pairs(
    pairs: list[dict], embed: Callable, decide: Callable, *, min_similarity: float
) -> tuple[list[str], float]:
    """What becomes of each older memory: keep | delete | unite | update; and pairs a second, embedding apart.

    `embed` makes unit vectors of texts, `decide` is a decider's.
    """
    from cluster.consolidate.fold import Memory, fold

    sides = [(number, side) for number in range(len(pairs)) for side in ("older", "newer")]
    vectors = embed([pairs[number][side] for number, side in sides])
    started_s = time.monotonic()
    memories = [
        Memory(
            record_id=f"{number:06}-{side}",
            revision=1,
            user_id=f"{number:06}",
            session_time=(DAY_0 + dt.timedelta(days=DAYS_APART * (side == "newer"))).isoformat(),
            session_id=f"{number:06}-{side}",
            turn=0,
            text=pairs[number][side],
            evidence=((f"{number:06}-{side}", 0),),
        )
        for number, side in sides
    ]
    found = _candidates(memories, vectors, min_similarity)
    folded = fold(memories, found, decide, decider="pairs")
    fates = ["keep"] * len(pairs)
    for change in folded.changes:
        if change.memory.record_id.endswith("-older"):
            fates[int(change.memory.user_id)] = change.closed_reason or "update"
    return fates, len(pairs) / (time.monotonic() - started_s)


def _candidates(memories: list, vectors: "np.ndarray", min_similarity: float) -> "list[Pair]":
    """As the plan of a consolidation makes them."""
    import numpy as np
    import pyarrow as pa

    from cluster.consolidate.plan import candidates, pairs_of
    from schemas.store import TEMPORAL, TIME

    rows = pa.table(
        {
            "record_id": [one.record_id for one in memories],
            "user_id": [one.user_id for one in memories],
            "session_time": pa.array([dt.datetime.fromisoformat(one.session_time) for one in memories], TIME),
            "semantic_text": [one.text for one in memories],
            "memory_type": [one.memory_type for one in memories],
            "temporal": pa.array([None] * len(memories), TEMPORAL),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]),
        }
    )
    return pairs_of(
        candidates(rows, np.ones(len(memories), bool), top_k=10, min_similarity=min_similarity)[1]
    )


def pairs_board(pairs: list[dict], fates: list[str]) -> dict:
    """Right answers by label, each with its Wilson interval. Anything done to what should stay is wrong."""
    board: dict[str, Any] = {}
    for label in LABELS:
        made = [fate for pair, fate in zip(pairs, fates, strict=True) if pair["older_should"] == label]
        right = sum(fate == label for fate in made)
        low, high = wilson(right, len(made)) if made else (None, None)
        share = right / len(made) if made else None
        board |= {
            f"{label}_right": right,
            f"{label}_of": len(made),
            label: share,
            f"{label}_low": low,
            f"{label}_high": high,
        }
    return board


def wilson(num_right: int, num: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, square = num_right / num, z * z
    middle = (share + square / (2 * num)) / (1 + square / num)
    half = z * math.sqrt(share * (1 - share) / num + square / (4 * num * num)) / (1 + square / num)
    return max(0.0, middle - half), min(1.0, middle + half)


def mistakes(pairs: list[dict], fates: list[str]) -> list[dict]:
    """Pairs that were decided otherwise than labelled, with what was made of them."""
    return [
        pair | {"became": fate}
        for pair, fate in zip(pairs, fates, strict=True)
        if fate != pair["older_should"]
    ]
