"""Kubernetes' manifests: KubeRay knows every key, what they name is there, their command can be typed.

No cluster is asked. What a RayJob may have stands in kuberay_keys.txt (see tests.kuberay); of Kubernetes' own
kinds, which are few, in `KINDS`.
"""

import re
import shlex
import tomllib
from collections.abc import Iterator

import pytest

from jobs.common.cli import parse_config
from jobs.nightly import NightlyConfig
from tests.kuberay import COMMIT, KEYS, MANIFESTS, ROOT, SUBMITTER, documents, objects, shown_objects
from tests.unit.project import job_of

KNOWN = {
    path: dict(one.split("=", 1) for one in keys.split())
    for path, _, keys in (line.partition(": ") for line in KEYS.read_text("utf-8").splitlines()[1:])
}
"""Path of an object -> its keys -> their types, as tests.kuberay writes them."""

TYPES = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    # Kubernetes takes numbers too; a quantity with a unit is a string.
    "quantity": lambda value: isinstance(value, int | str) and not isinstance(value, bool),
    "any": lambda value: True,
}

KINDS = {
    "ServiceAccount": {"metadata"},
    "Role": {"metadata", "rules"},
    "RoleBinding": {"metadata", "roleRef", "subjects"},
    "CronJob": {"metadata", "spec"},
}
CRON_JOB = {
    "schedule": "string",
    "timeZone": "string",
    "startingDeadlineSeconds": "integer",
    "concurrencyPolicy": "string",
    "suspend": "boolean",
    "successfulJobsHistoryLimit": "integer",
    "failedJobsHistoryLimit": "integer",
    "jobTemplate": "object",
}
JOB = {
    "backoffLimit": "integer",
    "activeDeadlineSeconds": "integer",
    "ttlSecondsAfterFinished": "integer",
    "template": "object",
}


def has_type(value: object, kind: str) -> bool:
    outer, _, inner = kind.partition(":")
    if outer == "list":
        return isinstance(value, list) and all(has_type(one, inner) for one in value)
    if outer == "map":
        return isinstance(value, dict) and all(has_type(one, inner) for one in value.values())
    return TYPES[kind](value)


def wrong(value: dict, keys: dict[str, str], path: str) -> Iterator[str]:
    """What of an object's own keys is not known, missing, or of another type."""
    known = {key.rstrip("*"): kind for key, kind in keys.items()}
    for key in value.keys() - known.keys():
        yield f"{path}: has no {key!r}"
    for key in value.keys() & known.keys():
        if not has_type(value[key], known[key]):
            yield f"{path}.{key}: {value[key]!r} is no {known[key]}"
    yield from (f"{path}: needs {key[:-1]!r}" for key in keys if key.endswith("*") and key[:-1] not in value)


def problems(shown: list[tuple[str, dict]]) -> list[str]:
    """What KubeRay would refuse, or drop without a word. An object that is neither in the table nor a map is
    one that the table lacks."""
    found = []
    for path, value in shown:
        if path in KNOWN:
            found += wrong(value, KNOWN[path], path)
            continue
        above, _, key = path.rpartition(".")
        kind = {name.rstrip("*"): kind for name, kind in KNOWN.get(above, {}).items()}.get(key, "")
        if not kind.startswith("map:"):
            found.append(f"{path}: not in {KEYS.name}; run make kuberay-keys")
    return found


@pytest.fixture
def night() -> dict:
    (job,) = documents("rayjob.yaml")
    return job


def of_kind(kind: str) -> dict:
    (found,) = [one for one in documents("schedule.yaml") if one["kind"] == kind]
    return found


