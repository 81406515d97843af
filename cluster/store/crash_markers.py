"""Attempts at a batch by processes that may die: finds out whether a segment or the worker is to blame.

A process writes a marker before it tries something. A batch is tried as a whole once per run. A worker that
finds its marker (the batch failed, or its process died) goes on part by part. A part on which MAX_DEATHS
processes died is to blame, and is not tried again. The death of a process together with its node does not
count. Markers belong to one run: a run that was killed from outside leaves no blame to the next.

If the worker is broken, its processes die on every part. So the worker first tries a part that some worker
has done well (the run's *probe*). If that fails too, the worker is to blame, and gives the batch back.
"""

import contextlib
import functools
import uuid
from collections.abc import Callable, Iterator

from cluster.runtime.resources import dead_nodes, this_node
from cluster.store.files import Files

MAX_DEATHS = 3
"""Processes that may die on a part before the part is to blame; also, parts on which a worker's processes may
die, with none done in between, before the worker is to blame."""


class WorkerSick(Exception):
    """This worker cannot do the work; another one may. The message says why."""


class Attempts:
    """One run's attempts at one batch, by a process on a node (not given: where this process runs)."""

    def __init__(
        self,
        files: Files,
        run: str,
        batch_id: str,
        *,
        node: str | None = None,
        dead_nodes: Callable[[], frozenset[str]] = dead_nodes,
    ):
        self.node = this_node() if node is None else node
        self._files = files
        # Asked only when a process has died.
        self._dead_nodes = functools.cache(dead_nodes)
        self._run, self._folder = f"attempts/{run}", f"attempts/{run}/{batch_id}"

    def first(self) -> bool:
        """Whether no process has tried the batch as a whole, except those that died with their node."""
        marker, tried = f"{self._folder}/whole", self._tried()
        if self._files.claim(marker, tried):
            return True
        if self._is_of_the_living(marker):
            return False
        self._files.put(marker, tried)
        return True

    def give_back(self) -> None:
        """Let the next worker try the batch as a whole again: nothing was wrong with it."""
        self._files.delete([f"{self._folder}/whole"])

    @contextlib.contextmanager
    def alone(self, part: str) -> Iterator[bool]:
        """Try one part of the batch; False for a part at which too many processes have died."""
        if self.num_deaths(part) >= MAX_DEATHS:
            yield False
            return
        marker = f"{self._folder}/parts/{part}/{uuid.uuid4().hex}"
        self._files.put(marker, self._tried())
        try:
            yield True
        except Exception:
            self._files.delete([marker])
            raise
        self._files.delete([marker])

    def num_deaths(self, part: str) -> int:
        """Processes that died at this part, but for those whose node died."""
        return sum(map(self._is_of_the_living, self._files.paths(f"{self._folder}/parts/{part}")))

    def check_worker(self) -> None:
        """WorkerSick when the processes of this node died at several parts, and it has done none."""
        if self._files.exists(f"{self._folder}/done-{self.node}"):
            return
        markers = self._files.paths(f"{self._folder}/parts")
        mine = [marker for marker in markers if self._node_of(marker) == self.node]
        parts = {marker.rpartition("/")[0] for marker in mine}
        if len(parts) >= MAX_DEATHS:
            raise WorkerSick(f"its processes died {len(mine)} times, at {len(parts)} different inputs")

    def done(self) -> None:
        """Note that this node has done a part of the batch."""
        self._files.create(f"{self._folder}/done-{self.node}", b"done")

    # --- the run's probe ------------------------------------------------------------------------------

    def offer_probe(self, name: str) -> None:
        """Name what was done well; the run's first one stays."""
        self._files.create(f"{self._run}/probe", name.encode())

    def probe(self) -> str | None:
        """What some worker of this run has done well; None before any has."""
        found = self._files.get(f"{self._run}/probe")
        return found.decode() if found else None

    def _tried(self) -> bytes:
        """What a marker says: the node, and what no other marker does, so that a process knows its own."""
        return f"{self.node}/{uuid.uuid4().hex}".encode()

    def _node_of(self, marker: str) -> str | None:
        found = self._files.get(marker)
        return None if found is None else found.decode().partition("/")[0]

    def _is_of_the_living(self, marker: str) -> bool:
        node = self._node_of(marker)
        return node is not None and node not in self._dead_nodes()
