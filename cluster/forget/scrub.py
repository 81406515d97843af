"""What lies around the views: tags, old versions, staged files, manifests, configs of runs.

Ids and texts of what is erased go out of them; what cannot be judged, and can be made again, goes whole.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from cluster.forget import exports, leftovers
from cluster.forget.forgotten import BLANK
from cluster.forget.proof import Traces, readable
from cluster.forget.rules import Subject
from cluster.store.files import WATERMARKS, Files
from cluster.store.maintenance import settle_runs, tidy
from cluster.store.runs import view_versions
from cluster.store.staging import SEAL, take_out
from cluster.store.tables import Table, tag
from cluster.store.writer import Writer
from schemas.store import TABLE_KEYS


def clean(store: Writer, subject: Subject, name: str, traces: Traces) -> dict:
    """Tags to where their runs are now; then all other versions, and traces in files, go. Returns counts.

    `name` takes the place of the subject's id.
    """
    removed = {"num_versions": 0, "num_bytes": 0, "num_tags": 0, "num_files": 0}
    runs = store.openable()
    for table_name in TABLE_KEYS:
        table = store.head(table_name)
        wanted = view_versions(runs, table_name)
        for foreign in set(table.tags.list()) - wanted.keys():
            # A tag of nobody's run would hold an old version, and what is in it, for ever.
            table.tags.delete(foreign)
            removed["num_tags"] += 1
        for run_id, version in wanted.items():
            table.checkout(version)
            tag(table, run_id)
        table.checkout_latest()
        _drop_branches(table)
        for what, count in tidy(table, store).items():
            removed[what] += count
    needles = traces.needles()
    _scrub_runs(store, subject, name, needles)
    removed["num_files"] += exports.scrub(store.uri, subject, needles)
    removed["num_files"] += clean_staging(Files(store.uri, "staging"), subject)
    # Hashes of sessions, the forgotten ones among them; the next backfill makes them anew.
    known = (watermarks := Files(store.uri, WATERMARKS)).paths()
    watermarks.delete(known)
    removed["num_files"] += len(known)
    removed["num_files"] += _scrub_manifests(Files(store.uri, "runs"), subject, name, needles)
    # Last: everything that was overwritten or deleted so far may have left something in a bucket.
    return removed | {"num_leftovers": leftovers.remove(store.uri)}


def _drop_branches(table: Table) -> None:
    dataset = table.to_lance()
    for name in dataset.branches.list():
        dataset.branches.delete(name)


def _scrub_runs(store: Writer, subject: Subject, name: str, needles: list[str]) -> None:
    """Take ids out of the configs that earlier runs have left in `runs`."""
    changed = []
    for run in store.runs():
        found = {"config": run.config, "summary": run.summary}
        kept = {column: scrubbed(value, subject, name, needles) for column, value in found.items()}
        if kept != found:
            changed.append(run.with_columns(**kept))
    settle_runs(store, changed)


def scrubbed(value: Any, subject: Subject, name: str, needles: Sequence[str]) -> Any:
    """JSON in which `name` stands for the subject's id wherever a key says that it is such an id, and BLANK
    for every string with a needle in it."""
    if isinstance(value, list):
        return [scrubbed(item, subject, name, needles) for item in value]
    if isinstance(value, str):
        return BLANK if any(needle in value for needle in needles) else value
    if not isinstance(value, dict):
        return value
    ids = {"user": ("user_id",), "session": ("session_id",), "memory": ("memory", "record_id")}[subject.kind]
    return {
        key: name if key in ids and item == subject.id else scrubbed(item, subject, name, needles)
        for key, item in value.items()
    }


def has_rows(files: Files, path: str, subject: Subject) -> bool:
    """Whether a Parquet file has rows that are the subject's for certain."""
    if (table := readable(files, path)) is None:
        return False
    wanted: dict[str, str | None] = {"user_id": subject.user_id}
    if subject.kind == "session":
        wanted["session_id"] = subject.session_id
    if subject.kind == "memory" or not wanted.keys() <= set(table.column_names):
        return False
    rows = zip(*(table.column(column).to_pylist() for column in wanted), strict=True)
    return tuple(wanted.values()) in set(rows)


def clean_staging(files: Files, subject: Subject) -> int:
    """Take the user's rows out of staged files; what cannot be judged goes. Returns how many files changed.

    Rows of all the user's sessions go: they are work in progress, and can be made again.
    """
    num_changed = 0
    for path in files.paths():
        if path.endswith(f"/{SEAL}"):
            # Counts and hashes only, and worth nothing without the tables that it names.
            continue
        table = readable(files, path)
        if table is not None and "user_id" in table.column_names:
            mine = [user in (subject.user_id, None) for user in table.column("user_id").to_pylist()]
            if any(mine):
                take_out(files, path, mine)
                num_changed += 1
        elif files.get(path):
            # Empty files are marks of attempts.
            files.delete([path])
            num_changed += 1
    return num_changed


def _scrub_manifests(files: Files, subject: Subject, name: str, needles: list[str]) -> int:
    """Take the user's rows out of rejections that failed runs have kept, ids and texts out of manifests."""
    num_changed = 0
    for path in files.paths():
        if path.endswith(".json"):
            before = files.get_json(path)
            if (after := scrubbed(before, subject, name, needles)) != before:
                files.put_json(path, after)
                num_changed += 1
        elif path.endswith(".parquet"):
            if (table := readable(files, path)) is None or "user_id" not in table.column_names:
                # Nobody can tell whose it is, and it serves nobody.
                files.delete([path])
                num_changed += 1
                continue
            users = table.column("user_id").to_pylist()
            others = [user not in (subject.user_id, None) for user in users]
            if not all(others):
                num_changed += 1
                if any(others):
                    files.put_table(path, table.filter(pa.array(others)))
                else:
                    files.delete([path])
    return num_changed