def templates(job: dict) -> dict[str, dict]:
    """Pod of the head, and of each group of workers."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = {one["groupName"]: one["template"]["spec"] for one in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"], **groups}


# --- keys and types -------------------------------------------------------------------------------------


def test_every_key_of_the_manifests_is_known_to_kuberay_and_has_its_type():
    assert problems(list(shown_objects())) == []


def test_a_misspelt_key_a_wrong_type_and_a_missing_key_are_found(night):
    night["spec"]["shutdownAfterJobFinish"] = True
    night["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    del night["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]["maxReplicas"]
    night["spec"]["submitterConfig"] = {"backoffLimit": 2}
    assert sorted(problems(list(objects(night["spec"], "spec")))) == [
        "spec.rayClusterSpec.headGroupSpec.rayStartParams: {'num-cpus': 0} is no map:string",
        "spec.rayClusterSpec.workerGroupSpecs[]: needs 'maxReplicas'",
        "spec.submitterConfig: not in kuberay_keys.txt; run make kuberay-keys",
        "spec: has no 'shutdownAfterJobFinish'",
    ]


def test_the_table_names_the_commit_that_it_was_derived_from():
    assert COMMIT in KEYS.read_text("utf-8").splitlines()[0]
    assert re.fullmatch("[0-9a-f]{40}", COMMIT)


def test_the_schedule_has_only_keys_of_its_kinds():
    for one in documents("schedule.yaml"):
        assert set(one) == KINDS[one["kind"]] | {"apiVersion", "kind"}
    spec = of_kind("CronJob")["spec"]
    assert list(wrong(spec, CRON_JOB, "spec")) == []
    assert list(wrong(spec["jobTemplate"]["spec"], JOB, "spec.jobTemplate.spec")) == []
    assert SUBMITTER + ".spec" in KNOWN


# --- what they promise ----------------------------------------------------------------------------------


def test_a_night_ends_goes_and_is_tried_again(night):
    spec = night["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert min(spec["ttlSecondsAfterFinished"], spec["backoffLimit"]) > 0
    assert spec["activeDeadlineSeconds"] <= 24 * 3600
    # With an id that stays the same, Ray refuses the second try.
    assert "jobId" not in spec and "name" not in night["metadata"]
    # KubeRay makes names of pods from it, and takes 47 characters; 5 are added.
    assert night["metadata"]["generateName"].endswith("-") and len(night["metadata"]["generateName"]) <= 42


def test_no_work_is_placed_on_the_head_and_gpus_begin_at_none(night):
    cluster = night["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {one["groupName"]: one for one in cluster["workerGroupSpecs"]}
    assert groups["gpu"]["replicas"] == groups["gpu"]["minReplicas"] == 0 < groups["gpu"]["maxReplicas"]
    (worker,) = templates(night)["gpu"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_every_ray_node_gets_the_secret_of_the_object_store_and_the_image_of_its_kind(night):
    for name, pod in templates(night).items():
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "slowwave-storage"}}]
        assert container["image"].endswith("-gpu" if name == "gpu" else "-cpu")


def test_the_ray_of_the_manifest_is_the_one_that_is_installed(night):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (pin,) = [one for one in project["dependencies"] if one.startswith("ray[")]
    assert pin.endswith("==" + night["spec"]["rayClusterSpec"]["rayVersion"])


def test_what_the_schedule_mounts_and_names_is_there_and_it_may_create_nights():
    (kustomization,) = documents("kustomization.yaml")
    assert kustomization["generatorOptions"] == {"disableNameSuffixHash": True}
    maps = {one["name"]: one["files"] for one in kustomization["configMapGenerator"]}
    assert maps == {"slowwave-nightly": ["nightly.toml"], "slowwave-rayjob": ["rayjob.yaml"]}
    for name in [*kustomization["resources"], *(name for files in maps.values() for name in files)]:
        assert (MANIFESTS / name).is_file()
    pod = of_kind("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert [volume["configMap"]["name"] for volume in pod["volumes"]] == ["slowwave-rayjob"]
    (container,), (mount,) = pod["containers"], pod["containers"][0]["volumeMounts"]
    assert container["args"] == ["create", f"--filename={mount['mountPath']}/rayjob.yaml"]
    assert pod["serviceAccountName"] == of_kind("ServiceAccount")["metadata"]["name"]
    role, binding = of_kind("Role"), of_kind("RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": pod["serviceAccountName"]}]
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]


# --- the command ----------------------------------------------------------------------------------------


def test_the_command_of_a_night_can_be_typed_and_its_settings_are_read(night):
    words = shlex.split(night["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "jobs.nightly"]
    path = job_of("jobs.nightly").parser.parse_args(words[3:]).config
    (head,) = templates(night)["head"]["containers"]
    (mount,), (volume,) = head["volumeMounts"], templates(night)["head"]["volumes"]
    assert volume["configMap"]["name"] == "slowwave-nightly" and mount["name"] == volume["name"]
    assert path == f"{mount['mountPath']}/nightly.toml"

    config = parse_config(NightlyConfig, "A job.", ["--config", str(MANIFESTS / "nightly.toml")])
    groups = {one["groupName"]: one for one in night["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    assert config.encoder_pool.num_gpus == 1
    assert config.encoder_pool.max_size <= groups["gpu"]["maxReplicas"]
    assert config.embedder_pool.num_gpus == 0
    # A night that waits for the one before has time left for its own work.
    assert 0 < config.lease_wait < night["spec"]["activeDeadlineSeconds"] / 2
    assert config.archive.startswith("s3://") and config.store.startswith("s3://")
