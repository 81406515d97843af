"""Stages of a consolidation on a real store, with a model that is not there: caps, and what is paid once."""

import datetime as dt

import pytest

from cluster.consolidation import stages as consolidation
from cluster.consolidation.budget import Budget
from cluster.consolidation.decider import ask
from cluster.consolidation.plan import Settings, plan_group
from cluster.consolidation.stages import DecideStage, estimate_group
from cluster.consolidation.verdicts import staged_verdicts
from cluster.encoder import Reply
from cluster.files import Files
from cluster.store import Store
from schemas.profile import DeciderProfile
from tests.unit.cluster.test_store import commit, segment

PROFILE = DeciderProfile(
    name="d", base="owner/base", system_prompt="Decide.", user_template="{target} {sources}", base_hash="x"
)
DELETE = '{"action": "delete", "updated_text": "", "confidence": 0.9}'
USERS = ("ann", "bob", "cyd")


class Model:
    """Answers like a ModelDecider whose engine is `answers`: text after text, an exception raised."""

    def __init__(self, *answers: str | Exception):
        self.answers, self.num_calls = list(answers), 0

    def decide(self, questions):
        return ask(questions, self._generate, lambda question, num_sources: [1] * 10, PROFILE)

    def _generate(self, requests):
        self.num_calls += len(requests)
        return [self._reply() for _ in requests]

    def _reply(self):
        answer = self.answers.pop(0) if self.answers else DELETE
        if isinstance(answer, Exception):
            raise answer
        return Reply(answer, True, 10, 0, 5)


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


def settings_of(store, **changes) -> Settings:
    values = {
        "uri": store.uri,
        "as_of": "night-1",
        "run_id": "now",
        "started_at": dt.datetime(2026, 6, 1, tzinfo=dt.UTC),
        "new_runs": None,
        "again": frozenset(),
        "undone": (),
        "decider": PROFILE.fingerprint,
        "min_similarity": 1.0,
        "top_k": 10,
        "max_sources": 10,
        "min_confidence": 0.5,
        "batch_size": 2,
    }
    return Settings(**values | changes)


def decided(store, monkeypatch, model, budget=None) -> dict:
    """One run of plan and decide."""
    monkeypatch.setattr(consolidation, "ModelDecider", lambda profile, **_: model)
    settings, files = settings_of(store), Files(store.uri, "staging/consolidate/now")
    group = plan_group("000000", list(USERS), settings, files)
    group |= estimate_group("000000", PROFILE, settings, files)
    return DecideStage(PROFILE, settings, files, {}, budget)(group)


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
