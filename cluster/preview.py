"""Preview: what would be remembered of a conversation, and what would become of older memories.

The work of a backfill and a consolidation, in this process, with models that stay loaded; nothing is stored.

    preview = Preview(encoder, embedder, "pairs", **settings)
    told = preview.tell([{"role": "user", "content": "I live in Oslo."}])
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.backfill.cut_stage import segment_offsets
from cluster.backfill.encoder import Encoder
from cluster.backfill.redact import redact_turns
from cluster.backfill.segmenter import cut_session
from cluster.backfill.table_rows import record_row
from cluster.consolidate.decider import guarded
from cluster.consolidate.fold import Change, Question, Verdict, fold
from cluster.consolidate.pins import pinned
from cluster.consolidate.plan import columns_of, compared, memory_of, ordered, pairs_of
from cluster.consolidate.without_model import WITHOUT_MODEL
from cluster.embed.embedder import Embedder
from cluster.store.sql import quote
from cluster.store.store import Store
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.encoder import EncoderProfile
from schemas.store import records_schema

USER = "preview"

_COLUMNS = (
    *("record_id", "revision", "user_id", "session_time", "session_id", "semantic_text", "memory_type"),
    *("entities", "tags", "temporal", "evidence", "created_at", "vector", "extra"),
)


@dataclass(frozen=True)
class Kept:
    """A memory that would be stored."""

    text: str
    memory_type: str
    turns: tuple[int, ...]
    """Turns of the conversation that it rests on, counted from 0."""
    confidence: float | None
    """None where the profile sets no `min_confidence`."""
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Values of the profile's extra fields."""


@dataclass(frozen=True)
class Refused:
    """What the model wrote and a gate refused, or what it gave no complete answer to."""

    text: str
    reason: str
    turns: tuple[int, ...]


@dataclass(frozen=True)
class Changed:
    """What would become of an older memory: `delete`, `unite`, or `update` with its `new_text`."""

    action: str
    text: str
    because: tuple[str, ...]
    """The newer memories."""
    new_text: str = ""


@dataclass(frozen=True)
class Told:
    """What would become of a conversation."""

    kept: tuple[Kept, ...]
    refused: tuple[Refused, ...]
    changed: tuple[Changed, ...]
    prompt_tokens: int
    output_tokens: int


