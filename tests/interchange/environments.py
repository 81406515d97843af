"""A virtual environment for each receiver, of its package alone: .venv-interchange/NAME.

    python -m tests.interchange.environments             # all that are missing
    python -m tests.interchange.environments mem0 letta  # these

Versions are pinned, so that a receiver's change is noticed when somebody raises it here. Where one module is
all that is read with, its package comes without what it depends on.
"""

import argparse
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".venv-interchange"


@dataclass(frozen=True)
class Environment:
    """What pip installs."""

    packages: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    """Without their dependencies."""


ENVIRONMENTS = {
    "mem0": Environment(("mem0ai==2.2.1",)),
    "langgraph": Environment(("langgraph-checkpoint-sqlite==3.1.2", "langmem==0.0.30")),
    # Its server imports one that its package does not name.
    "lychee": Environment(("lycheemem==0.1.4", "lancedb==0.40.0", "pillow")),
    # The last release of its server; later ones are a program for terminals.
    "letta": Environment(("pydantic>=2.10", "pyyaml"), ("letta==0.16.8",)),
    # Both would bring some GB: engines, graphs and clients of model providers.
    "hindsight": Environment(("pydantic>=2.10",), ("hindsight-api-slim==1.1.0",)),
    "cogx": Environment(("pydantic>=2.10",), ("cognee==1.6.5",)),
    # Its package is an early one without a store; the code comes from a clone.
    "lightmem": Environment(("qdrant-client>=1.12", "pydantic>=2.10")),
}


def python_of(name: str) -> Path:
    """The interpreter of a receiver's environment, which may be missing."""
    return FOLDER / name / "bin" / "python"


def packages_of(name: str) -> Path:
    """Where a receiver's packages lie, for code of this environment that needs them too. SystemExit where
    there are none."""
    found = next((FOLDER / name).glob("lib/python*/site-packages"), None)
    if found is None:
        sys.exit(f"{FOLDER / name}: is missing; make it: python -m tests.interchange.environments {name}")
    return found


def make(name: str) -> None:
    """Make one, at once or not at all."""
    beside, wanted = FOLDER / f".{name}", ENVIRONMENTS[name]
    shutil.rmtree(beside, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(beside)], check=True)
    # This environment's pip installs into that one; few modules are ever imported, so none is compiled.
    pip = [sys.executable, "-m", "pip", "--python", str(beside), "install", "--quiet", "--no-compile"]
    if wanted.packages:
        subprocess.run([*pip, *wanted.packages], check=True)
    if wanted.alone:
        subprocess.run([*pip, "--no-deps", *wanted.alone], check=True)
    beside.rename(FOLDER / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names
    if unknown := set(names) - ENVIRONMENTS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: must be of {', '.join(ENVIRONMENTS)}")
    for name in names or ENVIRONMENTS:
        if not python_of(name).exists():
            print(f"[interchange] {name}: {FOLDER / name}", flush=True)
            make(name)
