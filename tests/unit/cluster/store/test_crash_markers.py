"""Who is to blame when processes die: the markers that they leave."""

import pytest

from cluster.store.crash_markers import MAX_DEATHS, Attempts, WorkerSick
from tests.dying import Killed


def attempts(files, node="node1", dead=(), run="run1"):
    return Attempts(files, run, "batch", node=node, dead_nodes=lambda: frozenset(dead))


def die(files, part, node="node1"):
    with pytest.raises(Killed), attempts(files, node).alone(part):
        raise Killed


def test_a_batch_is_tried_whole_once_a_run(files):
    assert [attempts(files).first() for _ in range(2)] == [True, False]
    assert attempts(files, run="run2").first()
    attempts(files).give_back()
    assert attempts(files).first()


def test_a_part_is_tried_until_several_processes_have_died_at_it(files):
    for _ in range(MAX_DEATHS):
        die(files, "a")
    with attempts(files).alone("a") as is_harmless:
        assert not is_harmless
    for other in ({"run": "run2"}, {"node": "node2"}):
        with attempts(files, **other).alone("a") as is_harmless:
            assert is_harmless == ("run" in other)


def test_the_death_of_a_node_accuses_nothing(files):
    """Regression: after two machines had gone, as spot ones do, what they had been at was rejected."""
    assert attempts(files, "gone").first()
    for _ in range(MAX_DEATHS):
        die(files, "a", "gone")
    later = attempts(files, "node2", dead=["gone"])
    assert later.num_deaths("a") == 0
    with later.alone("a") as is_harmless:
        assert is_harmless
    assert later.first() and not later.first()
    assert attempts(files, "node2").num_deaths("a") == MAX_DEATHS


def test_what_fails_without_a_death_leaves_no_marker(files):
    with pytest.raises(ValueError), attempts(files).alone("a"):
        raise ValueError
    with attempts(files).alone("a"):
        pass
    assert attempts(files).num_deaths("a") == 0


def test_a_worker_is_sick_at_which_several_parts_died_and_none_was_done(files):
    for part in "abc"[: MAX_DEATHS - 1]:
        die(files, part)
    die(files, "a")
    attempts(files).check_worker()
    die(files, "z")
    with pytest.raises(WorkerSick, match=rf"died {MAX_DEATHS + 1} times, at {MAX_DEATHS} different inputs"):
        attempts(files).check_worker()
    attempts(files, "node2").check_worker()
    attempts(files).done()
    attempts(files).check_worker()


def test_the_first_probe_of_a_run_stays(files):
    assert attempts(files).probe() is None
    attempts(files).offer_probe("batch1")
    attempts(files, "node2").offer_probe("batch2")
    assert attempts(files, "node3").probe() == "batch1"
    assert attempts(files, run="run2").probe() is None
