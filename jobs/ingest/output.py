"""What an ingest leaves in the archive, and under which names.

All is written under `.ingest-` names, which archive readers ignore, and gets its names at the end: data
first, the manifest last.
"""

import dataclasses
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.store.files import paths_below
from jobs.common.cli import JobError
from jobs.common.input_items import Rejection
from jobs.common.manifest import object_of
from jobs.common.metrics import metrics
from jobs.common.place import Place
from schemas.archive import ARCHIVE_SCHEMA, ROW_GROUP_SESSIONS
from schemas.manifest import RunManifest, RunStatus, read_manifest

SESSIONS_PER_FILE = 4096

MAX_GROUP_CHARS = 32 << 20
"""A row group is closed early past this much text: it must fit in a worker, and its arrays in 2 GiB."""

MANIFEST = "_ingest.json"
REJECTIONS = "_rejections"
TEMPORARY = ".ingest-"
NUMBERED = re.compile("[0-9]{6}-")
"""How file names begin that sort by the order of their ingests."""


class ArchiveWriter:
    """Writes sessions to temporary Parquet files of SESSIONS_PER_FILE each. Use as a context."""

    def __init__(self, place: Place, name: str):
        self.work, self.name = place.work, name
        self.files: list[dict] = []
        """One entry per finished file: file, num_sessions, num_turns, num_bytes."""
        self._group: list[dict] = []
        self._group_chars = 0
        self._parquet: pq.ParquetWriter | None = None

    def __enter__(self) -> "ArchiveWriter":
        return self

    def __exit__(self, *exception: object) -> None:
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
            path = self.work / (TEMPORARY + file)
            self._parquet = pq.ParquetWriter(
                path, ARCHIVE_SCHEMA, compression="zstd", write_page_checksum=True
            )
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
            entry["num_bytes"] = (self.work / (TEMPORARY + entry["file"])).stat().st_size


class RejectionWriter:
    """Writes rejections as JSON lines to a temporary file. Use as a context, then publish."""

    def __init__(self, place: Place, ingest: str):
        self._place, self._name = place, f"{REJECTIONS}/{ingest}.jsonl"
        self.path = place.shown(self._name)
        self._temporary = place.work / f"{TEMPORARY}{ingest}.jsonl"
        self.num_written = 0

    def __enter__(self) -> "RejectionWriter":
        # A lone surrogate of the input comes out as its JSON escape.
        self._file = open(self._temporary, "w", encoding="utf-8", errors="backslashreplace")
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def add(self, rejection: Rejection) -> None:
        self._file.write(json.dumps(dataclasses.asdict(rejection), ensure_ascii=False) + "\n")
        self.num_written += 1

    def publish(self) -> None:
        """Put the file in its place; one left by an earlier ingest of the same input is replaced."""
        if self.num_written:
            _rename(self._place, self._temporary, self._name)
        else:
            self._place.delete([self._name])


def archive_files(archive: Path | str) -> list[str]:
    """The Parquet files of an archive, as paths in it, in the order of which the last counts.

    Names that begin with _ or . are not its data.
    """
    found = (path.split("/") for path in paths_below(str(archive)) if path.endswith(".parquet"))
    return sorted("/".join(parts) for parts in found if not any(part[0] in "_." for part in parts))


def name_files(paths: list[str], ingest: str) -> tuple[str, list[str]]:
    """How the files of an ingest begin, and those of `paths`, the archive's, that it is to be compared with.

    An ingest gets the next number. One that was interrupted while it published has its number already, and is
    compared with the archive of that time: so it leaves the very files that it would have left.
    """
    numbered = [path for path in paths if NUMBERED.match(path)]
    begun = [path for path in numbered if NUMBERED.sub("", path).startswith(f"{ingest}-")]
    last = int(numbered[-1][:6]) if numbered else 0
    name = f"{int(begun[0][:6]) if begun else last + 1:06}-{ingest}"
    return name, [path for path in paths if path < name or not NUMBERED.match(path)]


def entry_of(
    ingest: str, config: dict, counts: dict[str, int], inputs: list[dict], files: list[dict]
) -> RunManifest:
    """What `_ingest.json` keeps of an ingest. No times in it: the same ingest leaves the same bytes."""
    return RunManifest.with_keys(
        config | {"input": inputs, "files": files} | counts,
        run_id=ingest,
        job="ingest",
        status=RunStatus.DONE,
        config=config,
        summary=counts,
    )


def files_of(entry: RunManifest) -> list[str]:
    """Names of the files that an ingest has added to the archive."""
    return [file["file"] for file in (entry.model_extra or {})["files"]]


def publish(place: Place, ingests: dict[str, RunManifest], entry: RunManifest) -> None:
    """Move the files of an ingest to their names, then record it beside the others."""
    for file in files_of(entry):
        _rename(place, place.work / (TEMPORARY + file), file)
    written = {name: object_of(one) for name, one in ingests.items()} | {str(entry.run_id): object_of(entry)}
    temporary = place.work / (TEMPORARY + MANIFEST)
    temporary.write_text(json.dumps({"version": 1, "ingests": written}, indent=1) + "\n", "utf-8")
    _rename(place, temporary, MANIFEST)
    metrics.ended(entry)


def read_ingests(archive: Path | str) -> dict[str, RunManifest]:
    """Ingest -> its manifest; none of a new archive. Raises JobError for a file that cannot be read."""
    with Place(str(archive)) as place:
        path, data = place.shown(MANIFEST), place.get(MANIFEST)
    if data is None:
        return {}
    try:
        found = json.loads(data.decode("utf-8"))
        if found["version"] == 1 and isinstance(found["ingests"], dict):
            return {name: read_manifest(entry, name) for name, entry in found["ingests"].items()}
        problem = f"version={found['version']!r}"
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        problem = repr(error)
    except ValueError as error:
        problem = str(error)
    raise JobError(f"{path}: no ingest manifest ({problem}); move it away and ingest again")


def remove_leftovers(place: Place) -> None:
    """Delete what an interrupted ingest left under temporary names."""
    for path in place.work.glob(f"{TEMPORARY}*"):
        path.unlink()


def _rename(place: Place, temporary: Path, name: str) -> None:
    place.put(temporary, name, is_durable=True)
