"""Fingerprints of code: what rules decide depends on their source, so that the source names them.

A number that has to be raised by hand is forgotten; then a store believes that new rules have decided what
old ones did.
"""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path


@functools.cache
def source_fingerprint(*names: str) -> str:
    """16 hex digits over these modules, with every module of the project that they import, in turn.

    Of a package, all of its modules count. Of other packages that are imported, the version counts.
    """
    paths, packages = sources(*names)
    parts = [f"{name}\0".encode() + paths[name].read_bytes() for name in sorted(paths)]
    parts.append(" ".join(sorted(packages)).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def sources(*names: str) -> tuple[dict[str, Path], set[str]]:
    """Files of these modules and of all that they need, by name; and other packages with their versions."""
    paths: dict[str, Path] = {}
    packages, open_ones = set(), list(names)
    while open_ones:
        name = open_ones.pop()
        if name in paths:
            continue
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None, f"{name}: no such module"
        path = paths[name] = Path(spec.origin)
        if path.name == "__init__.py" and name in names:
            open_ones += [f"{name}.{module.stem}" for module in path.parent.glob("[!_]*.py")]
        for imported in _imports(path):
            top = imported.partition(".")[0]
            if top in ("cluster", "schemas"):
                open_ones.append(_module(imported))
            elif version := _version(top):
                packages.add(version)
    return paths, packages


def _imports(path: Path) -> set[str]:
    """Names of what a file imports, wherever in it: "package.module" or "package.module.name"."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def _module(imported: str) -> str:
    """The longest beginning of "package.module.name" that is a module."""
    while not is_module(imported):
        imported = imported.rpartition(".")[0]
    return imported


def is_module(name: str) -> bool:
    """Whether that can be imported; False for a name in a module."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _version(top: str) -> str:
    """ "package 1.2" of an installed distribution, "" of the standard library.

    Builds of one version for other machines ("2.13.0+cpu") are the same code.
    """
    names = _distributions().get(top)
    return f"{names[0]} {importlib.metadata.version(names[0]).partition('+')[0]}" if names else ""


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
