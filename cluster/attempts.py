"""Whose fault it is that a process died: work leaves a marker before it is tried.

A batch is tried as a whole once a run. Whoever finds that it was tried (it failed, or its process died)
goes on one by one, and a marker that one of its parts has left then says what killed the process. The markers
are a run's own: a run that was killed from outside accuses nobody.
"""

import contextlib
from collections.abc import Iterator

from cluster.files import Files


class Attempts:
    """One run's attempts at one batch."""

    def __init__(self, files: Files, run: str, batch_id: str):
        self._files, self._marker = files, f"attempts/{run}/{batch_id}"

    def first(self) -> bool:
        """Whether nobody has tried the batch as a whole."""
        return self._files.create(self._marker, b"")

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """Try one part of the batch; False for a part at which a process has died."""
        marker = f"{self._marker}-{name}"
        is_harmless = self._files.create(marker, b"")
        yield is_harmless
        if is_harmless:
            self._files.delete([marker])
