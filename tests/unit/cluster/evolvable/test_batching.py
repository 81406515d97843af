"""Chunks close where the published model closes them; passes share what memory can be shared."""

import torch

from cluster.evolvable.batching import chunks_of, passes
from cluster.evolvable.model import Text
from tests.tiny import tiny_config

CONFIG = tiny_config(max_chunk_turns=3, max_chunk_tokens=10)


def test_a_chunk_closes_at_its_turns_or_its_tokens():
    turns = [[0] * length for length in (2, 2, 2, 2, 9, 30, 1)]
    lengths = [[len(ids) for ids in chunk] for chunk in chunks_of(turns, CONFIG)]
    assert lengths == [[2, 2, 2], [2], [9], [30], [1]]
    assert chunks_of([], CONFIG) == []


def test_beginnings_of_one_memory_share_a_pass_and_other_texts_do_not():
    first, second = torch.zeros(8, 4), torch.zeros(8, 4)
    queues = [first[:2], second[2:5], first, first[:0], second[:3], second]
    texts = [Text(queue, [1, 2]) for queue in queues]
    found = [(sorted(indexes), shared) for indexes, shared in passes(texts, 100, share=True)]
    assert found == [([1, 3], False), ([0, 2, 4, 5], True)]
    assert not any(shared for _, shared in passes(texts, 100, share=False))
