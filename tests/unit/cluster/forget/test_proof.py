"""The search of bytes for what was erased."""

import json
import os

import pyarrow as pa
import pytest

from cluster.forget.erase import last_proof
from cluster.forget.proof import Traces, _held, _stand_in, search
from cluster.forget.rules import Subject
from cluster.store.files import Files
from cluster.store.store import Store
from schemas.store import EXTRA
from tests.unit.cluster.store.stores import TEA, commit, segment

TEXTS = [f'User said "{number}" (über a+b)\nand left' for number in range(100)]


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[99]])
@pytest.mark.parametrize("form", [str, lambda text: json.dumps(text)], ids=["plain", "json"])
def test_a_text_among_other_bytes_is_found_in_every_form(text, form):
    noise = os.urandom(100_000)
    assert not _stand_in(TEXTS, noise)
    assert _stand_in(TEXTS, noise + form(text).encode() + noise)
    assert not _stand_in(TEXTS, form(text).encode()[1:-2])


def test_what_looks_like_a_pattern_is_taken_as_it_is():
    assert _stand_in(["a.c+"], b"xxa.c+yy") and not _stand_in(["a.c+"], b"abcc")
    assert not _stand_in([], b"anything") and not _stand_in(["a"], b"")


def test_an_erased_id_within_another_user_s_id_in_work_in_progress_is_no_trace(tmp_path):
    """Regression: the forgetting of customer-1 failed for as long as customer-10 was staged."""
    store = Store(str(tmp_path), must_exist=False)
    commit(store, "run1", TEA)
    traces = Traces(Subject("customer-1", "session-1"), frozenset(), ("session-1", "customer-1"))
    other = {"user_id": "customer-10", "session_id": "session-1", "text": "moon"}
    staging = Files(store.uri, "staging")
    staging.put_table("encoded/x/1.parquet", pa.Table.from_pylist([other]))
    assert search(store, traces)["found"] == []
    left = pa.Table.from_pylist([{"user_id": "customer-1", "text": "customer-1 it was"}])
    staging.put_table("encoded/x/1.parquet", left)
    assert search(store, traces)["found"] == ["_slowwave/staging/encoded/x/1.parquet: erased text or ids"]


def test_the_last_search_is_that_of_the_last_run_whatever_the_clock_says(tmp_path):
    """Regression: receipts were in the order of their names, which begin with a clock's time."""
    store, receipts = Store(str(tmp_path), must_exist=False), Files(str(tmp_path), "receipts")
    assert last_proof(store, "who") is None
    for run_id, is_clean in (("20260102T0310-b", False), ("20260102T0300-a", True)):
        commit(store, run_id, TEA)
        proof = {"is_clean": is_clean}
        receipts.put_json(f"{run_id}.json", {"run_id": run_id, "subject": "who", "proof": proof})
    receipts.put_json("other.json", {"run_id": "other", "subject": "else", "proof": {"is_clean": False}})
    assert last_proof(store, "who") == {"is_clean": True}


def test_a_text_in_a_value_of_an_extra_field_is_found():
    values = pa.array([[("place", "the house in Lyon")], None, []], EXTRA)
    nested = pa.array(
        [[{"extra": [("place", "the house in Rome")]}]], pa.list_(pa.struct([("extra", EXTRA)]))
    )
    assert _held(pa.table({"extra": values}), ["house in Lyon", "Oslo"]) == {"house in Lyon"}
    assert _held(pa.table({"records": nested}), ["house in Rome", "Oslo"]) == {"house in Rome"}


def test_a_word_that_only_the_erased_said_is_seen_in_a_value_that_stays(tmp_path):
    store = Store(str(tmp_path), must_exist=False)
    walk = segment("walk", "I like my walk", records=["Ann walks."])
    (row,) = walk["records"]
    walk["records"] = [row | {"extra": [("place", "Lyon")]}]
    commit(store, "run1", walk)
    traces = Traces(
        Subject("ann", "s9"), frozenset(["I was in Lyon"]), ("s9",), frozenset([(row["record_id"], 1)])
    )
    assert search(store, traces)["found"] == ["rows of records, as of run run1"]
