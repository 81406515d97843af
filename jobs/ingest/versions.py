"""Which sessions of its input an ingest writes.

An archive only grows, and of a session that stands in it more than once the last one counts, by path, then
row. So an ingest writes one version of each session, the one that its input ends with, and only where the
archive ends with another.
"""

import datetime as dt
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.backfill.archive import open_file
from cluster.backfill.parquet_limits import MAX_ROW_BYTES, check_group, row_bytes, unpacked
from jobs.common.cli import JobError
from schemas.archive import ARCHIVE_SCHEMA, InvalidSession, check_session

NEW, CHANGED, DUPLICATE, CONFLICT = "new", "changed", "duplicate", "conflict"

DIGEST_BYTES = 8
"""Digests are compared between versions of one session only, so there is no birthday problem."""


class Versions:
    """The version to keep of each session of an input, in some 400 bytes of memory each and 8 for each turn.

    First `add` all sessions in order, then `compare_with` the archive, then `judge` all sessions again.
    """

    def __init__(self) -> None:
        self._seen: dict[bytes, list[bytes]] = {}
        self._updated: dict[bytes, list[float | None]] = {}
        self._kept: dict[bytes, bytes] = {}
        self._archived: dict[bytes, bytes] = {}

    def add(self, row: dict, updated_s: float | None) -> None:
        """Take note of a session of the input; `updated_s` is when it was last written to."""
        key, version = _key(row), _version(row)
        seen, updated = self._seen.setdefault(key, []), self._updated.setdefault(key, [])
        if seen[-1:] != [version] or updated[-1] != updated_s:
            seen.append(version)
            updated.append(updated_s)

    def compare_with(self, archive: Path | str, paths: list[str], name: str) -> None:
        """Choose the versions to keep, knowing those that `paths`, files of the archive in order, end with.

        Raises JobError for a file that is none of an archive, and for one that sorts after `name`, the files
        about to be written, and so would hide a change in them.
        """
        late: dict[bytes, str] = {}
        for path in paths:
            try:
                with open_file(str(archive), path) as source:
                    keys = self._read(source)
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                raise JobError(
                    f"{archive}/{path}: no archive file ({error}); move it out of the archive"
                ) from None
            late |= dict.fromkeys(keys if path > name else (), path)
        for key, seen in self._seen.items():
            self._kept[key] = _last_of(_newest(seen, self._updated[key]), self._archived.get(key))
        for key, path in late.items():
            if self._archived[key] != self._kept[key]:
                raise JobError(
                    f"{archive}/{path}: has another version of a session and sorts after {name}, "
                    f"so the older one would count; move it to {archive}/000000-{Path(path).name}"
                )

    def _read(self, source: pa.NativeFile) -> list[bytes]:
        """Note the sessions of a file that the input has too. Returns their keys."""
        found, metadata = [], pq.read_metadata(source)
        for group in range(metadata.num_row_groups):
            check_group(source, metadata, group, ARCHIVE_SCHEMA.names)
            tables = unpacked(source, metadata, group, ["user_id", "session_id"])
            keys = [_key(row) for table in tables for row in table.to_pylist()]
            wanted = [key for key in keys if key in self._seen]
            if wanted:
                tables = unpacked(source, metadata, group, ARCHIVE_SCHEMA.names)
                rows = (table.slice(index, 1) for table in tables for index in range(table.num_rows))
                for key, row in zip(keys, rows, strict=True):
                    if key in self._seen:
                        self._archived[key] = _archived_version(row)
                found += wanted
        return found

    def judge(self, row: dict) -> str:
        """NEW or CHANGED for a version to write, DUPLICATE for one that adds nothing, or CONFLICT."""
        key, version = _key(row), _version(row)
        kept, archived = self._kept.setdefault(key, version), self._archived.get(key)
        if version != kept:
            is_older = version not in _newest(self._seen[key], self._updated[key])
            return DUPLICATE if is_older or _continues(kept, version) else CONFLICT
        if archived == kept:
            return DUPLICATE
        self._archived[key] = kept
        return NEW if archived is None else CHANGED


def _newest(seen: list[bytes], updated: list[float | None]) -> list[bytes]:
    """The versions that were written to last; all of them where one does not say when."""
    known = [updated_s for updated_s in updated if updated_s is not None]
    if len(known) < len(updated):
        return seen
    newest = max(known)
    return [version for version, updated_s in zip(seen, updated, strict=True) if updated_s == newest]


def _last_of(seen: list[bytes], archived: bytes | None) -> bytes:
    """The version that `seen` grows to, from the one that the archive ends with or else from the first.

    Growing from the archive's, an older version that was edited since cannot take the place of the newer.
    """
    kept = next((version for version in seen if archived and _continues(version, archived)), seen[0])
    for version in seen:
        if _continues(version, kept):
            kept = version
    return kept


def _key(row: dict) -> bytes:
    return hashlib.blake2b(json.dumps([row["user_id"], row["session_id"]]).encode(), digest_size=16).digest()


def _version(row: dict) -> bytes:
    """A digest of what is not turns, then one of each turn: what a session grows from is a prefix of it."""
    parts = [[row["conversation_id"], _shown(row["session_time"])]]
    parts += [[turn["role"], turn["content"], turn["speaker"], _shown(turn["time"])] for turn in row["turns"]]
    return b"".join(
        hashlib.blake2b(json.dumps(part).encode(), digest_size=DIGEST_BYTES).digest() for part in parts
    )


def _archived_version(table: pa.Table) -> bytes:
    """The version of a session of an archive, the one row of a table."""
    (num_bytes,) = row_bytes(table)
    if num_bytes > MAX_ROW_BYTES:
        return b""  # readers cannot use it, so any version is better
    try:
        return _version(check_session(table.to_pylist()[0]))
    except InvalidSession:
        return b""


def _continues(version: bytes, older: bytes) -> bool:
    """Whether `version` has all turns of `older` and maybe more."""
    return version[DIGEST_BYTES:].startswith(older[DIGEST_BYTES:])


def _shown(time: dt.datetime | None) -> str | None:
    return time.astimezone(dt.UTC).isoformat() if time else None
