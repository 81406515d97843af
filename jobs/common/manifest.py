"""How jobs write their manifests, see schemas/manifest.py, and read them again."""

import functools
import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.runtime import hide_secrets
from schemas.manifest import RunManifest, read_manifest

if TYPE_CHECKING:
    from cluster.store.files import Files


def text_of(manifest: RunManifest, indent: int | None = None) -> str:
    """A manifest as JSON, without secrets of the operator."""
    return hide_secrets(json.dumps(manifest.as_json(), indent=indent, default=str))


def object_of(manifest: RunManifest) -> dict[str, Any]:
    """A manifest as a JSON object that is part of another file."""
    return json.loads(text_of(manifest))


def put_run(runs: "Files", manifest: RunManifest) -> None:
    """Write `RUN.json`; `runs` is the folder `_slowwave/runs` of what the job writes."""
    runs.put(f"{manifest.run_id}.json", text_of(manifest).encode())


def get_run(runs: "Files", run_id: str) -> RunManifest | None:
    """The manifest of a run; None if none is kept. ValueError if this release cannot read it."""
    found = runs.get_json(path := f"{run_id}.json")
    return None if found is None else read_manifest(found, f"_slowwave/runs/{path}")


def read_file(path: Path) -> RunManifest | None:
    """The manifest in a file; None where there is no file. ValueError where this release cannot read it."""
    try:
        return read_manifest(json.loads(path.read_text("utf-8")), str(path))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: no JSON ({error}); delete it and run the same command again") from None


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Package -> version, of those that are installed."""
    return {name: version for name in packages if (version := _version(name))}


@functools.cache
def _version(package: str) -> str | None:
    """A manifest is written at each stage of a job, and a look takes 10 ms."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
