"""Progress lines."""

import time

import pytest

from cluster.runtime import Progress, duration


def test_progress_prints_at_most_every_so_often_and_at_the_end(capsys, monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    progress = Progress("encode", "segments", total=4000)
    for count in (500, 500, 1000):
        now_s += 1
        progress.advance(count)
    now_s += 0.5
    progress.advance(2000, "5 rejected")
    assert capsys.readouterr().err == (
        "[encode] 1,000 of 4,000 segments, 500.0/s, 6 s left\n"
        "[encode] 4,000 of 4,000 segments, 1142.9/s, 5 rejected\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min"), (360000, "100 h 00 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_line_says_how_far_the_items_in_work_are(capsys, monkeypatch):
    """Ten seconds after the last line, and never more than all."""
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    progress = Progress("encode", "segments", total=128)
    progress.in_work({0: 3})
    now_s += 10
    progress.in_work({0: 5, 1: 7})
    now_s += 5
    progress.in_work({0: 9, 1: 9})
    progress.arrived(0, 64)
    now_s += 10
    progress.in_work({1: 70})
    shown = [line.partition(" segments")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == ["[encode] 12 of 128", "[encode] 64 of 128", "[encode] 128 of 128"]


def test_an_item_between_two_stages_counts_as_before_and_one_that_has_arrived_once(capsys, monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    progress = Progress("encode", "segments", total=192, every_s=100)
    for counts in ({0: 60, 1: 30}, {1: 40}, {0: 64, 1: 50}):
        now_s += 10
        if counts == {0: 64, 1: 50}:
            progress.arrived(0, 64)
        progress.in_work(counts)
    shown = [line.partition(" segments")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == ["[encode] 90 of 192", "[encode] 100 of 192", "[encode] 114 of 192"]


def test_an_item_that_begins_its_next_stage_counts_as_before(capsys, monkeypatch):
    """Regression: who embedded a batch noted it with nothing done, and what was encoded seemed undone."""
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    progress = Progress("encode", "segments", total=192, every_s=100)
    for counts in ({0: 60, 1: 30}, {0: 0, 1: 40}, {0: 0, 1: 45}):
        now_s += 10
        progress.in_work(counts)
    shown = [line.partition(" segments")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == ["[encode] 90 of 192", "[encode] 100 of 192", "[encode] 105 of 192"]


def test_no_line_goes_back_when_one_of_several_items_in_work_arrives(capsys, monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    progress = Progress("encode", "segments", total=339)
    now_s += 10
    progress.in_work({0: 60, 1: 41})
    now_s += 10
    progress.arrived(0, 64)
    now_s += 10
    progress.in_work({1: 64})
    now_s += 10
    progress.arrived(1, 64)
    shown = [line.partition(" of ")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == ["[encode] 101", "[encode] 101", "[encode] 128", "[encode] 128"]
