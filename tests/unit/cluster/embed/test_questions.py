"""Questions to a view of a store."""

import datetime as dt

import pytest

from cluster.embed import questions as module
from cluster.embed.questions import QuestionEmbedder
from jobs import query
from jobs.common.questions import Question
from jobs.evaluate import qa
from schemas.profile import EmbedderProfile

DAY = dt.date(2026, 3, 1)


class Embedded:
    def __init__(self, profile):
        pass

    def embed_queries(self, texts):
        return [f"vector of {text}" for text in texts]


class Searched:
    """A store that says how it was searched."""

    uri = "s"

    def run(self, as_of):
        return {"run_id": as_of}

    def search(self, *given, **settings):
        return [given, settings]


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(module, "Embedder", Embedded)

    def embedder(store, view, name=None):
        return QuestionEmbedder(EmbedderProfile(name="e", model="m"), store, view["run_id"])

    for job in (query, qa):
        monkeypatch.setattr(job, "question_embedder", embedder)
    return Searched()


def test_a_question_and_an_evaluation_search_the_view_alike(store, monkeypatch):
    """With the vector of the question, in the run that they name, seen from the day on which it is asked."""
    config = query.QueryConfig(store="s", user_id="ann", text="tea?", k=7, asked_on=DAY)
    given, settings = query.search(store, store.run("run1"), config)
    assert given == ("ann", "tea?", "vector of tea?", 7, "run1")
    assert (settings["turn_vector"], settings["at"], settings["asked_on"]) == (None, None, DAY)
    monkeypatch.setattr("cluster.store.store.Store", lambda uri: store)
    monkeypatch.setattr(qa, "fact_of", lambda hit: hit)
    evaluation = qa.Config(questions="q", store="s", as_of="run1", report="r", k=7)
    asked = Question("q1", "ann", "t", "tea?", "green", frozenset(), frozenset(), asked_on=DAY)
    ((again, others),) = qa.retrieve(evaluation, [asked])
    assert again == given and others.items() <= settings.items()
