"""Finders of secrets for cluster.backfill.redact, one module a kind of place that secrets are found in.

A finder is text -> spans (start, end, kind), linear in the text's length; it raises on no string.
"""

from collections.abc import Iterator

Span = tuple[int, int, str]
Spans = Iterator[Span]
