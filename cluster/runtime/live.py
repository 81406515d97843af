"""Progress on a terminal: a bar for each stage, which moves in its place while other lines pass above.

A job begins it, see jobs.common.cli. Elsewhere, and where stderr is no terminal that can do this (a file, a
pipe, TERM=dumb), Progress writes lines.
"""

import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress
    from rich.console import Console

SHOW_CURSOR = "\x1b[?25h"
"""What a terminal is told on whose last line a live view was killed: the view hides the cursor."""

PER_S = 4
"""How often it is drawn."""


class LiveView:
    """Bars at the end of a terminal, from the first count on until `pause`."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._bars: rich.progress.Progress | None = None
        self._tasks: dict[object, rich.progress.TaskID] = {}
        self._lock = threading.RLock()

    def show(self, whose: object, label: str, told: str, done: int, total: int | None) -> None:
        """Move the bar of `whose`, a new one if it has none; `told` stands behind it."""
        with self._lock:
            if self._bars is None:
                self._bars = self._begun()
            if whose not in self._tasks:
                self._tasks[whose] = self._bars.add_task(label, total=total, told=told)
            self._bars.update(self._tasks[whose], completed=done, total=total, told=told)

    def pause(self) -> None:
        """Leave the bars as they stand: what is printed now comes below. The next count begins new ones."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
            self._bars, self._tasks = None, {}

    def _begun(self) -> "rich.progress.Progress":
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        bars = Progress(
            SpinnerColumn("line"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}", markup=False),
            console=self._console,
            refresh_per_second=PER_S,
        )
        # What is printed meanwhile, to stderr or to what a job has for stdout, passes above.
        bars.start()
        return bars


_view: LiveView | None = None


def begin(console: "Console | None" = None) -> None:
    """From now on counts are bars, if this terminal, or stderr if none is given, can show them."""
    global _view
    if console is None:
        if not sys.stderr.isatty():
            return
        from rich.console import Console

        console = Console(stderr=True)
    _view = LiveView(console) if console.is_interactive else None


def view() -> LiveView | None:
    """Where counts are shown; None where they are lines."""
    return _view


def pause() -> None:
    """See LiveView.pause."""
    if _view is not None:
        _view.pause()


def end() -> None:
    """From now on counts are lines."""
    global _view
    pause()
    _view = None
