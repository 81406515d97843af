"""The command `slowwave`: which jobs it lists, and that it runs them as `python -m` does."""

import importlib
import subprocess
import sys
import tomllib

import pytest

from jobs.common import console
from tests.unit.project import HEAVY, ROOT, jobs_there_are

RUN = "import sys; sys.argv[0] = 'slowwave'; from jobs.common.console import main; main()"


def slowwave(*arguments: str, interpreter: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    command = [sys.executable, *interpreter, "-c", RUN, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_package_installs_it():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    module, _, name = scripts.pop("slowwave").partition(":")
    assert getattr(importlib.import_module(module), name) is console.main and not scripts


@pytest.mark.parametrize("asked", [(), ("--help",)])
def test_alone_it_lists_every_job_in_one_line_and_imports_none(asked):
    done = slowwave(*asked, interpreter=("-X", "importtime"))
    assert done.returncode == 0
    usage, _, *lines = done.stdout.splitlines()
    assert usage.startswith("usage: slowwave JOB ")
    assert [f"jobs.{line.split()[0]}" for line in lines] == jobs_there_are()
    assert all(len(line.split()) > 4 and line.endswith((".", "?")) for line in lines)
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "jobs" in imported
    assert not imported & (HEAVY | {"pydantic", "numpy", "pyarrow"})


@pytest.mark.parametrize(
    ("given", "nearest"), [("querry", "query"), ("pairs", "train.pairs"), ("night", "nightly")]
)
def test_an_unknown_job_is_wrong_usage_and_told_the_nearest_name(given, nearest):
    done = slowwave(given, "--store", "s")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"error: {given!r}: no such job; the nearest name is {nearest!r}, and `slowwave` lists them all\n"
    )


@pytest.mark.parametrize("name", ["jobs.query", "ingest", "train.pairs"])
def test_a_job_gets_the_arguments_and_answers_as_it_does_to_python(name):
    done = slowwave(name, "--help")
    job = name.removeprefix("jobs.")
    asked = [sys.executable, "-m", f"jobs.{job}", "--help"]
    itself = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (itself.returncode, itself.stdout)
    assert done.stdout.startswith(f"usage: python -m jobs.{job} ")


def test_a_job_s_own_exit_code_is_its_exit_code(tmp_path):
    done = slowwave("history", "--store", str(tmp_path / "nowhere"))
    assert done.returncode == 1 and '"status": "failed"' in done.stdout.splitlines()[-1]


def test_every_job_says_behind_its_name_what_it_is_for():
    for name, path in console.jobs().items():
        assert console.purpose(path), f"{name}: no purpose behind its name"
