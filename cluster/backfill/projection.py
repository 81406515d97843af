"""What a backfill will cost, told before it begins: calls, and tokens of prompts and answers."""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from cluster.backfill.cut_stage import segment_offsets
from cluster.models.prompt import PromptBuilder
from schemas.profiles.encoder import EncoderProfile

COLUMNS = ["encoder", "num_calls", "prompt_tokens", "output_tokens"]
"""Of the table `segments`: what earlier segments cost."""

MIN_KNOWN = 50
"""So many segments must have been encoded before others are expected to cost as much."""

CALLS_WITH_SECOND_LOOK, OUTPUT_TOKENS = 1.4, 88
"""Of a segment, where nothing is known: what `default` took for the sample that `make backfill` writes and
for the test people of the written corpus (1,225 calls and 76,490 tokens for 872 segments)."""

OF_A_MESSAGE, OF_A_TURN = 5, 6
"""Tokens that a chat template puts around a message, and a turn template around a turn."""


@dataclass(frozen=True)
class Projection:
    """What encoding is expected to cost."""

    num_calls: int
    prompt_tokens: int
    output_tokens: int
    is_of_store: bool
    """Whether that is what this store's segments cost, and not a guess by the profile's prompt."""


def project(
    num_asked: int, num_tokens: int, profile: EncoderProfile, known: Iterable[pa.RecordBatch]
) -> Projection:
    """The cost of `num_asked` segments with `num_tokens` tokens of conversation. `known`: COLUMNS of the
    store's segments, of which those count that this encoder was asked about."""
    num_known, sums = 0, dict.fromkeys(COLUMNS[1:], 0)
    for batch in known:
        is_own = pc.equal(batch.column("encoder"), profile.fingerprint)
        was_asked = pc.greater(batch.column("num_calls"), 0)
        own = batch.filter(pc.and_(is_own, was_asked))
        num_known += own.num_rows
        for name in sums:
            sums[name] += pc.sum(own.column(name)).as_py() or 0
    if num_known >= MIN_KNOWN:
        calls, prompt, output = (round(num_asked * total / num_known) for total in sums.values())
        return Projection(calls, prompt, output, is_of_store=True)
    calls = round(num_asked * (CALLS_WITH_SECOND_LOOK if profile.second_look else 1))
    turns = OF_A_TURN * num_asked * min(profile.max_turns, 2)
    prompt = calls * prompt_overhead(profile) + num_tokens + turns if num_asked else 0
    return Projection(calls, prompt, OUTPUT_TOKENS * num_asked, is_of_store=False)


def prompt_overhead(profile: EncoderProfile) -> int:
    """Tokens of the profile's prompt without a conversation."""
    messages = PromptBuilder(profile, None).messages([], [], None)
    contents = segment_offsets(profile)([message["content"] for message in messages])
    return sum(OF_A_MESSAGE + len(tokens) for tokens in contents)
