"""Without Ray: the same stages in the job's own process, and the same store."""

import json
from pathlib import Path

import pytest

from schemas.store import TABLE_KEYS
from tests.e2e.conftest import ENCODER, here, job, rows

PER_RUN = ("run_id", "created_at", "updated_at", "cached_tokens")
"""Columns that two runs over the same archive never share."""


def manifest(store: Path, run_id: str) -> dict:
    return json.loads((store / "_slowwave" / "runs" / f"{run_id}.json").read_text())


@pytest.mark.engine
def test_a_backfill_without_ray_writes_what_one_on_ray_writes(archive, store, small_batches, tmp_path):
    settings = ("--archive", archive, "--config", small_batches)
    done = here("jobs.backfill", *settings, "--store", tmp_path / "store")
    assert "leaked" not in done.stderr
    for table in TABLE_KEYS:
        assert rows(tmp_path / "store", table, PER_RUN) == rows(store, table, PER_RUN), table
    (path,) = (store / "_slowwave" / "runs").glob("*.json")
    local, on_ray = (manifest(tmp_path / "store", done.summary["run_id"]), json.loads(path.read_text()))
    assert local.keys() == on_ray.keys()
    assert local["encoder"] == on_ray["encoder"] and local["num_records"] == on_ray["num_records"] > 0
    again = here("jobs.backfill", *settings, "--store", tmp_path / "store")
    assert again.summary["status"] == "unchanged"


def test_a_dry_run_without_ray_counts_what_one_on_ray_counts(archive, tmp_path):
    settings = ("jobs.backfill", "--archive", archive, "--profile", ENCODER, "--dry-run")
    local = here(*settings, "--store", tmp_path / "local")
    on_ray = job(*settings, "--store", tmp_path / "ray")
    told = ("run_id", "seconds", "stages", "store")
    assert local.summary["num_segments"] > 0
    assert {name: count for name, count in local.summary.items() if name not in told} == {
        name: count for name, count in on_ray.summary.items() if name not in told
    }
    assert "[cut] " in local.stderr
