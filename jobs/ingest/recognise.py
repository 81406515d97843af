"""What format an input is in, told by the fields of its first items."""

import collections
import dataclasses
import itertools
from collections.abc import Callable

from jobs.common.cli import UsageError, say
from jobs.common.input_items import Rejection, read_items
from jobs.ingest.files import InputFile
from jobs.ingest.format import Format
from jobs.ingest.formats import FORMATS

NUM_LOOKED_AT = 20
"""Items of each file that are looked at. Some exports have lines of other kinds among their messages."""

NUM_NEAREST = 3
"""Formats that an error names, at most."""

OTHERS: tuple[tuple[str, Callable[[dict], bool]], ...] = (
    ("a memory of a memory system, not a conversation", lambda item: "memory" in item),
    (
        "an entry of Google's activities that is not of Gemini",
        lambda item: "header" in item and "products" in item,
    ),
)
"""What no format reads."""


@dataclasses.dataclass(frozen=True)
class _Look:
    """What a file seems to be."""

    file: InputFile
    votes: collections.Counter[str]
    """How many of the items are one of a format."""
    num_items: int
    first: dict | None
    fields: set[str]
    """All that the items of a format have."""
    problem: str
    """Why the first thing that is no item cannot be read."""

    @property
    def best(self) -> list[str]:
        most = max(self.votes.values(), default=0)
        return [name for name, votes in self.votes.items() if votes == most]


def recognise(files: list[InputFile], columns: dict[str, str]) -> tuple[Format, list[InputFile]]:
    """The format of an input, and those of its files that are in it, told on stderr.

    Files of a folder or a zip file that are in no format are not read. Raises UsageError for a file that was
    named and is in none, or may be in two, and for files in different formats.
    """
    looks = [_look(file, columns) for file in files]
    known = [look for look in looks if look.votes]
    for look in looks:
        if len(look.best) > 1:
            raise UsageError(f"input={look.file.shown!r}: may be {_or(look.best)}; name one with --format")
        if not look.votes and (look.num_items or look.problem) and (look.file.is_named or not known):
            raise UsageError(f"input={look.file.shown!r}: {_unknown(look)}")
    names = list(dict.fromkeys(look.best[0] for look in known))
    if len(names) > 1:
        by_name = {name: [look for look in known if look.best == [name]] for name in names[:NUM_NEAREST]}
        found = ", ".join(_shown(of_it, name) for name, of_it in by_name.items())
        found += ", ..." if len(names) > NUM_NEAREST else ""
        raise UsageError(
            f"format='auto': the input is in {len(names)} formats: {found}; ingest each for itself"
        )
    if not names:
        say("[ingest] the input has no items that tell its format")
        return FORMATS["messages"], files
    format = FORMATS[names[0]]
    num_items = sum(look.num_items for look in known)
    num_votes = sum(look.votes[format.name] for look in known)
    by = ", ".join(name for name in format.fields if any(name in look.fields for look in known))
    say(
        f"[ingest] {_shown(known, format.name)}: {num_votes} of the first {num_items} items look like "
        f"{format.what} (fields {by}); --format names another"
    )
    if others := [look.file.shown for look in looks if not look.votes and look.num_items]:
        more = ", ..." if len(others) > 3 else ""
        say(f"[ingest] {len(others)} files in other formats were not read: {', '.join(others[:3])}{more}")
    # A file without items, or one that cannot be read, costs what it would cost with --format.
    return format, [look.file for look in looks if look.votes or not look.num_items]


def hint(item: object, format: str) -> str:
    """What an item is that this format cannot read, and what to do; "" where nothing is known."""
    if not isinstance(item, dict):
        return ""
    for name, other in FORMATS.items():
        if name != format and other.matches(item):
            return f"this is {other.what}: use --format {name}"
    remedy = "bring it into the shape of --format messages"
    return next((f"this is {what}: {remedy}" for what, matches in OTHERS if matches(item)), "")


def renamed(item: dict, columns: dict[str, str]) -> dict:
    """An item with the fields that --columns names, under our names."""
    return item | {ours: item[theirs] for ours, theirs in columns.items() if theirs in item}


def _look(file: InputFile, columns: dict[str, str]) -> _Look:
    votes, names, first, problem, num_items = collections.Counter[str](), set[str](), None, "", 0
    found = read_items(file.path, file.shown, member=file.member)
    for item in itertools.islice(found, NUM_LOOKED_AT):
        if isinstance(item, Rejection):
            problem = problem or item.reason
            continue
        fields, num_items = renamed(item[1], columns), num_items + 1
        matching = [name for name, one in FORMATS.items() if one.matches(fields)]
        first = first or fields
        names |= fields.keys() if matching else set()
        votes.update(matching)
    return _Look(file, votes, num_items, first, names, problem)


def _shown(looks: list[_Look], name: str) -> str:
    more = f" and {len(looks) - 1} more" if len(looks) > 1 else ""
    return f"{looks[0].file.shown}{more}: taken for {name}"


def _or(names: list[str]) -> str:
    return " or ".join(f"{name} ({FORMATS[name].what})" for name in names)


def _unknown(look: _Look) -> str:
    if look.first is None:
        return f"{look.problem}; if it is a conversation all the same, name its format with --format"
    for what, matches in OTHERS:
        if matches(look.first):
            return f"this is {what}; bring it into the shape of --format messages"
    fields = look.first.keys()
    missing = {format: [name for name in format.fields if name not in fields] for format in FORMATS.values()}
    nearest = sorted(missing, key=lambda format: len(missing[format]) / len(format.fields))
    near = [format for format in nearest if len(missing[format]) < len(format.fields)][:NUM_NEAREST]
    told = ", ".join(f"{one.name} (without {', '.join(missing[one]) or 'the right values'})" for one in near)
    has = ", ".join(sorted(fields)[:8])
    return (
        f"its first item has the fields {has}, which is no format of ours; nearest: {told or 'none'}; name "
        "one with --format, and fields that have other names with --columns"
    )
