"""A folder, or what lies under a URI of an object store, that a job fills with files.

A file is written in `work`, a folder of this machine, under a name that nobody reads, and then gets its name:
at once and whole. In a folder it is renamed; into an object store it is uploaded.
"""

import os
import tempfile
from pathlib import Path
from typing import Self

from cluster.store.clients import bucket, delete
from cluster.store.files import local_path, make_folder, paths_below, sync


class Place:
    """Use as a context: what was written for an object store and not put there is gone at the end."""

    def __init__(self, uri: str):
        self.uri = uri.rstrip("/") if local_path(uri) is None else uri
        self._folder = local_path(uri)
        self._temporary = tempfile.TemporaryDirectory(prefix="slowwave-") if self._folder is None else None
        self.work = Path(self._temporary.name) if self._temporary else Path(uri.removeprefix("file://"))
        """Where files are written before they get their names."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary:
            self._temporary.cleanup()

    @property
    def is_bucket(self) -> bool:
        return self._folder is None

    def shown(self, name: str) -> str:
        """A file of it, as messages name it."""
        return f"{self.uri}/{name}" if self.is_bucket else str(self.work / name)

    def paths(self) -> list[str]:
        """All files that have their names, in order, and in a folder also what lies beside them."""
        return paths_below(self.uri)

    def get(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            if self._folder is None:
                import obstore

                return bytes(obstore.get(bucket(self.uri), name).bytes())
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def put(self, written: Path, name: str, *, is_durable: bool = False) -> None:
        """Give a file in `work` its name. In a folder, `is_durable`: its content is on the disk before it has
        its name, and its name when this returns."""
        if self._folder is None:
            import obstore

            obstore.put(bucket(self.uri), name, written)
            written.unlink()
            return
        if is_durable:
            # After a power cut a name never stands for half a file.
            with open(written, "rb+") as file:
                os.fsync(file.fileno())
        target = self._folder / name
        make_folder(target.parent)
        os.replace(written, target)
        if is_durable:
            sync(target.parent)

    def delete(self, names: list[str]) -> None:
        """Delete files. What is gone already is no error."""
        if self._folder is None:
            delete(bucket(self.uri), names)
            return
        for name in names:
            (self._folder / name).unlink(missing_ok=True)
