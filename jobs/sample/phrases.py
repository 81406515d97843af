"""What the people of the sample world have, say and ask: phrases.toml, read."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Words = tuple[str, ...]
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Lookalike:
    """A statement about somebody else that resembles the user's own fact, and must not change it."""

    key: str
    """Becomes the fact key: sister-city."""
    say: str
    semantic: str
    noun: str
    """How a question names it: my sister's home city."""


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One kind of memory: what values it takes and how people put it into words."""

    key: str
    memory_type: str
    values: Words
    says: Words
    """Statements of a first value; true of any value at any time, so that they can be repeated later."""
    semantic: str
    asks: Pairs
    """Request of the user, reply of the assistant."""
    tags: Words
    question: str
    noun: str
    """How a question about several facts names it: my home city."""
    entity: str = "value"
    """What of the value is an entity: value, last (its last word) or none."""
    changes: Words = ()
    """Statements that end {old}; empty for what does not change."""
    changed: str = ""
    """Semantic text after a change; the plain one where empty."""
    past_question: str = ""
    count_question: str = ""
    probe: tuple[str, str] | None = None
    """The assistant asks back, the user answers in a fragment that only makes sense with the question."""
    lookalikes: tuple[Lookalike, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """The tables of phrases.toml that topics do not name."""

    changing: tuple[Topic, ...]
    stable: tuple[Topic, ...]
    preferences: tuple[Topic, ...]
    constraints: tuple[Topic, ...]
    first_names: Words
    last_names: Words
    cities: Words
    employers: Words
    tool_names: Words
    event_labels: Words
    event_says: Words
    event_past_says: Words
    event_moved_says: Words
    event_asks: Pairs
    event_past_asks: Pairs
    deadlines: Words
    deadline_asks: Pairs
    deadline_says: Words
    procedures: Pairs
    procedure_says: Words
    procedure_asks: Pairs
    failures: Pairs
    failure_says: Words
    failure_asks: Pairs
    tools: Pairs
    tool_says: Words
    tool_user_asks: Pairs
    tool_questions: Words
    tool_answers: Words
    hours: Words
    numbers: Words
    openers: Words
    joiners: Words
    acknowledgements: Words
    thanks: Pairs
    advice: Pairs
    advice_openers: Words
    secret_says: dict[str, Pairs]
    """By kind of secret."""


def combine(first: tuple[str, ...], second: tuple[str, ...], pattern: str = "{} {}") -> tuple[str, ...]:
    """Every first word with every second word; neighbours in the result differ in both."""
    shifts = range(len(second))
    return tuple(
        pattern.format(first[(row + shift) % len(first)], second[shift])
        for row in range(len(first))
        for shift in shifts
    )


def _read(path: Path) -> Phrases:
    tables = _frozen(tomllib.loads(path.read_text(encoding="utf-8")))
    topics = tables.pop("topics")
    tables |= {name: combine(**parts) for name, parts in tables.pop("combined").items()}

    def topic(values: str | Words, lookalikes: tuple[dict, ...] = (), **more: Any) -> Topic:
        others = tuple(Lookalike(**one) for one in lookalikes)
        return Topic(values=tables[values] if isinstance(values, str) else values, lookalikes=others, **more)

    found: dict[str, Any] = {
        group: tuple(topic(**one) for one in members) for group, members in topics.items()
    }
    return Phrases(**found, **{name: tables[name] for name in Phrases.__annotations__ if name in tables})


def _frozen(value: Any) -> Any:
    """Lists as tuples, at any depth."""
    if isinstance(value, dict):
        return {name: _frozen(item) for name, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


PHRASES = _read(Path(__file__).with_suffix(".toml"))
