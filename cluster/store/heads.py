"""The commit point: numbered heads, each of which names one whole state of the store.

A head is a small file that is created and never changed. It names the version of every table, `runs`
included. Readers follow the newest one. Only one of two writers can create number N + 1, however long one of
them slept, whatever its clock says and whether or not it still had the lease: the other is told, and has
published nothing. The number also is what runs are ordered by.
"""

import dataclasses
import json
import uuid
from dataclasses import dataclass

from cluster.store.files import Files, Numbered, json_object

_NAMES = Numbered()

UPGRADE = "upgrade"
"""`by` of a head that is the state before it, brought up to a later STORE_VERSION: no run made it."""

NUM_KEPT = 4
"""Heads that stay. Only the newest is ever looked at; the ones before it tell a person what went on."""


@dataclass(frozen=True)
class Head:
    """One state of the store."""

    number: int
    by: str
    """Id of the run that made this state, or UPGRADE. A compaction has an id too, though it is no row of
    `runs`."""
    versions: dict[str, int]
    """Table -> version, `runs` included."""
    store_version: int
    """STORE_VERSION of the release that made it."""


class Heads:
    """The heads of one store."""

    def __init__(self, uri: str):
        self._files = Files(uri, "heads")

    def newest(self) -> Head | None:
        """The state that readers see; None in an empty store, or one of a release that knew no heads."""
        while paths := self._paths():
            for path in reversed(paths):
                if head := self._read(path):
                    return head
            # So many may have been published since the list was made that all on it are gone.
            if self._paths() == paths:
                break
        return None

    def number(self) -> int:
        """The highest number in use, 0 where there is none. That file may be half-written, and no head."""
        return max((_NAMES.number(path) or 0 for path in self._paths()), default=0)

    def get(self, number: int) -> Head | None:
        """The head with this number; None where there is none, or no longer."""
        return self._read(_NAMES.path(number))

    def create(self, head: Head) -> bool:
        """Make a state visible; False when another writer has published under this number."""
        path = _NAMES.path(head.number)
        content = json.dumps(dataclasses.asdict(head) | {"token": uuid.uuid4().hex}).encode()
        # So many others may have published meanwhile that this number was free again.
        return self._files.claim(path, content) and self.number() == head.number

    def tidy(self) -> None:
        """Delete all but the newest heads."""
        self._files.delete(self._paths()[:-NUM_KEPT])

    def _paths(self) -> list[str]:
        return [path for path in self._files.paths() if _NAMES.number(path) is not None]

    def _read(self, path: str) -> Head | None:
        found = json_object(self._files.get(path) or b"")
        if not found:
            return None
        return Head(**{field.name: found[field.name] for field in dataclasses.fields(Head)})
