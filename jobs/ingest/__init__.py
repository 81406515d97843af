"""Turn conversation exports into a Parquet archive.

    python -m jobs.ingest --input day1.jsonl.gz exports/ --archive archive/
    python -m jobs.ingest --format chatgpt-export --input export.zip --user-id me --archive archive/

DIR receives `NUMBER-FORMAT-DIGEST-PART.parquet` (ARCHIVE_SCHEMA), what could not be used with its reason in
`_rejections/FORMAT-DIGEST.jsonl`, and a record of every ingest in `_ingest.json`, written last. DIGEST is
that of the input: what was ingested before is known by it and adds nothing. NUMBER counts ingests that
added files, so that file names sort in their order.

An archive only grows, and of a session that stands in it more than once the last one counts. A session is
left out when the archive ends with the same, and written again when it has changed. Within one input it may
grow from file to file, and the newest version by its own times is taken; versions that do not continue each
other, and of which none is the newest, are a rejection. The input is read twice: to see which version of a
session is its last, and to write it.
"""

import collections
import contextlib
import dataclasses
import datetime as dt
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import filelock
from obstore.exceptions import BaseError
from pydantic import Field, ValidationInfo, field_validator

from cluster.runtime import Progress
from cluster.store.clients import told
from jobs.common.cli import JobConfig, JobError, UsageError, say
from jobs.common.input_items import ITEM, NOTE, REST_OF_FILE, Rejection, as_raw, read_items
from jobs.common.place import Place
from jobs.common.rejected import rejected
from jobs.ingest.files import InputFile, digest_of, find_files
from jobs.ingest.format import Format, Origin, Row
from jobs.ingest.formats import AUTO, FORMATS
from jobs.ingest.mending import EmptyChat, mended
from jobs.ingest.output import (
    MANIFEST,
    ArchiveWriter,
    RejectionWriter,
    archive_files,
    entry_of,
    files_of,
    name_files,
    publish,
    read_ingests,
    remove_leftovers,
)
from jobs.ingest.recognise import hint, recognise, renamed
from jobs.ingest.rows import Rows
from jobs.ingest.versions import CHANGED, CONFLICT, DUPLICATE, Versions
from schemas.archive import EMPTY_CHAT, EMPTY_TURN, UNKNOWN_TIME, InvalidSession
from schemas.manifest import RunManifest

if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[AUTO, *FORMATS]

Found = tuple[int, object, dict, float | None] | Rejection
"""(number, source, archive row, updated_s) of a session, as `read_file` says, or what cannot be read."""

NUM_REASONS = 3
"""Reasons that are shown when a job fails on rejections."""


class IngestConfig(JobConfig):
    format: FormatName = AUTO
    """What the input is: `auto` tells it by the fields of its first items. jobs/README.md has a table of what
    each format keeps."""

    input: list[str] = Field(min_length=1)
    """Files, or folders and zip files of them (.json, .jsonl, .ndjson, chats of WhatsApp), plain, gzip or
    zstandard. A Parquet or Arrow file is given by its name."""

    archive: str = Field(min_length=1)
    """Folder or object-store URI of the archive. Made where it is missing, added to where it exists."""

    user_id: str | None = None
    """User of the sessions that name none. Needed for formats that name no users, as most exports do."""

    columns: list[str] = Field(default=[])
    """What fields of the items are called that have other names, as OURS=THEIRS: user_id=uid content=text."""

    max_rejected_fraction: float = Field(default=0.05, ge=0, le=1)
    """The job fails and publishes nothing when more than this part of the sessions was rejected."""

    @field_validator("format")
    @classmethod
    def _check_format(cls, format: str) -> str:
        FORMATS.check(format)
        FORMATS.get(format)  # EntryPointError is a ValueError
        return format

    @field_validator("user_id")
    @classmethod
    def _check_user_id(cls, user_id: str | None, info: ValidationInfo) -> str | None:
        if user_id is not None and not user_id.strip():
            raise ValueError("must not be blank; name the user whose conversations these are")
        format = FORMATS.get(info.data.get("format", ""))
        if user_id is None and format and not format.names_users:
            raise ValueError(f"{format.name} files name no user; name theirs with --user-id")
        return user_id

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: list[str]) -> list[str]:
        for column in columns:
            ours, _, theirs = column.partition("=")
            if not ours or not theirs:
                raise ValueError(f"{column!r}: must be OURS=THEIRS, such as user_id=uid")
        return columns

    def names(self) -> dict[str, str]:
        """Our name of a field -> theirs."""
        return dict(column.split("=", 1) for column in self.columns)


