"""What Claude and ChatGPT have saved of a user, as that user can get it. They take nothing from files.

Claude's data export has `memories.json`, or `memories/ACCOUNT.json`: prose under headings, of all
conversations and of each project. What ChatGPT shows comes as its web page gets it (`{"memories":
[{"content", ...}]}`). Of both a text comes in that was copied, or that the assistant listed when asked: each
item of a list and each paragraph, with a day in brackets in front if there is one. Neither names the user.
"""

import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from cluster.interchange.files import OPENS_JSON, BadRow, Read, read_array, read_row
from cluster.interchange.markdown import statements
from schemas.exchange import BadMemory

MEMORIES = "memories.json"

_TEXTS = ("content", "memory", "text")
_TIMES = ("created_timestamp", "created_at", "updated_at", "last_updated")

_STAMP = re.compile(r"\[(?:(\d{4}-\d{2}-\d{2})|unknown|undated|n/?a|no date|date unknown)\]", re.IGNORECASE)
"""A day in front of what an assistant lists, or that there is none."""

_DASH = re.compile(r"^[.:\u2013\u2014-]\s+")
"""What parts the day from the rest."""


def read_claude(path: Path, user_id: str | None) -> Read:
    """Memories of a data export (its ZIP, its folder or its file of memories), or of a copied text."""
    found = list(_files(path)) if is_json(path) else []
    if not found:
        yield from _copied(path, user_id)
        return
    for name, content in found:
        for part, text in _parts(path, name, content):
            for number, row in _listed(text.splitlines()):
                tags = [row["heading"]] if row["heading"] else []
                yield read_row(f"{name}: {part}, line {number}", row | {"tags": tags}, user_id)


def read_chatgpt(path: Path, user_id: str | None) -> Read:
    """Memories of what ChatGPT's page of memories gets, or of a copied text."""
    if not is_json(path):
        yield from _copied(path, user_id)
        return
    for found in read_array(path, ("memories", "results", "items")):
        if isinstance(found, BadRow):
            yield found
            continue
        place, item = found
        text, time = (
            next((item[name] for name in names if item.get(name)), None) for names in (_TEXTS, _TIMES)
        )
        row = {"semantic_text": text, "session_time": time, "updated_at": item.get("updated_at")}
        yield read_row(place, row, user_id)


def is_json(path: Path) -> bool:
    """Whether an input is a data export, or JSON, and no text."""
    if path.is_dir() or zipfile.is_zipfile(path):
        return True
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return OPENS_JSON.match(file.read(1 << 12)) is not None


def is_claude(whole: object) -> bool:
    """Whether the JSON of a file is what Claude has saved."""
    items = whole if isinstance(whole, list) else [whole]
    return any(isinstance(item, dict) and "conversations_memory" in item for item in items)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files of memories of a data export."""
    if path.is_dir():
        for file in (path / MEMORIES, *sorted(path.glob("memories/*.json"))):
            if file.is_file():
                yield file.name, file.read_bytes()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as whole:
            for name in sorted(whole.namelist()):
                if re.search(r"(^|/)memories(\.json$|/[^/]*\.json$)", name):
                    yield name, whole.read(name)
    else:
        yield path.name, path.read_bytes()


def _parts(path: Path, name: str, content: bytes) -> Iterator[tuple[str, str]]:
    """(name, text) of what is saved of all conversations, and of each project."""
    try:
        whole = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        whole = None
    if not is_claude(whole):
        raise BadMemory(f"{path}: {name} has no conversations_memory of Claude; check --from")
    for item in whole if isinstance(whole, list) else [whole]:
        if not isinstance(item, dict):
            continue
        projects = item.get("project_memories")
        named = {"conversations_memory": item.get("conversations_memory")}
        named |= (
            {f"project {key}": text for key, text in projects.items()} if isinstance(projects, dict) else {}
        )
        yield from ((key, text) for key, text in named.items() if isinstance(text, str))


def _copied(path: Path, user_id: str | None) -> Read:
    if path.is_dir() or zipfile.is_zipfile(path):
        raise BadMemory(f"{path}: has no {MEMORIES}; check --from, or name the file")
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, row in _listed(file):
            yield read_row(f"{path.name}:{number}", row, user_id)


def _listed(lines: Iterable[str]) -> Iterator[tuple[int, dict]]:
    """The statements of a text, with the days that an assistant puts in front."""
    for number, row in statements(lines, prose=True):
        text, day = row["semantic_text"].strip(), row.get("session_time")
        if found := _STAMP.match(text):
            text, day = text[found.end() :], found[1]
        if found or day:
            text = _DASH.sub("", text.strip(), count=1)
        yield number, row | {"semantic_text": text, "session_time": day}
