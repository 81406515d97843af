"""Forgetting: rows leave every version of every table, every file beside them, and the proof stays.

LanceDB deletes by marking, and keeps old versions, so erasing takes five steps, which can all be repeated:

1. Keyed hashes of what is forgotten go on the store's list, so that no backfill brings it back.
2. Every view that a run still names and that has such rows is written anew without them: restore the version,
   delete, compact until no marked row is left in a data file, build the indexes anew (they hold the words).
3. One commit in `runs` points every run to its rewritten view and adds the run of the forgetting itself.
4. Tags move, then every other version and file goes, staged files, manifests, temporary files of killed
   writers and older versions in a bucket included.
5. All that is left is searched, and the receipt says what was found.

Between 3 and 4 the tombstones are written: files outside the store that say what of earlier exports their
receivers have to delete. They stand in the intent, so that a killed forgetting writes them too.

The intent holds everything that the steps need, the hashes included: whoever finishes a killed forgetting may
not have the operator's secret.

Other users' history stays: their runs can be looked at and rolled back to as before. Until step 3, readers
of the store see the views as they were; plain LanceDB readers see tables go through their history meanwhile.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.forget import exports, leftovers
from cluster.forget.forgotten import BLANK, Forgotten
from cluster.forget.proof import Traces, readable, search
from cluster.forget.rules import Erasure, Subject, erase
from cluster.store.commit import Operations, Writer
from cluster.store.errors import StoreError
from cluster.store.files import HOME, WATERMARKS, Files
from cluster.store.maintenance import settle_runs, tidy
from cluster.store.runs import run_row, view_versions
from cluster.store.sql import quote
from cluster.store.staging import SEAL, take_out
from cluster.store.tables import Table, alone, make_indexes, settled, tag
from schemas.intent import Forget
from schemas.store import TABLE_KEYS

LARGE = ("vector", "latents")
"""Columns that no rule needs."""


def find(
    store: Writer, *, user_id: str | None = None, session_id: str | None = None, record_id: str | None = None
) -> Subject | None:
    """Whose rows are meant; None where no row says so. StoreError when several users have such a session."""
    if record_id is None and session_id is None:
        assert user_id is not None, "one of the three is given"
        return Subject(user_id)
    column, name = ("record_id", "records") if record_id else ("session_id", "turns")
    value = record_id or session_id or ""
    columns = ["user_id", "evidence"] if record_id else ["user_id"]
    rows = [
        row
        for version in _versions(store, name)
        for row in _rows(store, name, version, f"{column} = {quote(value)}", columns)
    ]
    users = {row["user_id"] for row in rows} if user_id is None else {user_id}
    if not users:
        return None
    if len(users) > 1:
        raise StoreError(f"--session-id {value}: {len(users)} users have such a session; add --user-id")
    turns = {(i["session_id"], i["turn_index"]) for row in rows if record_id for i in row["evidence"] or []}
    return Subject(users.pop(), session_id, record_id, frozenset(turns))


def holds(store: Writer, subject: Subject) -> bool:
    """Whether the store has anything of it: a row of any view, a staged one, or its id in a manifest."""
    for by_version in _erasures(store, subject).values():
        if any(erasure.deleted for erasure in by_version.values()):
            return True
    staging, runs = Files(store.uri, "staging"), Files(store.uri, "runs")
    if any(_has_rows(files, path, subject) for files in (staging, runs) for path in files.paths()):
        return True
    manifests = [runs.get_json(path) for path in runs.paths() if path.endswith(".json")]
    return any(_scrubbed(manifest, subject, "", ()) != manifest for manifest in manifests)


Tombstones = Callable[[exports.Erased, list[exports.Exported]], list[dict]]
"""What was erased, and all exports -> tombstones, see cluster.forget.exports.tombstone."""


def forget(
    store: Writer,
    run: dict,
    subject: Subject,
    forgotten: Forgotten | None = None,
    tombstones: Tombstones | None = None,
) -> dict:
    """Erase; returns the receipt. `run` is a row of RUNS_SCHEMA without `versions` and `finished_at`.

    `forgotten` is the store's list, with the operator's secret if it has one. `tombstones` says what the
    receivers of exports have to delete; without it they get the ids that the store knows.
    """
    forgotten = forgotten or Forgotten.of_store(store.uri)
    # Every hash from here on is of the list as it stands, salt included.
    forgotten.save(store.uri)
    erasures = _erasures(store, subject)
    sent = exports.exports(store.uri)
    buried = tombstones(_erased(store, subject, erasures), sent) if tombstones else []
    of_exports = {"tombstones": buried, "exports": [one.export for one in sent] if tombstones else []}
    named = {"user_id": subject.user_id, "session_id": subject.session_id, "record_id": subject.record_id}
    intent = Forget(
        run=run,
        subject=named | {"turns": sorted(subject.turns)},
        shown=shown(forgotten, subject),
        remember=_to_remember(forgotten, subject, erasures),
        list=forgotten.made_with(),
        found=_found(forgotten, subject, erasures) | of_exports,
        # What was searched for then is gone by now: files that held some count until somebody changes them.
        known_traces=(last_proof(store, shown(forgotten, subject)) or {}).get("traces", {}),
    )
    store.begin(intent, apply)
    return receipt(store, run["run_id"])


def receipt(store: Writer, run_id: str) -> dict:
    """What a forgetting removed and what the search for it found; no text and no ids."""
    found = Files(store.uri, "receipts").get_json(f"{run_id}.json")
    assert found is not None, f"run {run_id} has left no receipt"
    return found


def last_proof(store: Writer, subject_shown: str) -> dict | None:
    """What the search after the last forgetting of this subject found; None where there was none."""
    files, place = Files(store.uri, "receipts"), {run.run_id: run.sequence for run in store.runs()}
    of_subject = [
        found
        for path in files.paths()
        # One of a forgetting that is not finished yet has no proof.
        if (found := files.get_json(path)) and found["subject"] == subject_shown and "proof" in found
    ]
    last = max(of_subject, key=lambda found: place.get(found["run_id"], 0), default=None)
    return last and last["proof"]


def apply(store: Writer, intent: Forget) -> None:
    """Bring a forgetting to its end, whatever of it is done already."""
    named = intent.subject
    subject = Subject(**named | {"turns": frozenset((place[0], place[1]) for place in named["turns"])})
    traces = Traces.of(subject, intent.found)
    if not store.is_published(intent):
        erasures = _erasures(store, subject)
        Forgotten.remember(store.uri, intent.remember, intent.made_with)
        moved = {name: _rewrite_all(store, name, erasures[name]) for name in TABLE_KEYS}
        _publish(store, intent.run, moved)
    buried = _bury(store, intent, traces)
    removed = _clean(store, subject, intent.shown, traces)
    _write_receipt(store, intent, traces, removed, buried)
    # The intent names the erased, and holds the texts that were searched for: no version of it may stay.
    leftovers.delete_for_good(store.files, store.intent)


OPERATIONS: Operations = {Forget: apply}
"""For `Store.recover`: what the store, which is a floor below, does not know."""


# --- what goes ----------------------------------------------------------------------------------------


def _versions(store: Writer, name: str) -> list[int]:
    """Versions of a table that runs still name, oldest run first."""
    return list(dict.fromkeys(run.versions[name] for run in store.openable()))


def _rows(
    store: Writer, name: str, version: int, where: str | None, columns: list[str] | None = None
) -> list[dict]:
    table = store.head(name)
    table.checkout(version)
    columns = columns or [column for column in table.schema.names if column not in LARGE]
    query = table.search().select(columns)
    return (query.where(where) if where else query).limit(None).to_arrow().to_pylist()


def _erasures(store: Writer, subject: Subject) -> dict[str, dict[int, Erasure]]:
    """What goes: table -> version -> rows, oldest run first. Depends on nothing but versions that stay."""
    of_user, known = f"user_id = {quote(subject.user_id)}", {}
    found: dict[str, dict[int, Erasure]] = {name: {} for name in TABLE_KEYS}
    for run in store.openable():
        view = run.versions
        for name, version in view.items():
            if (name, version) not in known:
                where = None if name == "rejections" else of_user
                known[name, version] = _rows(store, name, version, where)
        rows = {name: known[name, version] for name, version in view.items()}
        evolvable = bool(json.loads(run["embedder_profile"]).get("turns"))
        erasures = erase(subject, rows, evolvable=evolvable)
        for name, version in view.items():
            # The newest run's version comes last, so that the table ends as that run left it.
            found[name].pop(version, None)
            found[name][version] = erasures[name]
    return found


def _to_remember(forgotten: Forgotten, subject: Subject, erasures: dict) -> list[str]:
    user_id = subject.user_id
    if subject.kind == "user":
        return [forgotten.key("user", user_id)]
    if subject.kind == "session":
        assert subject.session_id is not None
        of_session = forgotten.key("session", user_id, subject.session_id)
        return [of_session, forgotten.asked_key("turns", subject.session_id)]
    assert subject.record_id is not None
    keys = {forgotten.key("turn", user_id, *place) for place in subject.turns}
    keys.add(forgotten.asked_key("records", subject.record_id))
    for erasure in erasures["turns"].values():
        for row in erasure.deleted:
            keys.add(forgotten.key("text", user_id, row["session_id"], row["content"]))
    return sorted(keys)


def _found(forgotten: Forgotten, subject: Subject, erasures: dict) -> dict:
    """Counts of what goes, and the traces to search for afterwards."""
    removed, texts, ids, touched, records = {}, set(), set(), set(), set()
    for name, by_version in erasures.items():
        keys, changed, num_rows = set(), set(), 0
        for erasure in by_version.values():
            num_rows += len(erasure.deleted)
            keys |= {tuple(row[key] for key in TABLE_KEYS[name]) for row in erasure.deleted}
            changed |= {tuple(row[key] for key in TABLE_KEYS[name]) for row in erasure.changed}
            for row in erasure.deleted:
                texts |= {row.get(column) or "" for column in ("content", "semantic_text", "text", "raw")}
        hashed = sorted(forgotten.key(name, *key) for key in keys)
        removed[name] = {
            "num_rows": len(keys),
            "num_rows_in_all_versions": num_rows,
            "num_rows_changed": len(changed - keys),
            "sha256_of_keys": hashlib.sha256("".join(hashed).encode()).hexdigest(),
        }
        if name in ("turns", "records"):
            ids |= {key[0] for key in keys} - {key[0] for key in changed}
        if name == "records":
            touched, records = changed, {key[0] for key in keys}
    ids.add(subject.id)
    return {
        "removed": removed,
        "texts": sorted(texts - {""}),
        "ids": sorted(ids),
        "touched": sorted(touched),
        "records": sorted(records),
    }


def _erased(store: Writer, subject: Subject, erasures: dict[str, dict[int, Erasure]]) -> exports.Erased:
    """What goes, with the runs in whose views it stands."""
    runs = store.openable()
    runs_of: dict[tuple[str, int], set[str]] = {}
    for run in runs:
        for name, version in run.versions.items():
            runs_of.setdefault((name, version), set()).add(run.run_id)
    found: dict[str, list[tuple[dict, frozenset[str]]]] = {}
    for name in ("records", "turns"):
        rows: dict[tuple, dict] = {}
        stood: dict[tuple, set[str]] = {}
        for version, erasure in erasures[name].items():
            for row in erasure.deleted:
                key = (*(row[key] for key in TABLE_KEYS[name]), row.get("semantic_text"))
                rows[key] = row
                stood.setdefault(key, set()).update(runs_of.get((name, version), ()))
        found[name] = [(row, frozenset(stood[key])) for key, row in rows.items()]
    kept = frozenset(run.run_id for run in runs)
    return exports.Erased(subject, kept, tuple(found["records"]), tuple(found["turns"]))


# --- new views ----------------------------------------------------------------------------------------


def _rewrite_all(store: Writer, name: str, erasures: dict[int, Erasure]) -> dict[int, int]:
    """Write the table's views anew where something goes; old version -> new version."""
    moved: dict[int, int] = {}
    for version, erasure in erasures.items():
        is_newest = version == list(erasures)[-1]
        if erasure.deleted or erasure.changed or (moved and is_newest):
            moved[version] = _rewrite(store, name, version, erasure)
    return moved


