"""Markdown: one file a user, a heading for each kind of memory, a line for each memory.

    ---
    user_id: "me"
    ---

    ## event
    - [2025-05-03] User moved to Oslo.

The day is that on which it was said. Any other Markdown list comes in too, its user named by `--user-id`.
Other formats that hold such text read it by `statements`.
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
from cluster.interchange.files import Read, name_of_user, read_row
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
_HEADING = re.compile(r"(?:#{1,6}\s+(.*?)\s*#*|\*\*([^*]+?):?\*\*:?)$")
_USER = re.compile(r"user_id:\s*(.+)")
_WORD = re.compile(r"\w")

WRAPPED_CHARS = 60
"""A line of so many characters that ends no sentence was wrapped: the next one goes on with it."""


def read(path: Path, user_id: str | None) -> Read:
    """The items of the lists in a file, or in every `.md` file of a folder."""
    for file in sorted(path.glob("*.md")) if path.is_dir() else [path]:
        yield from read_file(file, user_id)


def read_file(path: Path, user_id: str | None, kind: str = "fact", *, prose: bool = False) -> Read:
    """The statements of a file; their kind is `kind` until a heading names one."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, row in statements(file, kind, prose=prose):
            yield read_row(f"{path.name}:{number}", row, user_id)


def statements(
    lines: Iterable[str], kind: str = "fact", *, prose: bool = False
) -> Iterator[tuple[int, dict]]:
    """(number of its line, row) of each item of a list; with `prose` of each paragraph and line too, also in
    blocks of code. A row has `heading`: what it stands under."""
    user, heading, in_front, in_code = None, "", False, False
    found: tuple[int, dict] | None = None
    before = ""
    for number, line in enumerate(lines, 1):
        line, begun = line.rstrip("\n"), None
        is_fence = line.lstrip().startswith("```")
        in_code ^= is_fence
        if line.strip() == "---" and (number == 1 or in_front):
            in_front = not in_front
        elif in_front:
            user = _quoted(named[1]) if (named := _USER.match(line)) else user
        elif is_fence or (in_code and not prose):
            pass
        elif title := _HEADING.match(line):
            heading = title[1] or title[2] or ""
            kind = kind_of(heading)
        elif item := _ITEM.match(line):
            begun = {"semantic_text": item[2], "session_time": item[1]}
        elif _WORD.search(line):
            if found and _goes_on(before, line):
                found[1]["semantic_text"] += f" {line.strip()}"
                before = line
                continue
            begun = {"semantic_text": line} if prose else None
        if found:
            yield found
        found = (
            (number, begun | {"user_id": user, "memory_type": kind, "heading": heading}) if begun else None
        )
        before = line
    if found:
        yield found


def _goes_on(before: str, line: str) -> bool:
    """Whether a line that is no item belongs to the statement of the line before."""
    is_cut = len(before) >= WRAPPED_CHARS and not before.rstrip().endswith((".", "!", "?", ":", ";"))
    return line[0].isspace() or line[0].islower() or is_cut


def _quoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text.strip().strip("'\"")


def kind_of(name: str) -> str:
    """The kind of memories that a heading or a file is named after; `fact` for any other name."""
    word = name.lower().replace(" ", "_")
    return next((one for one in MEMORY_TYPES if word in (one, one + "s", one[:-1] + "ies")), "fact")
