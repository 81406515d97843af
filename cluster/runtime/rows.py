"""Carriers as rows of Arrow tables: how the frozen dataclasses that pass between stages travel.

A dataclass gives its own schema: `str`, `int`, `float`, `bool`, `bytes` and `datetime` as themselves,
`X | None` as X, tuples and frozensets as lists, `dict[str, X]` as a map, another dataclass as a struct. Where
a field holds rows that have a schema already, `Annotated[tuple[dict, ...], ARROW_TYPE]` names it. No JSON, no
pickle.
"""

import dataclasses
import datetime as dt
import functools
import types
import typing
from collections.abc import Iterable

import pyarrow as pa
from pydantic import TypeAdapter

_PLAIN = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.large_binary(),
    dt.datetime: pa.timestamp("us", tz="UTC"),
}


@functools.cache
def schema_of(carrier: type) -> pa.Schema:
    """The columns of a carrier. TypeError names a field that cannot travel."""
    return pa.schema([(name, arrow_type(hint, name)) for name, hint in _hints(carrier).items()])


def arrow_type(hint: object, name: str = "") -> pa.DataType:
    """The type of a field `name` with this type hint."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return next(part for part in parts[1:] if isinstance(part, pa.DataType))
    if hint in _PLAIN:
        return _PLAIN[hint]
    if dataclasses.is_dataclass(hint):
        return pa.struct(list(schema_of(typing.cast(type, hint))))
    if origin in (types.UnionType, typing.Union) and len(known := _but_none(parts)) == 1:
        return arrow_type(known[0], name)
    if origin is frozenset or (origin is tuple and parts[1:] == (...,)):
        return pa.list_(arrow_type(parts[0], name))
    if origin is dict and parts[0] is str:
        return pa.map_(pa.string(), arrow_type(parts[1], name))
    raise TypeError(f"field {name!r} of type {hint}: cannot travel between stages; see cluster.runtime.rows")


def to_table(carrier: type, items: Iterable[object]) -> pa.Table:
    """Items of one kind as rows."""
    return pa.Table.from_pylist([_plain(carrier, item) for item in items], schema=schema_of(carrier))


def of_table(carrier: type, table: pa.Table) -> list:
    """The items that `to_table` made the rows of."""
    adapter = _adapter(carrier)
    rows = table.select(schema_of(carrier).names).to_pylist(maps_as_pydicts="strict")
    return [adapter.validate_python(row) for row in rows]


@functools.cache
def _hints(carrier: type) -> dict[str, object]:
    if not dataclasses.is_dataclass(carrier):
        raise TypeError(f"{carrier}: what passes between stages must be a dataclass")
    hints = typing.get_type_hints(carrier, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(carrier)}


@functools.cache
def _adapter(carrier: type) -> TypeAdapter:
    return TypeAdapter(carrier)


def _but_none(parts: tuple) -> tuple:
    return tuple(part for part in parts if part is not type(None))


def _plain(hint: object, value: typing.Any) -> object:
    """The value as pyarrow takes it."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if value is None or origin is typing.Annotated:
        return value
    if dataclasses.is_dataclass(hint):
        return {
            name: _plain(part, getattr(value, name)) for name, part in _hints(typing.cast(type, hint)).items()
        }
    if origin in (types.UnionType, typing.Union):
        return _plain(_but_none(parts)[0], value)
    if origin is frozenset:
        return sorted(value)
    if origin is tuple:
        return [_plain(parts[0], item) for item in value]
    if origin is dict:
        return [(key, _plain(parts[1], item)) for key, item in value.items()]
    return value
