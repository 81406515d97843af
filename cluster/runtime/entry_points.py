"""What other distributions add beside what ships: deciders and formats, each an entry point with a name.

    [project.entry-points."slowwave.deciders"]
    newest = "newest_wins:Newest"

Names come from the metadata of what is installed, so that `--help` has them and nothing is imported. An entry
point is imported when its name is asked for. CONTRIBUTING.md shows one of each kind.
"""

import functools
import importlib.metadata
import re
from collections import UserDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

DECIDERS = "slowwave.deciders"
INGEST_FORMATS = "slowwave.ingest_formats"
EXCHANGE_FORMATS = "slowwave.exchange_formats"

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""A name stands in options, file names and tables."""

Kind = TypeVar("Kind")


class EntryPointError(ValueError):
    """An entry point that cannot be used: names its distribution, itself, and what is expected."""


@dataclass(frozen=True)
class Addition:
    """An entry point and what it is the name of, imported."""

    entry: EntryPoint
    value: Any

    @property
    def origin(self) -> str:
        """Where it comes from, for messages."""
        return _origin(self.entry)


def names(group: str) -> tuple[str, ...]:
    """Names that other distributions add to a group, sorted, whether they can be used or not."""
    return tuple(_entries(group))


@functools.cache
def _entries(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in sorted(importlib.metadata.entry_points(group=group), key=lambda one: (one.name, one.value)):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def _origin(entry: EntryPoint) -> str:
    return f"entry point {entry.name!r} of {entry.group} in {_distribution(entry)}"


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


class Known(UserDict[str, Kind]):
    """What there is of a kind, by name: what ships, then what other distributions add.

    `accept` gives what an entry point is good for, None where it is not what is `expected`. `reserved` names
    mean something else. Asking for a name raises EntryPointError where it is added twice, or though it ships,
    and where its entry point cannot be imported or is something else; KeyError where nobody has it.
    """

    def __init__(
        self,
        group: str,
        shipped: dict[str, Kind],
        expected: str,
        accept: Callable[[Addition], Kind | None],
        reserved: Collection[str] = (),
    ):
        super().__init__(shipped)
        self._group, self._expected, self._accept = group, expected, accept
        self._reserved, self._loaded = frozenset(reserved), dict[str, Kind]()

    def __iter__(self) -> Iterator[str]:
        yield from self.data
        yield from (name for name in names(self._group) if not self._is_taken(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self.data or self.is_added(name)

    def __getitem__(self, name: str) -> Kind:
        self.check(name)
        if name in self.data:
            return self.data[name]
        if name not in self._loaded:
            if not self.is_added(name):
                raise KeyError(name)
            self._loaded[name] = self._load(_entries(self._group)[name][0])
        return self._loaded[name]

    def is_added(self, name: object) -> bool:
        """Whether another distribution has it, and nothing that ships."""
        return name in _entries(self._group) and not self._is_taken(name)

    def check(self, name: str) -> None:
        """EntryPointError where a distribution adds this name and must not."""
        first, *others = _entries(self._group).get(name, ()) or (None,)
        if first is None:
            return
        if self._is_taken(name):
            raise self._error(first, "the name is Slowwave's own", "a name of its own")
        if others:
            raise self._error(first, f"{_distribution(others[0])} has the same name", "a name of its own")
        if not NAME.fullmatch(name):
            raise self._error(first, "not a name for an option", f"a name like {NAME.pattern}")

    def _is_taken(self, name: object) -> bool:
        return name in self.data or name in self._reserved

    def _load(self, entry: EntryPoint) -> Kind:
        try:
            value = entry.load()
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise self._error(entry, f"{entry.value} cannot be imported ({why})") from error
        found = self._accept(Addition(entry, value))
        if found is None:
            raise self._error(entry, f"{entry.value} is {_shown(value)}")
        return found

    def _error(self, entry: EntryPoint, problem: str, expected: str | None = None) -> EntryPointError:
        return EntryPointError(
            f"{_origin(entry)}: {problem}; expected {expected or self._expected}. "
            "Mend that distribution, or uninstall it"
        )


def _shown(value: object) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 80 else f"{shown[:80]}..."
