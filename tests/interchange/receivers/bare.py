"""Modules of a package without what it does when it is imported: engines, graphs, clients of models."""

import importlib.util
import sys
import types
from pathlib import Path


def bare(package: str, *inner: str, root: Path | None = None) -> Path:
    """Let modules of a package, and of its packages `inner`, be imported alone; returns its folder."""
    root = root or Path(importlib.util.find_spec(package).submodule_search_locations[0])
    for name in (package, *(f"{package}.{one}" for one in inner)):
        module = sys.modules[name] = types.ModuleType(name)
        module.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    return root
