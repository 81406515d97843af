"""Nights of a small store without Ray: memories in, plan, decide, embed, commit; a model that is scripted."""

import datetime as dt
from types import SimpleNamespace

from cluster.consolidate import stages
from cluster.consolidate.budget import Budget
from cluster.consolidate.decider import ask
from cluster.consolidate.fold import Question
from cluster.consolidate.plan import PlanSettings, plan_group
from cluster.models.asking import Answer
from cluster.store.files import Files
from cluster.store.store import Store
from schemas.profiles.decider import DeciderProfile
from schemas.stage_items import UserGroup
from tests.gold import write_run
from tests.unit.cluster.store.stores import DIM, vector

PROFILE = DeciderProfile(
    name="d", base="owner/base", system_prompt="Decide.", user_template="{target} {sources}", base_hash="x"
)
DELETE = '{"action": "delete", "updated_text": "", "confidence": 0.9}'
IGNORE = '{"action": "ignore", "updated_text": "", "confidence": 0.9}'


def update(text: str) -> str:
    return f'{{"action": "update", "updated_text": "{text}", "confidence": 0.9}}'


class Embedder:
    """A vector per text, all of them similar."""

    dim = DIM
    profile = SimpleNamespace(fingerprint="e", model_dump_json=lambda: "{}")

    def embed(self, texts: list[str]):
        import numpy as np

        return np.array([vector(text) for text in texts], np.float32)


class Model:
    """Answers like a ModelDecider whose engine says `answers` in turn, then `otherwise`; an exception among
    them is raised. Keeps the questions that it is asked."""

    def __init__(self, *answers: str | Exception, otherwise: str = DELETE):
        self.answers, self.otherwise, self.num_calls = list(answers), otherwise, 0
        self.questions: list[Question] = []

    def decide(self, questions):
        self.questions += questions
        return ask(questions, self._generate, lambda question, num_sources: [1] * 10, PROFILE)

    def _generate(self, requests):
        self.num_calls += len(requests)
        return [self._reply() for _ in requests]

    def _reply(self):
        answer = self.answers.pop(0) if self.answers else self.otherwise
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer, True, 10, 5)


def settings_of(uri: str, **changes) -> PlanSettings:
    values = {
        "uri": uri,
        "as_of": "night-1",
        "run_id": "now",
        "started_at": dt.datetime(2026, 6, 1, tzinfo=dt.UTC),
        "new_runs": None,
        "again": frozenset(),
        "undone": (),
        "decider": PROFILE.fingerprint,
        "min_similarity": 0.0,
        "top_k": 10,
        "max_sources": 10,
        "min_confidence": 0.5,
        "batch_size": 2,
    }
    return PlanSettings(**values | changes)


def tell(uri: str, run_id: str, *memories: dict) -> Store:
    """A night's backfill; the store."""
    write_run(uri, list(memories), Embedder(), run_id)
    return Store(uri)


def consolidate(store: Store, monkeypatch, model: Model, run_id: str = "now", **changes) -> dict:
    """A consolidation by this model, committed; what DecideStage counted, and what was planned."""
    monkeypatch.setattr(stages, "ModelDecider", lambda profile, **_: model)
    monkeypatch.setattr(stages, "Embedder", lambda profile: Embedder())
    files = Files(store.uri, f"staging/consolidate/{run_id}")
    settings = settings_of(store.uri, as_of=store.run()["run_id"], run_id=run_id, **changes)
    users = sorted(set(store.rows("records", ["user_id"], "active").column("user_id").to_pylist()))
    planned = plan_group(UserGroup("0", tuple(users)), settings=settings, files=files)
    done = stages.DecideStage(PROFILE, settings, files, {}, Budget())(planned)
    if done.num_rewritten:
        stages.EmbedRevisions(None, files)(done)
    run = {name: value for name, value in store.run().row.items() if name not in ("versions", "finished_at")}
    run |= {"run_id": run_id, "job": "consolidate", "started_at": settings.started_at.isoformat()}
    replaces = {
        name: [f"consolidate/{run_id}/0/{name}.parquet"]
        for name in ("decisions", "records")
        if getattr(done, f"num_rows_{name}")
    }
    store.commit(run, DIM, replaces=replaces)
    return vars(done)


def texts(store: Store, user: str | None = None, as_of: str | None = None) -> list[str]:
    """Texts of the active memories."""
    where = f"active AND user_id = '{user}'" if user else "active"
    return sorted(store.rows("records", ["semantic_text"], where, as_of).column(0).to_pylist())
