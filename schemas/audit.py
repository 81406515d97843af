"""What an audit finds in a store: memories that are of no use to anybody, each with the reason."""

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["echo", "transient", "fragment", "other_person", "undated", "duplicate", "contradiction"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which they are looked for: a memory that one of them has is not compared with others."""

AUDIT = "audit"
"""`decider` of the decisions of an audit."""

DISCARD = "discard"
"""`action` of the decisions that close a memory for what it is itself, and `closed_reason` of its row:
nothing took its place, so that it did not hold in the past either."""


@dataclass(frozen=True)
class Finding:
    """One memory and what is wrong with it."""

    record_id: str
    revision: int
    user_id: str
    kind: Kind
    reason: str
    """In words, without what the memory says."""
    text: str
    evidence: tuple[dict, ...] = ()
    """What the reason rests on: turns (`session_id`, `turn_index`, `text`) and other memories (`record_id`,
    `text`)."""
    action: str = DISCARD
    """What closing it is in the ledger: discard | unite | delete. Empty where only part of it is replaced,
    which a consolidation rewrites: it is reported and stays."""
    sources: tuple[tuple[str, int], ...] = ()
    """(record id, revision) of the memories that stand for it."""

    def line(self) -> dict:
        """As a line of `audit.jsonl`."""
        return {
            "memory": self.record_id,
            "user_id": self.user_id,
            "kind": self.kind,
            "reason": self.reason,
            "closes": bool(self.action),
            "text": self.text,
            "evidence": list(self.evidence),
        }
