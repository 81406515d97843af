"""Manifests: what a run of a job leaves behind, whichever folder it writes.

All jobs write one format. `_slowwave/runs/RUN.json` of a store, a training set, an adapter, an export or a
report is a manifest; so are `manifest.json` of a training, `report.json` of an evaluation, `_gold/world.json`
of a sample, and every entry of `_ingest.json`.
"""

import datetime as dt
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

FORMAT_VERSION = 2
"""Version 1 has no `format_version`, `summary` and `profiles`: what they hold lay among the other keys."""

PROFILES = ("encoder", "embedder", "decider", "student_profile", "teacher_profile", "judge_profile")
"""Keys of version 1 that are profiles."""


class RunStatus(StrEnum):
    """How a run ended."""

    RUNNING = "running"
    """It has not, or was killed without anybody to say so."""
    DONE = "done"
    UNCHANGED = "unchanged"
    """There was nothing to do."""
    DRY_RUN = "dry_run"
    STOPPED = "stopped"
    """A cap was reached."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """By Ctrl-C, by SIGTERM, with the cluster, or by a kill."""
    NOTHING_FOUND = "nothing_found"


class RunManifest(BaseModel):
    """One run. Other keys of a file stay as they are, beside these (`model_extra`): a reader of version 1
    finds there what it looks for. A manifest whose bytes depend on its input alone has no times and no id."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    format_version: int = FORMAT_VERSION
    run_id: str | None = None
    job: str | None = None
    """As in `jobs.JOB`, with the command where there are several: `evaluate encoder`."""
    status: RunStatus = RunStatus.DONE
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    seconds: float | None = None
    stages: dict[str, dict[str, Any]] = {}
    """Stage -> its `seconds`, and what else is known of it."""
    config: dict[str, Any] = {}
    """Every setting of the job, without secrets."""
    profiles: dict[str, Any] = {}
    """Role -> the resolved profile of its model, or the name of what is no model."""
    packages: dict[str, str] = {}
    """Package -> version, of those that decide what a run leaves behind."""
    summary: dict[str, Any] = {}
    """What the job counted, as its last line of stdout says it."""
    error: str | None = None

    @classmethod
    def with_keys(cls, keys: Mapping[str, Any], **fields: Any) -> Self:
        """A manifest of these fields, with what else its file is to have at the top. ValueError where a key
        has the name of a field, and no value of its kind."""
        return cls.model_validate({**keys, **fields})

    def ended(self, status: RunStatus, **fields: Any) -> Self:
        """The manifest of a run that has ended now."""
        return self.model_copy(update={"status": status, "finished_at": dt.datetime.now(dt.UTC), **fields})

    def as_json(self) -> dict[str, Any]:
        """The object that is written, without fields that say nothing; of version 1 as it was read."""
        if self.format_version == 1:
            said = self.model_dump(exclude_unset=True, exclude={"format_version", "summary", "profiles"})
        else:
            said = self.model_dump(exclude_unset=True) | {"format_version": FORMAT_VERSION}
            said["status"] = self.status
        times = ("started_at", "finished_at")
        return {
            name: value.isoformat() if value and name in times else value
            for name, value in said.items()
            if value is not None or name not in type(self).model_fields
        }


def read_manifest(written: object, where: str) -> RunManifest:
    """A manifest out of its JSON, of this version or an earlier one. ValueError, which names the place, the
    field and the value, if it cannot be read, or is of a later release."""
    if not isinstance(written, dict):
        raise ValueError(f"{where}: no manifest, which is a JSON object; restore the file, or delete it")
    version = written.get("format_version", 1)
    if version not in range(1, FORMAT_VERSION + 1):
        raise ValueError(
            f"{where}: format_version={version!r}, and this release reads 1 to {FORMAT_VERSION}; read it "
            "with the release that wrote it"
        )
    try:
        found = RunManifest.model_validate(written)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {name}={first['input']!r}: {first['msg']}; restore the file") from None
    return found if version > 1 else _of_version_1(found)


def _of_version_1(found: RunManifest) -> RunManifest:
    others = found.model_extra or {}
    profiles = {name: others[name] for name in PROFILES if name in others}
    summary = {name: value for name, value in others.items() if name not in profiles}
    return found.model_copy(update={"format_version": 1, "profiles": profiles, "summary": summary})
