"""What a hit looks like to a person."""

import datetime as dt
from typing import NamedTuple

import pytest

from cluster.memory import Memories
from cluster.store import store as store_module
from cluster.store.runs import FinishedRun
from jobs import history, query
from jobs.common.cli import parse_config
from jobs.query import QueryConfig, line
from schemas.store import RUNS_SCHEMA
from tests.unit.jobs.hits import RECORD, TURN


@pytest.mark.parametrize(("speaker", "shown"), [(None, "assistant"), ("Bob", "Bob")])
def test_a_turn_is_shown_with_who_said_it(speaker, shown):
    assert (
        line(TURN | {"speaker": speaker}) == f"0.5000  turn         {shown}: I got a dog.  [2026-03-01, s1#3]"
    )


def test_a_record_is_shown_with_its_evidence():
    record = RECORD | {"evidence": [*RECORD["evidence"], {"session_id": "s1", "turn_index": 2}]}
    assert line(record) == "0.2500  fact         User has a dog.  [no date, from s1#0, s1#2]"


def test_a_record_is_shown_with_what_held_before_it():
    record = RECORD | {
        "semantic_text": "User lives in Bergen.",
        "evidence": [{"session_id": "s2", "turn_index": 0}],
        "replaces": [{"record_id": "r1", "revision": 1, "text": "User lives in Oslo."}],
    }
    shown = "0.2500  fact         User lives in Bergen.  (before: User lives in Oslo.)  [no date, from s2#0]"
    assert line(record) == shown


def test_a_record_that_something_has_replaced_is_shown_with_its_end():
    record = RECORD | {
        "semantic_text": "User lives in Oslo.",
        "session_time": dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
        "since": dt.date(2026, 3, 1),
        "until": dt.date(2026, 4, 2),
        "replaced_by": "r2",
    }
    assert line(record).endswith("[2026-03-01, until 2026-04-02, from s1#0]")


def test_days_are_given_as_dates(capsys):
    needed = ["--store", "s", "--user-id", "u", "--text", "?"]
    config = parse_config(QueryConfig, "A job.", [*needed, "--at", "2025-03-01"])
    assert (config.at, config.asked_on) == (dt.date(2025, 3, 1), None)
    with pytest.raises(SystemExit):
        parse_config(QueryConfig, "A job.", [*needed, "--at", "soon"])
    assert "at='soon'" in capsys.readouterr().err


KEY = "sk_live_" + "a1B2" * 6
NAMED = {"user_id": KEY, "session_id": KEY, "conversation_id": KEY, "speaker": KEY}
HITS = [
    TURN | NAMED,
    NAMED
    | {"kind": "record", "score": 0.25, "memory_type": "fact", "semantic_text": "User has a dog."}
    | {"session_time": None, "evidence": [{"session_id": KEY, "turn_index": 0}]},
]


class FoundRow(NamedTuple):
    """What jobs.query takes of a hit."""

    row: dict


class OneRun:
    """A store as jobs.query opens it."""

    def __init__(self, uri):
        pass

    def snapshot(self):
        return self

    def view(self, as_of):
        return FinishedRun.of(dict.fromkeys(RUNS_SCHEMA.names) | {"run_id": "run1"})


@pytest.mark.parametrize("as_json", [False, True])
def test_ids_and_speakers_that_look_like_secrets_are_in_no_answer(monkeypatch, capsys, as_json):
    """Neither in lines nor in JSON. The store needs ids as they are, and speakers of older stores are so."""
    monkeypatch.setattr("cluster.memory.Store", OneRun)
    monkeypatch.setattr(Memories, "search", lambda memories, user, **asked: [FoundRow(hit) for hit in HITS])
    summary = query.run(QueryConfig(store="s", user_id=KEY, text="?", as_json=as_json))
    said = f"{capsys.readouterr().out}{summary}"
    assert KEY not in said and said.count("[redacted:api_key]") >= 3
    if as_json:
        assert summary["hits"][1]["evidence"] == [{"session_id": "[redacted:api_key]", "turn_index": 0}]


@pytest.mark.parametrize("as_json", [False, True])
def test_neither_are_they_in_a_life(monkeypatch, capsys, as_json):
    revision = {"revision": 1, "active": True, "memory_type": "fact", "semantic_text": "User has a dog."}
    revision |= NAMED | {"session_time": None, "run_id": "run1", "decision": None, "decision_id": None}
    revision |= {"evidence": [NAMED | {"turn_index": 0, "content": "I have a dog.", "role": "user"}]}
    life = {"record_id": "r1", "user_id": KEY, "active": True, "is_pinned": False}
    life |= {"revisions": [revision], "decisions": []}
    monkeypatch.setattr(store_module, "Store", OneRun)
    monkeypatch.setattr("cluster.consolidate.history.lives", lambda store, where, as_of: [life])
    summary = history.run(history.HistoryConfig(store="s", user_id=KEY, as_json=as_json))
    said = f"{capsys.readouterr().out}{summary}"
    assert KEY not in said and said.count("[redacted:api_key]") >= 3


def test_a_record_is_shown_with_the_values_of_its_extra_fields():
    record = RECORD | {"extra": {"mood": "good", "place": "home"}}
    shown = "0.2500  fact         User has a dog.  (mood: good, place: home)  [no date, from s1#0]"
    assert line(record) == shown


def test_a_life_is_shown_with_the_values_of_its_extra_fields():
    revision = {"revision": 1, "active": True, "memory_type": "fact", "semantic_text": "User has a dog."}
    revision |= {
        "session_time": None,
        "run_id": "run1",
        "decision": None,
        "decision_id": None,
        "evidence": [],
    }
    life = {"record_id": "r1", "user_id": "ann", "is_pinned": False, "decisions": []}
    lines = history.life_lines(life | {"revisions": [revision | {"extra": {"mood": "good"}}]})
    assert lines[-1] == "    mood: good"
    assert history.life_lines(life | {"revisions": [revision]}) == lines[:-1]
