"""What jobs.train.entailment learns from: memories that were written down, which their turns tell; the same,
spoilt with other words of their message, which the turns do not; and records that readers marked.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cluster.backfill.entailment import Claim
from jobs.train.corpus import CORPUS, FALSE, GOOD, read_lines, read_marked

BETWEEN_WEIGHT = 0.5
"""What is true and yet of little use counts so much, as a record not to be written."""

NUM_SPOILT = 1
"""Of each memory so many spoilt ones are learned."""


@dataclass(frozen=True)
class Example:
    """A claim, and whether it is told and worth a record."""

    claim: Claim
    is_told: bool
    weight: float
    session_id: str


def marked_examples(path: str) -> Iterator[Example]:
    """Records that readers marked, with the whole turns of the single segments that they are of. UsageError
    names the first line that is not one."""
    turns = turns_of_segments()
    remedy = "JSON lines with session_id, text, evidence (role and text of each turn) and label"
    for one in read_marked(path, "--marked", ("session_id",), remedy):
        yield Example(
            claim_of(one.text, [text for _, text in one.evidence], turns.get(one.session_id, [])),
            one.label == GOOD,
            1.0 if one.label in (GOOD, *FALSE) else BETWEEN_WEIGHT,
            one.session_id,
        )


def turns_of_segments() -> dict[str, list[str]]:
    """Session id -> the turns of a single segment."""
    return {session.session_id: session.turns for session in _segments()}


def claim_of(text: str, cited: list[str], turns: list[str]) -> Claim:
    """The claim of a record that cites these sentences or turns, of the turns of its session."""
    places = [next((n for n, turn in enumerate(turns) if one in turn), None) for one in cited]
    told = tuple(one if place is None else turns[place] for one, place in zip(cited, places, strict=True))
    first = next((place for place in places if place is not None), 0)
    return Claim(text, told, turns[first - 1] if first else "")


# --- memories and spoilt ones -------------------------------------------------------------------------


def written_examples(*, seed: int) -> Iterator[Example]:
    """Memories of the train people who write English and of the single segments, and spoilt ones."""
    rng = random.Random(seed)
    for session in (*_sessions_of_train_people(), *_segments()):
        for place, (text, evidence) in enumerate(session.memories):
            said = [session.turns[turn] for turn in evidence]
            claim = claim_of(text, said, session.turns)
            if DAY.search(text):
                # Computed from the day of the message, which is not read.
                continue
            yield Example(claim, True, 1.0, session.session_id)
            others = [other for number, (other, _) in enumerate(session.memories) if number != place]
            spoilt = sorted(set(spoil(text, " ".join(said), others, rng)) - {text})
            for one in rng.sample(spoilt, min(NUM_SPOILT, len(spoilt))):
                yield Example(Claim(one, claim.told, claim.before), False, 1.0, session.session_id)


@dataclass(frozen=True)
class _Session:
    session_id: str
    turns: list[str]
    memories: list[tuple[str, list[int]]]
    """What each says, and the turns that it rests on."""

    @classmethod
    def of(cls, session_id: str, line: dict) -> "_Session":
        memories = [(one.get("said") or one["text"], one["evidence"]) for one in line["memories"]]
        return cls(session_id, [text for _, text in line["turns"]], memories)


def _segments() -> Iterator[_Session]:
    """The single segments, by the ids that jobs.sample gives them."""
    for path in sorted((CORPUS / "segments").glob("*.jsonl")):
        for number, line in enumerate(read_lines(path)):
            yield _Session.of(f"single-{path.stem}-{number:03}-s01", line)


def _sessions_of_train_people() -> Iterator[_Session]:
    for path in sorted((CORPUS / "people" / "train").glob("*.jsonl")):
        person, *lines = read_lines(path)
        if person["language"] == "en":
            yield from (_Session.of(one["session_id"], one) for one in lines if one["kind"] == "session")


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


SOMEBODY = ("sister", "brother", "mother", "father", "friend", "neighbour", "colleague", "son", "daughter")
LEAST_JOINED = 4
"""Words that each of two memories that are joined has more of."""


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
