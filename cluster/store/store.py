"""A memory store, opened: read it (cluster.store.reading), search it, or write it under a lease.

How writing is safe against kills and other writers is told in cluster.store.commit. What can be written is a
commit of a run (cluster.store.merge), an operation on the whole store (cluster.store.maintenance), or an
operation of a floor above, such as forgetting, which who recovers a store has to bring along.
"""

from cluster.store import maintenance, merge
from cluster.store.commit import Operations, Writer
from cluster.store.search import search as search_view


class Store(Writer):
    """A store; `must_exist` is for readers, a backfill may create it. `lease` is for writers."""

    search = search_view
    commit = merge.commit

    def recover(self, operations: Operations | None = None) -> str | None:
        """`Writer.recover`, with these operations and all that the store has itself."""
        return super().recover({**merge.OPERATIONS, **maintenance.OPERATIONS, **(operations or {})})
