"""Pictures of the report for the documentation, of a store that has gone through eleven simulated nights.

python -m tests.browser.screenshots --output jobs/pictures
"""

import argparse
import contextlib
import datetime as dt
import tempfile
from pathlib import Path

from cluster.report.pages import INDEX, write_report
from tests.browser.browser import Browser
from tests.e2e.operations.stores import ANN
from tests.unit.cluster.report.nights import make

WIDTH = 900
NOW = dt.datetime(2026, 3, 12, 8, tzinfo=dt.UTC)


def take(output: Path) -> list[Path]:
    """Write `report.png`, light, and `user.png`, dark."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, contextlib.chdir(home):
        make("store")
        pages = write_report("store", "pages", ANN, now=NOW)
        (user,) = (name for name in pages if name != INDEX)
        shots = [(INDEX, "report.png", "light", 1500), (user, "user.png", "dark", 1200)]
        with Browser(Path(home) / "profile") as browser:
            for page, name, scheme, height in shots:
                tab = browser.open(Path("pages") / page, width=WIDTH, scheme=scheme)
                tab.screenshot(output / name, width=WIDTH, height=height)
    return [output / name for _, name, *_ in shots]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    for path in take(parser.parse_args().output.absolute()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")