def run(config: IngestConfig) -> dict:
    """Ingest all input into the archive; returns the summary.

    Raises UsageError for input or an archive folder that cannot work, JobError when another ingest holds the
    archive or it cannot be written. Too many rejections give a summary with status "failed".
    """
    started_s = time.monotonic()
    files = find_files(config.input, config.format)
    if config.format == AUTO:
        format, files = recognise(files, config.names())
        if config.user_id is None and not format.names_users:
            raise UsageError(f"user_id=None: {format.name} files name no user; name theirs with --user-id")
        config = config.model_copy(update={"format": format.name})
    with Place(config.archive) as place, _alone(place, config.archive) as check:
        try:
            remove_leftovers(place)  # of a killed ingest: their space may be needed now
            try:
                summary = _ingest(config, files, place, check)
            finally:
                remove_leftovers(place)
        except sqlite3.Error as error:
            remedy = "see that the folder for temporary files has space, or name another in SQLITE_TMPDIR"
            raise JobError(f"rows of the input cannot be kept: {error}; {remedy}") from error
        except (OSError, BaseError) as error:
            remedy = "see that it can be written and has space, then run the same command again"
            raise JobError(f"archive={config.archive!r}: {told(error)}; {remedy}") from error
    return summary | {"seconds": round(time.monotonic() - started_s, 3)}


@contextlib.contextmanager
def _alone(place: Place, archive: str) -> Iterator[Callable[[], None]]:
    """Keeps other ingests out of the archive; yields what raises LeaseLost where that holds no more. JobError
    where one is at it, UsageError where nothing can be written. An archive in an object store has a lease, as
    a store has, and asks the server once whether it keeps two writers apart."""
    if not place.is_bucket:
        try:
            place.work.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(place.work / ".ingest.lock").acquire(timeout=0)
        except filelock.Timeout:
            raise JobError(f"archive={archive!r}: another ingest is writing to it; wait for it") from None
        except OSError as error:
            raise UsageError(f"archive={archive!r}: {error.strerror}; name a folder to write to") from None
        with lock:
            yield lambda: None
        return
    from cluster.store.errors import StoreError
    from cluster.store.lease import Lease, LeaseHeld, LeaseLost

    try:
        with Lease(place.uri, "jobs.ingest") as lease:
            yield lease.check
    except LeaseHeld as error:
        raise JobError(str(error)) from error
    except (StoreError, LeaseLost) as error:
        raise JobError(f"archive={archive!r}: {error}") from error
    except (BaseError, FileNotFoundError) as error:
        remedy = "see that the bucket is there and can be written, then run the same command again"
        raise JobError(f"archive={archive!r}: {told(error)}; {remedy}") from error


