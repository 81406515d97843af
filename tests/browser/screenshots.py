"""Pictures of the report for the documentation, of a store that has gone through thirty simulated nights.

python -m tests.browser.screenshots --output jobs/pictures
"""

import argparse
import contextlib
import datetime as dt
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cluster.report.pages import INDEX, write_report
from tests.browser.browser import Browser
from tests.e2e.operations.stores import ANN
from tests.unit.cluster.report.month import make

WIDTH = 900
NOW = dt.datetime(2026, 3, 30, 8, tzinfo=dt.UTC)
MARGIN = 12
"""Pixels above a heading."""


@dataclass(frozen=True)
class Shot:
    """A picture of a page: from the element with one id, or the top, to the one with another."""

    name: str
    scheme: str = "light"
    page: str = INDEX
    start: str | None = None
    end: str | None = None
    height: int = 1200
    """Where `end` is not given."""


def take(output: Path) -> list[Path]:
    """Write the pictures into a folder."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, contextlib.chdir(home):
        make(Path("month"))
        Path("month/store").rename("store")
        pages = write_report("store", "pages", ANN, now=NOW)
        (user,) = (name for name in pages if name != INDEX)
        shots = (
            Shot("report.png", end="changes"),
            Shot("events.png", start="events", end="rejected"),
            Shot("costs.png", scheme="dark", start="costs", end="time"),
            Shot("user.png", scheme="dark", page=user),
        )
        with Browser(Path(home) / "profile") as browser:
            for shot in shots:
                tab = browser.open(Path("pages") / shot.page, width=WIDTH, scheme=shot.scheme)
                top = tab.top_of(shot.start) - MARGIN if shot.start else 0
                height = tab.top_of(shot.end) - MARGIN - top if shot.end else shot.height
                tab.screenshot(output / shot.name, width=WIDTH, y=top, height=height)
    return [output / shot.name for shot in shots]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    for path in take(parser.parse_args().output.absolute()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")