def _rewrite(store: Writer, name: str, version: int, erasure: Erasure) -> int:
    table = store.head(name)
    with alone(table):
        table.checkout(version)
        changed = _changed_rows(table, name, erasure.changed)
        table.restore()
    with settled(table):
        # Compaction would carry the words of erased rows over into the new indexes.
        for existing in table.list_indices():
            table.drop_index(existing.name)
    for where in _conditions(name, erasure.deleted):
        with alone(table):
            table.delete(where)
    if changed.num_rows:
        with alone(table):
            merge = table.merge_insert(TABLE_KEYS[name]).when_matched_update_all()
            merge.execute(changed, on_bad_vectors="null")
    with settled(table):
        # `optimize` leaves rows that are marked as deleted in their files when they are few.
        table.to_lance().optimize.compact_files(materialize_deletions_threshold=0.0)
        table.checkout_latest()
        make_indexes(table, name)
    return table.version


def _conditions(name: str, rows: list[dict], at_most: int = 500) -> Iterator[str]:
    """SQL conditions on the table's keys that together hold for these rows."""
    keys = TABLE_KEYS[name]
    for start in range(0, len(rows), at_most):
        part = rows[start : start + at_most]
        first = ", ".join(sorted({quote(row[keys[0]]) for row in part}))
        if len(keys) == 1:
            yield f"{keys[0]} IN ({first})"
        else:
            yield " OR ".join(
                f"({keys[0]} = {quote(row[keys[0]])} AND {keys[1]} = {int(row[keys[1]])})" for row in part
            )


