"""Which exchanges make a chunk, and which texts a pass."""

from collections.abc import Iterator, Sequence
from itertools import chain

from cluster.models.row_batches import batches
from schemas.evolvable import EvolvableShape


def closes(chunk: Sequence[Sequence[int]], ids: Sequence[int], shape: EvolvableShape) -> bool:
    """Whether a chunk of these exchanges has no room for the next."""
    too_long = sum(map(len, chunk)) + len(ids) > shape.max_chunk_tokens
    return len(chunk) >= shape.max_chunk_turns or too_long


def chunks_of(turns: Sequence[Sequence[int]], shape: EvolvableShape) -> list[list[Sequence[int]]]:
    """A conversation's exchanges by chunk. The first of a chunk is admitted whatever its length."""
    chunks: list[list[Sequence[int]]] = []
    for ids in turns:
        if not chunks or closes(chunks[-1], ids, shape):
            chunks.append([])
        chunks[-1].append(ids)
    return chunks


def by_memory(texts: Sequence) -> dict[int, list[int]]:
    """Indexes of texts (`cluster.evolvable.model.Text`) whose queues are beginnings of one tensor, by its
    address; 0 for texts without memory."""
    groups: dict[int, list[int]] = {}
    for index, text in enumerate(texts):
        groups.setdefault(text.queue.data_ptr() if len(text.queue) else 0, []).append(index)
    return groups


def passes(texts: Sequence, max_tokens: int, *, share: bool) -> Iterator[tuple[list[int], bool]]:
    """Indexes of the texts of each pass, and whether it reads what memory they share once for all of them."""
    alone: list[list[int]] = []
    together: list[list[int]] = []
    for address, group in by_memory(texts).items():
        (together if share and address and len(group) > 1 else alone).append(group)
    rows = list(chain.from_iterable(alone))
    for batch in batches(rows, lambda index: len(texts[index].queue) + len(texts[index].ids), max_tokens):
        yield batch, False
    for batch in batches(together, lambda group: max(len(texts[i].queue) for i in group), max_tokens):
        yield list(chain.from_iterable(batch)), True
