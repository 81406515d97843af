"""Confidence: how sure an encoder was of what it wrote, by the probability that it gave to each token.

A small model that guesses writes as fluently as one that copies; the probability of its words tells the two
apart. An answer is JSON, of which only the texts of the records say something: the keys around them are the
grammar's, and nearly certain.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from schemas.record import cleaned

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Token = tuple[str, float]
"""The characters that a token added to the answer, none where it only began one, and its log-probability."""

_TEXT = re.compile(r'"semantic_text"\s*:\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)
"""A record's text in raw JSON. Within a string the quotes around the key would have backslashes."""


class Confidence(NamedTuple):
    """Probabilities of the tokens of a record's text, 0 to 1."""

    mean: float
    """Their geometric mean."""
    least: float
    """That of the least likely one: a guessed name among words that are copied."""


def confidences(answer: str, tokens: Sequence[Token]) -> dict[str, Confidence]:
    """`semantic_text`, as `parse_answer` reads it -> how likely its tokens were.

    A token counts if one of its characters is between the quotes, even if it also holds a quote.
    Of equal texts the first decides: what was said once is easily said again. There is nothing of a text that
    was cut, and nothing at all where the tokens do not spell the answer.
    """
    if not tokens or not "".join(piece for piece, _ in tokens).startswith(answer):
        return {}
    places, end = [], 0
    for piece, logprob in tokens:
        begin, end = end, end + len(piece)
        # A token without characters is part of the next one's first.
        places.append((begin, max(end, begin + 1), logprob))
    found: dict[str, Confidence] = {}
    for match in _TEXT.finditer(answer):
        first, last = match.span(1)
        logprobs = [logprob for begin, end, logprob in places if begin < last and end > first]
        try:
            text = cleaned(json.loads(f'"{match[1]}"'))
        except ValueError:
            continue
        if logprobs:
            found.setdefault(text, _confidence(logprobs))
    return found


def _confidence(logprobs: list[float]) -> Confidence:
    mean = math.exp(math.fsum(logprobs) / len(logprobs))
    return Confidence(min(mean, 1.0), min(math.exp(min(logprobs)), 1.0))


def pieces(tokenizer: "Tokenizer", prompt: Sequence[int], output: Iterable[int]) -> list[str]:
    """What each token of `output` adds to the text, by a tokenizer of the package tokenizers.

    As vLLM makes its text, one token after the other behind the prompt, special tokens left out. A character
    of several tokens is the last one's.
    """
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(ids=list(prompt), skip_special_tokens=True)
    return [stream.step(tokenizer, token) or "" for token in output]
