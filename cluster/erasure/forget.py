"""Forgetting: rows leave every version of every table, every file beside them, and the proof stays.

LanceDB deletes by marking, and keeps old versions, so erasing takes five steps, which can all be repeated:

1. The keyed hashes of what is forgotten go on the store's list, so that no backfill brings it back.
2. Every view that a run still names and that has such rows is written anew without them: restore the version,
   delete, compact until no marked row is left in a data file, build the indexes anew (they hold the words).
3. One commit in `runs` points every run to its rewritten view and adds the run of the forgetting itself.
4. Tags move, then every other version and file goes, staged files and manifests included.
5. All that is left is searched, and the receipt says what was found.

Other users' history stays: their runs can be looked at and rolled back to as before. Until step 3, readers
of the store see the views as they were; plain LanceDB readers see tables go through their history meanwhile.
"""

import hashlib
import json

import pyarrow as pa

from cluster.erasure.forgotten import Forgotten
from cluster.erasure.proof import Traces, search
from cluster.erasure.rules import Erasure, Subject, erase
from cluster.files import HOME, Files
from cluster.maintenance import index, is_published, openable, publish, tidy
from cluster.store import INTENT, Store, StoreError, quote, run_row, tag
from schemas.store import RUNS_SCHEMA, TABLE_KEYS

LARGE = ("vector", "latents")
"""Columns that no rule needs."""

FOUND = "forget.json"
"""Beside the intent, gone with it: what was found to erase, for the search and the receipt."""


def find(
    store: Store, *, user_id: str | None = None, session_id: str | None = None, record_id: str | None = None
) -> Subject | None:
    """Whose rows are meant, None where they are forgotten already. StoreError when it is not one user's."""
    if record_id is None and session_id is None:
        return Subject(user_id)
    column, value, name = (
        ("record_id", record_id, "records") if record_id else ("session_id", session_id, "turns")
    )
    columns = ["user_id", "evidence"] if record_id else ["user_id"]
    rows = [
        row
        for version in _versions(store, name)
        for row in _rows(store, name, version, f"{column} = {quote(value)}", columns)
    ]
    users = {row["user_id"] for row in rows} if user_id is None else {user_id}
    if not users and Forgotten.of_store(store.uri).has_asked(name, value):
        return None
    if len(users) != 1:
        option = "--memory" if record_id else "--session-id"
        problem = "users have such a session; add --user-id" if users else "no run of this store has it"
        raise StoreError(f"{option} {value}: {len(users) or ''} {problem}".replace(":  ", ": "))
    turns = {(i["session_id"], i["turn_index"]) for row in rows if record_id for i in row["evidence"] or []}
    return Subject(users.pop(), session_id, record_id, frozenset(turns))


def forget(store: Store, run: dict, subject: Subject) -> dict:
    """Erase; returns the receipt. `run` is a row of RUNS_SCHEMA without `versions` and `finished_at`."""
    named = {"user_id": subject.user_id, "session_id": subject.session_id, "record_id": subject.record_id}
    store.begin({"kind": "forget", "run": run, "subject": named | {"turns": sorted(subject.turns)}})
    return receipt(store, run["run_id"])


def receipt(store: Store, run_id: str) -> dict:
    """What a forgetting removed and what the search for it found; no text and no ids."""
    return Files(store.uri, "receipts").get_json(f"{run_id}.json")


def apply(store: Store, intent: dict) -> None:
    """Bring a forgetting to its end, whatever of it is done already."""
    named = intent["subject"]
    subject = Subject(**named | {"turns": frozenset((place[0], place[1]) for place in named["turns"])})
    if not is_published(store, intent):
        erasures = _erasures(store, subject)
        _remember(store, subject, erasures)
        store.files.put_json(FOUND, _found(store, subject, erasures))
        moved = {name: _rewrite_all(store, name, erasures[name]) for name in TABLE_KEYS}
        _publish(store, intent["run"], moved)
    elif store.files.get_json(FOUND) is None:
        # Killed when all was done but the last step.
        store.files.delete([INTENT])
        return
    removed = _clean(store, subject)
    _write_receipt(store, subject, intent["run"]["run_id"], removed)
    # The texts that were searched for go before the intent does: without it, nobody would come for them.
    store.files.delete([FOUND])
    store.files.delete([INTENT])


# --- what goes ----------------------------------------------------------------------------------------


def _versions(store: Store, name: str) -> list[int]:
    """Versions of a table that runs still name, oldest run first."""
    return list(dict.fromkeys(json.loads(row["versions"])[name] for row in openable(store)))


