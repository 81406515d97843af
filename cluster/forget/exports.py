"""Which exports have gone out of a store, so that what is erased here can be deleted there too.

    _slowwave/exports/ID.json    one export: its format, where it went, which view, whose memories

The list has no memory, no text and no id of a user: of an export of some users it has hashes with a salt of
its own, and which memories went out follows from the view. When a user is forgotten, the hash goes too, and
so does an id in the path of the output.
"""

import dataclasses
import datetime as dt
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cluster.forget.forgotten import BLANK
from cluster.forget.proof import Traces
from cluster.forget.rules import Subject
from cluster.store.errors import StoreError
from cluster.store.files import Files
from cluster.store.reading import Reader
from cluster.store.writer import Writer
from schemas.intent import Forget

FOLDER = "exports"

TOMBSTONES = ".tombstones"
"""Behind the name of an export's folder: where its tombstones are written."""

FORGOTTEN = "forgotten"
"""`closed_reason` in a tombstone."""


@dataclass(frozen=True)
class Exported:
    """An export that went out."""

    export: str
    """Its id, that of the export's own manifest."""
    format: str
    output: str
    """Folder that it was written to, on the machine that wrote it."""
    exported_at: str
    as_of: str
    """The run whose view it has."""
    since: str | None
    at: str | None
    salt: str
    users: tuple[str, ...] | None
    """Hashes of the users whose memories it has; None: of all."""

    def has(self, user_id: str) -> bool:
        """Whether memories of this user may be in it."""
        return self.users is None or hashed(self.salt, user_id) in self.users


