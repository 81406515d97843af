"""Reading an archive that may be damaged: a bad file, row group or row costs only itself.

A row group is the *unit* of work. Ray Data's own Parquet reader fails a whole task for one broken page, so
workers read row groups with this module: first the planning of units, then the reading of rows.
cluster.backfill.parquet_limits sees to it that no file takes more memory than a worker has.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import BaseError
from pyarrow import fs

from cluster.backfill.parquet_limits import MAX_ROW_BYTES, Oversized, check_group, row_bytes, unpacked
from cluster.store.clients import identity, opened, told
from cluster.store.errors import StoreError
from cluster.store.files import local_path, paths_below
from schemas.archive import ARCHIVE_SCHEMA, UNKNOWN_TIME, InvalidSession, mend_session
from schemas.stage_items import ArchiveFile, BadRow, InspectedFile, RowGroup

REQUIRED = ("user_id", "session_id", "turns")

RAW_CHARS = 200_000
"""Characters of a bad row that are passed on, to be redacted and then shortened."""


class ArchiveError(ValueError):
    """There is no archive where one should be."""


@dataclass(frozen=True)
class Unit:
    """One row group to be cut: `num_rows` rows of the file, from `first_row` on."""

    path: str
    row_group: int
    first_row: int
    num_rows: int
    superseded: frozenset[int] = frozenset()
    """Rows of the file whose session has a newer row further on in the archive: not read."""
    beyond_limit: frozenset[int] = frozenset()
    """Rows of the file whose session is not among the first `limit_sessions`: not read."""
    done: frozenset[int] = frozenset()
    """Rows of the file whose segments the store already has: not read, but counted as read."""

    @property
    def num_rows_read(self) -> int:
        return self.num_rows - len(self.superseded) - len(self.beyond_limit)

    @property
    def num_rows_left(self) -> int:
        """Rows that are to be read."""
        return self.num_rows - len(self.not_read)

    @property
    def not_read(self) -> frozenset[int]:
        return self.superseded | self.beyond_limit | self.done

    @property
    def unit_id(self) -> str:
        return hashlib.sha256(f"{self.path}\0{self.row_group}".encode()).hexdigest()[:16]


def list_files(archive: str) -> list[str]:
    """Parquet files under a folder or object-store URI, sorted; not those that begin with `_` or `.`."""
    try:
        found = _paths(archive)
    except (OSError, ValueError, BaseError, StoreError) as error:
        raise ArchiveError(
            f"--archive {archive}: cannot be listed ({told(error)}); make one with jobs.ingest"
        ) from None
    paths = [path for path in found if path.endswith(".parquet") and not _is_hidden(path)]
    if not paths:
        raise ArchiveError(
            f"--archive {archive}: no Parquet files; make them with jobs.ingest or jobs.sample"
        )
    return sorted(paths)


def inspect(file: ArchiveFile, *, archive: str, secret: bytes = b"") -> InspectedFile:
    """Stage: `inspect_file`, unless the file has the content that is known."""
    identity = b"" if file.known is None else identity_of(archive, file.path)
    if identity and identity == file.known:
        return InspectedFile(file.path, identity=identity, is_known=True)
    return replace(inspect_file(archive, file.path, secret), identity=identity)


def identity_of(archive: str, path: str) -> bytes:
    """32 bytes that identify the content of a file; b"" if it cannot be identified.

    An object store gives each content an ETag. A folder does not: size and times may stay the same when a
    copy keeps them, or when a file is written twice within a tick of the clock. So a local file is read whole
    and hashed, without unpacking it.
    """
    try:
        if local_path(archive) is None:
            found = identity(archive, path)
            return hashlib.sha256(found.encode()).digest() if found else b""
        return hashlib.file_digest(open_file(archive, path), "sha256").digest()
    except (OSError, pa.ArrowException, BaseError, StoreError):  # `inspect_file` finds it too, and says so
        return b""


def inspect_file(archive: str, path: str, secret: bytes = b"") -> InspectedFile:
    """What a file holds, from its footer and its key columns. `secret` as in `session_key`."""
    try:
        source = open_file(archive, path)
        file = pq.ParquetFile(source)
    except Exception as error:  # pyarrow raises OSError, ArrowInvalid and more for broken footers
        return InspectedFile(path, bad=(BadRow(path, "unreadable_file", _message(error)),))
    missing = [name for name in REQUIRED if name not in file.schema_arrow.names]
    if missing:
        detail = f"columns {missing} are missing; expected\n{ARCHIVE_SCHEMA}\nfound\n{file.schema_arrow}"
        return InspectedFile(path, bad=(BadRow(path, "wrong_schema", detail),))
    groups, bad, first_row = [], [], 0
    for row_group in range(file.num_row_groups):
        num_rows = file.metadata.row_group(row_group).num_rows
        try:
            check_group(source, file.metadata, row_group, ARCHIVE_SCHEMA.names)
            keys = unpacked(source, file.metadata, row_group, ["user_id", "session_id"])
            groups.append(RowGroup(row_group, first_row, b"".join(_keys(table, secret) for table in keys)))
        except Exception as error:
            rows = f"{path}:rows {first_row}-{first_row + num_rows - 1}"
            reason = "oversized_rows" if isinstance(error, Oversized) else "unreadable_rows"
            bad.append(BadRow(rows, reason, _message(error)))
        first_row += num_rows
    return InspectedFile(path, tuple(groups), tuple(bad))


def plan_units(inspected: list[InspectedFile], limit_sessions: int | None = None) -> list[Unit]:
    """Units in archive order that have a row of the archive's first `limit_sessions` sessions.

    An archive only grows: of a session that stands more than once, the last one by path and row counts, also
    where only its older one stands among the first. Sessions are numbered as they first appear, so that the
    same ones are read however much was added to them.
    """
    units, unit_keys = [], []
    for found in sorted(inspected, key=lambda file: file.path):
        for group in found.row_groups:
            keys = np.frombuffer(group.keys, dtype="S16")
            if len(keys):
                units.append(Unit(found.path, group.row_group, group.first_row, len(keys)))
                unit_keys.append(keys)
    if not units:
        return []
    _, firsts, session = np.unique(np.concatenate(unit_keys), return_index=True, return_inverse=True)
    is_wanted = np.ones(len(session), bool)
    if limit_sessions is not None and limit_sessions < len(firsts):
        is_wanted = (firsts <= np.sort(firsts)[limit_sessions - 1])[session]
    is_last = np.zeros(len(session), bool)
    # np.unique gives the first occurrence, so look from the end.
    is_last[len(session) - 1 - np.unique(session[::-1], return_index=True)[1]] = True
    starts = np.cumsum([0, *(unit.num_rows for unit in units)])
    planned = []
    for unit, start, end in zip(units, starts, starts[1:], strict=False):
        wanted, last = is_wanted[start:end], is_last[start:end]
        if wanted.any():
            superseded, beyond = np.flatnonzero(wanted & ~last), np.flatnonzero(~wanted)
            planned.append(
                replace(
                    unit,
                    superseded=frozenset((superseded + unit.first_row).tolist()),
                    beyond_limit=frozenset((beyond + unit.first_row).tolist()),
                )
            )
    return planned


@dataclass(frozen=True)
class Row:
    """A row that was read."""

    number: int
    """In the file."""
    found: dict | BadRow
    """A checked session, or why it cannot be used."""
    is_settled: bool
    """Whether the row will be read in the same way at any later time. False for a row that could not be read,
    and for a time in the future."""
    unknown_times: tuple[str, ...] = ()
    """Times of the session that are not plausible: where they stand, and that they count as unknown."""


def read_unit(archive: str, unit: Unit) -> Iterator[dict | BadRow]:
    """The unit's rows in order: a checked session, or why it cannot be used."""
    return (row.found for row in read_rows(archive, unit))


