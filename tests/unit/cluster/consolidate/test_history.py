"""Differences of two views, and lives of memories."""

import datetime as dt

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cluster.consolidate.fold import UNITE
from cluster.consolidate.history import CLOSING, COMPARED, diff, lives
from cluster.store.store import Store
from schemas.store import DECISIONS_SCHEMA, records_schema
from tests.unit.cluster.store.stores import commit, digest, segment

SCHEMA = pa.schema([records_schema(1).field(name) for name in COMPARED])


def row_by_row(before: list[dict], after: list[dict], decisions: list[dict]) -> dict[str, list[dict]]:
    """The definition, over dicts of all rows."""
    closing = {
        (row["target_id"], row["target_revision"]): row
        for row in decisions
        if row["outcome"] == "applied" and row["action"] != "ignore"
    }
    texts = {(row["record_id"], row["revision"]): row["semantic_text"] for row in after}
    old_ids = {row["record_id"] for row in before}
    old = {row["record_id"]: row for row in before if row["active"]}
    new = {row["record_id"]: row for row in after if row["active"]}
    last: dict[str, dict] = {}
    for row in after:
        if row["record_id"] not in last or row["revision"] > last[row["record_id"]]["revision"]:
            last[row["record_id"]] = row
    kinds = ("added", "returned", "rewritten", "supported", "superseded", "removed")
    changes: dict[str, list[dict]] = {kind: [] for kind in kinds}
    for record_id in sorted(old.keys() | new.keys()):
        was, now = old.get(record_id), new.get(record_id)
        entry = {
            "record_id": record_id,
            "user_id": (was or now)["user_id"],
            "session_time": (was or now)["session_time"],
            "before": was and was["semantic_text"],
            "after": now and now["semantic_text"],
        }
        if was is None:
            changes["returned" if record_id in old_ids else "added"].append(entry)
        elif now is None:
            end = last.get(record_id, {})
            entry |= {name: end.get(name) for name in ("closed_reason", "closed_run_id")}
            if end.get("closed_reason") in ("delete", "update", UNITE, "discard"):
                no_sources = {"source_ids": [], "source_revisions": []}
                decision = closing.get((record_id, end["revision"]), no_sources)
                sources = zip(decision["source_ids"], decision["source_revisions"], strict=True)
                by = [{"record_id": one[0], "revision": one[1], "text": texts.get(one)} for one in sources]
                changes["superseded"].append(entry | {"by": by})
            else:
                changes["removed"].append(entry)
        elif was["semantic_text"] != now["semantic_text"]:
            changes["rewritten"].append(entry | {"decision_id": now["decision_id"]})
        elif was["evidence"] != now["evidence"]:
            changes["supported"].append(entry | {"decision_id": now["decision_id"]})
    for entries in changes.values():
        entries.sort(key=lambda entry: (entry["user_id"], str(entry["session_time"]), entry["record_id"]))
    return changes


DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
IDS, REVISIONS = st.sampled_from("abcd"), st.integers(1, 3)
RUNS = st.sampled_from([None, "run1", "run2"])
TURNS = st.fixed_dictionaries({"session_id": st.sampled_from("st"), "turn_index": st.integers(0, 1)})
ROWS = st.fixed_dictionaries(
    {
        "record_id": IDS,
        "revision": REVISIONS,
        "user_id": st.sampled_from(["u", "ü"]),
        "session_time": st.sampled_from([None, DAY, DAY + dt.timedelta(milliseconds=1)]),
        "semantic_text": st.sampled_from([None, "", "Tea.", "Té."]),
        "evidence": st.none() | st.lists(TURNS, max_size=2),
        "active": st.booleans(),
        "closed_reason": st.sampled_from([None, "segment_replaced", "delete", "update", UNITE, "discard"]),
        "closed_run_id": RUNS,
        "decision_id": st.sampled_from([None, "d1"]),
    }
)
VIEWS = st.lists(ROWS, max_size=8)
DECISIONS = st.lists(
    st.builds(
        lambda sources, **row: (
            row | {"source_ids": [one[0] for one in sources], "source_revisions": [one[1] for one in sources]}
        ),
        st.lists(st.tuples(IDS, REVISIONS), max_size=3),
        target_id=IDS,
        target_revision=REVISIONS,
        outcome=st.sampled_from(["applied", "refused", "failed"]),
        action=st.sampled_from(["delete", "update", "ignore", UNITE]),
    ),
    max_size=5,
)


