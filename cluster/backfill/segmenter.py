"""Sessions become segments: what one encoder call sees.

A segment has up to `max_turns` current turns within a token budget, and earlier text of the same session as
context. Every character of every turn is in the current part of exactly one segment, as text or represented
by a marker (see cluster.backfill.non_speech). An oversized turn is split, and its parts keep its turn index.
Cutting goes from the front, so that turns appended to a session change only its last segment: the others keep
their ids, and nothing is paid for twice.
"""

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.backfill.non_speech import shorten
from schemas.profiles.encoder import EncoderProfile

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Offsets = Callable[[list[str]], list[list[tuple[int, int]]]]
"""Texts -> for each the (start, end) characters of its tokens."""


def tokenizer_offsets(tokenizer: "Tokenizer | PreTrainedTokenizerBase") -> Offsets:
    """Offsets by a `tokenizers.Tokenizer`; its settings are changed to count plain text, whole."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # Written in a conversation, a control token is text, and many tokens in the prompt.
    tokenizer.encode_special_tokens = True

    def offsets(texts: list[str]) -> list[list[tuple[int, int]]]:
        return [encoding.offsets for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]

    return offsets


def cut_session(session: dict, offsets: Offsets, profile: EncoderProfile) -> list[dict]:
    """An archive row (checked and redacted) -> its segments in order, rows of SEGMENT_SCHEMA.

    Their parts have speakers' names only where several people speak as users.
    """
    people = {turn["speaker"] for turn in session["turns"] if turn["role"] == "user"}
    parts = []
    shown = [shorten(turn["content"]) for turn in session["turns"]]
    for index, (turn, one, tokens) in enumerate(
        zip(session["turns"], shown, offsets([one.text for one in shown]), strict=True)
    ):
        start = 0
        for text, num_tokens in split_text(one.text, tokens, profile.max_current_tokens):
            end = start + len(text)
            # Places in the turn as it is stored, not in the text with markers.
            chars = {"start_char": one.origin(start), "end_char": one.origin(end)}
            part = {"turn_index": index, "text": text, "num_tokens": num_tokens} | chars
            parts.append(part | _said(turn))
            start = end
    segments = []
    for first, last in _spans(parts, profile.max_turns, profile.max_current_tokens):
        current = parts[first:last]
        context = _context(parts[:first], offsets, profile.max_context_tokens)
        begun = [part["turn_index"] for part in current if part["start_char"] == 0]
        segment = {
            "user_id": session["user_id"],
            "conversation_id": session["conversation_id"],
            "session_id": session["session_id"],
            "session_time": session["session_time"],
            "first_turn": current[0]["turn_index"],
            "last_turn": current[-1]["turn_index"],
            "start_char": current[0]["start_char"],
            "end_char": current[-1]["end_char"],
            "num_tokens": sum(part["num_tokens"] for part in context + current),
            "context": [_part(part) for part in context],
            "current": [_part(part) for part in current],
            # The store keeps whole turns, not parts: a turn belongs to the segment in which it begins.
            "turns": [{"turn_index": index, **session["turns"][index]} for index in begun],
        }
        segments.append({"segment_id": segment_id(segment), **segment})
        # After the id is made: a second speaker who joins later must not change the ids of earlier segments.
        if len(people) < 2:
            for part in segment["context"] + segment["current"]:
                part["speaker"] = None
    return segments


def split_text(text: str, tokens: list[tuple[int, int]], max_tokens: int) -> list[tuple[str, int]]:
    """Cut a text into (piece, number of tokens), each at most `max_tokens`; the pieces join to the text.

    Prefers to cut at white space in the last quarter of the budget. Only a character that is by itself more
    tokens than `max_tokens` makes a longer piece.
    """
    if len(tokens) <= max_tokens:
        return [(text, len(tokens))]
    cuts = _cuts(text, tokens)
    pieces, begin, next_cut = [], (0, 0), 0
    while next_cut < len(cuts):
        last = next_cut
        while last + 1 < len(cuts) and cuts[last + 1][0] - begin[0] <= max_tokens:
            last += 1
        if last + 1 < len(cuts):
            at_space = (
                index
                for index in range(last, next_cut, -1)
                if cuts[index][0] - begin[0] > max_tokens - max_tokens // 4
                and (text[cuts[index][1] - 1].isspace() or text[cuts[index][1]].isspace())
            )
            last = next(at_space, last)
        pieces.append((text[begin[1] : cuts[last][1]], cuts[last][0] - begin[0]))
        begin, next_cut = cuts[last], last + 1
    return pieces


def _cuts(text: str, tokens: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where a text may be cut, and its end: (tokens before, character), both rising.

    Tokens of one character (the bytes of an emoji) share its offsets: there is no cut between them.
    """
    cuts, reached = [], 1
    for index, (start, end) in enumerate(tokens):
        if reached <= start < len(text):
            cuts.append((index, start))
            reached = start + 1
        reached = max(reached, end)
    return [*cuts, (len(tokens), len(text))]


def _spans(parts: list[dict], max_turns: int, max_tokens: int) -> list[tuple[int, int]]:
    spans, first, num_tokens = [], 0, 0
    for index, part in enumerate(parts):
        if index > first and (index - first == max_turns or num_tokens + part["num_tokens"] > max_tokens):
            spans.append((first, index))
            first, num_tokens = index, 0
        num_tokens += part["num_tokens"]
    spans.append((first, len(parts)))
    return spans


def _context(earlier: list[dict], offsets: Offsets, max_tokens: int) -> list[dict]:
    """The latest earlier parts within the budget; of a part that is too long, its end."""
    chosen: list[dict] = []
    for part in reversed(earlier):
        if part["num_tokens"] > max_tokens:
            if not chosen:
                tokens = offsets([part["text"]])[0]
                cuts = [(0, 0), *_cuts(part["text"], tokens)]
                first_token, first_char = next(cut for cut in cuts if len(tokens) - cut[0] <= max_tokens)
                if end := part["text"][first_char:]:
                    chosen.append(part | {"text": end, "num_tokens": len(tokens) - first_token})
            break
        chosen.append(part)
        max_tokens -= part["num_tokens"]
    return chosen[::-1]


def _said(turn: dict) -> dict:
    return {"role": turn["role"], "speaker": turn["speaker"]}


def _part(part: dict) -> dict:
    return {name: part[name] for name in ("turn_index", "role", "speaker", "text")}


def segment_id(segment: dict) -> str:
    """32 hex digits over everything of a segment that the encoder's answer or the stored rows depend on."""
    time = segment["session_time"]
    content = [
        segment["user_id"],
        segment["conversation_id"],
        segment["session_id"],
        time.isoformat() if time else None,
        segment["start_char"],
        segment["context"],
        segment["current"],
        [[turn["time"].isoformat() if turn["time"] else None, turn["content"]] for turn in segment["turns"]],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