def _ingest(config: IngestConfig, files: list[InputFile], place: Place, check: Callable[[], None]) -> dict:
    format = FORMATS[config.format]
    ingest = f"{format.name}-{digest_of(files, config.user_id, config.names())}"
    archive = place.work if not place.is_bucket else place.uri
    ingests = read_ingests(archive)
    if ingest in ingests:
        return _repeat(config, ingest, len(files), place, ingests[ingest])
    name, older_files = name_files(archive_files(archive), ingest)
    versions = Versions()
    # One now for both readings of the input, which must see the same.
    now = dt.datetime.now(dt.UTC)
    progress = Progress("ingest", "sessions read")
    for shown, found in read_files(files, format, config.user_id, now, config.names()):
        if not isinstance(found, Rejection):
            versions.add(*found[2:])
            progress.advance(1, shown)
    versions.compare_with(archive, older_files, name)
    counts: collections.Counter[str] = collections.Counter()
    reasons: list[str] = []
    progress = Progress("ingest", "sessions compared", total=progress.done)
    with ArchiveWriter(place, name) as writer, RejectionWriter(place, ingest) as rejections:
        for shown, found in read_files(files, format, config.user_id, now, config.names()):
            if isinstance(found, Rejection):
                _count_rejection(found, counts)
                _keep_first(found, reasons)
                rejections.add(found)
                continue
            number, source, session, _ = found
            counts["num_seen"] += len(session["turns"]) if format.is_rows else 1
            verdict = versions.judge(session)
            if verdict == CONFLICT:
                counts["num_rejections"] += 1
                rejection = _conflict(shown, number, source, session)
                _keep_first(rejection, reasons)
                rejections.add(rejection)
            elif verdict == DUPLICATE:
                counts["num_duplicates"] += 1
            else:
                writer.add(session)
                counts["num_sessions"] += 1
                counts["num_sessions_changed"] += verdict == CHANGED
                counts["num_turns"] += len(session["turns"])
            progress.advance(1, shown)
        for file in files:
            file.check_unchanged()
    rejections.publish()
    num_bad, num_seen = counts["num_rejections"], counts["num_seen"]
    what = "turns were rejected" if format.is_rows else "sessions were rejected"
    limit = config.max_rejected_fraction
    if error := rejected(limit, num_bad, num_seen, what, keep=lambda: f"in {rejections.path}"):
        say(f"error: {error}")
        for reason in reasons:
            say(f"  {reason}")
        failed = {"status": "failed", "error": error, "reasons": reasons}
        return _summary(config, ingest, len(files), 0, counts) | failed
    inputs = [{"file": file.shown, "num_bytes": file.num_bytes, "sha256": file.sha256} for file in files]
    settings = config.model_dump(include={"format", "user_id"})
    check()
    publish(place, ingests, entry_of(ingest, settings, _counts(counts), inputs, writer.files))
    if counts["num_rejections"] or rejections.num_written:
        say(f"[ingest] {_noted(counts)}: {rejections.path}")
    summary = _summary(config, ingest, len(files), len(writer.files), counts)
    if num_seen:
        return summary
    held = f"{counts['num_empty_chats']} empty chats" if counts["num_empty_chats"] else "nothing"
    say(f"[ingest] the input is empty: {len(files)} files hold {held}")
    return summary | {"is_empty": True}


def _noted(counts: dict) -> str:
    words = {
        "num_rejections": "rejections",
        "num_empty_chats": "empty chats left out",
        "num_empty_turns": "empty turns dropped",
        "num_unknown_times": "times that cannot be used, and count as unknown",
        "num_mended_parts": "other parts mended",
    }
    return ", ".join(f"{counts[name]} {said}" for name, said in words.items() if counts[name])


def _conflict(shown: str, number: int, source: object, session: dict) -> Rejection:
    reason = (
        f"session_id={session['session_id']!r}: user {session['user_id']!r} has it twice in this input, and "
        "neither continues the other, nor is newer by its times; rename one, or ingest them one after the "
        "other: the last counts"
    )
    return Rejection(shown, number, reason, as_raw(source), ITEM)


def _repeat(config: IngestConfig, ingest: str, num_inputs: int, place: Place, entry: RunManifest) -> dict:
    """The summary for input that was ingested before: nothing is added, its sessions are duplicates."""
    there = set(place.paths())
    for file in files_of(entry):
        if file not in there:
            raise JobError(
                f"{place.shown(file)}: is gone, and this input was ingested to it; restore it, or take "
                f"{ingest!r} out of {place.shown(MANIFEST)} to ingest it anew"
            )
    say(f"[ingest] {ingest}: this input was ingested before; nothing to add")
    num_duplicates = entry.summary["num_sessions"] + entry.summary["num_duplicates"]
    nothing = {"num_sessions": 0, "num_sessions_changed": 0, "num_turns": 0}
    counts = entry.summary | nothing | {"num_duplicates": num_duplicates}
    return _summary(config, ingest, num_inputs, 0, counts)


def read_file(
    file: InputFile, format: str, user_id: str | None, now: dt.datetime | None = None
) -> Iterator[Found]:
    """Yield (number, source, archive row, updated_s) for every good session, a Rejection for all else.

    `number` is the line or item that the session stands in, `source` the part of it that the session is;
    `updated_s` is when it was last written to by its own times.
    """
    for _, found in read_files([file], FORMATS[format], user_id, now or dt.datetime.now(dt.UTC), {}):
        yield found


