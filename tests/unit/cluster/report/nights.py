"""A store of eleven simulated nights with all that can go right and wrong, manifests included."""

import datetime as dt
import json

from cluster.forget.erase import OPERATIONS as FORGETTING
from cluster.forget.erase import forget
from cluster.forget.rules import Subject
from cluster.store.files import Files
from cluster.store.lease import Lease
from cluster.store.maintenance import compact, reembed, rollback
from cluster.store.store import Store
from jobs.common.manifest import put_run
from schemas.manifest import RunManifest
from schemas.store import REJECTIONS_SCHEMA, RUNS_SCHEMA
from tests.e2e.operations.stores import LYON, MOON, OSLO, TEA, consolidate, record_id
from tests.unit.cluster.store.stores import DIM, SCHEMAS, commit, rejection, run_row, segment

FAILED = "max_rejected_fraction=0.05: 3 of 10 sessions were rejected"


def run_id(day: int, part: int = 0) -> str:
    return f"202603{day:02}T02{part:02}00-00000{part}"


FIRST, SECOND, CAPPED, PAID = (run_id(day) for day in (1, 2, 4, 5))
DECIDED, IMPORTED, BACK, FORGOT, EMBEDDED = run_id(5, 1), run_id(7), run_id(7, 1), run_id(8), run_id(9)
FAILURE, UNCHANGED, DRY, KILLED = run_id(3), run_id(6), run_id(10), run_id(10, 1)
LAST, COMPACTED = run_id(11), run_id(11, 1)
ALL = (
    *(FIRST, SECOND, FAILURE, CAPPED, PAID, DECIDED, UNCHANGED, IMPORTED, BACK, FORGOT, EMBEDDED),
    *(DRY, KILLED, LAST, COMPACTED),
)
PROFILE = {"name": "openai", "endpoint": {"model": "m"}}


def started(name: str) -> str:
    return dt.datetime.strptime(name[:15], "%Y%m%dT%H%M%S").replace(tzinfo=dt.UTC).isoformat(sep=" ")


def manifest(store: Store, name: str, job: str, status: str, *, error=None, stages=None, **counts) -> None:
    """As jobs.common.run.Run leaves it."""
    profiles = {"encoder": counts.pop("encoder")} if "encoder" in counts else {}
    begun = dt.datetime.fromisoformat(started(name))
    whole = RunManifest.with_keys(
        counts | profiles,
        run_id=name,
        job=job,
        status=status,
        started_at=begun,
        finished_at=None if status == "running" else begun + dt.timedelta(seconds=90),
        seconds=90.5,
        stages=stages or {},
        config={"max_cost": 0.5},
        profiles=profiles,
        summary=counts | {"store": store.uri},
        error=error,
    )
    put_run(Files(store.uri, "runs"), whole)


def row(name: str, job: str, **counts) -> dict:
    return run_row(name) | {"job": job, "started_at": started(name), "summary": json.dumps(counts)}


def encoded(num: int, **more) -> dict:
    """Counts of a backfill."""
    stages = {
        "cut": {"seconds": 1.5},
        "encode": {"seconds": 80.0, "num_refused": 2, "encode_s": 75.0},
        "publish": {"seconds": 0.4},
    }
    counts = {"num_segments_encoded": num, "num_records": num, "prompt_tokens": 900, "output_tokens": 100}
    return counts | {"num_rejections": 1, "stages": stages, "encoder": PROFILE} | more


def make(folder: str) -> Store:
    """The store; what it went through is told by the names above, in the order of ALL."""
    store = Store(folder, must_exist=False)
    with Lease(store.uri, "jobs.nightly") as store.lease:
        _nights(store)
    store.lease = None
    return store


def _nights(store: Store) -> None:
    commit(store, FIRST, LYON, MOON, rejection("a.parquet:1"), **_columns(FIRST))
    manifest(store, FIRST, "backfill", "done", **encoded(2))
    commit(store, SECOND, TEA, **_columns(SECOND))
    manifest(store, SECOND, "backfill", "done", **encoded(1))
    manifest(store, FAILURE, "backfill", "failed", error=FAILED, num_rejections=3)
    paid = {"prompt_tokens": 500, "output_tokens": 50, "cost": 0.5, "encoder": PROFILE}
    manifest(store, CAPPED, "backfill", "stopped", **paid)
    commit(store, PAID, OSLO, **_columns(PAID))
    manifest(store, PAID, "backfill", "done", **encoded(1, cost=0.8))
    lyon, oslo = record_id("lyon", "User lives in Lyon."), record_id("oslo", "User lives in Oslo.")
    consolidate(store, DECIDED, target=lyon, source=oslo, action="delete")
    manifest(store, DECIDED, "consolidate", "done", num_deleted=1, num_refused=1, num_new=1)
    manifest(store, UNCHANGED, "backfill", "unchanged", num_sessions=4)
    junk = segment("junk", "spam", user="bob", session="s9", records=["Bob is spam."])
    commit(store, IMPORTED, junk, **_columns(IMPORTED, "import"))
    manifest(store, IMPORTED, "import", "done", num_records=1)
    rollback(store, row(BACK, "rollback", **{"from": IMPORTED, "to": DECIDED}), DECIDED)
    manifest(store, BACK, "rollback", "done", **{"from": IMPORTED, "to": DECIDED})
    forget(store, row(FORGOT, "forget"), Subject("bob"))
    manifest(store, FORGOT, "forget", "done", num_records_removed=2, num_turns_removed=2, is_clean=True)
    staged = {name: [_staged(store, name)] for name in ("records", "turns")} | {"states": []}
    reembed(store, row(EMBEDDED, "reembed") | {"embedder": "embedder-2"}, DIM, staged)
    manifest(store, EMBEDDED, "reembed", "done", num_rows_embedded=7)
    manifest(store, DRY, "backfill", "dry_run", input_tokens=1199)
    manifest(store, KILLED, "backfill", "running")
    cat = segment("cat", "I got a cat", user="eve", session="s1-of-eve", records=["User has a cat."])
    commit(store, LAST, cat, **_columns(LAST) | {"embedder": "embedder-2"})
    manifest(store, LAST, "backfill", "done", **encoded(1))
    compact(store, row(COMPACTED, "compact"), keep_runs=6)
    manifest(store, COMPACTED, "compact", "done", num_runs_expired=2)
    # Not sooner: whose a damaged row is nobody knows, so a forgetting takes it away.
    bad = rejection("b.parquet:7")["rejections"][0] | {"reason": "no_turns", "raw": "what she said"}
    Files(store.uri, "runs").put_rows(f"{FAILURE}-rejections.parquet", [bad], REJECTIONS_SCHEMA)
    staging = Files(store.uri, "staging")
    staging.delete(staging.paths())
    assert store.recover(FORGETTING) is None


def _columns(name: str, job: str = "backfill") -> dict:
    return {"job": job, "started_at": started(name)}


def _staged(store: Store, name: str) -> str:
    rows = store.rows(name, SCHEMAS[name].names)
    Files(store.uri, "staging").put_table(path := f"reembed/{name}.parquet", rows)
    return path


assert set(run_row("r")) < set(RUNS_SCHEMA.names)
