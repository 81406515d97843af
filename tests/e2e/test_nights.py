"""Nights: the nightly job, ended and run again; and a backfill in the night after an operation, which brings
back neither what was forgotten nor what was rolled back, and asks no model for it."""

import json
import shutil
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.store.files import Files
from cluster.store.store import Store
from jobs.forget import ForgetConfig
from jobs.forget import run as forget
from jobs.rollback import RollbackConfig
from jobs.rollback import run as rollback
from schemas.store import table_schemas
from tests.e2e.archives import session, write_archive
from tests.e2e.conftest import ENCODER, finish, here, job, start, wait_until
from tests.e2e.contents import assert_same, content, traces

pytestmark = pytest.mark.engine

USER = "user-01"


def night(archive: Path, store: Path, small_batches: Path, *options: str) -> dict:
    return here(
        "jobs.backfill", "--archive", archive, "--store", store, "--config", small_batches, *options
    ).summary


def sessions_of(archive: Path, user: str) -> list[dict]:
    rows = [row for path in sorted(archive.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return [row for row in rows if row["user_id"] == user]


def test_who_was_forgotten_stays_forgotten(archive, store, small_batches, tmp_path):
    left = tmp_path / "store"
    shutil.copytree(store, left)
    said = Store(str(left)).rows("turns", ["content"], f"user_id = '{USER}'").column(0).to_pylist()
    others = Store(str(left)).rows("turns", ["content"], f"user_id != '{USER}'").column(0).to_pylist()
    said = [text for text in said if not any(text in other for other in others)]
    assert traces(left, said)
    forget(ForgetConfig(store=str(left), user_id=USER))
    after = content(left)
    summary = night(archive, left, small_batches)
    assert (summary["status"], summary["num_segments_encoded"], summary["prompt_tokens"]) == (
        "unchanged",
        0,
        0,
    )
    assert summary["num_forgotten"] == len(sessions_of(archive, USER)) > 0
    assert_same(content(left), after)
    assert traces(left, [*said, USER]) == []


def test_what_was_rolled_back_stays_out_unless_asked_for(archive, store, small_batches, tmp_path):
    two_nights = tmp_path / "store"
    last = after_an_empty_night(store, two_nights)
    before = content(two_nights)
    rollback(RollbackConfig(store=str(two_nights), to="night-0"))
    summary = night(archive, two_nights, small_batches)
    assert (summary["status"], summary["num_segments_encoded"], summary["prompt_tokens"]) == (
        "unchanged",
        0,
        0,
    )
    shown = content(two_nights)
    assert shown["records"] == shown["turns"] == []
    asked = night(archive, two_nights, small_batches, "--include-rolled-back", "--dry-run")
    assert asked["input_tokens"] > 0
    rollback(RollbackConfig(store=str(two_nights), to=last))
    assert_same(content(two_nights), before)


def after_an_empty_night(store: Path, folder: Path) -> str:
    """The store's rows once more, as the second of two nights of one encoder; that night's run."""
    old, new = Store(str(store)), Store(str(folder), must_exist=False)
    run = {name: value for name, value in old.run().row.items() if name not in ("versions", "finished_at")}
    run |= {"started_at": run["started_at"].isoformat(), "summary": run["summary"] or json.dumps({})}
    staging, inserts = Files(new.uri, "staging"), {}
    new.commit(run | {"run_id": "night-0"}, old.dim())
    for name, schema in table_schemas(old.dim()).items():
        rows = old.rows(name, schema.names)
        if rows.num_rows:
            staging.put_table(path := f"{name}.parquet", rows.select(schema.names).cast(schema))
            inserts[name] = [path]
    new.commit(run, old.dim(), inserts=inserts)
    staging.delete(staging.paths())
    return run["run_id"]


@pytest.mark.slow
def test_a_night_that_was_ended_goes_on_and_the_next_one_finds_nothing_new(tmp_path):
    said = (
        session("ann", "s1", "I live in Lyon.", "Nice."),
        session("ann", "s2", "My dog is Rex.", "Good dog."),
    )
    archive, store = write_archive(tmp_path / "archive", "a.parquet", list(said)), tmp_path / "store"
    config = tmp_path / "night.toml"
    config.write_text(f'profile = "{ENCODER}"\n[consolidation]\ndecider = "rules"\n')
    night = ("jobs.nightly", "--archive", archive, "--store", store, "--config", config, "--keep-runs", "1")

    process = start(*night)
    wait_until(process, lambda: list((store / "_slowwave" / "runs").glob("*.json")))
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert (ended.code, ended.summary["status"]) == (1, "failed")
    assert "interrupted by SIGTERM; run the same command again" in ended.summary["error"]

    first = job(*night).summary
    assert first["backfill"]["num_segments_encoded"] == first["backfill"]["num_segments"] > 0
    assert first["consolidate"]["num_new"] == first["backfill"]["num_records"]
    assert (first["status"], first["compact"]["num_runs_kept"]) == ("done", 1)
    assert [row["job"] for row in Store(str(store)).runs()] == ["backfill", "consolidate"]

    second = job(*night).summary
    parts = ("backfill", "consolidate", "compact")
    assert [second[name]["status"] for name in parts] == ["unchanged", "unchanged", "done"]
    assert second["backfill"]["num_segments_encoded"] == second["compact"]["num_runs_expired"] == 0
