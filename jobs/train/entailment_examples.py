"""What jobs.train.entailment learns from: memories that were written down, which their turns tell; the same,
spoilt with other words of their message, which the turns do not; and records that readers marked.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.backfill.entailment import Claim
from cluster.language.people import RELATIONS
from jobs.sample.written import Written, read_people, read_segments

GOOD, FALSE = "good", ("false", "nonsense")
"""Marks of records. What is true and yet of little use stands between them."""

BETWEEN_WEIGHT = 0.5
"""It counts so much, as a record not to be written."""

NUM_SPOILT = 1
"""Of each memory so many spoilt ones are learned."""


@dataclass(frozen=True)
class Example:
    """A claim, and whether it is told and worth a record."""

    claim: Claim
    is_told: bool
    weight: float
    session_id: str


def read_marked(path: str) -> Iterator[Example]:
    """Records that readers marked, with the whole turns of the single segments that they are of."""
    turns = {row["session_id"]: _turns(row) for row in read_segments().sessions}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Example(
            claim_of(row["text"], [text for _, text in row["evidence"]], turns.get(row["session_id"], [])),
            row["label"] == GOOD,
            1.0 if row["label"] in (GOOD, *FALSE) else BETWEEN_WEIGHT,
            row["session_id"],
        )


def claim_of(text: str, cited: list[str], turns: list[str]) -> Claim:
    """The claim of a record that cites these sentences or turns, of the turns of its session."""
    places = [next((n for n, turn in enumerate(turns) if one in turn), None) for one in cited]
    told = tuple(one if place is None else turns[place] for one, place in zip(cited, places, strict=True))
    first = next((place for place in places if place is not None), 0)
    return Claim(text, told, turns[first - 1] if first else "")


def _turns(session: dict) -> list[str]:
    return [turn["content"] for turn in session["turns"]]


# --- memories and spoilt ones -------------------------------------------------------------------------


def read_written(*, seed: int) -> Iterator[Example]:
    """Memories of the train people who write English and of the single segments, and spoilt ones."""
    rng = random.Random(seed)
    for written in (read_people(("train",), language="en"), read_segments()):
        yield from _examples(written, rng)


def _examples(written: Written, rng: random.Random) -> Iterator[Example]:
    turns = {row["session_id"]: _turns(row) for row in written.sessions}
    of_session: dict[str, list[dict]] = {}
    for row in written.memories:
        of_session.setdefault(row["session_id"], []).append(row)
    for session_id, rows in of_session.items():
        for row in rows:
            said = [turns[session_id][turn] for turn in row["evidence_turns"]]
            claim = claim_of(row["said"], said, turns[session_id])
            if DAY.search(claim.text):
                # Computed from the day of the message, which is not read.
                continue
            yield Example(claim, True, 1.0, session_id)
            others = [one["said"] for one in rows if one is not row]
            spoilt = sorted(set(spoil(claim.text, " ".join(said), others, rng)) - {claim.text})
            for text in rng.sample(spoilt, min(NUM_SPOILT, len(spoilt))):
                yield Example(Claim(text, claim.told, claim.before), False, 1.0, session_id)


DAY = re.compile(r"\d{4}-\d{2}")
_NUMBER = re.compile(r"\d[\d.,:]*\d|\d")
_NAME = re.compile(r"(?<=[^.!?\s]\s)[A-ZÀ-Ý][\w'-]+(?:\s+[A-ZÀ-Ý][\w'-]+)*")
_PLACED = re.compile(
    r"\b(?:in|on|at|to|from|with|by|for|of|since|until|before|after|near|about|every|called|named)\s+"
    r"((?:(?:the|a|an|his|her|their)\s)?[^\s,.;:!?()]+(?:\s+[^\s,.;:!?()]+){0,2})"
)
"""What a preposition leads in."""
_DENIED = (
    (" does not ", " does "),
    (" is not ", " is "),
    (" cannot ", " can "),
    (" no longer ", " still "),
    (" never ", " often "),
    (" is ", " is not "),
    (" has ", " does not have "),
    (" can ", " cannot "),
    (" will ", " will not "),
    (" wants ", " does not want "),
    (" likes ", " does not like "),
    (" works ", " does not work "),
    (" lives ", " does not live "),
)


def spoil(text: str, said: str, others: list[str], rng: random.Random) -> Iterator[str]:
    """Memories that `said` does not tell, made of the memory `text` that it tells: with a number, a name or a
    phrase of elsewhere in the message, of somebody else, denied, or joined to one of the `others`."""
    names = [one for one in _NAME.findall(said) if one not in text and one not in ("I", "User")]
    numbers = [one for one in _NUMBER.findall(said) if one not in text]
    phrases = [one for one in [*_PLACED.findall(said), *names, *numbers] if one.lower() not in text.lower()]
    for found, instead in ((_NUMBER.findall(text), numbers), (_NAME.findall(text), names)):
        if found and instead:
            yield text.replace(rng.choice(found), rng.choice(instead), 1)
    if phrases:
        if places := list(_PLACED.finditer(text)):
            start, end = rng.choice(places).span(1)
            yield text[:start] + rng.choice(phrases) + text[end:]
        yield f"{text.rstrip('.')} {rng.choice(('in', 'at', 'with', 'for', 'on'))} {rng.choice(phrases)}."
    if text.startswith("User's "):
        yield "User " + text.split(" ", 2)[-1]
    elif text.startswith("User "):
        owner = rng.choice(names) if names and rng.random() < 0.5 else f"User's {rng.choice(SOMEBODY)}"
        yield owner + text[len("User") :]
    for told, denied in _DENIED:
        if told in text:
            yield text.replace(told, denied, 1)
            break
    if others:
        mine, theirs = (one.rstrip(".").split() for one in (text, rng.choice(others)))
        if min(len(mine), len(theirs)) > LEAST_JOINED:
            head, tail = (rng.randint(2, len(words) - 2) for words in (mine, theirs))
            yield " ".join([*mine[:head], *theirs[tail:]]) + "."


SOMEBODY = ("sister", "brother", "mother", "father", "friend", "neighbour", "colleague", "son", "daughter")
LEAST_JOINED = 4
"""Words that each of two memories that are joined has more of."""

assert set(SOMEBODY) <= RELATIONS, "words that a reader of records knows"
