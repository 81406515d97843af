"""House rules that a reader relies on: who imports whom, what is cheap to import, what ships and loads."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from cluster.profiles import SHIPPED
from jobs.common.cli import parse_config
from jobs.distill.config import TASKS as DISTILL
from jobs.distill.config import EncoderSetConfig
from jobs.train.config import TASKS as TRAIN
from jobs.train.config import EncoderTraining
from schemas.profiles.answerer import AnswererProfile
from schemas.profiles.decider import DeciderProfile
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.encoder import EncoderProfile
from schemas.profiles.judge import JudgeProfile
from tests.unit.project import HEAVY, ROOT

PARTS = ("schemas", "cluster", "jobs")
MODULES = sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Imported modules with their full names, and whether a call or a type checker reads them."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name_of(path)}: relative import; write the full name"
                yield child.module, inside
                yield from ((f"{child.module}.{alias.name}", inside) for alias in child.names)
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            is_for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from walk(child, inside or is_function or is_for_types)

    return walk(ast.parse(path.read_text(encoding="utf-8")), inside=False)


def importers(package: str) -> dict[str, set[bool]]:
    """Modules that import a package -> whether at import time (False), inside a function or for types."""
    found: dict[str, set[bool]] = {}
    for path in MODULES:
        for name, inside in imports(path):
            if name == package or name.startswith(package + "."):
                found.setdefault(name_of(path), set()).add(inside)
    return found


def uses(attribute: str) -> dict[str, set[bool]]:
    """Modules whose code names an attribute of a package, such as ray.data."""
    nodes = {path: ast.walk(ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES}
    return {
        name_of(path): {True}
        for path, found in nodes.items()
        if any(isinstance(node, ast.Attribute) and ast.unparse(node) == attribute for node in found)
    }


# --- who imports whom -----------------------------------------------------------------------------------


def test_schemas_import_the_standard_library_pyarrow_and_pydantic():
    allowed = sys.stdlib_module_names | {"schemas", "pyarrow", "pydantic"}
    for path in (ROOT / "schemas").rglob("*.py"):
        foreign = {name for name, _ in imports(path) if name.split(".")[0] not in allowed}
        assert not foreign, f"{name_of(path)} imports {foreign}"


def test_cluster_never_imports_jobs():
    assert [name for name in importers("jobs") if not name.startswith("jobs/")] == []


MADE_OF = {"jobs.nightly": {"jobs.backfill", "jobs.consolidate", "jobs.compact"}}
"""A job that runs others, one after another in its own process, and which. No other job imports one."""


def test_jobs_do_not_import_each_other():
    """Jobs meet in artifacts. What several of them need is no job: it cannot be run."""
    for path in MODULES:
        if path.parts[len(ROOT.parts)] != "jobs":
            continue
        own = job_of(path)
        others = set(JOBS) - {own} - MADE_OF.get(own, set())
        foreign = {name for name, _ in imports(path) for job in others if is_in(name, job)}
        assert not foreign, f"{name_of(path)} imports {foreign}"


FLOORS = (
    ("secrets",),
    ("runtime", "language", "profiles"),
    ("store",),
    ("models",),
    ("evolvable",),
    ("embed",),
    ("forget",),
    ("backfill",),
    ("consolidate",),
    ("memory", "preview", "edit", "interchange", "report", "audit"),
    ("distill",),
    ("evaluate",),
    ("train",),
)
"""The rooms of `cluster/`, from the ground up. A room imports from those below it, and from no other."""


def test_the_rooms_of_cluster_stand_on_one_another_and_in_no_circle():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for path in (ROOT / "cluster").rglob("*.py"):
        inner = path.relative_to(ROOT / "cluster")
        if inner.name == "__init__.py" and len(inner.parts) == 1:
            continue
        own = inner.parts[0].removesuffix(".py")
        for name, _ in imports(path):
            other = name.split(".")[1] if name.startswith("cluster.") else own
            assert other == own or floor[other] < floor[own], f"{name_of(path)} imports {name}"


def test_no_module_imports_one_that_imports_it():
    """By whatever way, and inside functions too: each can be read with nothing but those below it."""
    files = {path: name_of(path).removesuffix(".py").removesuffix("/__init__") for path in MODULES}
    names = {file.replace("/", "."): path for path, file in files.items()}
    below = {own: {name for name, _ in imports(path)} & names.keys() - {own} for own, path in names.items()}
    assert set(TopologicalSorter(below).static_order()) == names.keys()


BY_STRING = {"cluster/secrets/numbers.py": "stdnum has a module for each kind of number; few are ever met"}
"""Modules of `schemas/` and `cluster/` that import by a string, and why. None of it is the project's own."""

