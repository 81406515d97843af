"""The class `Store`: an open store, to be read, searched, or written under a lease.

    Reader (cluster.store.reading) <- Writer (cluster.store.writer) <- Store
    Store.search    cluster.store.search
    Store.commit    cluster.store.commit

cluster.store.writer explains how writing is safe against kills and other writers. Each kind of write is an
operation: the commit of a run (cluster.store.commit), those on a whole store (cluster.store.maintenance), and
those of higher packages, such as forgetting. `recover` finishes an operation that a killed writer has begun,
so its caller passes the operations of higher packages.
"""

from cluster.store import commit as commits
from cluster.store import maintenance
from cluster.store.search import search as search_view
from cluster.store.writer import Operations, Writer


class Store(Writer):
    """A store; `must_exist` is for readers, a backfill may create it. `lease` is for writers."""

    search = search_view
    commit = commits.commit

    def recover(self, operations: Operations | None = None) -> str | None:
        """`Writer.recover`, with these operations and all that the store has itself."""
        return super().recover({**commits.OPERATIONS, **maintenance.OPERATIONS, **(operations or {})})