def read_rows(archive: str, unit: Unit) -> Iterator[Row]:
    """The unit's rows in order. Of a row group that is damaged somewhere, the rows before that are read."""
    not_read = unit.not_read
    first, last = unit.first_row, unit.first_row + unit.num_rows - 1
    tables = _tables(archive, unit)
    while first <= last:
        try:
            table = next(tables, None)
            num_bytes: np.ndarray | list[int] = row_bytes(table) if table is not None else []
        except Exception as error:
            bad = BadRow(f"{unit.path}:rows {first}-{last}", "unreadable_rows", _message(error))
            yield Row(first, bad, is_settled=False)
            return
        if table is None:
            return
        for row_number in range(first, min(first + table.num_rows, last + 1)):
            if row_number not in not_read:
                index = row_number - first
                source = f"{unit.path}:{row_number}"
                found, unknown = _read_row(table.slice(index, 1), source, num_bytes[index])
                yield Row(row_number, found, not unknown and isinstance(found, dict), unknown)
        first += table.num_rows


def _tables(archive: str, unit: Unit) -> Iterator[pa.Table]:
    source = open_file(archive, unit.path)
    yield from unpacked(source, pq.read_metadata(source), unit.row_group, ARCHIVE_SCHEMA.names)


def _read_row(table: pa.Table, source: str, num_bytes: int) -> tuple[dict | BadRow, tuple[str, ...]]:
    """The one row of a table, and its `unknown_times`."""
    if num_bytes > MAX_ROW_BYTES:
        detail = f"{num_bytes >> 20} MiB unpacked, more than {MAX_ROW_BYTES >> 20}; split the session"
        return BadRow(source, "oversized_row", detail), ()
    try:
        # Row by row: one string that is no UTF-8 would fail the conversion of the whole column.
        row = table.to_pylist()[0]
    except UnicodeDecodeError as error:
        return BadRow(source, "broken_text", f"{_message(error)}; re-encode the row as UTF-8"), ()
    except Exception as error:  # a time outside the years 1 to 9999, an unknown time zone, ...
        return BadRow(source, "unreadable_row", _message(error)), ()
    ids = {name: row[name] if isinstance(row[name], str) else None for name in ("user_id", "session_id")}
    try:
        session, notes = mend_session(row)
    except InvalidSession as error:
        return BadRow(source, "invalid_session", str(error), raw=repr(row)[:RAW_CHARS], **ids), ()
    return session, tuple(f"{source}: {note.reason}" for note in notes if note.kind == UNKNOWN_TIME)


