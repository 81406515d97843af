"""Input files: finding them, and knowing them again by their content."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from jobs.common.cli import JobError, UsageError, say

SUFFIXES = (".json", ".jsonl", ".ndjson")


@dataclasses.dataclass(frozen=True)
class InputFile:
    path: Path
    shown: str
    """The path as the user wrote it, for messages and records."""
    num_bytes: int
    mtime_ns: int
    sha256: str

    def check_unchanged(self) -> None:
        """Raise JobError if the file was written to since its digest was taken."""
        try:
            stat = os.stat(self.path)
            is_unchanged = (stat.st_size, stat.st_mtime_ns) == (self.num_bytes, self.mtime_ns)
        except OSError:
            is_unchanged = False
        if not is_unchanged:
            raise JobError(f"input={self.shown!r}: changed while it was read; ingest it when it is complete")


def find_files(inputs: list[str], format: str) -> list[InputFile]:
    """The files that `inputs` name, folders walked in sorted order, each file once.

    Raises UsageError for a path that does not exist or cannot be read and for a folder without input files.
    """
    paths = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            found = _walk(path, format)
            if not found:
                wanted = "conversations*.json" if format == "chatgpt-export" else ", ".join(SUFFIXES)
                raise UsageError(f"input={given!r}: no input files in it; it needs {wanted}, plain or .gz")
        elif path.is_file():
            found = [path]
        else:
            raise UsageError(f"input={given!r}: no such file or folder; check the path")
        for file in found:
            paths.setdefault(file.resolve(), file)
    return [_input_file(path) for path in paths.values()]


def _walk(folder: Path, format: str) -> list[Path]:
    found, ignored = [], []
    for parent, folders, names in os.walk(folder):
        # The `_` and `.` names are an archive's own records; an archive may lie beside its input.
        folders[:] = sorted(name for name in folders if not name.startswith(("_", ".")))
        for name in sorted(names):
            if name.startswith(("_", ".")):
                continue
            is_input = name.removesuffix(".gz").endswith(SUFFIXES)
            if format == "chatgpt-export":
                # An unpacked export has other JSON beside them: user.json, shared links, feedback.
                is_input = is_input and name.startswith("conversations")
            if is_input and os.path.isfile(os.path.join(parent, name)):
                found.append(Path(parent, name))
            else:
                ignored.append(name)
    if ignored:
        names = ", ".join(ignored[:3]) + (", ..." if len(ignored) > 3 else "")
        say(f"[ingest] {folder}: {len(ignored)} files with other names were not read: {names}")
    return found


def _input_file(path: Path) -> InputFile:
    try:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"input={str(path)!r}: {error.strerror}; make it readable") from None
    return InputFile(path, str(path), stat.st_size, stat.st_mtime_ns, sha256)


def digest_of(files: list[InputFile], user_id: str | None) -> str:
    """12 hex digits that stand for the content of `files`, wherever they lie, and the default user."""
    parts = [user_id, *(file.sha256 for file in files)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
