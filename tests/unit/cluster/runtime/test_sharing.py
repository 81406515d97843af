"""The lock and the time of a worker whose threads have an item each in work."""

import threading
import time

import pytest

from cluster.runtime.sharing import SharedLock, SharedSeconds

TIMEOUT_S = 300


class Visitor(threading.Thread):
    """Goes in by one side of the lock, and leaves when it is told to."""

    def __init__(self, side, log, name):
        super().__init__(daemon=True)
        self.side, self.log, self.name = side, log, name
        self.is_in, self.may_leave = threading.Event(), threading.Event()
        self.start()

    def run(self):
        with self.side():
            self.log.append(self.name)
            self.is_in.set()
            self.may_leave.wait(TIMEOUT_S)
            self.log.append(f"{self.name} leaves")

    def leave(self):
        self.may_leave.set()
        self.join(TIMEOUT_S)


def test_many_are_together_and_who_is_alone_is_alone():
    lock, log = SharedLock(), []
    first, second = Visitor(lock.together, log, "first"), Visitor(lock.together, log, "second")
    assert first.is_in.wait(TIMEOUT_S) and second.is_in.wait(TIMEOUT_S)
    alone = Visitor(lock.alone, log, "alone")
    first.leave()
    assert not alone.is_in.is_set()
    second.leave()
    assert alone.is_in.wait(TIMEOUT_S)
    others = [Visitor(lock.together, log, "third"), Visitor(lock.alone, log, "fourth")]
    assert not any(other.is_in.is_set() for other in others)
    alone.leave()
    for other in others:
        other.may_leave.set()
    for other in others:
        other.join(TIMEOUT_S)
    assert log[-5] == "alone leaves"
    assert sorted([tuple(log[-4:-2]), tuple(log[-2:])]) == [
        ("fourth", "fourth leaves"),
        ("third", "third leaves"),
    ]


def test_who_waits_to_be_alone_is_not_kept_waiting_by_who_comes_later():
    lock, log = SharedLock(), []
    first = Visitor(lock.together, log, "first")
    assert first.is_in.wait(TIMEOUT_S)
    alone = Visitor(lock.alone, log, "alone")
    while not lock._num_waiting:
        time.sleep(0.001)
    later = Visitor(lock.together, log, "later")
    later.may_leave.set()
    first.leave()
    alone.leave()
    later.join(TIMEOUT_S)
    assert log == ["first", "first leaves", "alone", "alone leaves", "later", "later leaves"]


@pytest.mark.parametrize("side", ["together", "alone"])
def test_an_error_leaves_the_lock_free(side):
    lock = SharedLock()
    with pytest.raises(ValueError), getattr(lock, side)():
        raise ValueError
    with lock.alone():
        pass


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return lambda seconds: now.append(now.pop() + seconds)


def test_a_second_is_shared_by_the_items_in_work(clock):
    """One batch for 10 s, beside it another for 4 s of these and 2 s more: 12 s of work, not 16."""
    seconds = SharedSeconds()
    clock(5)
    first = seconds.begin()
    clock(6)
    second = seconds.begin()
    clock(4)
    assert seconds.end(first) == 8
    clock(2)
    assert seconds.end(second) == 4
    clock(50)
    third = seconds.begin()
    clock(3)
    assert seconds.end(third) == 3


def test_what_is_counted_elsewhere_is_nobodys_second(clock):
    seconds = SharedSeconds()
    first, second = seconds.begin(), seconds.begin()
    clock(2)
    with pytest.raises(OSError), seconds.stopped():
        clock(30)
        raise OSError
    clock(4)
    assert (seconds.end(first), seconds.end(second)) == (3, 3)
