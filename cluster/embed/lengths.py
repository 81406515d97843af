"""How long the vectors of a store are."""

from collections.abc import Iterable

from cluster.embed.embedder import Embedder
from cluster.embed.turn_embedder import turn_embedder
from cluster.store.store import Store
from schemas.profile import EmbedderProfile


def vector_lengths(
    profile: EmbedderProfile, store: Store | None, records: Iterable[int] = (), turns: Iterable[int] = ()
) -> tuple[int, int]:
    """Length of the vectors of records and of those of turns, which another model may make.

    `records` and `turns` are lengths that a run has seen. Where it has seen none, the store's own count,
    unless it is None; and where that has none, those of the models, which are loaded to say so.
    """
    dim = max(records, default=0) or (store and store.dim()) or Embedder(profile).dim
    return dim, turn_embedder(profile).dim(dim, turns, store)
