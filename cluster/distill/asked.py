"""What teacher and judge share: they are asked in one call about the segments of several parts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from cluster.models.endpoint import EndpointError

Asked = TypeVar("Asked")
Found = TypeVar("Found")


class Counting(Protocol):
    """What counts its requests."""

    @property
    def counts(self) -> Mapping[str, int]:
        """What it was asked, and what became of that."""
        ...


def in_one_call(
    ask: Callable[[list[Asked]], Sequence[Found | None]], asked: list[Asked], source: Counting
) -> tuple[Sequence[Found | None], dict[str, int], str]:
    """What is found, what `source` counted meanwhile, and why an endpoint ended it early: "" if none did. If
    one did, nothing is found; what was paid for is kept by the source."""
    before, error = dict(source.counts), ""
    found: Sequence[Found | None]
    try:
        found = ask(asked)
    except EndpointError as failure:
        found, error = [None] * len(asked), str(failure)
    return found, {name: count - before.get(name, 0) for name, count in source.counts.items()}, error
