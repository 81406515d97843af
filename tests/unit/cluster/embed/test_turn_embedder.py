"""What stages and jobs ask of an embedder, whichever way it reads turns."""

import datetime as dt
import json
from types import SimpleNamespace

import pytest

from cluster.embed import turn_embedder as module
from cluster.embed.embedder import TEXTS
from cluster.embed.turn_embedder import turn_embedder, turn_embedder_of
from schemas.profiles.embedder import EmbedderProfile, EvolvableProfile

ALONE = EmbedderProfile(name="e", model="owner/e")
IN_ORDER = ALONE.model_copy(update={"turns": EvolvableProfile(model="owner/evolvable")})
DAY = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


class Model:
    """An evolvable model of vectors of 7 numbers, which answers with the memory that it was given."""

    dim = 7

    def __init__(self):
        self.wavefront = self

    def queries(self, asked):
        return [f"{text} with {state}" for state, text in asked]


@pytest.fixture
def loaded(monkeypatch):
    """Models as they are loaded."""
    made = []
    monkeypatch.setattr(module, "load_evolvable", lambda profile: made.append(Model()) or made[-1])
    monkeypatch.setattr(module, "read_states", lambda store, users, as_of: {"ann": f"{users} {as_of}"})
    return made


@pytest.mark.parametrize("profile", [ALONE, IN_ORDER])
def test_every_table_with_vectors_is_embedded_by_one_of_the_two_ways(profile):
    embedder = turn_embedder(profile)
    of_users = () if embedder.user_stage is None else ("turns",)
    assert sorted([*embedder.row_tables, *of_users]) == sorted(TEXTS)


def test_texts_that_stand_alone_have_one_vector_and_load_one_model(loaded):
    embedder = turn_embedder(ALONE)
    embedder.load()
    assert embedder.questions(None, "ann", "run1", ["tea?", "dog?"]) == [None, None]
    assert embedder.dim(4, [9], None) == 4
    assert loaded == []


def test_a_question_is_read_with_the_user_s_memory_as_of_the_view_and_the_model_stays_loaded(loaded):
    embedder = turn_embedder(IN_ORDER)
    assert loaded == []
    embedder.load()
    expected = "tea? with ['ann'] run1"
    assert embedder.questions("store", "ann", "run1", ["tea?"]) == [expected]
    assert embedder.questions("store", "bob", "run1", ["tea?"]) == ["tea? with None"]
    assert len(loaded) == 1


def test_the_length_of_vectors_is_what_a_run_saw_or_what_the_store_has_or_what_the_model_says(loaded):
    embedder = turn_embedder(IN_ORDER)
    stores = [SimpleNamespace(turn_dim=lambda: 8), SimpleNamespace(turn_dim=lambda: None)]
    assert embedder.dim(4, [9, 0], stores[0]) == 9
    assert embedder.dim(4, [], stores[0]) == 8
    assert loaded == []
    assert [embedder.dim(4, [], store) for store in (stores[1], None)] == [7, 7]


def turn(number, session_id, day):
    return {"turn_id": number, "session_id": session_id, "session_time": DAY + dt.timedelta(days=day)}


def test_what_was_read_with_erased_turns_or_behind_them_depends_on_them():
    turns = [turn(1, "s3", 3), turn(2, "s1", 1), turn(3, "s2", 2), turn(4, "s2", 2), turn(5, "s4", 4)]
    is_gone = [False, False, True, False, False]
    assert [row["turn_id"] for row in turn_embedder(IN_ORDER).dependents(turns, is_gone)] == [1, 4, 5]
    assert turn_embedder(ALONE).dependents(turns, is_gone) == []
    assert turn_embedder(IN_ORDER).dependents(turns, [False] * 5) == []


@pytest.mark.parametrize("profile", [ALONE, IN_ORDER])
def test_a_run_s_profile_says_which_way_though_another_release_wrote_it(profile):
    written = json.loads(profile.model_dump_json()) | {"new": 1}
    if written["turns"]:
        written["turns"]["new"] = 1
    assert type(turn_embedder_of(json.dumps(written))) is type(turn_embedder(profile))
    assert type(turn_embedder_of("{}")) is type(turn_embedder(ALONE))
