"""The sample world: users, what they say in which session, and what should be remembered of it.

Everything is drawn from one seeded generator in a fixed order, so a seed names a world. Users are made one
after the other: sessions are planned, statements put into them, turns written, questions asked.
"""

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from jobs.sample.people import Decks, Mention, Session, User
from jobs.sample.phrases import PHRASES, combine
from jobs.sample.questions import question_rows
from jobs.sample.secret_shapes import SECRET_KINDS, make_secret
from jobs.sample.telling import tell_all
from jobs.sample.turns import MAX_EXCHANGES, write_turns

START = dt.date(2026, 1, 5)
"""First day of every world, a Monday."""

TURN_SECONDS = 40

# Chosen so that 12 users and 4 weeks give about 100 sessions and 120 segments of four turns.
EXTRA_SESSION_SHARE = 0.06
"""A week has two sessions, or three with this chance."""
ADVICE_SHARE = 0.2
EXCHANGES, EXCHANGE_WEIGHTS = (1, 2, 3, 4), (22, 60, 10, 8)
ADVICE_EXCHANGES, ADVICE_WEIGHTS = (1, 2, 3), (40, 50, 10)


@dataclass(frozen=True, kw_only=True)
class World:
    """The finished world: rows as they stand in the files, in their order."""

    sessions: list[dict] = field(default_factory=list)
    memories: list[dict] = field(default_factory=list)
    questions: list[dict] = field(default_factory=list)
    secrets: list[dict] = field(default_factory=list)
    advice_sessions: list[str] = field(default_factory=list)
    shared_sentences: list[dict] = field(default_factory=list)


def build_world(*, seed: int, num_users: int, num_weeks: int) -> World:
    """Make the world of `seed`. Sessions are ordered by time, so that users take turns in the archive."""
    rng = random.Random(seed)
    decks = Decks(rng)
    world = World()
    names = combine(PHRASES.first_names, PHRASES.last_names)
    width = max(2, len(str(num_users - 1)))
    secret_kinds = _secret_kinds(num_users)
    asked_at = dt.datetime.combine(START + dt.timedelta(weeks=num_weeks), dt.time(9), dt.UTC)
    before: User | None = None
    for index in range(num_users):
        user = User(index=index, user_id=f"user-{index:0{width}}", name=decks.deal(names))
        partner = before if index % 2 else None
        user.sessions = _sessions(rng=rng, user=user, num_weeks=num_weeks)
        tell_all(rng=rng, decks=decks, user=user, num_weeks=num_weeks, partner=partner)
        for kind in secret_kinds.get(index, ()):
            session = _secret_session(rng=rng, user=user)
            session.secrets.append((kind, make_secret(rng=rng, kind=kind)))
        for session in user.sessions:
            write_turns(rng=rng, decks=decks, session=session)
        _number(user)
        world.sessions.extend(_session_rows(user))
        world.memories.extend(_memory_row(user, mention) for mention in user.mentions)
        world.questions.extend(question_rows(rng=rng, user=user, asked_at=asked_at))
        world.secrets.extend(_secret_rows(user))
        world.advice_sessions.extend(session.session_id for session in user.sessions if session.is_advice)
        if partner:
            world.shared_sentences.append(_shared_row(partner, user))
        before = user
    world.sessions.sort(key=lambda row: (row["session_time"], row["session_id"]))
    return world


