"""Letta: a MemFS folder for each user, with a file for each kind of memory under `reference/`.

    USER/reference/preference.md
        ---
        description: "What is remembered of the user, kind preference: ..."
        ---
        - [2025-05-03] User prefers tea.

What lies under `reference/` is read when an agent looks it up; `system/`, which stands in every prompt, is
left to its owner.
"""

import functools
import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from cluster.interchange.export import Export
from cluster.interchange.files import name_of_user
from cluster.interchange.markdown import write_kinds

FOLDER = "reference"


def write(folder: Path, export: Export) -> None:
    """`USER/reference/KIND.md`, the user's name as in a URL."""
    for user_id, memories in groupby(export.memories(), key=lambda memory: memory.user_id):
        place = folder / name_of_user(user_id) / FOLDER
        place.mkdir(parents=True)
        write_kinds(place, memories, functools.partial(_file, place))


def _file(place: Path, kind: str, lines: Iterable[str]) -> None:
    # Front matter is YAML, in which a JSON string is one; Letta allows no other key than these few.
    said = f"What is remembered of the user, kind {kind}: a memory a line, with the day on which it was said"
    with open(place / f"{kind}.md", "w", encoding="utf-8") as file:
        file.write(f"---\ndescription: {json.dumps(said)}\n---\n\n")
        file.writelines(lines)
