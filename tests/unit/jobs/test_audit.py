"""Audits of real stores: what is reported, and that what is closed comes back with a rollback."""

import datetime as dt
import json

import numpy as np
import pytest

from cluster.store.store import Store
from jobs import audit, history, rollback
from jobs.common.cli import JobError
from schemas.audit import AUDIT, DISCARD
from tests.unit.cluster.store import stores
from tests.unit.cluster.store.stores import DIM, digest

DAYS = {"old": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "new": dt.datetime(2026, 3, 1, tzinfo=dt.UTC)}


def near(number):
    """Vectors of equal numbers are close, those of others are not."""
    values = np.zeros(DIM)
    values[number % DIM], values[(number + 1) % DIM] = 1, 0.1
    return (values / np.linalg.norm(values)).tolist()


def told(user, said, *texts, at="old", matter=0, role="user"):
    """A segment of one turn and these memories."""
    made = stores.segment(f"{user} {said}", said, user=user, session=f"s {said}", records=texts)
    for rows in made.values():
        for row in rows:
            row["session_time"] = DAYS[at]
    for row in made["turns"]:
        row["role"] = role
    for row in made["records"]:
        row["vector"] = near(matter)
    return made


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    stores.commit(
        store,
        "run1",
        told("me", "I live in Oslo", "User lives in Oslo."),
        told("me", "I have a dog called Rex", "User has a dog.", matter=1),
        told("me", "A dog, Rex", "User has a dog called Rex.", at="new", matter=1),
        told("me", "be helpful", "You are a helpful assistant.", role="system", matter=2),
        told("me", "weather now", "User asked about the weather.", matter=3),
        told("bob", "Rex", "User has a dog.", matter=1),
    )
    stores.commit(store, "run2", told("me", "I moved to Bergen", "User moved to Bergen.", at="new"))
    return store


def look(store, **settings):
    return audit.run(audit.AuditConfig(store=store.uri, **settings))


def active(store):
    rows = store.rows("records", ["user_id", "semantic_text"], "active").to_pylist()
    return {(row["user_id"], row["semantic_text"]) for row in rows}


JUNK = {
    ("me", "You are a helpful assistant."): "echo",
    ("me", "User asked about the weather."): "transient",
    ("me", "User has a dog."): "duplicate",
    ("me", "User lives in Oslo."): "contradiction",
}


def test_a_report_names_each_memory_with_kind_reason_and_evidence(store, tmp_path, capsys):
    before = active(store), store.run(), store.files.paths()
    summary = look(store, output=str(tmp_path / "out"))
    assert (active(store), store.run(), store.files.paths()) == before
    lines = [json.loads(line) for line in (tmp_path / "out" / "audit.jsonl").read_text().splitlines()]
    assert {(line["user_id"], line["text"]): line["kind"] for line in lines} == JUNK
    found = {line["kind"]: line for line in lines}
    assert found["duplicate"]["evidence"] == [
        {
            "record_id": digest("me A dog, Rex", "User has a dog called Rex."),
            "text": "User has a dog called Rex.",
        }
    ]
    assert found["contradiction"]["evidence"][0]["text"] == "User moved to Bergen."
    assert found["echo"]["evidence"] == [
        {"session_id": "s be helpful", "turn_index": 0, "text": "be helpful"}
    ]
    assert found["echo"]["memory"] == digest("me be helpful", "You are a helpful assistant.")
    assert (summary["status"], summary["num_memories"], summary["num_junk"]) == ("done", 7, 4)
    counts = dict.fromkeys(("echo", "transient", "duplicate", "contradiction"), 1)
    assert summary["found"] == dict.fromkeys(("fragment", "other_person", "undated"), 0) | counts
    shown = capsys.readouterr().out
    assert "4 of 7 active memories of 2 users have a finding" in shown
    assert "User has a dog.  [" in shown


def test_what_is_closed_is_one_run_that_a_rollback_undoes(store):
    before = stores.view(store)
    summary = look(store, apply=True)
    assert (summary["status"], summary["num_closed"]) == ("done", 4)
    assert active(store) == {
        ("me", "User has a dog called Rex."),
        ("me", "User moved to Bergen."),
        ("bob", "User has a dog."),
    }
    assert (store.run()["job"], store.run()["run_id"]) == ("audit", summary["run_id"])
    rows = store.rows("decisions", ["decider", "action", "outcome", "reason", "source_ids", "run_id"])
    decisions = {row["reason"].partition(":")[0]: row for row in rows.to_pylist()}
    assert {kind: row["action"] for kind, row in decisions.items()} == {
        **{"echo": DISCARD, "transient": DISCARD, "duplicate": "unite", "contradiction": "delete"}
    }
    assert {(row["decider"], row["outcome"], row["run_id"]) for row in decisions.values()} == {
        (AUDIT, "applied", summary["run_id"])
    }
    assert look(store, apply=True)["status"] == "unchanged"
    rollback.run(rollback.RollbackConfig(store=store.uri, to="run2"))
    assert stores.view(store)["records"] == before["records"]
    assert look(store, apply=True)["num_closed"] == 4, "after a rollback it can be done again"


def test_only_the_kinds_and_users_that_are_named_are_closed(store):
    summary = look(store, apply=True, kinds=("transient",), user_id=("me",))
    assert (summary["num_closed"], summary["found"]) == (1, {"transient": 1})
    assert ("me", "User asked about the weather.") not in active(store)
    assert len(active(store)) == 6
    assert look(store, user_id=("bob",))["num_memories"] == 1


def test_a_repeat_that_stays_for_want_of_its_kind_still_stands_for_what_it_replaces(store):
    look(store, apply=True, kinds=("contradiction",))
    assert {"User has a dog.", "User has a dog called Rex.", "User moved to Bergen."} <= {
        text for _, text in active(store)
    }


def test_a_life_tells_why_a_memory_was_closed(store, capsys):
    look(store, apply=True, kinds=("echo",))
    record = digest("me be helpful", "You are a helpful assistant.")
    summary = history.run(history.HistoryConfig(store=store.uri, memory=record, as_json=True))
    (life,) = summary["memories"]
    assert (life["active"], life["revisions"][0]["closed_reason"]) == (False, DISCARD)
    assert life["decisions"][0]["reason"].startswith("echo: ")
    runs = history.run(history.HistoryConfig(store=store.uri, run=store.run()["run_id"], as_json=True))
    assert [entry["record_id"] for entry in runs["superseded"]] == [record]


def test_two_events_with_the_same_words_on_two_days_are_no_duplicates(store):
    gym = [told("eve", f"gym {at}", "User went to the gym.", at=at, matter=2) for at in DAYS]
    for made in gym:
        for row in made["records"]:
            row["memory_type"] = "event"
            row["temporal"] = dict.fromkeys(("t_ref", "t_valid_to"), "") | {
                "t_valid_from": str(row["session_time"].date())
            }
    stores.commit(store, "run3", *gym)
    assert look(store, user_id=("eve",))["num_junk"] == 0


def test_a_store_that_is_not_there_is_a_failure_that_names_it(tmp_path):
    with pytest.raises(JobError, match="no such store"):
        audit.run(audit.AuditConfig(store=str(tmp_path / "none")))
