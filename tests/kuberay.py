"""The keys that a RayJob may have, with their types, as KubeRay's CRD has them.

    git clone https://github.com/ray-project/kuberay ../kuberay
    python -m tests.kuberay --clone ../kuberay        # make kuberay-keys

Writes `KEYS`: a line for each object that stands in the manifests, with every key that it may have there. So
a key that is misspelt or of another type is found without a cluster, and the CRDs, 25,000 lines, stay where
they are. A manifest with an object that is new to the table needs this command once more.
"""

import argparse
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

VERSION = "v1.7.0"
COMMIT = "59d663aeec13760646da3db9c1cf8cfe883e30b7"
"""Of github.com/ray-project/kuberay; that of its tag VERSION."""
CRD = "helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml"

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "cluster" / "deploy" / "kuberay"
KEYS = ROOT / "tests" / "unit" / "cluster" / "deploy" / "kuberay_keys.txt"

SUBMITTER = "spec.submitterPodTemplate"
"""A pod template in a RayJob: what a pod of a CronJob may have is looked up there."""


def documents(name: str) -> list[dict]:
    """What a file of `MANIFESTS` holds."""
    return [one for one in yaml.safe_load_all((MANIFESTS / name).read_text("utf-8")) if one]


def objects(value: object, path: str) -> Iterator[tuple[str, dict]]:
    """(path, object) of a value and of all that lies in it. `[]` stands for every item of a list."""
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            yield from objects(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner, f"{path}[]")


def shown_objects() -> Iterator[tuple[str, dict]]:
    """Every object of the manifests that the CRD describes, as (path in a RayJob, object)."""
    (job,) = documents("rayjob.yaml")
    yield from objects(job["spec"], "spec")
    for one in documents("schedule.yaml"):
        if one["kind"] == "CronJob":
            yield from objects(one["spec"]["jobTemplate"]["spec"]["template"], SUBMITTER)


def type_of(schema: dict) -> str:
    """`string`, `integer`, `boolean`, `object`, `quantity` (number or string), `list:TYPE`, `map:TYPE`."""
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema.get("type") == "array":
        return f"list:{type_of(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map:{type_of(schema['additionalProperties'])}"
    return schema.get("type", "any")


def schema_at(schema: dict, path: str) -> dict:
    """The schema of a path that `objects` yields. KeyError for one that there is none of."""
    for part in path.split("."):
        name = part.rstrip("[]")
        if "additionalProperties" in schema:
            schema = schema["additionalProperties"]
        else:
            schema = schema["properties"][name]
        for _ in range(part.count("[]")):
            schema = schema["items"]
    return schema


def table(crd: dict, paths: list[str]) -> str:
    """`KEYS`: for each path its keys with their types; a key that must be there has a `*`."""
    (version,) = [one for one in crd["spec"]["versions"] if one["name"] == "v1"]
    root = version["schema"]["openAPIV3Schema"]
    lines = [f"# RayJob, ray.io/v1, KubeRay {VERSION}, commit {COMMIT}: by `make kuberay-keys`"]
    for path in sorted(set(paths)):
        schema: dict[str, Any] = schema_at(root, path)
        if "properties" not in schema:
            continue  # a map, whose values have the type that stands with its key
        required = schema.get("required", ())
        keys = [
            f"{key}{'*' if key in required else ''}={type_of(inner)}"
            for key, inner in sorted(schema["properties"].items())
        ]
        lines.append(f"{path}: {' '.join(keys)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clone", type=Path, required=True, help="of github.com/ray-project/kuberay")
    clone = parser.parse_args().clone
    shown = subprocess.run(
        ["git", "-C", str(clone), "show", f"{COMMIT}:{CRD}"], capture_output=True, text=True, check=True
    )
    crd = yaml.load(shown.stdout, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    KEYS.write_text(table(crd, [path for path, _ in shown_objects()]), "utf-8")
    print(f"wrote {KEYS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
