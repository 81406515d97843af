"""The formats, by the names that `--to` and `--from` give them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.interchange import (
    cogx,
    hindsight,
    langgraph,
    letta,
    lightmem,
    lychee,
    markdown,
    mem0,
    recognise,
    saved,
    tables,
)
from cluster.interchange.export import Export
from cluster.interchange.files import Read, line_of
from cluster.runtime.entry_points import EXCHANGE_FORMATS, Addition, Known
from schemas.exchange import BadMemory, Memory

CLOSED = "closed.jsonl"
"""In an increment: what the receiver is to delete, as `{"user_id", "record_id", "id", "closed_reason"}`."""


@dataclass(frozen=True)
class Writer:
    """A format to export to."""

    write: Callable[[Path, Export], None]
    """Writes all of an export into an empty folder."""
    identify: Callable[[Memory], str] | None = None
    """The receiver's id of a memory; None where it has none, so that no increment can say what is gone."""
    is_whole: bool = False
    """Whether its own files say what is gone."""


Reader = Callable[[Path, str | None], Read]
"""A path, and whose a row is that names nobody -> what it holds. Raises BadMemory where the path holds
nothing of its format."""


@dataclass(frozen=True)
class ExchangeFormat:
    """A format that another distribution adds: to export to, to import from, or both."""

    writer: Writer | None = None
    read: Reader | None = None
    recognises: Callable[[Path], bool] | None = None
    """Whether a file or folder is in this format, for `--from auto`."""


def _added(addition: Addition) -> ExchangeFormat:
    return addition.value if isinstance(addition.value, ExchangeFormat) else ExchangeFormat()


_WRITERS = {
    "jsonl": Writer(tables.write_lines, lambda memory: memory.identity, is_whole=True),
    "parquet": Writer(tables.write_parquet, lambda memory: memory.identity, is_whole=True),
    "markdown": Writer(markdown.write),
    "mem0": Writer(mem0.write, mem0.identify),
    "cogx": Writer(cogx.write, cogx.identify),
    "langgraph": Writer(langgraph.write, langgraph.identify),
    "letta": Writer(letta.write),
    "hindsight": Writer(hindsight.write),
    "lychee": Writer(lychee.write, lychee.identify),
    "lightmem": Writer(lightmem.write, mem0.identify),
}

WRITERS: Known[Writer] = Known(
    EXCHANGE_FORMATS,
    _WRITERS,
    "a cluster.interchange.formats.ExchangeFormat with a writer, which --to needs",
    lambda addition: _added(addition).writer,
)

_READERS: dict[str, Reader] = {
    "jsonl": tables.read_jsonl,
    "parquet": tables.read_parquet,
    "mem0": mem0.read,
    "cogx": cogx.read,
    "markdown": markdown.read,
    "langgraph": langgraph.read,
    "letta": letta.read,
    "hindsight": hindsight.read,
    "lychee": lychee.read,
    "lightmem": lightmem.read,
    "claude": saved.read_claude,
    "chatgpt": saved.read_chatgpt,
}

ADDED: Known[ExchangeFormat] = Known(
    EXCHANGE_FORMATS,
    {},
    "a cluster.interchange.formats.ExchangeFormat",
    lambda addition: addition.value if isinstance(addition.value, ExchangeFormat) else None,
    reserved=(*_WRITERS, *_READERS),
)

READERS: Known[Reader] = Known(
    EXCHANGE_FORMATS,
    _READERS,
    "a cluster.interchange.formats.ExchangeFormat with read, which --from needs",
    lambda addition: _added(addition).read,
    reserved=_WRITERS,
)


def recognised(path: Path) -> str:
    """The format that a file or folder is in. BadMemory where that cannot be told."""
    try:
        seen = recognise.look(path)
        found = [name for name, test in recognise.RULES.items() if test(seen)]
        found += [name for name, test in _added_rules() if test(path)]
    except OSError as error:
        raise BadMemory(f"{error.filename or path}: {error.strerror or error}; check --input") from None
    if len(found) == 1:
        return found[0]
    may_be = f"may be in {' or '.join(found)}" if found else f"is in none of {', '.join(READERS)}"
    raise BadMemory(f"{path}: {may_be}, as far as can be told; name its format with --from")


def _added_rules() -> Iterator[tuple[str, Callable[[Path], bool]]]:
    """Those of other distributions that say what they read."""
    for name in ADDED:
        if ADDED.is_added(name) and (test := ADDED[name].recognises):
            yield name, test


def read(name: str, path: Path, user_id: str | None) -> Read:
    """The memories of a file or folder. BadMemory if it is not in this format, or cannot be read."""
    try:
        yield from READERS[name](path, user_id)
    except OSError as error:
        raise BadMemory(
            f"{error.filename or path}: {error.strerror or error}; check --input and --from"
        ) from None


def write(name: str, folder: Path, export: Export) -> None:
    """Write an export in a format, an increment with what is gone."""
    writer = WRITERS[name]
    writer.write(folder, export)
    if export.selection.since and not writer.is_whole:
        assert writer.identify is not None, f"{name} cannot say what is gone"
        with open(folder / CLOSED, "w", encoding="utf-8") as file:
            for memory in export.closed():
                ids = {
                    "user_id": memory.user_id,
                    "record_id": memory.record_id,
                    "id": writer.identify(memory),
                }
                file.write(line_of(ids | {"closed_reason": memory.closed_reason}))