def _rows(store: Store, name: str, version: int, where: str | None, columns: list[str] | None = None):
    table = store.head(name)
    table.checkout(version)
    columns = columns or [column for column in table.schema.names if column not in LARGE]
    query = table.search().select(columns)
    return (query.where(where) if where else query).limit(None).to_arrow().to_pylist()


def _erasures(store: Store, subject: Subject) -> dict[str, dict[int, Erasure]]:
    """What goes: table -> version -> rows, oldest run first. Depends on nothing but versions that stay."""
    of_user, known = f"user_id = {quote(subject.user_id)}", {}
    found: dict[str, dict[int, Erasure]] = {name: {} for name in TABLE_KEYS}
    for run in openable(store):
        view = json.loads(run["versions"])
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


def _remember(store: Store, subject: Subject, erasures: dict) -> None:
    forgotten = Forgotten.of_store(store.uri)
    user_id = subject.user_id
    if subject.kind == "user":
        keys = [forgotten.key("user", user_id)]
    elif subject.kind == "session":
        keys = [forgotten.key("session", user_id, subject.session_id)]
        keys.append(forgotten.asked_key("turns", subject.session_id))
    else:
        keys = [forgotten.key("turn", user_id, *place) for place in subject.turns]
        keys.append(forgotten.asked_key("records", subject.record_id))
        for erasure in erasures["turns"].values():
            for row in erasure.deleted:
                keys.append(forgotten.key("text", user_id, row["session_id"], row["content"]))
    forgotten.with_keys(keys).save(store.uri)


def _found(store: Store, subject: Subject, erasures: dict) -> dict:
    """Counts of what goes, and the traces to search for afterwards."""
    forgotten, removed, texts, ids = Forgotten.of_store(store.uri), {}, set(), set()
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
    ids.add(subject.id)
    return {"removed": removed, "texts": sorted(texts - {""}), "ids": sorted(ids)}


# --- new views ----------------------------------------------------------------------------------------


def _rewrite_all(store: Store, name: str, erasures: dict[int, Erasure]) -> dict[int, int]:
    """Write the table's views anew where something goes; old version -> new version."""
    moved = {}
    for version, erasure in erasures.items():
        is_newest = version == list(erasures)[-1]
        if erasure.deleted or erasure.changed or (moved and is_newest):
            moved[version] = _rewrite(store, name, version, erasure)
    return moved


def _rewrite(store: Store, name: str, version: int, erasure: Erasure) -> int:
    table = store.head(name)
    table.checkout(version)
    changed = _changed_rows(table, name, erasure.changed)
    table.restore()
    # Compaction would carry the words of erased rows over into the new indexes.
    for existing in table.list_indices():
        table.drop_index(existing.name)
    for where in _conditions(name, erasure.deleted):
        table.delete(where)
    if changed.num_rows:
        merge = table.merge_insert(TABLE_KEYS[name]).when_matched_update_all()
        merge.execute(changed, on_bad_vectors="null")
    # `optimize` leaves rows that are marked as deleted in their files when they are few.
    table.to_lance().optimize.compact_files(materialize_deletions_threshold=0.0)
    table.checkout_latest()
    index(table, name)
    return table.version


def _conditions(name: str, rows: list[dict], at_most: int = 500):
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


def _changed_rows(table, name: str, rows: list[dict]) -> pa.Table:
    """Complete rows, each with the vector that it has in the table, unless it is to have none."""
    full = []
    by_key = {tuple(row[key] for key in TABLE_KEYS[name]): row for row in rows}
    for where in _conditions(name, rows):
        for row in table.search().where(where).limit(None).to_arrow().to_pylist():
            full.append(row | by_key[tuple(row[key] for key in TABLE_KEYS[name])])
    return pa.Table.from_pylist(full, schema=table.schema)


def _publish(store: Store, run: dict, moved: dict[str, dict[int, int]]) -> None:
    changed = []
    for row in openable(store):
        versions = {
            name: moved[name].get(version, version) for name, version in json.loads(row["versions"]).items()
        }
        changed.append(row | {"versions": json.dumps(versions)})
    publish(store, [run_row(run, json.loads(changed[-1]["versions"]))], changed)


# --- what lies around ---------------------------------------------------------------------------------


