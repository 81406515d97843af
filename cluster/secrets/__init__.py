"""Finders of secrets, one module a kind of place that secrets are found in: for what people said
(cluster.backfill.redact), and for what an operator's config or error says (cluster.runtime).

A finder is text -> spans (start, end, kind), linear in the text's length; it raises on no string.
"""

from collections.abc import Iterator

Span = tuple[int, int, str]
Spans = Iterator[Span]