def _changed_rows(table: Table, name: str, rows: list[dict]) -> pa.Table:
    """Complete rows, each with the vector that it has in the table, unless it is to have none."""
    full = []
    by_key = {tuple(row[key] for key in TABLE_KEYS[name]): row for row in rows}
    for where in _conditions(name, rows):
        for row in table.search().where(where).limit(None).to_arrow().to_pylist():
            full.append(row | by_key[tuple(row[key] for key in TABLE_KEYS[name])])
    return pa.Table.from_pylist(full, schema=table.schema)


def _publish(store: Writer, run: dict, moved: dict[str, dict[int, int]]) -> None:
    changed = []
    for kept in store.openable():
        versions = {name: moved[name].get(version, version) for name, version in kept.versions.items()}
        changed.append(kept.with_columns(versions=versions))
    store.publish([run_row(run, changed[-1].versions)], changed)


# --- what lies around ---------------------------------------------------------------------------------


def _clean(store: Writer, subject: Subject, name: str, traces: Traces) -> dict:
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
    removed["num_files"] += _clean_staging(Files(store.uri, "staging"), subject)
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
        clean = {column: _scrubbed(value, subject, name, needles) for column, value in found.items()}
        if clean != found:
            changed.append(run.with_columns(**clean))
    settle_runs(store, changed)


