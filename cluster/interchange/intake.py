"""Memories that come in: which of a file's rows become records, and the rows of the store that they become.

A record that is brought has no encoder: its column `encoder` says `imported`, and it rests on the evidence
that the file names, or on none. Its identity is the one that the file has, if an export wrote it, else a hash
of user, text and time: so the same file brings nothing a second time.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.backfill.redact import redact
from cluster.forget.forgotten import WITHHELD, Forgotten
from cluster.interchange.files import BadRow, Read
from cluster.store.brought import segment_id, session_id
from schemas.exchange import DATES, Memory, shown_time
from schemas.identity import joined
from schemas.record import normalized

if TYPE_CHECKING:
    import numpy as np

IMPORTED = "imported"
"""`encoder` of such records and segments, and `outcome` of the segments."""

STAGE = "import"
"""`stage` of the rejections."""

MAX_RAW_CHARS = 200


@dataclass
class Intake:
    """Rows of one file, sorted out. `new` gives the memories to bring; the rest is counted or rejected."""

    known: dict[str, str]
    """Record id -> user, of every record of the store, closed ones included."""
    forgotten: Forgotten
    counts: Counter[str] = field(default_factory=Counter)
    rejections: list[dict] = field(default_factory=list)
    """Rows of REJECTIONS_SCHEMA."""

    def new(self, rows: Read) -> Iterator[Memory]:
        """Memories that the store has not, each with its record id; secrets are replaced by markers."""
        for row in rows:
            self.counts["num_rows"] += 1
            if isinstance(row, BadRow):
                self._reject(row)
                continue
            if row.change == "closed":
                self.counts["num_closed"] += 1
                continue
            found = redact(row.semantic_text)
            values = {name: redact(value) for name, value in row.extra}
            extra = tuple((name, value.text) for name, value in values.items())
            memory = dataclasses.replace(row, semantic_text=found.text, extra=extra)
            own_id = memory.record_id or record_id(memory)
            memory = dataclasses.replace(memory, record_id=own_id)
            if self._is_forgotten(memory):
                self.counts["num_forgotten"] += 1
                continue
            owner = self.known.get(own_id)
            if owner is None:
                self.known[own_id] = memory.user_id
                redacted = (found, *values.values())
                self.counts["num_redactions"] += sum(sum(one.counts.values()) for one in redacted)
                yield memory
            elif owner == memory.user_id:
                self.counts["num_known"] += 1
            else:
                place = f"record {own_id}"
                self._reject(BadRow(place, "record_id: is another user's in this store", "", memory.user_id))

    def _is_forgotten(self, memory: Memory) -> bool:
        gone, user = self.forgotten, memory.user_id
        sessions = {memory.session_id, *(session for session, _ in memory.evidence)}
        if any(gone.has_session(user, session) for session in sessions):
            return True
        if gone.keys & {gone.key("turn", user, *place) for place in memory.evidence}:
            return True
        return gone.has(user, None, memory.record_id)

    def _reject(self, row: BadRow) -> None:
        if self.forgotten.has_session(row.user_id, None):
            self.counts["num_forgotten"] += 1
            return
        raw, detail = redact(row.raw).text[:MAX_RAW_CHARS], redact(row.reason).text
        if self.forgotten.keys and not row.user_id:
            raw = detail = WITHHELD
        self.counts["num_rejections"] += 1
        content = joined(row.place, detail, raw)
        self.rejections.append(
            {
                "rejection_id": hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()[:32],
                "stage": STAGE,
                "source": row.place,
                "user_id": row.user_id,
                "session_id": None,
                "reason": "bad_row",
                "detail": detail,
                "raw": raw,
            }
        )


def record_id(memory: Memory) -> str:
    """32 hex digits: the same text of another user or time is another record."""
    said = str(shown_time(memory.session_time) or "")
    content = joined(IMPORTED, memory.user_id, memory.memory_type, memory.semantic_text, said)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def record_row(memory: Memory, run_id: str, vector: "np.ndarray") -> dict:
    """A row of `records`, but for what the commit fills in. `vector` float32 [dim]."""
    return {
        "record_id": memory.record_id,
        "revision": 1,
        "segment_id": segment_id(IMPORTED, run_id, memory.user_id),
        "user_id": memory.user_id,
        "conversation_id": memory.conversation_id,
        "session_id": memory.session_id or session_id(IMPORTED, run_id),
        "session_time": memory.session_time,
        "memory_type": memory.memory_type,
        "semantic_text": memory.semantic_text,
        "normalized_text": normalized(memory.memory_type, memory.semantic_text),
        "entities": list(memory.entities),
        "temporal": {name: getattr(memory, name) for name in DATES},
        "tags": list(memory.tags),
        "evidence": [{"session_id": session, "turn_index": turn} for session, turn in memory.evidence],
        "source_role": memory.source_role,
        "extra": list(memory.extra) or None,
        "encoder": IMPORTED,
        "vector": vector,
    }
