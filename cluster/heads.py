"""The commit point: numbered heads, each of which names one whole state of the store.

A head is a small file that is created and never changed. It names the version of every table, `runs`
included. Readers follow the newest one. Only one of two writers can create number N + 1, however long one of
them slept, whatever its clock says and whether or not it still had the lease: the other is told, and has
published nothing. The number also is what runs are ordered by.
"""

import dataclasses
import json
import re
import uuid
from dataclasses import dataclass

from cluster.files import Files, json_object

NUM_KEPT = 4
"""Heads that stay. Only the newest is ever looked at; the ones before it tell a person what went on."""


@dataclass(frozen=True)
class Head:
    """One state of the store."""

    number: int
    by: str
    """Id of the run that made this state. A compaction has an id too, though it is no row of `runs`."""
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
        return max(map(_number, self._paths()), default=0)

    def get(self, number: int) -> Head | None:
        """The head with this number; None where there is none, or no longer."""
        return self._read(_path(number))

    def create(self, head: Head) -> bool:
        """Make a state visible; False when another writer has published under this number."""
        path = _path(head.number)
        content = json.dumps(dataclasses.asdict(head) | {"token": uuid.uuid4().hex}).encode()
        # An object store's answer may get lost, and the client's second try then meets its own first one.
        is_mine = self._files.create(path, content) or self._files.get(path) == content
        # So many others may have published meanwhile that this number was free again.
        return is_mine and self.number() == head.number

    def tidy(self) -> None:
        """Delete all but the newest heads."""
        self._files.delete(self._paths()[:-NUM_KEPT])

    def _paths(self) -> list[str]:
        return list(filter(_NAME.fullmatch, self._files.paths()))

    def _read(self, path: str) -> Head | None:
        found = json_object(self._files.get(path) or b"")
        if not found:
            return None
        return Head(**{field.name: found[field.name] for field in dataclasses.fields(Head)})


_NAME = re.compile(r"\d{12}\.json")
"""How a head is named. File systems and tools that copy leave files of their own beside them."""


def _path(number: int) -> str:
    return f"{number:012d}.json"


def _number(path: str) -> int:
    return int(path.removesuffix(".json"))
