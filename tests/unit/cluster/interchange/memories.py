"""Memories of every shape, and an export of a list of them, for the tests of the formats."""

import datetime as dt
from collections import Counter

from hypothesis import strategies as st

from cluster.interchange.export import Selection
from schemas.exchange import Memory
from schemas.record import MEMORY_TYPES, SOURCE_ROLES, TYPE_PATTERN, cleaned

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
WORDS = TEXTS.map(cleaned).filter(bool)
IDS = TEXTS.filter(str.strip)
DAYS = st.one_of(st.just(""), st.dates(min_value=dt.date(1000, 1, 1)).map(dt.date.isoformat))
TIMES = st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))
LISTS = st.lists(WORDS, max_size=4, unique=True).map(tuple)
NAMES = st.from_regex(TYPE_PATTERN, fullmatch=True)
EVIDENCE = st.lists(st.tuples(IDS, st.integers(0, 2**31 - 1)), max_size=3).map(tuple)

MEMORIES = st.builds(
    Memory,
    user_id=IDS,
    semantic_text=WORDS,
    record_id=st.text("0123456789abcdef", min_size=32, max_size=32),
    memory_type=st.sampled_from(MEMORY_TYPES),
    entities=LISTS,
    **dict.fromkeys(("t_ref", "t_valid_from", "t_valid_to"), DAYS),
    tags=LISTS,
    evidence=EVIDENCE,
    source_role=st.sampled_from(SOURCE_ROLES),
    conversation_id=st.one_of(st.none(), IDS),
    session_id=st.one_of(st.none(), IDS),
    session_time=st.one_of(st.none(), TIMES),
    created_at=TIMES,
    updated_at=TIMES,
    revision=st.integers(1, 1000),
    extra=st.dictionaries(NAMES, WORDS, max_size=3).map(lambda values: tuple(values.items())),
)


class Listed:
    """In the place of an Export: these memories, as they stand."""

    def __init__(self, memories, closed=(), selection=None):
        self._memories, self._closed = list(memories), list(closed)
        self.selection = selection or Selection(at=dt.date(2026, 1, 1))
        self.skipped = Counter()

    def memories(self):
        return iter(self._memories)

    def with_vectors(self):
        return ((memory, [0.5, 0.25]) for memory in self._memories)

    def turns(self, user_id):
        return {}

    def closed(self):
        return iter(self._closed)

    def revisions(self):
        return iter([])

    def skip(self, memory, reason):
        self.skipped[reason] += 1
