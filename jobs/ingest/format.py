"""What a reader of one format is: the modules of jobs.ingest.formats each define one as FORMAT."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from schemas.archive import InvalidSession


@dataclass(frozen=True)
class Origin:
    """Where an item comes from, as far as that says more than the item."""

    user_id: str | None
    """Of --user-id: the user of items that name none."""
    place: str
    """Name of the file without its ending: of formats that keep one conversation a file."""
    folder: str = ""
    """Name of the folder that it lies in."""


@dataclass(frozen=True)
class Row:
    """Turns of a session that other items of the input may have more of, see jobs.ingest.rows."""

    user_id: object
    conversation_id: object
    session_id: object
    turns: list[dict]
    """As a session has them, see jobs.ingest.mending; their `time` may order the rows."""
    by_silence: bool = False
    """The chat `conversation_id` has no sessions: it is cut at long silences. `session_id` is None."""


Session = tuple[object, dict | InvalidSession]
"""(the part of the item that it is, session as jobs.ingest.mending takes it, or why there is none)."""


@dataclass(frozen=True)
class Format:
    name: str
    """As --format names it."""
    what: str
    """What one item of it is, for people: "a conversation of a ChatGPT export"."""
    fields: tuple[str, ...]
    """Fields that tell such an item from others, for messages."""
    matches: Callable[[dict], bool]
    """Whether an item is one, by its fields. No item should be one of two formats."""
    read: Callable[[dict, Origin], Iterator[Session | Row]]
    """What an item holds. Raises InvalidSession for one that cannot be read."""
    names_users: bool = False
    """Whether its items say whose they are; --user-id must if they do not."""
    files: str = "*"
    """Pattern of the names of files that are read of a folder or a zip file."""
    is_rows: bool = False
    """Whether an item is a part of a session: shares of rejections are then counted in turns."""


def holds(items: object, *names: str) -> bool:
    """Whether the first of some items is an object that has these fields."""
    first = items[0] if isinstance(items, list) and items else None
    return isinstance(first, dict) and all(name in first for name in names)


def skips(item: dict, *names: str) -> bool:
    """Whether an item has none of these fields."""
    return not item.keys() & set(names)
