"""Conditions of queries, in the SQL of LanceDB."""

from collections.abc import Sequence


def quote(value: str) -> str:
    """A SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


MAX_IN = 500
"""Values in one IN list of a query."""


def in_lists(column: str, values: Sequence[str]) -> list[str]:
    """Conditions that together hold where the column has one of the values."""
    return [
        f"{column} IN ({', '.join(map(quote, values[start : start + MAX_IN]))})"
        for start in range(0, len(values), MAX_IN)
    ]