def read_sessions(archive: str) -> Iterator[dict]:
    """All good sessions of an archive, each as it stands last, read in this process."""
    units = plan_units([inspect_file(archive, path) for path in list_files(archive)])
    for unit in units:
        yield from (row for row in read_unit(archive, unit) if not isinstance(row, BadRow))


def session_key(user_id: object, session_id: object, secret: bytes = b"") -> bytes:
    """A 16-byte digest of a session's ids; anything but a string counts by its repr. With a `secret` (up to
    64 bytes), only its owner can check which ids a key belongs to."""
    return hashlib.blake2b(
        f"{user_id!r}\0{session_id!r}".encode("utf-8", "backslashreplace"), digest_size=16, key=secret
    ).digest()


def _keys(table: pa.Table, secret: bytes) -> bytes:
    users, sessions = table.column("user_id"), table.column("session_id")
    keys = []
    for index in range(table.num_rows):
        try:
            user_id, session_id = users[index].as_py(), sessions[index].as_py()
        except UnicodeDecodeError:
            user_id = session_id = None
        if not all(isinstance(value, str) and value.strip() for value in (user_id, session_id)):
            # Rows without a proper key are rejected each for itself: none may supersede another.
            keys.append(os.urandom(16))
        else:
            keys.append(session_key(user_id, session_id, secret))
    return b"".join(keys)


def _paths(archive: str) -> list[str]:
    """Every file of an archive, as paths in it."""
    if (folder := local_path(archive)) is None:
        return paths_below(archive)
    infos = fs.LocalFileSystem().get_file_info(fs.FileSelector(str(folder), recursive=True))
    return [info.path[len(str(folder)) :].strip("/") for info in infos if info.is_file]


def _is_hidden(path: str) -> bool:
    return any(part.startswith(("_", ".")) for part in path.split("/"))


def open_file(archive: str, path: str) -> pa.NativeFile:
    """A file of an archive, to be read in parts."""
    if (folder := local_path(archive)) is None:
        return opened(archive, path)
    return fs.LocalFileSystem().open_input_file(str(folder / path))


def _message(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    return text.encode("utf-8", "backslashreplace").decode()
