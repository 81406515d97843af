"""Input files: finding them, also in folders and zip files, and knowing them again by their content."""

import dataclasses
import fnmatch
import hashlib
import json
import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from jobs.common import lychee, whatsapp
from jobs.common.cli import JobError, UsageError, say
from jobs.common.input_items import plain_name
from jobs.ingest.formats import FORMATS

SUFFIXES = (".json", ".jsonl", ".ndjson")

MAX_MEMBERS = 100_000
"""A zip file of more members is refused: it is no export."""


@dataclasses.dataclass(frozen=True)
class InputFile:
    path: Path
    shown: str
    """The path as the user wrote it, for messages and records."""
    num_bytes: int
    mtime_ns: int
    sha256: str
    member: str | None = None
    """The file to read of a zip file."""
    is_named: bool = True
    """Whether the user named it, and not a folder or a zip file that it was found in."""

    @property
    def place(self) -> str:
        """Its name without folders and ending."""
        name = plain_name(PurePosixPath(self.member).name if self.member else self.path.name)
        return PurePosixPath(name).stem

    @property
    def folder(self) -> str:
        """Name of the folder that it lies in."""
        return PurePosixPath(self.member).parent.name if self.member else self.path.absolute().parent.name

    def check_unchanged(self) -> None:
        """Raise JobError if the file was written to since its digest was taken."""
        try:
            is_unchanged = _size_and_time(self.path) == (self.num_bytes, self.mtime_ns)
        except OSError:
            is_unchanged = False
        if not is_unchanged:
            raise JobError(f"input={self.shown!r}: changed while it was read; ingest it when it is complete")


def find_files(inputs: list[str], format: str) -> list[InputFile]:
    """The files that `inputs` name, folders and zip files walked in sorted order, each file once.

    Raises UsageError for a path that does not exist or cannot be read, and for a folder or a zip file without
    input files.
    """
    pattern = FORMATS[format].files if format in FORMATS else "*"
    found: dict[Path, list[InputFile]] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            files = _walk(path, pattern)
            if not files:
                raise _nothing_in(given, pattern)
        elif path.is_file():
            files = [path]
        else:
            raise UsageError(f"input={given!r}: no such file or folder; check the path")
        for file in files:
            if file.resolve() not in found:
                found[file.resolve()] = _input_files(file, pattern, is_named=not path.is_dir())
    return [file for files in found.values() for file in files]


def _nothing_in(given: str, pattern: str) -> UsageError:
    wanted = ", ".join(SUFFIXES) if pattern == "*" else pattern.removesuffix("*")
    return UsageError(f"input={given!r}: no input files in it; it needs {wanted}, plain, .gz or .zst")


def _is_input(name: str, pattern: str) -> bool:
    # The `_` and `.` names are an archive's own records; an archive may lie beside its input.
    if whatsapp.is_file(plain_name(name)):
        return fnmatch.fnmatchcase(name, pattern)
    is_input = not name.startswith(("_", ".")) and plain_name(name).endswith(SUFFIXES)
    # An unpacked export has other JSON beside the conversations: user.json, shared links, feedback.
    return is_input and fnmatch.fnmatchcase(name, pattern)


def _is_hidden(name: str) -> bool:
    """Whether files and folders of this name do not belong to the input."""
    return name.startswith(("_", ".")) and not whatsapp.is_file(plain_name(name))


def _walk(folder: Path, pattern: str) -> list[Path]:
    found, ignored = [], []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(("_", ".")))
        for name in sorted(names):
            if _is_hidden(name):
                continue
            is_input = _is_input(name, pattern) or name.endswith(".zip")
            if is_input and os.path.isfile(os.path.join(parent, name)):
                found.append(Path(parent, name))
            else:
                ignored.append(name)
    _tell_ignored(str(folder), ignored)
    return found


def _tell_ignored(place: str, ignored: list[str]) -> None:
    if ignored:
        shown = ", ".join(ignored[:3]) + (", ..." if len(ignored) > 3 else "")
        say(f"[ingest] {place}: {len(ignored)} files with other names were not read: {shown}")


def _input_files(path: Path, pattern: str, is_named: bool) -> list[InputFile]:
    """The file, or the input files in it."""
    try:
        with open(path, "rb") as file:
            num_bytes, mtime_ns = _size_and_time(path)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            members = _members(file)
        if log := lychee.log_of(path):
            with open(log, "rb") as file:
                both = [sha256, hashlib.file_digest(file, "sha256").hexdigest()]
            sha256 = hashlib.sha256(json.dumps(both).encode()).hexdigest()
    except OSError as error:
        raise UsageError(f"input={str(path)!r}: {error.strerror}; make it readable") from None
    whole = InputFile(path, str(path), num_bytes, mtime_ns, sha256, is_named=is_named)
    if members is None:
        return [whole]
    if len(members) > MAX_MEMBERS:
        raise UsageError(
            f"input={str(path)!r}: {len(members)} files in it, more than {MAX_MEMBERS}; unpack it"
        )
    wanted = [name for name in members if _is_input(PurePosixPath(name).name, pattern)]
    wanted = [name for name in wanted if not any(map(_is_hidden, PurePosixPath(name).parts))]
    _tell_ignored(str(path), sorted(set(members) - set(wanted)))
    if not wanted and is_named:
        raise _nothing_in(str(path), pattern)
    return [
        dataclasses.replace(
            whole,
            shown=f"{path}/{name}",
            member=name,
            sha256=hashlib.sha256(json.dumps([sha256, name]).encode()).hexdigest(),
            is_named=False,
        )
        for name in sorted(set(wanted))
    ]


def _size_and_time(path: Path) -> tuple[int, int]:
    """(bytes, when it was last written to) of a file, and of the log of a database that is in use."""
    log = lychee.log_of(path)
    stats = [os.stat(one) for one in (path, *([log] if log else ()))]
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def _members(file: BinaryIO) -> list[str] | None:
    """The files in a zip file; None for another file."""
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            return [info.filename for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return None  # the reader says that it cannot be read


def digest_of(files: list[InputFile], user_id: str | None, columns: dict[str, str] | None = None) -> str:
    """12 hex digits that stand for the content of `files`, wherever they lie, the default user, and what
    columns are called."""
    parts = [user_id, *(file.sha256 for file in files)] + ([sorted(columns.items())] if columns else [])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