READ_AS_TEXT = {"source_fingerprint"}
"""Functions that take the name of a module to read its source, and import nothing."""


def names_of(module: Path) -> set[str]:
    """What a module defines or imports at its top, and the modules beside it where it is a package."""
    beside = {path.stem for path in module.parent.iterdir()} if module.name == "__init__.py" else set()
    found = set(beside)
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


@pytest.mark.parametrize("folder", ["benchmarks", "browser", "gpu", "interchange"])
def test_what_is_run_by_hand_imports_nothing_that_has_moved(folder):
    """No test and no type checker comes by there, and many imports stand inside functions."""
    gone = []
    for path in (ROOT / "tests" / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted = [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                wanted = [(node.module, alias.name) for alias in node.names]
            else:
                continue
            for module, name in wanted:
                if module.split(".")[0] not in (*PARTS, "tests"):
                    continue
                place = ROOT / module.replace(".", "/")
                files = [one for one in (place.with_suffix(".py"), place / "__init__.py") if one.is_file()]
                if not files or (name and not any(name in names_of(one) for one in files)):
                    gone.append(f"{name_of(path)}: {module} {name}")
    assert not gone


def by_string(source: str) -> Iterator[str]:
    """What a module imports where no `import` shows it: calls of importlib, and names of our own modules."""
    tree = ast.parse(source)
    read = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in READ_AS_TEXT
        for argument in node.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name | ast.alias):
            name = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "name", None)
            if name in ("import_module", "__import__", "resolve_name", "run_module"):
                yield name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in read:
            # "cluster.forget.erase:apply" is an entry point.
            parts = node.value.partition(":")[0].split(".")
            if len(parts) > 1 and parts[0] in PARTS and all(map(str.isidentifier, parts)):
                yield node.value


@pytest.mark.parametrize(
    "source",
    [
        "import importlib\nimportlib.import_module(name)",
        "from importlib import import_module as load",
        "__import__(name)",
        "import pkgutil\npkgutil.resolve_name(name)",
        "OPERATIONS = {'forget': 'cluster.forget.erase'}",
        "ENTRY = 'cluster.forget.erase:apply'",
    ],
)
def test_an_import_by_a_string_is_found(source):
    assert list(by_string(source))


def test_no_module_of_schemas_and_cluster_is_imported_by_a_string():
    """The floors above see only what `import` shows."""
    paths = [path for path in MODULES if path.parts[len(ROOT.parts)] in ("schemas", "cluster")]
    found = {name_of(path): list(by_string(path.read_text(encoding="utf-8"))) for path in paths}
    assert {name for name, imported in found.items() if imported} == BY_STRING.keys()
    assert not [one for name in BY_STRING for one in found[name] if one.split(".")[0] in PARTS]


def test_every_job_that_recovers_a_store_brings_along_what_a_floor_above_the_store_may_have_begun():
    """Otherwise a forgetting that was killed is refused until another job finishes it."""
    calls = {
        name_of(path): ast.unparse(node)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("store.recover")
    }
    assert calls.keys() == {"jobs/common/run.py"}
    assert set(calls.values()) == {"store.recover(OPERATIONS)"}
    assert calls.keys() <= importers("cluster.forget.erase.OPERATIONS").keys()