def _scrubbed(value: Any, subject: Subject, name: str, needles: Sequence[str]) -> Any:
    """JSON in which `name` stands for the subject's id wherever a key says that it is such an id, and BLANK
    for every string with a needle in it."""
    if isinstance(value, list):
        return [_scrubbed(item, subject, name, needles) for item in value]
    if isinstance(value, str):
        return BLANK if any(needle in value for needle in needles) else value
    if not isinstance(value, dict):
        return value
    ids = {"user": ("user_id",), "session": ("session_id",), "memory": ("memory", "record_id")}[subject.kind]
    return {
        key: name if key in ids and item == subject.id else _scrubbed(item, subject, name, needles)
        for key, item in value.items()
    }


def shown(forgotten: Forgotten, subject: Subject) -> str:
    """What stands for the subject's id in configs, manifests and receipts."""
    parts = [subject.user_id, subject.session_id, subject.record_id]
    return f"forgotten:{forgotten.key(subject.kind, *(part for part in parts if part))}"


def _has_rows(files: Files, path: str, subject: Subject) -> bool:
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


def _clean_staging(files: Files, subject: Subject) -> int:
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
            if (after := _scrubbed(before, subject, name, needles)) != before:
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


def _bury(store: Writer, intent: Forget, traces: Traces) -> list[dict]:
    """Write the tombstones, whatever of them is written already; what the receipt says of them.

    The list of exports is scrubbed later, so that what is noted here is not asked of it again.
    """
    files, path = Files(store.uri, "receipts"), f"{intent.run['run_id']}.json"
    if (begun := files.get_json(path)) is not None:
        return begun.get("tombstones", [])
    subject, run_id, known = traces.subject, intent.run["run_id"], intent.found.get("exports", ())
    buried = list(intent.found.get("tombstones", ()))
    for one in exports.exports(store.uri):
        # It went out while the forgetting began, or was asked for without tombstones.
        if one.export not in known and one.as_of != run_id and one.has(subject.user_id):
            ids = intent.found.get("records", ())
            if lines := exports.plain_lines(subject, ids):
                buried.append(exports.tombstone(one, run_id, None, lines))
    for one in buried:
        _write_tombstone(store, one)
    noted = [
        {
            "export": one["export"],
            "format": one["format"],
            "path": exports.without_id(subject, exports.without(traces.needles(), one["path"])),
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


def _write_receipt(store: Writer, intent: Forget, traces: Traces, removed: dict, buried: list[dict]) -> None:
    # The intent is the only file that may still name them, until right after this.
    proof = search(store, traces, skip=(f"{HOME}/commit/",), known=intent.known_traces)
    Files(store.uri, "receipts").put_json(
        f"{intent.run['run_id']}.json",
        {
            "run_id": intent.run["run_id"],
            "kind": traces.subject.kind,
            "subject": intent.shown,
            "removed": intent.found["removed"],
            "cleaned": removed,
            "tombstones": buried,
            "proof": proof,
        },
    )