def read_files(
    files: list[InputFile], format: Format, user_id: str | None, now: dt.datetime, columns: dict[str, str]
) -> Iterator[tuple[str, Found]]:
    """(file as it is shown, what `read_file` yields of it). Sessions whose turns stand in rows come last,
    when all rows have been seen."""
    with Rows(now) as rows:
        for file in files:
            for item in read_items(file.path, file.shown, member=file.member):
                if isinstance(item, Rejection):
                    yield file.shown, item
                    continue
                number, value = item[0], renamed(item[1], columns)
                try:
                    for part in format.read(value, Origin(user_id, file.place, file.folder)):
                        found: Iterator[Found]
                        if isinstance(part, Row):
                            bad = rows.add(file.shown, number, part, value)
                            found = iter([bad] if bad else [])
                        else:
                            found = _checked(file.shown, number, *part, now)
                        for one in found:
                            yield file.shown, _named(one, value, format.name)
                except InvalidSession as error:
                    rejection = Rejection(file.shown, number, str(error), as_raw(value), ITEM)
                    yield file.shown, _named(rejection, value, format.name)
        for shown, number, source, session in rows.sessions():
            for one in _checked(shown, number, source, session, now):
                yield shown, one


def _named(found: Found, item: dict, format: str) -> Found:
    """A rejection of what another format reads says so."""
    if isinstance(found, Rejection) and found.kind == ITEM and (what := hint(item, format)):
        return dataclasses.replace(found, reason=f"{what} ({found.reason})")
    return found


def _checked(
    shown: str, number: int, source: object, session: dict | InvalidSession, now: dt.datetime
) -> Iterator[Found]:
    """One session as archive row, after a note for each part of it that was mended, or as Rejection."""
    try:
        if isinstance(session, InvalidSession):
            raise session
        found = mended(session, now)
    except InvalidSession as error:
        yield Rejection(shown, number, str(error), as_raw(source), ITEM)
        return
    except EmptyChat:
        reason = "empty chat: nothing was said in it; it is left out"
        yield Rejection(shown, number, reason, as_raw(source), NOTE, EMPTY_CHAT)
        return
    for note, part in found.notes:
        reason = f"session_id={found.row['session_id']!r}, {note.reason}; its session is kept"
        yield Rejection(shown, number, reason, as_raw(part), NOTE, note.kind)
    yield number, source, found.row, found.updated_s


def _keep_first(rejection: Rejection, reasons: list[str]) -> None:
    """Keep the first NUM_REASONS that differ, with their places, to be shown when the job fails."""
    if rejection.kind == NOTE or len(reasons) == NUM_REASONS:
        return
    from cluster.backfill.redact import redact

    # It may quote the value that is wrong.
    told = redact(rejection.reason).text
    if not any(reason.endswith(f": {told}") for reason in reasons):
        reasons.append(f"{rejection.file}:{rejection.line_or_item}: {told}")


def _count_rejection(rejection: Rejection, counts: collections.Counter) -> None:
    if rejection.kind == NOTE:
        names = {EMPTY_TURN: "num_empty_turns", UNKNOWN_TIME: "num_unknown_times"}
        names |= {EMPTY_CHAT: "num_empty_chats"}
        counts[names.get(rejection.noted, "num_mended_parts")] += 1
        return
    counts["num_rejections"] += 1
    counts["num_seen"] += 1
    if rejection.kind == REST_OF_FILE:
        counts["num_cut_files"] += 1
        from cluster.backfill.redact import redact

        say(f"[ingest] {rejection.file}: {redact(rejection.reason).text}")


def _summary(config: IngestConfig, ingest: str, num_inputs: int, num_files: int, counts: dict) -> dict:
    return {
        "status": "done",
        "format": config.format,
        "archive": config.archive,
        "ingest": ingest,
        "num_input_files": num_inputs,
        "num_files": num_files,
    } | _counts(counts)


def _counts(counts: dict) -> dict:
    """Sessions are those written, new and changed ones; duplicates those that needed no writing."""
    names = ["sessions", "sessions_changed", "turns", "rejections", "duplicates", "empty_turns"]
    names += ["empty_chats", "unknown_times", "mended_parts", "cut_files"]
    return {f"num_{name}": counts.get(f"num_{name}", 0) for name in names}
