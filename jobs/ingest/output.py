"""What an ingest leaves in the archive folder, and what it must know of what is there.

All is written under `.ingest-` names, which archive readers ignore, and renamed at the end: data first, the
manifest last.
"""

import dataclasses
import datetime as dt
import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.cli import JobError
from jobs.ingest.files import Rejection
from schemas.archive import ARCHIVE_SCHEMA, ROW_GROUP_SESSIONS, InvalidSession, check_session

SESSIONS_PER_FILE = 4096

MAX_GROUP_CHARS = 256 << 20
"""A row group is closed early past this much text: it must fit in a worker, and its arrays in 2 GiB."""

MANIFEST = "_ingest.json"
REJECTIONS = "_rejections"
TEMPORARY = ".ingest-"


class ArchiveWriter:
    """Writes sessions to temporary Parquet files of SESSIONS_PER_FILE each. Use as a context."""

    def __init__(self, archive: Path, name: str):
        self.archive, self.name = archive, name
        self.files: list[dict] = []
        """One entry per finished file: file, num_sessions, num_turns, num_bytes."""
        self._group, self._group_chars = [], 0
        self._parquet: pq.ParquetWriter | None = None

    def __enter__(self) -> "ArchiveWriter":
        return self

    def __exit__(self, *exception) -> None:
        if exception[0] is None:
            self._flush()
            self._end_file()
        elif self._parquet:
            self._parquet.close()

    def add(self, row: dict) -> None:
        """Take one row of check_session."""
        self._group.append(row)
        self._group_chars += sum(len(turn["content"]) for turn in row["turns"])
        if len(self._group) == ROW_GROUP_SESSIONS or self._group_chars > MAX_GROUP_CHARS:
            self._flush()

    def _flush(self) -> None:
        if not self._group:
            return
        if self._parquet is None:
            file = f"{self.name}-{len(self.files):05}.parquet"
            self.files.append({"file": file, "num_sessions": 0, "num_turns": 0})
            path = self.archive / (TEMPORARY + file)
            self._parquet = pq.ParquetWriter(path, ARCHIVE_SCHEMA, compression="zstd")
        self._parquet.write_table(pa.Table.from_pylist(self._group, schema=ARCHIVE_SCHEMA))
        entry = self.files[-1]
        entry["num_sessions"] += len(self._group)
        entry["num_turns"] += sum(len(row["turns"]) for row in self._group)
        self._group, self._group_chars = [], 0
        if entry["num_sessions"] >= SESSIONS_PER_FILE:
            self._end_file()

    def _end_file(self) -> None:
        if self._parquet:
            self._parquet.close()
            self._parquet = None
            entry = self.files[-1]
            entry["num_bytes"] = (self.archive / (TEMPORARY + entry["file"])).stat().st_size


class RejectionWriter:
    """Writes rejections as JSON lines to a temporary file. Use as a context, then publish."""

    def __init__(self, archive: Path, name: str):
        self.path = archive / REJECTIONS / f"{name}.jsonl"
        self._temporary = archive / f"{TEMPORARY}{name}.jsonl"
        self._num_written = 0

    def __enter__(self) -> "RejectionWriter":
        # A lone surrogate of the input comes out as its JSON escape.
        self._file = open(self._temporary, "w", encoding="utf-8", errors="backslashreplace")
        return self

    def __exit__(self, *exception) -> None:
        self._file.close()

    def add(self, rejection: Rejection) -> None:
        self._file.write(json.dumps(dataclasses.asdict(rejection), ensure_ascii=False) + "\n")
        self._num_written += 1

    def publish(self) -> None:
        """Put the file in its place; one left by an earlier ingest of the same input is replaced."""
        if self._num_written:
            self.path.parent.mkdir(exist_ok=True)
            _rename(self._temporary, self.path)
        else:
            self.path.unlink(missing_ok=True)


