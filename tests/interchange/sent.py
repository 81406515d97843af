"""What the receivers are sent: memories of every kind, their vectors, turns and revisions."""

import dataclasses
import datetime as dt

from schemas.exchange import Memory
from tests.unit.cluster.interchange.memories import Listed

SAID = dt.datetime(2025, 5, 3, 10, 15, 30, 123456, tzinfo=dt.UTC)
WRITTEN = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
CHANGED = dt.datetime(2026, 1, 3, 3, 4, 5, tzinfo=dt.UTC)

OSLO = Memory(
    user_id="b.o/b",
    semantic_text="User has lived in Oslo.",
    record_id="0" * 31 + "1",
    entities=("Oslo", "User"),
    t_ref="2025-05-03",
    t_valid_from="2025-05-01",
    tags=("home", "city"),
    evidence=(("s1", 0), ("s1", 2)),
    source_role="user",
    conversation_id="c1",
    session_id="s1",
    session_time=SAID,
    created_at=WRITTEN,
    updated_at=CHANGED,
    revision=2,
)
PARTY = Memory(
    user_id="me",
    semantic_text='Käthe\'s "party" was on a 🚢 in Kiel.',
    record_id="0" * 31 + "2",
    memory_type="event",
    entities=("Käthe", "Kiel"),
    t_valid_from="2025-05-09",
    t_valid_to="2025-05-10",
    evidence=(("s2", 0),),
    source_role="both",
    session_id="s2",
    session_time=SAID,
    created_at=WRITTEN,
    updated_at=WRITTEN,
)
TEA = Memory(
    user_id="me",
    semantic_text="User prefers tea: green.",
    record_id="0" * 31 + "3",
    memory_type="preference",
    source_role="assistant",
    created_at=WRITTEN,
    updated_at=WRITTEN,
)
"""Of which nobody knows when it was said."""

MEMORIES = (OSLO, PARTY, TEA)

VECTORS = {
    OSLO.semantic_text: [1.0, 0.0, 0.0, 0.0],
    PARTY.semantic_text: [0.0, 0.6, 0.8, 0.0],
    TEA.semantic_text: [0.0, 0.8, -0.6, 0.0],
}


class Sent(Listed):
    """In the place of an Export: MEMORIES, their vectors, and the turns and revisions behind them."""

    def __init__(self):
        super().__init__(MEMORIES)
        self.selection = dataclasses.replace(self.selection, at=None)

    def with_vectors(self):
        return ((memory, VECTORS[memory.semantic_text]) for memory in MEMORIES)

    def turns(self, user_id):
        said = {"speaker": None, "role": "user"}
        turns = [
            said | {"turn_index": 0, "content": "We moved."},
            said | {"turn_index": 2, "content": "To Oslo!"},
        ]
        return {"s1": turns} if user_id == OSLO.user_id else {}

    def revisions(self):
        first = dataclasses.replace(OSLO, semantic_text="User lives in Oslo.", updated_at=WRITTEN, revision=1)
        closed = dataclasses.replace(TEA, record_id="0" * 31 + "4", active=False, updated_at=CHANGED)
        second = dataclasses.replace(OSLO, created_at=CHANGED)
        return iter([[dataclasses.replace(first, active=False), second], [PARTY], [TEA], [closed]])