def _secret_kinds(num_users: int) -> dict[int, list[str]]:
    """Which users type which secrets: every kind at least once, about two secrets for three users."""
    num_secrets = max(len(SECRET_KINDS), num_users * 2 // 3)
    kinds: dict[int, list[str]] = {}
    for number in range(num_secrets):
        kind = SECRET_KINDS[number % len(SECRET_KINDS)]
        kinds.setdefault(number * num_users // num_secrets, []).append(kind)
    return kinds


def _secret_session(*, rng: random.Random, user: User) -> Session:
    """A session with room for another turn, whatever becomes of its statements."""
    sizes = [len(session.mentions) + len(session.secrets) for session in user.talks()]
    limit = max(MAX_EXCHANGES - 2, min(sizes))
    return rng.choice([session for session, size in zip(user.talks(), sizes, strict=True) if size <= limit])


def _sessions(*, rng: random.Random, user: User, num_weeks: int) -> list[Session]:
    times = []
    for week in range(num_weeks):
        num_sessions = 3 if rng.random() < EXTRA_SESSION_SHARE else 2
        for day in sorted(rng.sample(range(7), num_sessions)):
            date = START + dt.timedelta(weeks=week, days=day)
            times.append(dt.datetime.combine(date, dt.time(rng.randint(7, 21), rng.randrange(60)), dt.UTC))
    num_advice = round(len(times) * ADVICE_SHARE) if len(times) > 3 else 0
    # The first session always tells something: what changes has to begin early.
    advice = rng.sample(range(1, len(times)), num_advice)
    width = max(2, len(str(len(times) - 1)))
    sessions = []
    for number, time in enumerate(times):
        is_advice = number in advice
        choices, weights = (ADVICE_EXCHANGES, ADVICE_WEIGHTS) if is_advice else (EXCHANGES, EXCHANGE_WEIGHTS)
        sessions.append(
            Session(
                session_id=f"{user.user_id}-s{number:0{width}}",
                time=time,
                is_advice=is_advice,
                num_exchanges=rng.choices(choices, weights)[0],
            )
        )
    return sessions


def _number(user: User) -> None:
    """Memory ids in the order of telling."""
    user.mentions.sort(key=lambda mention: (mention.session.time, mention.evidence_turns, mention.fact_key))
    for number, mention in enumerate(user.mentions):
        mention.memory_id = f"{user.user_id}-m{number:03}"


# Rows of the files


def _session_rows(user: User) -> Iterator[dict]:
    for session in user.sessions:
        week = (session.time.date() - START).days // 7
        yield {
            "user_id": user.user_id,
            "conversation_id": f"{user.user_id}-c{week:02}",
            "session_id": session.session_id,
            "session_time": session.time,
            "turns": [
                {
                    "role": role,
                    "content": content,
                    "speaker": user.name if role == "user" else None,
                    "time": session.time + dt.timedelta(seconds=TURN_SECONDS * number),
                }
                for number, (role, content) in enumerate(session.turns)
            ],
        }


def _memory_row(user: User, mention: Mention) -> dict:
    status = "repeat" if mention.repeat_of else "superseded" if mention.is_superseded else "current"
    return {
        "memory_id": mention.memory_id,
        "user_id": user.user_id,
        "session_id": mention.session.session_id,
        "session_time": mention.session.time.isoformat(),
        "memory_type": mention.memory_type,
        "semantic_text": mention.semantic_text,
        "entities": mention.entities,
        "temporal": {
            "t_ref": mention.session.time.date().isoformat(),
            "t_valid_from": mention.valid_from,
            "t_valid_to": mention.valid_to,
        },
        "tags": mention.tags,
        "evidence_turns": mention.evidence_turns,
        "source_role": mention.source_role,
        "fact_key": mention.fact_key,
        "value": mention.value,
        "supersedes": mention.supersedes.memory_id if mention.supersedes else None,
        "status": status,
        "repeat_of": mention.repeat_of.memory_id if mention.repeat_of else None,
        "lookalike_of": mention.lookalike_of,
    }


def _secret_rows(user: User) -> Iterator[dict]:
    number = 0
    for session in user.sessions:
        for kind, secret, turn in session.secret_turns:
            yield {
                "secret_id": f"{user.user_id}-x{number:02}",
                "user_id": user.user_id,
                "session_id": session.session_id,
                "turn_index": turn,
                "kind": kind,
                "secret": secret,
                "memories_in_turn": [
                    mention.memory_id for mention in session.mentions if turn in mention.evidence_turns
                ],
            }
            number += 1


def _shared_row(partner: User, user: User) -> dict:
    """The sentence that two users say, and where."""
    assert partner.shared is not None and user.shared is not None
    said = (partner.shared, user.shared)
    return {
        "text": user.shared.text,
        "fact_keys": [mention.fact_key for mention in said],
        "session_ids": [mention.session.session_id for mention in said],
    }