class Preview:
    """Conversations of one user, told one after the other: a later one may change what an earlier one left.

    The profiles are resolved ones. `decider` is one of WITHOUT_MODEL, the other settings are
    those of a consolidation.
    """

    def __init__(
        self,
        encoder: EncoderProfile,
        embedder: EmbedderProfile,
        decider: str,
        *,
        min_similarity: float,
        top_k: int,
        max_sources: int,
        min_confidence: float,
    ):
        self._encoder, self._embedder = Encoder(encoder), Embedder(embedder)
        self._offsets, self._decider = segment_offsets(encoder), WITHOUT_MODEL[decider]()
        self._compared: dict[str, Any] = {"min_similarity": min_similarity, "top_k": top_k}
        self._max_sources, self._min_confidence = max_sources, min_confidence
        self._user, self._num_told = USER, 0
        self._records: list[dict] = []
        self._pinned: set[str] = set()

    def remember(self, store: Store, user_id: str, as_of: str | None = None) -> int:
        """Go on from the active records of a user in a store; how many there are."""
        self._user = user_id
        found = store.rows("records", list(_COLUMNS), f"user_id = {quote(user_id)} AND active", as_of)
        self._records += found.to_pylist()
        self._pinned |= set(pinned(store, as_of).to_pylist())
        return found.num_rows

    def tell(self, turns: Sequence[dict], said_at: dt.datetime | None = None) -> Told:
        """A conversation: turns with `role` and `content`. `said_at` (UTC) dates it; not given: now."""
        now = dt.datetime.now(dt.UTC)
        self._num_told += 1
        texts = redact_turns([turn["content"] for turn in turns])
        session = {
            "user_id": self._user,
            "conversation_id": None,
            "session_id": f"preview-{self._num_told}",
            "session_time": said_at or now,
            "turns": [
                {"role": turn["role"], "content": text.text, "speaker": None, "time": None}
                for turn, text in zip(turns, texts, strict=True)
            ],
        }
        segments = cut_session(session, self._offsets, self._encoder.profile)
        encodings = self._encoder.encode(segments)
        pairs = list(zip(segments, encodings, strict=True))
        rows = [record_row(segment, record) for segment, one in pairs for record in one.records]
        vectors = self._embedder.embed([row["semantic_text"] for row in rows])
        new = [
            row | {"vector": vector.tolist(), "created_at": now}
            for row, vector in zip(rows, vectors, strict=True)
        ]
        self._records += [{name: row.get(name) for name in _COLUMNS} for row in new]
        return Told(
            kept=tuple(_kept(record) for _, one in pairs for record in one.records),
            refused=tuple(_refused(item) for _, one in pairs for item in (*one.refusals, *one.rejections)),
            changed=self._consolidate({row["record_id"] for row in rows}, now),
            prompt_tokens=sum(one.prompt_tokens for one in encodings),
            output_tokens=sum(one.output_tokens for one in encodings),
        )

    def _consolidate(self, new: set[str], now: dt.datetime) -> tuple[Changed, ...]:
        """Compare the new records with the older ones, and leave what a consolidation would leave."""
        if not new:
            return ()
        schema = records_schema(self._embedder.dim)
        table = pa.Table.from_pylist(self._records, pa.schema([schema.field(name) for name in _COLUMNS]))
        table = ordered(table, now)
        is_new = pc.is_in(table.column("record_id"), pa.array(sorted(new))).to_numpy()
        planned, pairs, _ = compared(table, is_new, **self._compared)
        memories = [
            memory_of(row | {"last_revision": 0, "is_pinned": row["record_id"] in self._pinned})
            for row in planned.to_pylist()
        ]
        folded = fold(
            memories, pairs_of(pairs), self._decide, decider="preview", max_sources=self._max_sources
        )
        texts = {memory.record_id: memory.text for memory in memories}
        sources = {
            row["decision_id"]: tuple(texts[name] for name in row["source_ids"]) for row in folded.decisions
        }
        for change in folded.changes:
            self._apply(change)
        # A memory that takes over another's evidence says the same as before.
        told = [change for change in folded.changes if change.closed_reason or change.is_rewritten]
        return tuple(
            Changed(
                action=change.closed_reason or "update",
                text=change.memory.text,
                because=sources.get(change.decision_id, ()),
                new_text=change.revised.text if change.revised else "",
            )
            for change in told
        )

    def _decide(self, questions: list[Question]) -> list[Verdict]:
        verdicts = self._decider.decide(questions)
        return guarded(questions, verdicts, min_confidence=self._min_confidence)

    def _apply(self, change: Change) -> None:
        (number,) = (n for n, row in enumerate(self._records) if row["record_id"] == change.memory.record_id)
        if change.revised is None:
            del self._records[number]
            return
        row, revised = self._records[number], change.revised
        if change.is_rewritten:
            (row["vector"],) = self._embedder.embed([revised.text]).tolist()
        row |= columns_of(revised)


def _kept(record: dict) -> Kept:
    return Kept(
        text=record["semantic_text"],
        memory_type=record["memory_type"],
        turns=tuple(record["evidence_turns"]),
        confidence=record.get("confidence"),
        extra=record.get("extra", {}),
    )


def _refused(item: dict) -> Refused:
    """A refused record has its JSON as `raw`; else this is the language, or the text of the answer."""
    try:
        text = json.loads(item["raw"])["semantic_text"]
    except (ValueError, TypeError, KeyError):
        text = item["raw"]
    turns = item["turns"]
    return Refused(text=text, reason=item["reason"], turns=tuple(turns) if isinstance(turns, list) else ())
