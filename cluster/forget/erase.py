"""Forgetting: rows leave every version of every table, every file beside them, and the proof stays.

LanceDB deletes by marking, and keeps old versions, so erasing takes five steps, which can all be repeated:

1. Keyed hashes of what is forgotten go on the store's list, so that no backfill brings it back.
2. Every view that a run still names and that has such rows is written anew without them: restore the version,
   delete, compact until no marked row is left in a data file, build the indexes anew (they hold the words).
3. One commit in `runs` points every run to its rewritten view and adds the run of the forgetting itself.
4. Tags move, then every other version and file goes, staged files, manifests, temporary files of killed
   writers and older versions in a bucket included.
5. All that is left is searched, and the receipt says what was found.

`rules` says which rows go, `views` does steps 2 and 3, `scrub` 4, `proof` 5, each a module beside this one.
Between 3 and 4 the tombstones are written (`exports`): files outside the store that say what of earlier
exports their receivers have to delete. They stand in the intent, so that a killed forgetting writes them too.

The intent holds everything that the steps need, the hashes included: whoever finishes a killed forgetting may
not have the operator's secret.

Other users' history stays: their runs can be looked at and rolled back to as before. Until step 3, readers
of the store see the views as they were; plain LanceDB readers see tables go through their history meanwhile.
"""

import hashlib
from collections.abc import Callable

from cluster.embed.turn_embedder import turn_embedder_of
from cluster.forget import exports, leftovers
from cluster.forget.forgotten import Forgotten
from cluster.forget.proof import Traces, search
from cluster.forget.rules import Erasure, Subject, erase
from cluster.forget.scrub import clean, has_rows, scrubbed
from cluster.forget.views import publish, rewrite_all, rows_of, versions_of
from cluster.store.errors import StoreError
from cluster.store.files import HOME, Files
from cluster.store.sql import quote
from cluster.store.writer import Operations, Writer
from schemas.intent import Forget
from schemas.store import TABLE_KEYS


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
        for version in versions_of(store, name)
        for row in rows_of(store, name, version, f"{column} = {quote(value)}", columns)
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
    if any(has_rows(files, path, subject) for files in (staging, runs) for path in files.paths()):
        return True
    manifests = [runs.get_json(path) for path in runs.paths() if path.endswith(".json")]
    return any(scrubbed(manifest, subject, "", ()) != manifest for manifest in manifests)


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
        moved = {name: rewrite_all(store, name, erasures[name]) for name in TABLE_KEYS}
        publish(store, intent.run, moved)
    buried = exports.bury(store, intent, traces)
    removed = clean(store, subject, intent.shown, traces)
    _write_receipt(store, intent, traces, removed, buried)
    # The intent names the erased, and holds the texts that were searched for: no version of it may stay.
    leftovers.delete_for_good(store.files, store.intent)


OPERATIONS: Operations = {Forget: apply}
"""For `Store.recover`: what the store, which is a floor below, does not know."""


# --- what goes ----------------------------------------------------------------------------------------


def _erasures(store: Writer, subject: Subject) -> dict[str, dict[int, Erasure]]:
    """What goes: table -> version -> rows, oldest run first. Depends on nothing but versions that stay."""
    of_user, known = f"user_id = {quote(subject.user_id)}", {}
    found: dict[str, dict[int, Erasure]] = {name: {} for name in TABLE_KEYS}
    for run in store.openable():
        view = run.versions
        for name, version in view.items():
            if (name, version) not in known:
                where = None if name == "rejections" else of_user
                known[name, version] = rows_of(store, name, version, where)
        rows = {name: known[name, version] for name, version in view.items()}
        erasures = erase(subject, rows, turn_embedder_of(run.embedder_profile))
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


# --- the receipt --------------------------------------------------------------------------------------


def shown(forgotten: Forgotten, subject: Subject) -> str:
    """What stands for the subject's id in configs, manifests and receipts."""
    parts = [subject.user_id, subject.session_id, subject.record_id]
    return f"forgotten:{forgotten.key(subject.kind, *(part for part in parts if part))}"


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