def hashed(salt: str, user_id: str) -> str:
    """32 hex digits for a user in one export's entry."""
    return hmac.digest(salt.encode(), user_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()[:32]


def remember(
    uri: str,
    export: str,
    *,
    format: str,
    output: str,
    as_of: str,
    since: str | None = None,
    at: dt.date | None = None,
    users: Sequence[str] = (),
) -> None:
    """Put an export on the list, before it gets its name. `users` are those that were asked for, if any."""
    salt = secrets.token_hex(16)
    entry = Exported(
        export,
        format,
        output,
        dt.datetime.now(dt.UTC).isoformat(),
        as_of,
        since,
        str(at) if at else None,
        salt,
        tuple(sorted(hashed(salt, user) for user in users)) or None,
    )
    Files(uri, FOLDER).put_json(f"{export}.json", dataclasses.asdict(entry))


def take_back(uri: str, export: str) -> None:
    """Take an export off the list that did not go out after all."""
    Files(uri, FOLDER).delete([f"{export}.json"])


def exports(uri: str) -> list[Exported]:
    """All exports of a store, oldest first."""
    files = Files(uri, FOLDER)
    listed = [one for path in files.paths() if (one := _read(files, path))]
    return sorted(listed, key=lambda one: (one.exported_at, one.export))


def _read(files: Files, path: str) -> Exported | None:
    """An entry; None where it is gone. StoreError for a damaged one: it must not pass for none."""
    if (entry := files.get_json(path)) is None:
        return None
    try:
        users = entry["users"]
        return Exported(**(entry | {"users": None if users is None else tuple(users)}))
    except (KeyError, TypeError) as error:
        raise StoreError(
            f"{files.uri}: _slowwave/{FOLDER}/{path} is damaged ({error}), so that nobody knows what went "
            "out; restore it, or delete it and see to that export by hand"
        ) from None


def check_still_there(seen: Reader, now: Reader) -> None:
    """StoreError where somebody was forgotten since the snapshot `seen`, or is being forgotten: an export of
    it would bring out what is erased. Asked after the export was put on the list: a forgetting that this does
    not see, sees the entry."""
    known = {run.run_id for run in seen.runs()}
    since = [run.run_id for run in now.runs() if run.job == "forget" and run.run_id not in known]
    kinds = [(now.files.get_json(path) or {}).get("kind") for path in now.intents()]
    if since or "forget" in kinds:
        raise StoreError(
            f"store {now.uri}: somebody was forgotten while this was exported; run the same command again"
        )


def scrub(uri: str, subject: Subject, needles: Iterable[str]) -> int:
    """Take what tells of the erased out of the list; how many entries changed. An export of nobody else goes
    off the list."""
    files, num_changed = Files(uri, FOLDER), 0
    for one in exports(uri):
        path = f"{one.export}.json"
        users = one.users
        if subject.kind == "user" and users is not None:
            users = tuple(other for other in users if other != hashed(one.salt, subject.user_id))
            if not users:
                files.delete([path])
                num_changed += 1
                continue
        clean = dataclasses.replace(one, users=users, output=without(needles, one.output))
        if clean != one:
            files.put_json(path, dataclasses.asdict(clean))
            num_changed += 1
    return num_changed


def without(needles: Iterable[str], path: str) -> str:
    """A path in which none of these stands, as it is or as in a URL. Shorter ids stay: they are words, and
    other exports need the path."""
    for needle in needles:
        for form in (needle, quote(needle, safe=" @+=,()")):
            path = path.replace(form, BLANK)
    return path


def without_id(subject: Subject, path: str) -> str:
    """A path in which no word is the id of what was erased, however short it is."""
    return re.sub(rf"(?<![^\W_]){re.escape(subject.id)}(?![^\W_])", BLANK, path)


# --- what a forgetting erases --------------------------------------------------------------------------


@dataclass(frozen=True)
class Erased:
    """Rows that a forgetting takes away, each with the runs in whose views it stood."""

    subject: Subject
    kept: frozenset[str]
    """Runs whose views are kept: of others nobody knows what stood in them."""
    records: tuple[tuple[dict, frozenset[str]], ...]
    """Rows of `records`, without vectors."""
    turns: tuple[tuple[dict, frozenset[str]], ...]
    """Rows of `turns`, without vectors."""

    def records_as_of(self, run_id: str) -> list[dict]:
        """Those that stood in the view of a run, or may have."""
        return self._as_of(self.records, run_id)

    def turns_as_of(self, run_id: str) -> list[dict]:
        return self._as_of(self.turns, run_id)

    def _as_of(self, rows: tuple[tuple[dict, frozenset[str]], ...], run_id: str) -> list[dict]:
        return [row for row, runs in rows if run_id in runs or run_id not in self.kept]


def plain_lines(subject: Subject, record_ids: Iterable[str]) -> list[dict]:
    """Tombstone lines in no receiver's own terms: the ids of the store."""
    whole = [{"user_id": subject.user_id, "record_id": None, "closed_reason": FORGOTTEN}]
    rows = [
        {"user_id": subject.user_id, "record_id": record_id, "closed_reason": FORGOTTEN}
        for record_id in sorted(record_ids)
    ]
    return (whole if subject.kind == "user" else []) + rows


def tombstone(one: Exported, run_id: str, folder: str | None, lines: list[dict]) -> dict[str, Any]:
    """A tombstone as an intent has it: which export, where the file goes, what is in it."""
    path = f"{folder}/{one.export}-{run_id}.jsonl" if folder else f"{one.output}{TOMBSTONES}/{run_id}.jsonl"
    return {"export": one.export, "format": one.format, "path": path, "lines": lines}


# --- tombstones ---------------------------------------------------------------------------------------


def bury(store: Writer, intent: Forget, traces: Traces) -> list[dict]:
    """Write the tombstones, whatever of them is written already; what the receipt says of them.

    The list of exports is scrubbed later, so that what is noted here is not asked of it again.
    """
    files, path = Files(store.uri, "receipts"), f"{intent.run['run_id']}.json"
    if (begun := files.get_json(path)) is not None:
        return begun.get("tombstones", [])
    subject, run_id, known = traces.subject, intent.run["run_id"], intent.found.get("exports", ())
    buried = list(intent.found.get("tombstones", ()))
    for one in exports(store.uri):
        # It went out while the forgetting began, or was asked for without tombstones.
        if one.export not in known and one.as_of != run_id and one.has(subject.user_id):
            ids = intent.found.get("records", ())
            if lines := plain_lines(subject, ids):
                buried.append(tombstone(one, run_id, None, lines))
    for one in buried:
        _write_tombstone(store, one)
    noted = [
        {
            "export": one["export"],
            "format": one["format"],
            "path": without_id(subject, without(traces.needles(), one["path"])),
            "num_lines": len(one["lines"]),
        }
        for one in buried
    ]
    if noted:
        begin = {"run_id": run_id, "kind": subject.kind, "subject": intent.shown, "tombstones": noted}
        files.put_json(path, begin)
    return noted


def _write_tombstone(store: Writer, one: dict) -> None:
    try:
        path = Path(one["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in one["lines"])
        path.write_text("".join(lines), "utf-8")
    except OSError as error:
        raise StoreError(
            f"store {store.uri}: what was exported as {one['export']} needs a tombstone in {one['path']}, "
            f"which cannot be written ({error.strerror}); make that folder writable, and run any job that "
            "writes this store"
        ) from None
