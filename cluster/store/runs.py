"""Rows of the table `runs`: a finished run each, with the versions of all tables as it left them."""

import dataclasses
import datetime as dt
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import pyarrow as pa

from schemas.profiles.embedder import EmbedderProfile
from schemas.store import RUNS_SCHEMA


@dataclass(frozen=True)
class FinishedRun:
    """A row of `runs`, read."""

    run_id: str
    job: str
    started_at: dt.datetime
    finished_at: dt.datetime
    encoder: str
    """Fingerprint, as `embedder` is."""
    embedder: str
    embedder_profile: str
    """JSON, which may be an earlier release's; `profile` is what this one reads."""
    versions: dict[str, int]
    """The run's view: table -> version. Empty where the view has expired."""
    sequence: int
    """Its place among the runs, from 1."""
    row: dict[str, Any] = field(repr=False)
    """The columns of RUNS_SCHEMA as the table has them, JSON as text: what is written again."""

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """Read a row, which has its `sequence`."""
        names = [one.name for one in dataclasses.fields(cls) if one.name not in ("versions", "row")]
        versions = json.loads(row["versions"] or "{}")
        return cls(**{name: row[name] for name in names}, versions=versions, row=row)

    def __getitem__(self, column: str) -> Any:
        """A column as the table has it."""
        return self.row[column]

    def with_columns(self, **columns: object) -> Self:
        """The same run with other values in these columns. What is no text becomes JSON."""
        told = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in columns.items()
        }
        return self.of(self.row | told)

    @property
    def has_view(self) -> bool:
        """Whether its view is kept."""
        return bool(self.versions)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The job's settings."""
        return json.loads(self.row["config"] or "null") or {}

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What the job counted, as far as it had when it committed."""
        return json.loads(self.row["summary"] or "null") or {}

    @property
    def profile(self) -> EmbedderProfile:
        """The embedder that wrote the view. ValueError where this release cannot read it."""
        return EmbedderProfile.model_validate_json(self.embedder_profile)


def in_order(rows: list[dict]) -> list[FinishedRun]:
    """Rows of `runs`, oldest first. Those of releases before heads have only a clock to be ordered by."""
    if any(row.get("sequence") is None for row in rows):
        ordered = sorted(rows, key=lambda row: (row["finished_at"], row["run_id"]))
        rows = [row | {"sequence": place} for place, row in enumerate(ordered, 1)]
    return [FinishedRun.of(row) for row in sorted(rows, key=lambda row: row["sequence"])]


def run_row(run: dict, versions: dict[str, int]) -> dict:
    """A run of an intent as a row of RUNS_SCHEMA, finished now. Its place comes with the commit."""
    return run | {
        "versions": json.dumps(versions),
        "started_at": dt.datetime.fromisoformat(str(run["started_at"])),
        "finished_at": dt.datetime.now(dt.UTC),
    }


def run_rows(runs: Iterable[FinishedRun]) -> pa.Table:
    return pa.Table.from_pylist([run.row for run in runs], schema=RUNS_SCHEMA)


def view_versions(runs: Iterable[FinishedRun], name: str) -> dict[str, int]:
    """Run -> version of a table that its view has, for all runs whose views are kept."""
    return {run.run_id: run.versions[name] for run in runs if run.has_view}


def meant(given: str, ids: Collection[str]) -> list[str]:
    """Ids that somebody may mean: the one that is given, else all that begin with it; [] for nothing."""
    if given in ids:
        return [given]
    return [name for name in ids if given and name.startswith(given)]
