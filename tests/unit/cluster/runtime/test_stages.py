"""Stages in this process: what they are given, in which order results come, what is printed meanwhile."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest

from cluster.runtime import ClusterConfig, PoolConfig, Progress, Stage, StageError, connect, run_stage, tick
from cluster.runtime import stages as runtime


@dataclass(frozen=True)
class Number:
    value: int


@dataclass(frozen=True)
class Text:
    text: str


def square(number: Number, *, plus: int = 0) -> Number:
    if number.value == 13:
        raise ValueError("unlucky")
    return Number(number.value**2 + plus)


class Spell:
    """Counts how often it is loaded, and what it is given when."""

    loaded: ClassVar[list[str]] = []

    def __init__(self, language: str, log: list):
        self._language, self._log = language, log
        Spell.loaded.append(language)

    def __call__(self, number: Number) -> Text:
        self._log.append(f"spell {number.value}")
        return Text(f"{self._language} {number.value}")


@pytest.fixture(autouse=True)
def local():
    connect(ClusterConfig(local=True))
    Spell.loaded = []
    yield
    connect(ClusterConfig(local=True))


NUMBERS = [Number(value) for value in range(4)]


def test_what_all_items_share_is_unpickled_once_a_process_and_not_for_each_item(monkeypatch):
    asked = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda key: asked.append(key) or {"of": key}))
    runtime._shared.cache_clear()
    found = [runtime._shared(key) for key in ("a", "b", "a", "b")]
    runtime._shared.cache_clear()
    assert asked == ["a", "b"] and found[0] is found[2] and found[1] == {"of": "b"}


def test_a_stage_says_by_its_annotations_what_travels():
    assert Stage(square).carriers == (Number, Number)
    assert Stage(Spell).carriers == (Number, Text)


def test_a_stage_that_does_not_take_what_the_one_before_gives_is_named():
    spell = Stage(Spell, {"language": "de", "log": []})
    with pytest.raises(TypeError, match="Spell gives Text, but square takes Number"):
        list(run_stage(NUMBERS, spell, Stage(square)))


def test_a_function_is_called_with_each_item_and_the_arguments():
    found = list(run_stage(NUMBERS, Stage(square, {"plus": 1})))
    assert found == [Number(1), Number(2), Number(5), Number(10)]


def test_a_class_is_made_once_and_only_where_there_is_work():
    stage = Stage(Spell, {"language": "de", "log": []}, PoolConfig())
    assert list(run_stage([], stage)) == []
    assert Spell.loaded == []
    assert list(run_stage(NUMBERS, stage))[3] == Text("de 3")
    assert Spell.loaded == ["de"]


def test_results_are_handed_on_while_the_stage_before_goes_on():
    """What was encoded is embedded and staged before the next batch is begun."""
    log = []

    def noted(number: Number) -> Number:
        log.append(f"square {number.value}")
        return square(number)

    results = run_stage(NUMBERS, Stage(noted), Stage(Spell, {"language": "de", "log": log}, PoolConfig()))
    assert next(results) == Text("de 0")
    assert log == ["square 0", "spell 0"]
    list(results)
    assert log[2:4] == ["square 1", "spell 1"]


def test_results_come_in_the_order_of_the_items_where_that_is_asked(monkeypatch):
    """As workers finish, the order is another one."""
    finished = [(2, "c"), (0, "a"), (3, "d"), (1, "b")]
    monkeypatch.setattr(runtime, "_run_here", lambda *_: iter(finished))
    assert list(run_stage(NUMBERS, Stage(square))) == ["c", "a", "d", "b"]
    assert list(run_stage(NUMBERS, Stage(square), in_order=True)) == ["a", "b", "c", "d"]


def test_what_waits_for_its_turn_is_counted_when_it_is_done(monkeypatch, capsys):
    finished = [(1, "b"), (0, "a")]
    monkeypatch.setattr(runtime, "_run_here", lambda *_: iter(finished))
    progress = Progress("encode", "segments", 8, every_s=0)
    results = run_stage(
        NUMBERS,
        Stage(square),
        progress=progress,
        count=lambda _: 4,
        note=lambda one: f"last {one}",
        in_order=True,
    )
    assert next(results) == "a"
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("[encode] 4 of 8 segments") and first.endswith("last b")
    assert second.startswith("[encode] 8 of 8 segments") and second.endswith("last a")


def test_what_a_stage_raises_names_the_stage():
    with pytest.raises(StageError, match="square: ValueError: unlucky") as caught:
        list(run_stage([Number(13)], Stage(square)))
    assert isinstance(caught.value.__cause__, ValueError)


def test_units_of_an_item_in_work_are_shown(monkeypatch, capsys):
    """A batch of 64 segments takes minutes on a slow machine, and nothing was said meanwhile."""
    monkeypatch.setattr("cluster.runtime.progress.TICKS_EVERY_S", 0.0)

    def slow(number: Number) -> Number:
        tick(3)
        tick()
        return number

    progress = Progress("encode", "segments", 8)
    list(run_stage([Number(1)], Stage(slow), progress=progress, count=lambda _: 8))
    shown = [line.partition(" segments")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == ["[encode] 3 of 8", "[encode] 4 of 8", "[encode] 8 of 8"]
    tick(5)
    assert capsys.readouterr().err == "", "outside of a stage nobody counts"


def test_threads_of_a_pool_are_told_to_what_is_loaded_later(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    monkeypatch.delitem(runtime.sys.modules, "torch", raising=False)
    seen = []

    class Sees:
        def __call__(self, number: Number) -> Number:
            seen.append(runtime.os.environ["OMP_NUM_THREADS"])
            return number

    list(run_stage(NUMBERS[:1], Stage(Sees, {}, PoolConfig())))
    list(run_stage(NUMBERS[:1], Stage(Sees, {}, PoolConfig(num_threads=2))))
    assert seen == ["9", "2"]


def test_what_a_lost_node_had_in_work_is_in_work_no_longer(monkeypatch):
    from ray.experimental import internal_kv

    notes: dict[bytes, bytes] = {}

    def put(key: bytes, value: str, overwrite: bool) -> None:
        notes[key] = value.encode()

    monkeypatch.setattr(internal_kv, "_internal_kv_put", put)
    monkeypatch.setattr(internal_kv, "_internal_kv_get", notes.get)
    monkeypatch.setattr(internal_kv, "_internal_kv_del", notes.pop)
    monkeypatch.setattr(internal_kv, "_internal_kv_list", lambda prefix: list(notes))
    monkeypatch.setattr(runtime, "POLL_S", 0.0)
    board, seen = runtime._Board("run"), []
    for lost in (frozenset(), frozenset({"a"})):
        monkeypatch.setattr(runtime, "dead_nodes", lambda lost=lost: lost)
        monkeypatch.setattr(runtime, "this_node", lambda: "a")
        with board.reporting(7):
            tick(3)
            monkeypatch.setattr(runtime, "this_node", lambda: "b")
            with board.reporting(8):
                seen.append(board._counts())
    assert seen == [{7: 3, 8: 0}, {8: 0}] and not notes
