"""Progress on stderr, one line now and then, or a bar on a terminal: what is done, how fast, what is left."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from cluster.runtime.live import PER_S, view
from cluster.runtime.log import write

TICKS_EVERY_S = 10.0
"""Without a result for so long, a line says how far the items in work are."""


class Progress:
    """Counts on stderr, lines at most once every `every_s` seconds; with a total, also the time left."""

    def __init__(self, label: str, unit: str, total: int | None = None, every_s: float = 2.0):
        self.label, self.unit, self.total, self.every_s = label, unit, total, every_s
        self.started_s = self.printed_s = time.monotonic()
        self.done = 0
        self._shown = 0
        self._in_work: dict[int, int] = {}
        self._arrived: set[int] = set()
        self._lock = threading.Lock()

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` more units done; `note` is shown behind the counts."""
        with self._lock:
            self.done += count
            if self._is_due(self.every_s) or self.done == self.total:
                self._print(self.done, note)

    def arrived(self, number: int, count: int, note: str = "") -> None:
        """Count item `number` as done, with all its units."""
        with self._lock:
            self._in_work.pop(number, None)
            self._arrived.add(number)
        self.advance(count, note)

    def tick(self, number: int, count: int) -> None:
        """`count` more units of item `number` are done, which is still in work."""
        with self._lock:
            self._in_work[number] = self._in_work.get(number, 0) + count
            self._print_in_work()

    def in_work(self, counts: dict[int, int]) -> None:
        """How many units of these items are done by now. One that is not among them any more, or begins anew,
        and has not arrived, is on its way through what comes next: it counts as before."""
        with self._lock:
            for one in counts.keys() - self._arrived:
                self._in_work[one] = max(counts[one], self._in_work.get(one, 0))
            self._print_in_work()

    def _print_in_work(self) -> None:
        done = self.done + sum(self._in_work.values())
        if self._is_due(TICKS_EVERY_S) and done > self.done:
            self._print(done if self.total is None else min(done, self.total), "")

    def _is_due(self, every_s: float) -> bool:
        """Whether the last line is so old; bars move at once, but not faster than one can see."""
        return time.monotonic() - self.printed_s >= (every_s if view() is None else 1 / PER_S)

    def _print(self, done: int, note: str) -> None:
        # What has arrived is less than what was shown where more items were in work: no line goes back.
        self._shown = done = max(done, self._shown)
        self.printed_s = time.monotonic()
        elapsed_s = self.printed_s - self.started_s
        rate = round(done / elapsed_s, 2) if elapsed_s > 0 else None
        told = self._told(done, elapsed_s, note)
        if live := view():
            live.show(self, self.label, told, done, self.total)
        else:
            write(f"[{self.label}] {told}", done=done, total=self.total, rate=rate)

    def _told(self, done: int, elapsed_s: float, note: str) -> str:
        rate = done / elapsed_s if elapsed_s > 0 else 0.0
        of_total = f" of {self.total:,}" if self.total is not None else ""
        left = (
            f", {duration((self.total - done) / rate)} left"
            if self.total and rate and done < self.total
            else ""
        )
        note = f", {note}" if note else ""
        return f"{done:,}{of_total} {self.unit}, {rate:.1f}/s{left}{note}"


def duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 07 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"


# --- where the work is done -----------------------------------------------------------------------------

_report: ContextVar[Callable[[int], None] | None] = ContextVar("report", default=None)
"""Of a thread, because a worker may have several items in work, each in a thread of its own."""


def tick(count: int = 1) -> None:
    """`count` more units of the item in work are done. Called by whatever takes long over one item."""
    if report := _report.get():
        report(count)


@contextlib.contextmanager
def report_to(report: Callable[[int], None] | None) -> Iterator[None]:
    """Where ticks of this thread go meanwhile."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)
