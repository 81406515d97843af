"""Markdown: one file a user, a heading for each kind of memory, a line for each memory.

    ---
    user_id: "me"
    ---

    ## event
    - [2025-05-03] User moved to Oslo.

The day is that on which it was said. Any other Markdown list comes in too, its user named by `--user-id`.
"""

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TextIO

from cluster.interchange.export import Export
from cluster.interchange.files import BadRow, Read, name_of_user, read_row
from schemas.exchange import Memory
from schemas.record import MEMORY_TYPES


def write(folder: Path, export: Export) -> None:
    """`USER.md` for each user, the name as in a URL."""
    for user_id, memories in groupby(export.memories(), key=lambda memory: memory.user_id):
        # A kind is gathered on the disk, so that a user with a million memories needs no memory.
        with open(folder / f"{name_of_user(user_id)}.md", "w", encoding="utf-8") as file:
            file.write(f"---\nuser_id: {json.dumps(user_id, ensure_ascii=False)}\n---\n")
            write_kinds(folder, memories, functools.partial(_section, file))


def write_kinds(folder: Path, memories: Iterable[Memory], take: Callable[[str, Iterable[str]], None]) -> None:
    """Give the lines of each kind of memories to `take(kind, lines)`, in the order of MEMORY_TYPES."""
    with contextlib.ExitStack() as stack:
        parts: dict[str, TextIO] = {}
        for memory in memories:
            kind = memory.memory_type
            if kind not in parts:
                path = folder / f".{kind}.part"
                parts[kind] = stack.enter_context(open(path, "w+", encoding="utf-8"))
                stack.callback(path.unlink)
            parts[kind].write(line_of(memory))
        for kind in (*MEMORY_TYPES, *sorted(parts.keys() - set(MEMORY_TYPES))):
            if kind in parts:
                parts[kind].seek(0)
                take(kind, parts[kind])


def line_of(memory: Memory) -> str:
    """A memory as an item of a list."""
    day = f"[{memory.session_time:%Y-%m-%d}] " if memory.session_time else ""
    return f"- {day}{' '.join(memory.semantic_text.split())}\n"


def _section(file: TextIO, kind: str, lines: Iterable[str]) -> None:
    file.write(f"\n## {kind}\n\n")
    file.writelines(lines)


# --- in -----------------------------------------------------------------------------------------------

_ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+(?:\[[ xX]\]\s+)?(?:\[(\d{4}-\d{2}-\d{2})\]\s+)?(\S.*)")
_HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*$")
_USER = re.compile(r"user_id:\s*(.+)")


def read(path: Path, user_id: str | None) -> Read:
    """The items of the lists in a file, or in every `.md` file of a folder."""
    for file in sorted(path.glob("*.md")) if path.is_dir() else [path]:
        yield from _read(file, user_id)


def _read(path: Path, user_id: str | None) -> Iterator[Memory | BadRow]:
    kind, in_front, in_code = "fact", False, False
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\n")
            if line.strip() == "---" and (number == 1 or in_front):
                in_front = not in_front
            elif in_front:
                if found := _USER.match(line):
                    user_id = _quoted(found[1])
            elif line.lstrip().startswith("```"):
                in_code = not in_code
            elif in_code:
                continue
            elif found := _HEADING.match(line):
                kind = _kind(found[1])
            elif found := _ITEM.match(line):
                row = {"memory_type": kind, "semantic_text": found[2], "session_time": found[1]}
                yield read_row(f"{path.name}:{number}", row, user_id)


def _quoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text.strip().strip("'\"")


def _kind(heading: str) -> str:
    word = heading.lower().replace(" ", "_")
    return next((one for one in MEMORY_TYPES if word in (one, one + "s", one[:-1] + "ies")), "fact")
