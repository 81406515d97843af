"""Several strings in one, from which they can be told again."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from cluster.backfill.table_rows import turn_row
from schemas.identity import joined

PARTS = st.lists(st.text(st.sampled_from('ab\0"[],\\ü'), max_size=4), min_size=1, max_size=4)


@given(PARTS, PARTS)
def test_different_parts_never_become_one_string(one, other):
    assert (joined(*one) == joined(*other)) == (one == other)


def test_ids_of_ordinary_rows_are_what_they_were():
    """Stores and paid segments of before are found by them."""
    segment = {"user_id": "ann", "session_id": "s1", "segment_id": "0", "conversation_id": None}
    row = turn_row(segment | {"session_time": None}, {"turn_index": 3})
    assert row["turn_id"] == hashlib.sha256(b"ann\0s1\x003").hexdigest()[:32]
