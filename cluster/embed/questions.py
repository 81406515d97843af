"""Questions to a view of a store: their vectors, as the view was embedded, and what is found with them."""

import copy
from typing import Any

import numpy as np

from cluster.embed.embedder import Embedder
from cluster.embed.turn_embedder import turn_embedder
from cluster.models.resolve import resolve_embedder
from cluster.models.sources import ModelError
from cluster.store.store import Store
from schemas.profiles.embedder import EmbedderProfile


def embedder_of(view: dict, given: EmbedderProfile | None = None) -> EmbedderProfile:
    """The embedder that wrote a view, a row of `runs`, resolved. `given` says where it is now, if no longer
    where the view says. ModelError when it is another one, or not to be found as it was."""
    written = EmbedderProfile.model_validate_json(view["embedder_profile"])
    profile = given or written
    try:
        profile = resolve_embedder(profile)
    except ModelError as error:
        raise ModelError(f"embedder {profile.name!r}: {error}") from error
    if profile.fingerprint == view["embedder"]:
        return profile
    if given:
        raise ModelError(
            f"embedder {profile.name!r} ({profile.fingerprint}): the vectors of run {view['run_id']} are of "
            f"embedder {written.name!r} ({view['embedder']}); name none, or change them with jobs.reembed"
        )
    raise ModelError(
        f"embedder {written.name!r}: its models, or what it makes of a turn, are no longer what wrote this "
        "store; restore them, name a profile that has them with --embedder, or make the vectors anew with "
        "jobs.reembed"
    )


class QuestionEmbedder:
    """Embeds questions about the users of one view of a store."""

    def __init__(self, profile: EmbedderProfile, store: Store, as_of: str):
        self._embedder, self._store, self._as_of = Embedder(profile), store, as_of
        self._turns = turn_embedder(profile)
        self._turns.load()

    def on(self, store: Store, as_of: str) -> "QuestionEmbedder":
        """The same loaded models for another view that they have embedded."""
        other = copy.copy(self)
        other._store, other._as_of = store, as_of
        return other

    def vectors(self, user_id: str, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """For each question `vector` and `turn_vector`, as Store.search takes them: float32, unit norm."""
        vectors = self._embedder.embed_queries(texts)
        turn_vectors = self._turns.questions(self._store, user_id, self._as_of, texts)
        return list(zip(vectors, turn_vectors, strict=True))

    def search(self, user_id: str, text: str, k: int, **settings: Any) -> list[dict]:
        """The view's hits for a question; `settings` are those of Store.search."""
        ((vector, turn_vector),) = self.vectors(user_id, [text])
        return self._store.search(user_id, text, vector, k, self._as_of, turn_vector=turn_vector, **settings)
