"""How turns get their vectors: the one thing that stages and jobs ask, whatever embedder a store has.

The profile's own model embeds records, and questions to them, each text alone. Of turns there are two ways:
that model embeds them alike, or an evolvable model reads all of a user's, in order, and leaves a memory.
"""

import functools
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from cluster.embed.embedder import TEXTS, Embedder
from cluster.evolvable.turns import TurnStage, load_evolvable, read_states, session_order
from cluster.store.store import Store
from schemas.profiles.embedder import EmbedderProfile, EvolvableProfile

if TYPE_CHECKING:
    from cluster.evolvable.embedder import EvolvableEmbedder


class TurnEmbedder(Protocol):
    """What makes the vectors of turns, and those of questions to them."""

    row_tables: ClassVar[tuple[str, ...]]
    """Tables whose rows the profile's own model embeds, each alone; in the order of TEXTS."""
    user_stage: ClassVar[type | None]
    """Stage that embeds turns, all of a user's together, behind the one that embeds rows: UsersToRead ->
    UsersRead. None where that one has embedded them."""

    def load(self) -> None:
        """Load now what else the first question would load."""

    def dim(self, row_dim: int, seen: Iterable[int], store: Store | None) -> int:
        """Length of the vectors. `row_dim` is that of the rows', `seen` the lengths that a run has seen;
        with none, the store says it, and else the model."""

    def questions(
        self, store: Store, user_id: str, as_of: str, texts: list[str]
    ) -> Sequence[np.ndarray | None]:
        """For each question to a user's turns in a view its vector, float32 [dim], unit norm; None where
        that of the profile's own model is the one."""

    def dependents(self, turns: list[dict], is_gone: Sequence[bool]) -> list[dict]:
        """Of one user's turns those that stay, and whose vectors were made with some that go."""


class EachAlone:
    """The profile's own model embeds turns as it embeds records; nothing is kept of them but vectors."""

    row_tables: ClassVar[tuple[str, ...]] = tuple(TEXTS)
    user_stage: ClassVar[type | None] = None

    def load(self) -> None:
        pass

    def dim(self, row_dim: int, seen: Iterable[int], store: Store | None) -> int:
        return row_dim

    def questions(
        self, store: Store, user_id: str, as_of: str, texts: list[str]
    ) -> Sequence[np.ndarray | None]:
        return [None] * len(texts)

    def dependents(self, turns: list[dict], is_gone: Sequence[bool]) -> list[dict]:
        return []


EACH_ALONE = EachAlone()


class EachUser:
    """An evolvable model reads all turns of a user, in order; its memory of them is kept in `states`."""

    row_tables: ClassVar[tuple[str, ...]] = tuple(name for name in TEXTS if name != "turns")
    user_stage: ClassVar[type | None] = TurnStage

    def __init__(self, profile: EvolvableProfile):
        self._profile = profile

    @functools.cached_property
    def _model(self) -> "EvolvableEmbedder":
        return load_evolvable(self._profile)

    def load(self) -> None:
        _ = self._model

    def dim(self, row_dim: int, seen: Iterable[int], store: Store | None) -> int:
        return max(seen, default=0) or (store and store.turn_dim()) or self._model.dim

    def questions(
        self, store: Store, user_id: str, as_of: str, texts: list[str]
    ) -> Sequence[np.ndarray | None]:
        """With the user's memory as of the view."""
        state = read_states(store, [user_id], as_of).get(user_id)
        return list(self._model.wavefront.queries([(state, text) for text in texts]))

    def dependents(self, turns: list[dict], is_gone: Sequence[bool]) -> list[dict]:
        """Those of the same sessions, and all behind them."""
        read = [session_order(row) for row in turns]
        goes = [order for order, gone in zip(read, is_gone, strict=True) if gone]
        if not goes:
            return []
        first = min(goes)
        kept = zip(turns, read, is_gone, strict=True)
        return [row for row, order, gone in kept if not gone and order >= first]


def turn_embedder(profile: EmbedderProfile) -> TurnEmbedder:
    """How this embedder makes vectors of turns. Nothing is loaded yet."""
    return EachUser(profile.turns) if profile.turns else EACH_ALONE


def turn_embedder_of(written: str) -> TurnEmbedder:
    """The same of a run's `embedder_profile`; one of another release, which would be refused as a profile,
    still says who has read what."""
    turns = json.loads(written).get("turns")
    return EachUser(EvolvableProfile.model_construct(**turns)) if turns else EACH_ALONE


def vector_lengths(
    profile: EmbedderProfile, store: Store | None, records: Iterable[int] = (), turns: Iterable[int] = ()
) -> tuple[int, int]:
    """Length of the vectors of records and of those of turns, which another model may make.

    `records` and `turns` are lengths that a run has seen. Where it has seen none, the store's own count;
    and where there is none, those of the models, which are loaded to say so.
    """
    dim = max(records, default=0) or (store and store.dim()) or Embedder(profile).dim
    return dim, turn_embedder(profile).dim(dim, turns, store)
