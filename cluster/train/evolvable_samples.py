"""Samples of the evolvable model's training: read, checked, and gathered by the conversation they ask.

A sample is a conversation, a question, its answer, and which turns are the evidence. Samples about one and
the same conversation are kept together, so that its memory and its documents are made once for all of them.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cluster.evolvable.tokens import Exchange, Tokens, exchanges_of
from cluster.train.settings import TrainingError
from schemas.training import EVOLVABLE_COLUMNS


class Question(NamedTuple):
    """What is asked of a conversation."""

    text: str
    exchange: Exchange
    """The question as it stands in the dialogue, with the expected answer."""
    evidence: tuple[int, ...]
    """Numbers of the documents that answer it, ascending."""


class History(NamedTuple):
    """A conversation with all its questions."""

    exchanges: tuple[Exchange, ...]
    """What the memory reads."""
    documents: tuple[str, ...]
    """What is to be found. As many as exchanges, or else each is read with the memory of all of them."""
    questions: list[Question]


class Asked(NamedTuple):
    """A question as token ids."""

    query: list[int]
    answer: tuple[list[int], list[int], int]
    """See `Tokens.answer_ids`."""
    evidence: tuple[int, ...]


class Reading(NamedTuple):
    """A history as token ids."""

    turns: list[list[int]]
    documents: list[list[int]]
    asked: list[Asked]


class Readings(Sequence[Reading]):
    """Histories as token ids, made when they are asked for: those of a large set would fill the memory."""

    def __init__(self, histories: Sequence[History], tokens: Tokens):
        self._histories, self._tokens = histories, tokens

    def __len__(self) -> int:
        return len(self._histories)

    def __getitem__(self, index: int) -> Reading:  # type: ignore[override]  # nobody takes slices
        return reading_of(self._histories[index], self._tokens)


def read_rows(folder: Path, part: str) -> Iterator[dict]:
    """Rows of PART.parquet, or else PART.jsonl. TrainingError when neither can be read."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    path = folder / f"{part}.parquet"
    try:
        if path.is_file():
            file = pq.ParquetFile(path, memory_map=True)
            if missing := set(EVOLVABLE_COLUMNS) - set(file.schema_arrow.names):
                raise TrainingError(f"{path}: lacks {' and '.join(sorted(missing))}; {_REMEDY}")
            for batch in file.iter_batches(64, columns=EVOLVABLE_COLUMNS):
                yield from batch.to_pylist()
            return
        path = folder / f"{part}.jsonl"
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    yield json.loads(line)
    except (OSError, ValueError, ArrowException) as error:
        if isinstance(error, TrainingError):
            raise
        raise TrainingError(f"{path}: {error}; {_REMEDY}") from None


_REMEDY = (
    "a sample has `messages` (the last exchange is the question with its answer) and `meta` with `turns` "
    "(the last is the question) and `evidence_turns` (numbers from 0)"
)


def histories_of(rows: Iterable[dict], part: str) -> tuple[list[History], Counter]:
    """Rows -> conversations with their questions, in the order of their first, and counts of what was left
    out by reason. TrainingError for a row that is no sample: it would silently go without contrastive term.
    """
    found: dict[tuple, History] = {}
    left_out: Counter = Counter()
    for number, row in enumerate(rows):
        try:
            messages, meta = row["messages"], row["meta"]
            *documents, text = meta["turns"]
            evidence = tuple(sorted(set(meta["evidence_turns"])))
            *exchanges, last = exchanges_of(messages)[0]
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"{part}: row {number} is no sample ({type(error).__name__}: {error}); {_REMEDY}"
            ) from None
        if not (last.user.strip() and last.assistant.strip()):
            raise TrainingError(f"{part}: row {number} does not end with question and answer; {_REMEDY}")
        if outside := [index for index in evidence if not 0 <= index < len(documents)]:
            raise TrainingError(
                f"{part}: row {number} has evidence_turns {outside}, but only {len(documents)} turns before "
                f"the question; {_REMEDY}"
            )
        if not evidence:
            left_out["no_evidence"] += 1
            continue
        key = (tuple(exchanges), tuple(documents))
        history = found.setdefault(key, History(*key, []))
        history.questions.append(Question(text, last, evidence))
    return list(found.values()), left_out


def reading_of(history: History, tokens: Tokens) -> Reading:
    """Token ids of a history."""
    queries = tokens.query_ids([question.text for question in history.questions])
    asked = [
        Asked(query, tokens.answer_ids(q.exchange, first=not history.exchanges), q.evidence)
        for query, q in zip(queries, history.questions, strict=True)
    ]
    return Reading(tokens.memory_ids(history.exchanges), tokens.document_ids(history.documents), asked)
