"""Stages of a consolidation on a real store, with a model that is not there: caps, and what is paid once."""

import pytest

from cluster.consolidate import stages as consolidation
from cluster.consolidate.budget import Budget
from cluster.consolidate.plan import plan_group
from cluster.consolidate.stages import DecideStage, decide_group, plan_for_model
from cluster.consolidate.verdicts import staged_verdicts
from cluster.store.files import Files
from cluster.store.store import Store
from schemas.stage_items import UserGroup
from tests.unit.cluster.consolidate.nights import PROFILE, Model, settings_of
from tests.unit.cluster.store.stores import commit, segment

USERS = ("ann", "bob", "cyd")


@pytest.fixture
def store(tmp_path):
    """Three users who moved."""
    store = Store(str(tmp_path / "store"), must_exist=False)
    told = [
        segment(f"{user}-{place}", f"I live in {place}.", user=user, session=f"s{number}", records=[text])
        for user in USERS
        for number, (place, text) in enumerate(
            (("Lyon", "User lives in Lyon."), ("Oslo", "User moved to Oslo."))
        )
    ]
    commit(store, "night-1", *told)
    return store


def decided(store, monkeypatch, model, budget=None) -> dict:
    """One run of plan and decide."""
    monkeypatch.setattr(consolidation, "ModelDecider", lambda profile, **_: model)
    settings, files = settings_of(store.uri, min_similarity=1.0), Files(store.uri, "staging/consolidate/now")
    group = plan_for_model(UserGroup("000000", USERS), profile=PROFILE, settings=settings, files=files)
    return vars(DecideStage(PROFILE, settings, files, {}, budget)(group))


def test_a_cap_stops_between_two_calls_and_the_next_run_goes_on(store, monkeypatch):
    first = decided(store, monkeypatch, Model(), Budget(max_calls=2))
    assert (first["expected_calls"], first["num_calls"], first["is_stopped"]) == (3, 2, True)
    assert len(staged_verdicts(Files(store.uri, "staging"), PROFILE.fingerprint)) == 2
    assert not Files(store.uri, "staging/consolidate/now").exists("000000/decisions.parquet")
    second = decided(store, monkeypatch, Model(), Budget(max_calls=2))
    assert (second["expected_calls"], second["num_calls"], second["is_stopped"]) == (1, 1, False)
    assert (second["num_decisions"], second["num_deleted"]) == (3, 3)


def test_a_cap_on_tokens_stops_too(store, monkeypatch):
    """A call is begun when what it is expected to cost is left; what it did cost is counted."""
    nothing = decided(store, monkeypatch, None, Budget(max_tokens=0))
    assert nothing["is_stopped"] and nothing["num_calls"] == 0
    a_call = nothing["expected_tokens"] // 3
    done = decided(store, monkeypatch, Model(), Budget(max_tokens=a_call + 20))
    assert done["is_stopped"] and (done["num_calls"], done["spent_tokens"]) == (2, 30)


def test_second_tries_count_as_calls(store, monkeypatch):
    """Three questions are expected; two answers that cannot be read cost two calls more."""
    done = decided(store, monkeypatch, Model("{", "{"), Budget(max_calls=3))
    assert done["is_stopped"] and done["num_calls"] == 4
    assert decided(store, monkeypatch, Model(), Budget(max_calls=3))["num_deleted"] == 3


def test_a_staged_failure_is_asked_for_again(store, monkeypatch):
    outage = [ConnectionError("refused")] * 20
    assert decided(store, monkeypatch, Model(*outage))["num_failed"] == 3
    again = decided(store, monkeypatch, Model())
    assert (again["num_failed"], again["num_deleted"]) == (0, 3)


def test_no_model_is_loaded_where_all_answers_are_known(store, monkeypatch):
    decided(store, monkeypatch, Model())
    done = decided(store, monkeypatch, None)
    assert (done["num_calls"], done["num_deleted"]) == (0, 3)


def test_the_pair_model_decides_a_planned_group_without_a_profile(tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    said = ("User is pruning the vineyard.", "User has finished pruning the vineyard.")
    told = [
        segment(f"ann-{number}", text, user="ann", session=f"s{number}", records=[text])
        for number, text in enumerate(said)
    ]
    commit(store, "night-1", *told)
    settings, files = settings_of(store.uri), Files(store.uri, "staging/consolidate/now")
    planned = plan_group(UserGroup("000000", ("ann",)), settings=settings, files=files)
    assert decide_group(planned, settings=settings, files=files, kind="rules").num_deleted == 0
    assert decide_group(planned, settings=settings, files=files, kind="pairs").num_deleted == 1