def test_one_place_starts_stages_on_ray():
    """run_stage has blocks, workers, progress and order, and does without Ray where that is asked."""
    rooms = {name.rpartition("/")[0] for name in importers("ray.data") | uses("ray.data")}
    assert rooms == {"cluster/runtime"}
    kept = {name for name in importers("ray") if name.startswith("jobs/")}
    assert kept == {"jobs/train/__main__.py"}, "a training has Ray Train"


def test_lancedb_is_imported_in_one_module():
    assert list(importers("lancedb")) == ["cluster/store/tables.py"]


def test_vllm_is_imported_where_an_engine_is_made():
    assert importers("vllm") == {"cluster/models/engine.py": {True}}


def test_one_module_tells_embedders_that_read_users_from_those_that_read_rows():
    """Stages and jobs ask its TurnEmbedder, unless they are about an evolvable model, as its training is."""
    own = ("cluster/evolvable/", "cluster/train/", "jobs/train/", "jobs/distill/evolvable.py")
    own += ("jobs/common/lightmem_evolvable.py",)
    knows = {name for name in importers("cluster.evolvable") if not name.startswith(own)}
    assert knows == {"cluster/embed/turn_embedder.py"}
    branch = re.compile(r"\b_?(?:profile|embedder)\.turns\b")
    branches = {name_of(path) for path in MODULES if branch.search(path.read_text(encoding="utf-8"))}
    # Its hashes are filled in by the module that fills in all of them; the stage loads what it was made for.
    assert branches == knows | {"cluster/models/resolve.py", "cluster/evolvable/turns.py"}


NETWORKS = {
    *(f"cluster/evolvable/{name}.py" for name in ("model", "stream", "embedder", "words")),
    *(f"cluster/train/{name}.py" for name in ("evolvable", "evolvable_loss", "whitening")),
}
"""Modules that define networks and so cannot be read without torch: imported inside functions themselves."""


@pytest.mark.parametrize("package", sorted(HEAVY - {"lancedb", "vllm"}))
def test_heavy_packages_are_imported_inside_functions(package):
    at_import_time = {name for name, inside in importers(package).items() if False in inside}
    assert at_import_time <= NETWORKS


def test_modules_that_define_networks_are_imported_inside_functions():
    for path in MODULES:
        if name_of(path) not in NETWORKS:
            early = {name.replace(".", "/") + ".py" for name, inside in imports(path) if not inside}
            assert not early & NETWORKS, f"{name_of(path)} imports {early & NETWORKS}"


# --- tests ----------------------------------------------------------------------------------------------


def test_what_tests_share_is_in_no_test_module():
    """Who moves or renames a test breaks no other, and a helper is found by the name of its file."""
    for path in (ROOT / "tests").rglob("*.py"):
        shared = [name for name, _ in imports(path) if name.startswith("tests.") and ".test_" in name]
        assert not shared, f"{name_of(path)} imports {shared}"


def test_unit_tests_lie_where_what_they_test_lies():
    """Folders by folders, and beside the folders of `cluster/` tests of its loose modules alone."""
    for path in (ROOT / "tests" / "unit").rglob("test_*.py"):
        inner = path.parent.relative_to(ROOT / "tests" / "unit")
        assert (ROOT / inner).is_dir(), f"{name_of(path)}: there is no folder {inner}"
    loose = {path.stem.removeprefix("test_") for path in (ROOT / "tests/unit/cluster").glob("test_*.py")}
    assert loose <= {path.stem for path in (ROOT / "cluster").glob("*.py")}


# --- jobs -----------------------------------------------------------------------------------------------


def is_job(path: Path) -> bool:
    lines = path.read_text(encoding="utf-8").splitlines()
    return path.name == "__main__.py" or 'if __name__ == "__main__":' in lines


def job_of(path: Path) -> str | None:
    """`jobs.NAME` that a module belongs to; None where it is shared."""
    inner = path.relative_to(ROOT / "jobs")
    if inner.parts[0] == "common":
        return None
    if len(inner.parts) > 1:
        return f"jobs.{inner.parts[0]}"
    return f"jobs.{inner.stem}" if is_job(path) else None