class SessionIndex:
    """Which sessions the archive and this ingest hold, in about 200 bytes of memory each.

    A session of the archive is known by its place first; its content is read when a session of the same name
    turns up. Files that begin with `own_prefix` are left out: they are about to be replaced.
    """

    def __init__(self, archive: Path, own_prefix: str):
        self._known: dict[bytes, bytes | tuple[int, int, int]] = {}
        self._paths = [path for path in archive_files(archive) if not path.name.startswith(own_prefix)]
        self._open: tuple[tuple[int, int], list[dict]] | None = None
        for file_number, path in enumerate(self._paths):
            try:
                parquet = pq.ParquetFile(path)
                for group in range(parquet.num_row_groups):
                    names = parquet.read_row_group(group, columns=["user_id", "session_id"])
                    users, sessions = names["user_id"].to_pylist(), names["session_id"].to_pylist()
                    for position, name in enumerate(map(_name_digest, users, sessions)):
                        self._known.setdefault(name, (file_number, group, position))
            except (pa.ArrowException, OSError, KeyError) as error:
                raise JobError(f"{path}: no archive file ({error}); move it out of the archive") from None

    def compare(self, row: dict) -> str:
        """ "new", and known from then on, or "identical" or "different" to the known session of that name."""
        name, content = _name_digest(row["user_id"], row["session_id"]), _content_digest(row)
        known = self._known.get(name)
        if known is None:
            self._known[name] = content
            return "new"
        if isinstance(known, tuple):
            known = self._known[name] = self._read_digest(*known)
        return "identical" if known == content else "different"

    def _read_digest(self, file_number: int, group: int, position: int) -> bytes:
        if self._open is None or self._open[0] != (file_number, group):
            rows = pq.ParquetFile(self._paths[file_number]).read_row_group(group).to_pylist()
            self._open = ((file_number, group), rows)
        try:
            return _content_digest(check_session(self._open[1][position]))
        except InvalidSession:
            return b""


def archive_files(archive: Path) -> list[Path]:
    """The Parquet files of an archive, in subfolders too. Names that begin with _ or . are not its data."""
    found = (path.relative_to(archive) for path in archive.rglob("*.parquet"))
    return [archive / path for path in sorted(found) if not any(part[0] in "_." for part in path.parts)]


def _name_digest(user_id: str, session_id: str) -> bytes:
    return hashlib.blake2b(json.dumps([user_id, session_id]).encode(), digest_size=16).digest()


def _content_digest(row: dict) -> bytes:
    parts = [row["conversation_id"], _micros(row["session_time"])]
    for turn in row["turns"]:
        parts += [turn["role"], turn["content"], turn["speaker"], _micros(turn["time"])]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()


def _micros(time: dt.datetime | None) -> str | None:
    return time.astimezone(dt.UTC).isoformat() if time else None


def publish(archive: Path, manifest: dict, name: str, files: list[dict], entry: dict) -> None:
    """Move finished files to their names, drop older ones of this ingest, then record it in the manifest."""
    for file in files:
        _rename(archive / (TEMPORARY + file["file"]), archive / file["file"])
    kept = {file["file"] for file in files}
    for path in archive.glob(f"{name}-*.parquet"):
        if path.name not in kept:
            path.unlink()
    manifest["ingests"] = dict(sorted((manifest["ingests"] | {name: entry}).items()))
    temporary = archive / (TEMPORARY + MANIFEST)
    temporary.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    _rename(temporary, archive / MANIFEST)


def read_manifest(archive: Path) -> dict:
    """The manifest, or an empty one for a new archive. Raises JobError for a file that is none."""
    path = archive / MANIFEST
    if not path.exists():
        return {"version": 1, "ingests": {}}
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if manifest["version"] == 1 and isinstance(manifest["ingests"], dict):
            return manifest
        problem = f"version={manifest['version']!r}"
    except (ValueError, KeyError, TypeError) as error:
        problem = repr(error)
    raise JobError(f"{path}: no ingest manifest ({problem}); move it away and ingest again")


def remove_leftovers(archive: Path) -> None:
    """Delete what an interrupted ingest left under temporary names."""
    for path in archive.glob(f"{TEMPORARY}*"):
        path.unlink()


def _rename(temporary: Path, path: Path) -> None:
    """Rename, with the content on disk first: after a power cut a name never stands for half a file."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
