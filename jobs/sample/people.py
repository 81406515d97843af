"""Who talks in the sample world: users, their sessions, and the statements they make in them."""

import datetime as dt
import random
from dataclasses import dataclass, field
from typing import Any

from jobs.sample.phrases import Topic

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


@dataclass(kw_only=True, eq=False)
class Mention:
    """One statement and the memory that it should leave. Planned first, placed into turns later."""

    fact_key: str
    memory_type: str
    value: str
    """Stands word for word in the turns that tell it. Of an event: its name, dates are in valid_from."""
    semantic_text: str
    entities: list[str]
    tags: list[str]
    valid_from: str = ""
    valid_to: str = ""
    question: str
    """Asks for the value: What is my shoe size?"""
    noun: str
    """Names the value: my shoe size."""
    say: str
    """The statement alone."""
    ask: str
    """The request alone."""
    text: str
    """The whole user turn: statement and request."""
    reply: str
    probe: tuple[str, str] | None = None
    """What the assistant may ask back instead, and the user's answer to that."""
    is_alone: bool = False
    """Nothing may be added to the turn: it is said word for word elsewhere, or long enough."""
    source_role: str = "user"
    topic: Topic | None = None
    supersedes: "Mention | None" = None
    repeat_of: "Mention | None" = None
    lookalike_of: str | None = None
    is_superseded: bool = False
    session: "Session" = field(init=False)
    """Where it is told, once it is placed."""
    memory_id: str = ""
    evidence_turns: list[int] = field(default_factory=list)


@dataclass(kw_only=True, eq=False)
class Session:
    """One session of one user: what has to be said in it, then its turns."""

    session_id: str
    time: dt.datetime
    is_advice: bool
    """General questions only: nothing to remember."""
    num_exchanges: int
    """User turns, each with a reply; may grow where more has to be said."""
    mentions: list[Mention] = field(default_factory=list)
    secrets: list[tuple[str, str]] = field(default_factory=list)
    """Kind and text of each secret that the user types here."""
    turns: list[tuple[str, str]] = field(default_factory=list)
    """Role and content, once written out."""
    secret_turns: list[tuple[str, str, int]] = field(default_factory=list)
    """Kind, text and turn index of each secret, once written out."""


@dataclass(kw_only=True, eq=False)
class User:
    """One user. Values once used are not dealt again, so no two facts of a user agree by accident."""

    index: int
    user_id: str
    name: str
    sessions: list[Session] = field(default_factory=list)
    mentions: list[Mention] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    shared: Mention | None = None
    """The statement that this user and another one make in the same words."""
    first_city: str = ""

    def talks(self) -> list[Session]:
        """Sessions in which something may be told."""
        return [session for session in self.sessions if not session.is_advice]

    def place(self, mention: Mention, session: Session) -> None:
        """Have `mention` told in `session`."""
        mention.session = session
        session.mentions.append(mention)
        self.mentions.append(mention)

    def new_key(self, text: str) -> str:
        """A fact key of this user that is not taken yet."""
        key = f"{self.user_id}/{text.lower().replace(' ', '-')}"
        taken = {mention.fact_key for mention in self.mentions}
        return f"{key}-{len(self.mentions)}" if key in taken else key


class Decks:
    """Deals values without repeats until a table is used up, so that a small world has distinct entities."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.decks: dict[tuple, list] = {}

    def deal(self, table: tuple, avoid: tuple | list = ()) -> Any:
        """An entry of `table` that is not in `avoid`, unless all are."""
        deck = self.decks.setdefault(table, [])
        for position in range(len(deck) - 1, -1, -1):
            if deck[position] not in avoid:
                return deck.pop(position)
        fresh = list(table)
        self.rng.shuffle(fresh)
        chosen = next((entry for entry in fresh if entry not in avoid), fresh[0])
        fresh.remove(chosen)
        # What was left of the old deck is dealt first.
        self.decks[table] = fresh + deck
        return chosen


def with_article(text: str) -> str:
    """`text` after a or an. Goes by the first letter, which is right for every word in our tables."""
    return f"{'an' if text[0].lower() in 'aeiou' else 'a'} {text}"


def spoken(date: dt.date, today: dt.date) -> str:
    """14 March, with the year only where it is not that of `today`."""
    year = "" if date.year == today.year else f" {date.year}"
    return f"{date.day} {MONTHS[date.month - 1]}{year}"
