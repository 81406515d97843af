"""Training sets: what `jobs.distill` writes, `jobs.train` reads and `jobs.evaluate` measures against.

A training set is a folder: `train.parquet`, `validation.parquet`, `rejected.parquet` (candidates that the
verifier refused, with the reason), the student's profile and a data card. Users never stand on both sides of
the split.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Literal, get_args

import pyarrow as pa

PROFILE_FILE = "profile.json"
"""The student's profile, in a training set and then beside the adapter, which is worth nothing without the
prompt that it was trained with."""

Task = Literal["encoder", "decider", "fact_qa", "evolvable"]
TASKS: tuple[Task, ...] = get_args(Task)

MESSAGE_TYPE = pa.struct(
    [pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string(), nullable=False)]
)

TRAINING_SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),  # segment, decision or memory it was made from
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("session_id", pa.string()),
        # The prompt as chat messages, exactly as the profile gives it to the model; the last is the user's.
        pa.field("messages", pa.list_(pa.field("item", MESSAGE_TYPE, nullable=False)), nullable=False),
        pa.field("completion", pa.string(), nullable=False),  # the answer that is learned, nothing else is
        pa.field("num_turns", pa.int32(), nullable=False),  # current turns that the answer may cite; 0: none
        pa.field("label", pa.string(), nullable=False),  # records | empty | update | delete | ignore | ...
        pa.field("origin", pa.string(), nullable=False),  # teacher and how: `rules`, `openai:NAME`, ...
    ]
)
"""One example."""

EVOLVABLE_SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),  # the question
        pa.field("user_id", pa.string(), nullable=False),
        # The conversation in time order; its last exchange is the question with the expected answer.
        pa.field("messages", pa.list_(pa.field("item", MESSAGE_TYPE, nullable=False)), nullable=False),
        pa.field(
            "meta",
            pa.struct(
                [
                    # What is to be found, one text an exchange, as the retriever reads it; then the question.
                    pa.field("turns", pa.list_(pa.string()), nullable=False),
                    # Numbers from 0 of the texts that answer the question.
                    pa.field("evidence_turns", pa.list_(pa.int32()), nullable=False),
                ]
            ),
            nullable=False,
        ),
    ]
)
"""One question to one conversation."""

EVOLVABLE_COLUMNS = ["messages", "meta"]
"""Columns that the trainer reads; a set from elsewhere needs only these."""

REJECTED_SCHEMA = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("session_id", pa.string()),
        pa.field("candidate", pa.string(), nullable=False),  # JSON of what was refused
        pa.field("reason", pa.string(), nullable=False),  # name of the rule, or `judge`
        pa.field("detail", pa.string(), nullable=False),
        pa.field("scores", pa.string()),  # JSON of the judge's scores, where there was one
    ]
)
"""One candidate that the verifier refused."""


def hash_rows(parts: Iterable[Iterable[dict]]) -> str:
    """What a data card and an adapter's card call `data_hash`: over the rows of train, then of validation.

    It is the data's own: files that hold the same rows, written in another way, have the same.
    """
    digest = hashlib.sha256()
    for rows in parts:
        for row in rows:
            text = json.dumps(row, sort_keys=True, ensure_ascii=False)
            digest.update(text.encode(errors="surrogatepass") + b"\n")
        digest.update(b"\0")
    return f"sha256:{digest.hexdigest()}"
