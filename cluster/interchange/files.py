"""What several formats share: names of files, a JSON array written and read item by item, a new database."""

import codecs
import contextlib
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from schemas.exchange import BadMemory, Memory, memory_of

MAX_NAME_BYTES = 160
"""Of a user's file or folder; file systems take 255, and an ending comes behind it."""

CHUNK_CHARS = 1 << 20

MAX_ITEM_CHARS = 32 << 20


@dataclass(frozen=True)
class BadRow:
    """A row of a file that is no memory."""

    place: str
    """File and line or item, counted from 1."""
    reason: str
    raw: str = ""
    """How it begins."""
    user_id: str | None = None


Read = Iterator[Memory | BadRow]


def read_row(place: str, row: dict, user_id: str | None) -> Memory | BadRow:
    """The memory of a row with columns of EXCHANGE_SCHEMA, or why it cannot be read."""
    try:
        return memory_of(row, user_id=user_id)
    except BadMemory as error:
        user, text = row.get("user_id") or user_id, str(row.get("semantic_text") or "")
        return BadRow(place, str(error), text[:200], user if isinstance(user, str) else None)


def name_of_user(user_id: str) -> str:
    """A file name for a user: the id as in a URL, so that it can be read and no two are equal."""
    name = quote(user_id, safe=" @+=,()")
    name = name.replace(".", "%2E", 1) if name.startswith(".") else name
    if len(name) > MAX_NAME_BYTES:
        name = f"{name[:80]}-{hashlib.sha256(user_id.encode()).hexdigest()[:32]}"
    return name.rstrip(" ") + "%20" * (len(name) - len(name.rstrip(" ")))


def line_of(value: object) -> str:
    """JSON on one line, with its line break."""
    return json.dumps(value, ensure_ascii=False) + "\n"


def write_array(path: Path, head: dict, name: str, items: Iterable[dict]) -> int:
    """Write `head` with one more key, an array, an item a line; returns how many."""
    number = -1
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + f', "{name}": [')
        for number, item in enumerate(items):
            file.write((",\n" if number else "\n") + json.dumps(item, ensure_ascii=False))
        file.write("\n]}\n")
    return number + 1


def read_lines(path: Path) -> Iterator[tuple[str, dict] | BadRow]:
    """(place, object) of each line of JSON lines."""
    with open(path, "rb") as file:
        for number, data in enumerate(file, 1):
            data = data.removeprefix(codecs.BOM_UTF8) if number == 1 else data
            if not data.strip():
                continue
            place, shown = f"{path.name}:{number}", data[:800].decode(errors="backslashreplace").strip()[:200]
            try:
                value = json.loads(data.decode())
            except (ValueError, RecursionError) as error:
                yield BadRow(place, f"is no JSON ({error}); mend the line", shown)
                continue
            yield (place, value) if isinstance(value, dict) else BadRow(place, "is no JSON object", shown)


def read_array(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, dict] | BadRow]:
    """(place, object) of each item of an array: the file is one, or an object that has one under one of
    these names. Only one item at a time is in memory. BadMemory where there is no such array."""
    with open(path, encoding="utf-8-sig", errors="backslashreplace") as file:
        text = file.read(CHUNK_CHARS)
        found = re.match(r"\s*\[", text) or re.search(rf'"(?:{"|".join(names)})"\s*:\s*\[', text)
        if not found:
            raise BadMemory(f"{path}: has no array under {' or '.join(names)}; check --from")
        position, number, decoder = found.end(), 0, json.JSONDecoder()
        while True:
            space = _SPACE.match(text, position)
            assert space is not None, "it matches the empty text"
            position = space.end()
            if text.startswith("]", position):
                return
            try:
                item, end = decoder.raw_decode(text, position)
            except (ValueError, RecursionError) as error:
                more = file.read(CHUNK_CHARS)
                if not more or len(text) - position > MAX_ITEM_CHARS:
                    rest = f"{path.name}: item {number + 1}"
                    yield BadRow(rest, f"the rest of the file is no JSON ({error})", text[position:][:200])
                    return
                text, position = text[position:] + more, 0
                continue
            number, position = number + 1, end
            place = f"{path.name}: item {number}"
            yield (
                (place, item)
                if isinstance(item, dict)
                else BadRow(place, "is no JSON object", str(item)[:200])
            )
            if position > CHUNK_CHARS:
                text, position = text[position:], 0


_SPACE = re.compile(r"[\s,]*")

USER = "user.json"
"""Beside what a receiver without users gets: {"user_id": USER}, for a later import."""


def write_user(folder: Path, user_id: str) -> None:
    """Note whose memories a folder has."""
    (folder / USER).write_text(json.dumps({"user_id": user_id}, ensure_ascii=False) + "\n", "utf-8")


def read_user(folder: Path) -> str | None:
    """Whose memories a folder has, if an export noted it."""
    try:
        found = json.loads((folder / USER).read_text("utf-8"))["user_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


@contextlib.contextmanager
def old_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A SQLite database, to be read alone."""
    place = f"file:{quote(str(path.absolute()))}?mode=ro"
    with contextlib.closing(sqlite3.connect(place, uri=True)) as database:
        yield database


def read_table(path: Path, table: str, what: str) -> Iterator[tuple[str, dict]]:
    """(place, row) of each row of a table of a SQLite database. BadMemory for another database."""
    try:
        with old_database(path) as database:
            database.row_factory = sqlite3.Row
            for number, row in enumerate(database.execute(f"SELECT * FROM {table} ORDER BY rowid"), 1):
                yield f"{path.name}: row {number}", dict(row)
    except sqlite3.Error as error:
        raise BadMemory(f"{path}: is no database of {what} ({error}); check --from") from None


OPENS_JSON = re.compile(r"\s*(?:\{|\[\s*[{\]])")
"""How a file of JSON begins. A copied list may begin with a day in brackets."""


@contextlib.contextmanager
def new_database(path: Path, *statements: str) -> Iterator[sqlite3.Connection]:
    """A SQLite database that is there, whole, at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")  # the folder gets its name when everything is written
        for statement in statements:
            database.execute(statement)
        database.execute("BEGIN")
        yield database
        database.execute("COMMIT")
