"""What a worker's threads share that have one item each in work: a lock with two sides, and the time."""

import contextlib
import threading
import time
from collections.abc import Iterator


class SharedLock:
    """Any number at a time `together`, or one `alone`. Who waits to be alone comes before who comes later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_together, self._num_waiting, self._is_taken = 0, 0, False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Beside others that are together."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_taken and not self._num_waiting)
            self._num_together += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_together -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """With nobody beside."""
        with self._changed:
            self._num_waiting += 1
            try:
                self._changed.wait_for(lambda: not self._is_taken and not self._num_together)
                self._is_taken = True
            finally:
                self._num_waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._is_taken = False
                self._changed.notify_all()


class SharedSeconds:
    """A worker's time, each second of it shared equally among the items that are in work: their sum is the
    time in which any was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_in_work, self._is_stopped = 0, False
        self._each_s, self._seen_s = 0.0, 0.0
        """What an item has got that was in work from the beginning, at the time `_seen_s`."""

    def begin(self) -> float:
        """An item is in work from now on. `end` wants what this gives."""
        with self._lock:
            self._pass()
            self._num_in_work += 1
            return self._each_s

    def end(self, begun_s: float) -> float:
        """The seconds of an item that is done."""
        with self._lock:
            self._pass()
            self._num_in_work -= 1
            return self._each_s - begun_s

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Nobody's seconds: those that are counted elsewhere."""
        self._stop(True)
        try:
            yield
        finally:
            self._stop(False)

    def _stop(self, is_stopped: bool) -> None:
        with self._lock:
            self._pass()
            self._is_stopped = is_stopped

    def _pass(self) -> None:
        now_s = time.monotonic()
        if self._num_in_work and not self._is_stopped:
            self._each_s += (now_s - self._seen_s) / self._num_in_work
        self._seen_s = now_s
