"""Questions to a view of a store."""

import datetime as dt

import pytest

from cluster.embed import questions as module
from cluster.models.resolve import resolve_embedder
from cluster.store.runs import FinishedRun
from jobs import query
from jobs.common.questions import Question
from jobs.evaluate import qa
from schemas.profiles.embedder import EmbedderProfile
from schemas.store import RUNS_SCHEMA

PROFILE = resolve_embedder(EmbedderProfile(name="e", model="owner/e"))
DAY = dt.date(2026, 3, 1)


class Embedded:
    def __init__(self, profile):
        pass

    def embed_queries(self, texts):
        return [f"vector of {text}" for text in texts]


class Searched:
    """A store that knows how it was searched."""

    uri = "s"

    def snapshot(self):
        return self

    def view(self, as_of):
        written = {"embedder_profile": PROFILE.model_dump_json(), "embedder": PROFILE.fingerprint}
        return FinishedRun.of(dict.fromkeys(RUNS_SCHEMA.names) | written | {"run_id": as_of})

    def search(self, *given, **settings):
        self.asked = given, settings
        return []


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(module, "Embedder", Embedded)
    searched = Searched()
    for place in ("cluster.memory.Store", "cluster.store.store.Store"):
        monkeypatch.setattr(place, lambda uri: searched)
    return searched


def test_a_question_and_an_evaluation_search_the_view_alike(store):
    """With the vector of the question, in the run that they name, seen from the day on which it is asked."""
    query.run(query.QueryConfig(store="s", user_id="ann", text="tea?", k=7, as_of="run1", asked_on=DAY))
    given, settings = store.asked
    assert given == ("ann", "tea?", "vector of tea?", 7, "run1")
    assert (settings["turn_vector"], settings["at"], settings["asked_on"]) == (None, None, DAY)
    evaluation = qa.Config(questions="q", store="s", as_of="run1", report="r", k=7)
    asked = Question("q1", "ann", "t", "tea?", "green", frozenset(), frozenset(), asked_on=DAY)
    qa.retrieve(evaluation, [asked])
    again, others = store.asked
    assert again == given and others.items() <= settings.items()
