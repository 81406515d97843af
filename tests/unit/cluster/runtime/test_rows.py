"""What passes between stages arrives as it was sent."""

import dataclasses
import datetime as dt
import typing
from typing import Annotated

import pyarrow as pa
import pytest

from cluster.backfill.archive import Unit
from cluster.consolidate.fold import Verdict
from cluster.evaluate import answering, trial
from cluster.runtime.rows import of_table, schema_of, to_table
from schemas import stage_items


@dataclasses.dataclass(frozen=True)
class Inner:
    name: str
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Everything:
    text: str
    count: int
    share: float
    is_so: bool
    data: bytes
    moment: dt.datetime | None
    names: tuple[str, ...]
    rows: frozenset[int]
    paths: dict[str, str]
    parts: tuple[Inner, ...]
    scores: dict[str, float] | None
    messages: Annotated[tuple[dict, ...], pa.list_(pa.struct([("role", pa.string())]))]


FULL = Everything(
    text="å\n",
    count=1 << 60,
    share=0.1,
    is_so=True,
    data=b"\0\xff",
    moment=dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    names=("b", "a"),
    rows=frozenset({7, 3}),
    paths={"b": "1", "a": "2"},
    parts=(Inner("x", {"n": 1}), Inner("y", {})),
    scores={"atomicity": 4.0},
    messages=({"role": "user"},),
)
EMPTY = Everything("", 0, 0.0, False, b"", None, (), frozenset(), {}, (), None, ())


def test_every_kind_of_field_arrives_as_it_was_sent():
    found = of_table(Everything, to_table(Everything, [FULL, EMPTY]))
    assert found == [FULL, EMPTY]
    assert list(found[0].paths) == ["b", "a"], "a map keeps its order"
    assert isinstance(found[0].parts[0], Inner) and isinstance(found[0].rows, frozenset)


def test_one_kind_has_one_schema_whatever_is_in_it():
    """Blocks of one dataset must have the same columns: an empty list has a type too."""
    assert (
        to_table(Everything, [EMPTY]).schema == to_table(Everything, [FULL]).schema == schema_of(Everything)
    )


CARRIERS = [
    kind
    for module in (stage_items, trial, answering)
    for kind in vars(module).values()
    if dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
]


@pytest.mark.parametrize("kind", [*CARRIERS, Unit, Verdict], ids=lambda kind: kind.__name__)
def test_no_carrier_travels_as_json_or_pickle(kind):
    """Each field has a type of its own, and cannot be changed on the way."""
    assert kind.__dataclass_params__.frozen
    assert schema_of(kind).names == [field.name for field in dataclasses.fields(kind)]


def test_a_field_that_cannot_travel_is_named():
    @dataclasses.dataclass(frozen=True)
    class Loose:
        whatever: dict

    with pytest.raises(TypeError, match=r"field 'whatever' of type <class 'dict'>: cannot travel"):
        schema_of(Loose)
    with pytest.raises(TypeError, match="must be a dataclass"):
        schema_of(typing.cast("type", dict))