def is_in(name: str, job: str) -> bool:
    return name == job or name.startswith(job + ".")


JOBS = sorted(
    {job_of(path) for path in MODULES if path.is_relative_to(ROOT / "jobs") and is_job(path)} - {None}
)


def test_there_are_jobs():
    assert {"jobs.backfill", "jobs.ingest", "jobs.sample"} <= set(JOBS)


@pytest.mark.parametrize("job", JOBS)
def test_a_job_s_options_parse_without_heavy_imports(job):
    """Help and wrong usage answer at once, and on a machine that has no GPU or ML packages."""
    command = [sys.executable, "-X", "importtime", "-m", job, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(f"usage: python -m {job} ")
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "pydantic" in imported
    assert not imported & HEAVY


# --- what ships -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("encoders", EncoderProfile),
        ("embedders", EmbedderProfile),
        ("deciders", DeciderProfile),
        ("judges", JudgeProfile),
        ("answerers", AnswererProfile),
    ],
    ids=lambda value: str(value),
)
def test_every_shipped_profile_loads_and_is_named_as_its_file(folder, kind):
    paths = sorted((SHIPPED / folder).glob("*.toml"))
    assert "default" in [path.stem for path in paths]
    for path in paths:
        profile = kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        assert profile.name == path.stem


def test_every_shipped_toml_is_of_a_known_kind():
    """A new folder of configs needs a class and a line in the test above."""
    folders = (SHIPPED, ROOT / "jobs" / "configs")
    known = {"encoders", "embedders", "deciders", "judges", "answerers", "train", "distill"}
    assert {path.parent.name for folder in folders for path in folder.rglob("*.toml")} == known


@pytest.mark.parametrize(
    "path", sorted((ROOT / "jobs/configs/train").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_shipped_training_loads(path):
    settings = {"task": "encoder"} | tomllib.loads(path.read_text(encoding="utf-8"))
    TRAIN[settings["task"]].model_validate({"data": "data", "output": "output"} | settings)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "jobs/configs/distill").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_shipped_distillation_loads(path):
    config = tomllib.loads(path.read_text(encoding="utf-8"))
    given = {"archive": "archive", "output": "output"}
    given |= {"questions": "questions"} if config["task"] == "evolvable" else {}
    given |= {"gold": "memories.jsonl"} if config.get("teacher") == "gold" else {}
    DISTILL[config["task"]].model_validate(given | config)


@pytest.mark.parametrize(
    ("kind", "folder", "required"),
    [
        (EncoderTraining, "train", {"data": "data", "output": "output"}),
        (EncoderSetConfig, "distill", {"archive": "archive", "output": "output"}),
    ],
)
def test_without_a_config_the_shipped_default_is_what_runs(kind, folder, required):
    """Its name promises so, and so does the help."""
    path = ROOT / "jobs/configs" / folder / "default.toml"
    expected = kind.model_validate(tomllib.loads(path.read_text(encoding="utf-8")) | required)
    options = [part for name, value in required.items() for part in (f"--{name}", value)]
    assert parse_config(kind, "A job.", options) == expected


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_opens_with_its_purpose(path):
    source = path.read_text(encoding="utf-8")
    assert not source.strip() or ast.get_docstring(ast.parse(source)), f"{name_of(path)} has no docstring"


def test_templates_and_data_of_jobs_ship():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["jobs"]
    shipped = {path for pattern in patterns for path in (ROOT / "jobs").glob(pattern)}
    for suffix in ("j2", "jsonl", "toml"):
        assert set((ROOT / "jobs").rglob(f"*.{suffix}")) <= shipped


def test_templates_of_the_report_ship():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["cluster"]
    shipped = {path for pattern in patterns for path in (ROOT / "cluster").glob(pattern)}
    templates = {path for path in (ROOT / "cluster" / "report" / "templates").iterdir()}
    assert len(templates) >= 5 and templates <= shipped