def _clean(store: Store, subject: Subject) -> dict:
    """Tags to where their runs are now; then all other versions, and traces in files, go. Returns counts."""
    removed = {"num_versions": 0, "num_bytes": 0, "num_tags": 0, "num_files": 0}
    runs = openable(store)
    for name in TABLE_KEYS:
        table = store.head(name)
        wanted = {row["run_id"]: json.loads(row["versions"])[name] for row in runs}
        for foreign in set(table.tags.list()) - wanted.keys():
            # A tag of nobody's run would hold an old version, and what is in it, for ever.
            table.tags.delete(foreign)
            removed["num_tags"] += 1
        for run_id, version in wanted.items():
            table.checkout(version)
            tag(table, run_id)
        table.checkout_latest()
        _drop_branches(table)
        for what, count in tidy(table).items():
            removed[what] += count
    _scrub_runs(store, subject)
    tidy(store.head("runs"))
    for folder in ("staging", "runs"):
        removed["num_files"] += _scrub_files(Files(store.uri, folder), subject, keep=folder == "runs")
    return removed


def _drop_branches(table) -> None:
    dataset = table.to_lance()
    for name in dataset.branches.list():
        dataset.branches.delete(name)


def _scrub_runs(store: Store, subject: Subject) -> None:
    """Take ids out of the configs that earlier runs have left in `runs`."""
    table, forgotten = store.head("runs"), Forgotten.of_store(store.uri)
    changed = []
    for row in store.runs():
        clean = row | {
            name: json.dumps(_scrubbed(json.loads(row[name] or "null"), subject, forgotten))
            for name in ("config", "summary")
        }
        if any(json.loads(clean[name]) != json.loads(row[name] or "null") for name in ("config", "summary")):
            changed.append(clean)
    if changed:
        rows = pa.Table.from_pylist(changed, schema=RUNS_SCHEMA)
        table.merge_insert(["run_id"]).when_matched_update_all().execute(rows)
    table.to_lance().optimize.compact_files(materialize_deletions_threshold=0.0)


def _scrubbed(value, subject: Subject, forgotten: Forgotten):
    """JSON with the subject's ids replaced by their hashes, wherever a name says that it is such an id."""
    if isinstance(value, list):
        return [_scrubbed(item, subject, forgotten) for item in value]
    if not isinstance(value, dict):
        return value
    ids = {"user": ("user_id",), "session": ("session_id",), "memory": ("memory", "record_id")}[subject.kind]
    return {
        name: shown(forgotten, subject)
        if name in ids and item == subject.id
        else _scrubbed(item, subject, forgotten)
        for name, item in value.items()
    }


def shown(forgotten: Forgotten, subject: Subject) -> str:
    """What stands for the subject's id in configs, manifests and receipts."""
    parts = [subject.user_id, subject.session_id, subject.record_id]
    return f"forgotten:{forgotten.key(subject.kind, *(part for part in parts if part))}"


def _scrub_files(files: Files, subject: Subject, *, keep: bool) -> int:
    """Take the user's rows out of Parquet files, ids out of JSON. What cannot be judged goes unless `keep`.

    Staged rows of all the user's sessions go: they are work in progress, and can be made again.
    """
    num_changed, forgotten = 0, Forgotten.of_store(files.uri)
    for path in files.paths():
        if path.endswith(".json") and keep:
            before = files.get_json(path)
            if (after := _scrubbed(before, subject, forgotten)) != before:
                files.put_json(path, after)
                num_changed += 1
        elif path.endswith(".parquet") and "user_id" in (table := files.get_table(path)).column_names:
            users = table.column("user_id").to_pylist()
            mine = [user in (subject.user_id, None) for user in users]
            if any(mine):
                num_changed += 1
                if all(mine):
                    files.delete([path])
                else:
                    files.put_table(path, table.filter(pa.array([not own for own in mine])))
        elif not keep and files.get(path):
            files.delete([path])
            num_changed += 1
    return num_changed


def _write_receipt(store: Store, subject: Subject, run_id: str, removed: dict) -> None:
    found, forgotten = store.files.get_json(FOUND), Forgotten.of_store(store.uri)
    traces = Traces(subject=subject, texts=frozenset(found["texts"]), ids=tuple(found["ids"]))
    # The intent and the list of traces are the only files that may still name them, until right after this.
    proof = search(store, traces, skip=(f"{HOME}/commit/",))
    Files(store.uri, "receipts").put_json(
        f"{run_id}.json",
        {
            "run_id": run_id,
            "kind": subject.kind,
            "subject": shown(forgotten, subject),
            "removed": found["removed"],
            "cleaned": removed,
            "proof": proof,
        },
    )
