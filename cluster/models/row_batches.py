"""Which rows are computed in one pass: those of like length, so that padding costs little."""

from collections.abc import Callable, Iterator, Sequence

MIN_FILL = 0.7
"""Rows shorter than this share of their batch's longest make a batch of their own, if it is worth one."""


def batches(rows: Sequence, length: Callable, max_tokens: int) -> Iterator[list]:
    """Rows of like length, the longest first, at most `max_tokens` with padding unless one alone has more."""
    batch: list = []
    for row in sorted(rows, key=length, reverse=True):
        if batch:
            longest = length(batch[0])
            full = (len(batch) + 1) * longest > max_tokens
            short = length(row) < MIN_FILL * longest and len(batch) * longest * 8 > max_tokens
            if full or short:
                yield batch
                batch = []
        batch.append(row)
    if batch:
        yield batch
