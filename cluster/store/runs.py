"""Rows of the table `runs`: a finished run each, with the versions of all tables as it left them."""

import datetime as dt
import json

import pyarrow as pa

from schemas.store import RUNS_SCHEMA


def in_order(runs: list[dict]) -> list[dict]:
    """Rows of `runs`, oldest first. Those of releases before heads have only a clock to be ordered by."""
    if any(row.get("sequence") is None for row in runs):
        ordered = sorted(runs, key=lambda row: (row["finished_at"], row["run_id"]))
        return [row | {"sequence": place} for place, row in enumerate(ordered, 1)]
    return sorted(runs, key=lambda row: row["sequence"])


def run_row(run: dict, versions: dict[str, int]) -> dict:
    """A run of an intent as a row of RUNS_SCHEMA, finished now. Its place comes with the commit."""
    return run | {
        "versions": json.dumps(versions),
        "started_at": dt.datetime.fromisoformat(str(run["started_at"])),
        "finished_at": dt.datetime.now(dt.UTC),
    }


def run_rows(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=RUNS_SCHEMA)


def view_versions(runs: list[dict], name: str) -> dict[str, int]:
    """Run -> version of a table that its view has, for all runs whose views are kept."""
    return {
        row["run_id"]: versions[name] for row in runs if (versions := json.loads(row["versions"] or "{}"))
    }