@given(VIEWS, VIEWS, DECISIONS)
def test_a_join_finds_what_a_comparison_row_by_row_finds(before, after, decisions):
    expected = row_by_row(before, after, decisions)
    tables = (pa.Table.from_pylist(rows, SCHEMA) for rows in (before, after))
    found = diff(*tables, pa.Table.from_pylist(decisions, DECISIONS_SCHEMA))
    assert found == expected
    assert [list(entry) for kind in found.values() for entry in kind] == [
        list(entry) for kind in expected.values() for entry in kind
    ]
    assert list(found) == list(expected)
    assert diff(before, after, decisions) == expected, "rows one by one are compared alike"


def test_a_view_from_before_the_first_record_has_none_of_the_memories():
    row = {"record_id": "a", "revision": 1, "user_id": "u", "semantic_text": "Tea.", "active": True}
    nothing, one = pa.schema([]).empty_table(), pa.Table.from_pylist([row], SCHEMA)
    assert [entry["record_id"] for entry in diff(nothing, one, nothing)["added"]] == ["a"]
    assert [entry["record_id"] for entry in diff(one, nothing, nothing)["removed"]] == ["a"]


# --- in a store -----------------------------------------------------------------------------------------

TEA = segment("s1", "I like tea, and cats.", records=["Ann likes tea.", "Ann likes cats."])
COFFEE = segment("s2", "Coffee for me now.", session="t", records=["Ann likes coffee."])
BOB = segment("s3", "I like tea.", user="bob", records=["Bob likes tea."])
TEA_ID, COFFEE_ID = digest("s1", "Ann likes tea."), digest("s2", "Ann likes coffee.")
IGNORED = dict.fromkeys(DECISIONS_SCHEMA.names) | {
    **{"decision_id": "d1", "user_id": "ann", "target_id": TEA_ID, "target_revision": 1, "run_id": "run2"},
    **{"source_ids": [COFFEE_ID], "source_revisions": [1], "action": "ignore", "outcome": "applied"},
}


def written(path) -> Store:
    store = Store(str(path), must_exist=False)
    commit(store, "run1", TEA, BOB)
    commit(store, "run2", COFFEE | {"decisions": [IGNORED]})
    return store


def test_the_tables_of_two_runs_are_compared_as_the_store_gives_them(tmp_path):
    store = written(tmp_path / "store")
    before, after = (store.rows("records", COMPARED, as_of=run) for run in ("run1", "run2"))
    found = diff(before, after, store.rows("decisions", CLOSING))
    assert [entry["after"] for entry in found.pop("added")] == ["Ann likes coffee."]
    assert not any(found.values())
    assert [entry["before"] for entry in diff(after, before)["removed"]] == ["Ann likes coffee."]


def test_a_life_has_its_own_turns_and_the_decisions_it_took_part_in(tmp_path):
    store = written(tmp_path / "store")
    found = {life["revisions"][0]["semantic_text"]: life for life in lives(store, where="user_id = 'ann'")}
    assert sorted(found) == ["Ann likes cats.", "Ann likes coffee.", "Ann likes tea."]
    assert [len(found[text]["decisions"]) for text in sorted(found)] == [0, 1, 1]
    (decision,) = found["Ann likes coffee."]["decisions"]
    assert decision["target"] == {"record_id": TEA_ID, "revision": 1, "text": "Ann likes tea."}
    assert [one["text"] for one in decision["sources"]] == ["Ann likes coffee."]
    (turn,) = found["Ann likes coffee."]["revisions"][0]["evidence"]
    assert (turn["session_id"], turn["content"]) == ("t", "Coffee for me now.")


def decision(name, target):
    row = {"decision_id": name, "user_id": "ann", "target_id": target, "target_revision": 1}
    row |= {"source_ids": [], "source_revisions": [], "decider": "rules", "model": None, "prompt": None}
    return row | {"action": "ignore", "text": None, "outcome": "applied", "reason": None, "raw": None}


def test_decisions_are_told_in_the_order_of_their_runs_whatever_the_clock_says(tmp_path):
    """Regression: they were ordered by the time at which their run had begun, by the clock of its machine."""
    store = Store(str(tmp_path / "store"), must_exist=False)
    commit(store, "run0", TEA)
    target = store.rows("records", ["record_id"]).column("record_id").to_pylist()[0]
    noon = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
    for number in (1, 2, 3):
        at = noon - number * dt.timedelta(minutes=5)
        counts = {"prompt_tokens": 0, "cached_tokens": 0, "output_tokens": 0}
        row = decision(f"d{9 - number}", target) | counts | {"decided_at": at, "run_id": f"run{9 - number}"}
        commit(store, f"run{9 - number}", {"decisions": [row]}, started_at=at.isoformat())
    (life,) = lives(store, where=f"record_id = '{target}'")
    assert [row["decision_id"] for row in life["decisions"]] == ["d8", "d7", "d6"]
