"""What format an input is in, told by what a folder holds and by how a file begins."""

import contextlib
import json
import re
import sqlite3
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cluster.interchange import cogx, hindsight, langgraph, letta, lychee, mem0, saved, tables
from cluster.interchange.files import OPENS_JSON, old_database

HEAD_BYTES = 1 << 18
"""Bytes of a file that are looked at."""


@dataclass(frozen=True)
class Look:
    """What can be seen of an input at a glance."""

    path: Path
    kind: str
    """folder, parquet, sqlite, zip, lines (of JSON), json, or text."""
    names: frozenset[str] = field(default_factory=frozenset)
    """What is in a folder or ZIP; tables of a database; keys in the first line, or in the head of JSON."""

    def has(self, *names: str) -> bool:
        """Whether it has one of these."""
        return not self.names.isdisjoint(names)


def look(path: Path) -> Look:
    """Look at a file or folder. OSError where it cannot be read."""
    if path.is_dir():
        return Look(path, "folder", frozenset(one.name for one in path.iterdir()))
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"PAR1"):
        return Look(path, "parquet")
    if head.startswith(b"SQLite format 3\0"):
        return Look(path, "sqlite", _tables(path))
    if head.startswith(b"PK\x03\x04"):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            return Look(path, "zip", frozenset(archive.namelist()))
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    if not OPENS_JSON.match(text):
        return Look(path, "text")
    line, _, rest = text.partition("\n")
    with contextlib.suppress(ValueError, RecursionError):
        first = json.loads(line)
        if isinstance(first, dict) and (
            rest.lstrip().startswith("{") or path.suffix in (".jsonl", ".ndjson")
        ):
            return Look(path, "lines", frozenset(first))
    return Look(path, "json", frozenset(re.findall(r'"(\w+)"\s*:', text)))


def _tables(path: Path) -> frozenset[str]:
    with contextlib.suppress(sqlite3.Error), old_database(path) as database:
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return frozenset(name for (name,) in found)
    return frozenset()


def _any(paths: Iterable[Path], test: Callable[[Look], bool]) -> bool:
    """Whether the first of these files is one."""
    first = next(iter(sorted(paths)), None)
    return first is not None and test(look(first))


def _is_cogx(one: Look) -> bool:
    return (
        one.kind == "folder" and one.has(cogx.MANIFEST) and look(one.path / cogx.MANIFEST).has("cogx_version")
    )


def _is_hindsight(one: Look) -> bool:
    if one.kind == "folder":
        return _any(one.path.glob("*.zip"), _is_hindsight)
    if one.kind != "zip" or not one.has(hindsight.MANIFEST):
        return False
    with contextlib.suppress(zipfile.BadZipFile, ValueError), zipfile.ZipFile(one.path) as archive:
        return hindsight.bank_of(archive) is not None
    return False


def _is_letta(one: Look) -> bool:
    if one.kind == "folder":
        return any(
            map(letta.is_memfs, (one.path, *(child for child in one.path.iterdir() if child.is_dir())))
        )
    return one.kind == "json" and (one.path.suffix == ".af" or {"agents", "blocks"} <= one.names)


def _is_lychee(one: Look) -> bool:
    if one.kind == "folder":
        return one.has(lychee.RECORDS) or any(one.path.glob(f"*/{lychee.RECORDS}"))
    return one.kind == "sqlite" and one.has(lychee.TABLE)


def _is_claude(one: Look) -> bool:
    if one.kind == "folder":
        return _any((*one.path.glob(saved.MEMORIES), *one.path.glob("memories/*.json")), _is_claude)
    if one.kind == "zip":
        return any(re.search(r"(^|/)memories(\.json$|/[^/]*\.json$)", name) for name in one.names)
    return one.kind == "json" and one.has("conversations_memory")


def _is_mem0(one: Look) -> bool:
    if one.kind == "folder":
        return one.has(mem0.MEMORIES) and _is_mem0(look(one.path / mem0.MEMORIES))
    return one.kind == "json" and one.has("memory", "records", "payload") and not one.has("agents")


def _is_lightmem(one: Look) -> bool:
    if one.kind == "folder":
        return _any(one.path.glob("*.jsonl"), _is_lightmem)
    return one.kind == "lines" and one.has("payload", "float_time_stamp")


def _is_jsonl(one: Look) -> bool:
    if one.kind == "folder":
        return one.has(tables.LINES) and not one.has(cogx.MANIFEST)
    return one.kind == "lines" and one.has(*tables.TEXTS) and not _is_lightmem(one)


def _is_langgraph(one: Look) -> bool:
    if one.kind == "folder":
        return one.has(langgraph.STORE)
    return one.kind == "sqlite" and one.has(langgraph.TABLE)


def _is_parquet(one: Look) -> bool:
    return one.kind == "parquet" or (one.kind == "folder" and one.has(tables.PARQUET))


def _is_chatgpt(one: Look) -> bool:
    return one.kind == "json" and one.has("memory_num_tokens", "memory_max_tokens")


def _is_markdown(one: Look) -> bool:
    if one.kind == "folder":
        return any(name.endswith(".md") for name in one.names)
    return one.kind == "text" and one.path.suffix == ".md"


RULES: dict[str, Callable[[Look], bool]] = {
    "jsonl": _is_jsonl,
    "parquet": _is_parquet,
    "mem0": _is_mem0,
    "cogx": _is_cogx,
    "langgraph": _is_langgraph,
    "letta": _is_letta,
    "hindsight": _is_hindsight,
    "lychee": _is_lychee,
    "lightmem": _is_lightmem,
    "claude": _is_claude,
    "chatgpt": _is_chatgpt,
    "markdown": _is_markdown,
}
"""Format -> whether an input is in it."""
