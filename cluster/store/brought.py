"""Segments for memories that come from no archive: they were imported, or written by hand.

For each user, a run that brings such memories adds one segment to the table `segments`, which stands for
them. So these memories can be rolled back and reopened like any other.
"""

import hashlib

from schemas.identity import joined


def segment_id(kind: str, run_id: str, user_id: str) -> str:
    """Of the segment that stands for what a run has brought of a user."""
    return hashlib.sha256(joined(kind, run_id, user_id).encode()).hexdigest()[:32]


def session_id(kind: str, run_id: str) -> str:
    """Of what names no session."""
    return f"{kind}-{run_id}"


def segment_row(kind: str, user_id: str, num_records: int, run_id: str) -> dict:
    """A row of `segments`. `kind` is its encoder and its outcome."""
    counts = dict.fromkeys(("num_calls", "prompt_tokens", "cached_tokens", "output_tokens"), 0)
    return {
        "segment_id": segment_id(kind, run_id, user_id),
        "user_id": user_id,
        "conversation_id": None,
        "session_id": session_id(kind, run_id),
        "session_time": None,
        **{"first_turn": 0, "last_turn": -1, "start_char": 0, "end_char": 0},
        "outcome": kind,
        "num_records": num_records,
        **counts,
        "encoder": kind,
    }
