"""Letta: a MemFS folder for each user, with a file for each kind of memory under `reference/`.

    USER/reference/preference.md
        ---
        description: "What is remembered of the user, kind preference: ..."
        ---
        - [2025-05-03] User prefers tea.
    USER/user.json            {"user_id": USER}, for a later import

What lies under `reference/` is read when an agent looks it up; `system/`, which stands in every prompt, is
left to its owner. Any MemFS folder comes in, and the blocks of an agent file (`.af`): each item of a list and
each paragraph. What is the agent's own does not: its persona, its skills.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote

from cluster.interchange.export import Export
from cluster.interchange.files import Read, name_of_user, read_row, read_user, write_user
from cluster.interchange.markdown import kind_of, read_file, statements, write_kinds
from schemas.exchange import BadMemory

FOLDER, SYSTEM = "reference", "system"

OWN = ("persona", "skills")
"""Label of a block, and name of a file or folder, with what is the agent's own."""


def write(folder: Path, export: Export) -> None:
    """`USER/reference/KIND.md`, the user's name as in a URL."""
    for user_id, memories in groupby(export.memories(), key=lambda memory: memory.user_id):
        place = folder / name_of_user(user_id) / FOLDER
        place.mkdir(parents=True)
        write_user(place.parent, user_id)
        write_kinds(place, memories, functools.partial(_file, place))


def _file(place: Path, kind: str, lines: Iterable[str]) -> None:
    # Front matter is YAML, in which a JSON string is one; Letta allows no other key than these few.
    said = f"What is remembered of the user, kind {kind}: a memory a line, with the day on which it was said"
    with open(place / f"{kind}.md", "w", encoding="utf-8") as file:
        file.write(f"---\ndescription: {json.dumps(said)}\n---\n\n")
        file.writelines(lines)


# --- in -----------------------------------------------------------------------------------------------


def read(path: Path, user_id: str | None) -> Read:
    """Memories of an agent file, of a MemFS folder, or of a folder of such folders."""
    if path.is_file():
        yield from _agent_file(path, user_id)
        return
    inner = [] if is_memfs(path) else [one for one in sorted(path.iterdir()) if is_memfs(one)]
    if not inner and not is_memfs(path):
        raise BadMemory(f"{path}: has neither {SYSTEM}/ nor {FOLDER}/; check --from")
    for folder in inner or [path]:
        # Without --user-id a folder of many names the users.
        user = read_user(folder) or user_id or (unquote(folder.name) if inner else None)
        for file in sorted(folder.rglob("*.md")):
            parts = file.relative_to(folder).with_suffix("").parts
            if not _is_own(parts):
                yield from read_file(file, user, kind_of(file.stem), prose=True)


def _is_own(parts: Sequence[str]) -> bool:
    """Whether a label or a path is of the agent's own, or hidden."""
    return any(part in OWN or part.startswith(".") for part in parts)


def is_memfs(folder: Path) -> bool:
    """Whether a folder has the folders of MemFS."""
    return (folder / SYSTEM).is_dir() or (folder / FOLDER).is_dir()


def _agent_file(path: Path, user_id: str | None) -> Read:
    for label, value in _blocks(path):
        # In MemFS a label is a path.
        for number, row in statements(value.splitlines(), kind_of(label.rpartition("/")[2]), prose=True):
            yield read_row(f"{path.name}: block {label}, line {number}", row, user_id)


def _blocks(path: Path) -> Iterator[tuple[str, str]]:
    """(label, text) of the blocks of an agent file, each once, however many agents share it."""
    try:
        whole = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError):
        whole = None
    if not is_agent_file(whole):
        raise BadMemory(f"{path}: is no agent file of Letta, it has no blocks; check --from")
    agents = whole.get("agents")
    seen = set()
    for holder in (whole, *(agents if isinstance(agents, list) else ())):
        for block in _lists(holder):
            label, value = block.get("label"), block.get("value")
            if not isinstance(label, str) or not isinstance(value, str) or _is_own(label.split("/")):
                continue
            if (label, value) not in seen:
                seen.add((label, value))
                yield label, value


_HOLDERS = ("blocks", "core_memory", "memory_blocks")
"""Names of its lists of blocks: of the file, and of its agents in earlier releases."""


def is_agent_file(whole: object) -> bool:
    """Whether the JSON of a file is that of an agent file."""
    return isinstance(whole, dict) and ("agents" in whole or "core_memory" in whole)


def _lists(holder: object) -> Iterator[dict]:
    for name in _HOLDERS:
        items = holder.get(name) if isinstance(holder, dict) else None
        yield from (item for item in items or () if isinstance(item, dict)) if isinstance(items, list) else ()
