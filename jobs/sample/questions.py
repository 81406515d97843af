"""Questions about what a user told, in the question types of LongMemEval, with answers and evidence."""

import datetime as dt
import random
from collections.abc import Iterable

from jobs.sample.people import Mention, User, with_article

Asked = tuple[str, str, str, list[Mention]]
"""Question type, question, answer, and the statements that support it."""


def question_rows(*, rng: random.Random, user: User, asked_at: dt.datetime) -> list[dict]:
    """Up to six questions: two updates and one of each other type, where the user's facts allow it."""
    repeated = [mention.repeat_of for mention in user.mentions if mention.repeat_of]
    current = [mention for mention in user.mentions if not mention.is_superseded and not mention.repeat_of]
    changed = [mention for mention in current if mention.supersedes and mention.topic]
    single = [mention for mention in current if not mention.supersedes and mention not in repeated]
    plain = [
        mention
        for mention in single
        if mention.memory_type not in ("preference", "event") and mention.source_role != "assistant"
    ]
    preferences = [mention for mention in single if mention.memory_type == "preference"]
    asked = [
        *_direct("knowledge-update", _some(rng, changed, 2)),
        *_direct("single-session-user", _some(rng, plain, 1)),
        *_direct("single-session-preference", _some(rng, preferences, 1)),
        *_temporal(rng=rng, current=current, changed=changed),
        *_multi(rng=rng, user=user, current=current, changed=changed),
    ]
    return [
        {
            "question_id": f"{user.user_id}-q{number:02}",
            "user_id": user.user_id,
            "question": question,
            "answer": answer,
            "question_type": question_type,
            "evidence": _evidence(user, mentions),
            "question_date": asked_at.isoformat(),
        }
        for number, (question_type, question, answer, mentions) in enumerate(asked)
    ]


def _direct(question_type: str, mentions: Iterable[Mention]) -> list[Asked]:
    return [(question_type, mention.question, mention.value, [mention]) for mention in mentions]


def _temporal(*, rng: random.Random, current: list[Mention], changed: list[Mention]) -> list[Asked]:
    """A date, the days between two dates, or what held before a change."""
    choices: list[Asked] = []
    events = [mention for mention in current if mention.memory_type == "event"]
    for event in _some(rng, events, 1):
        choices.append(("temporal-reasoning", event.question, _date(event).isoformat(), [event]))
    if len(events) > 1:
        one, two = _some(rng, events, 2)
        question = f"How many days lie between the dates of {one.noun} and {two.noun}?"
        num_days = abs((_date(two) - _date(one)).days)
        choices.append(("temporal-reasoning", question, str(num_days), [one, two]))
    asked = [
        (mention, mention.topic.past_question, mention.supersedes)
        for mention in changed
        if mention.topic and mention.topic.past_question and mention.supersedes
    ]
    for mention, pattern, old in _some(rng, asked, 1):
        question = pattern.format(v=mention.value, av=with_article(mention.value))
        choices.append(("temporal-reasoning", question, old.value, [old, mention]))
    return _some(rng, choices, 1)


def _date(event: Mention) -> dt.date:
    return dt.date.fromisoformat(event.valid_from or event.valid_to)


def _multi(*, rng: random.Random, user: User, current: list[Mention], changed: list[Mention]) -> list[Asked]:
    """Somebody else's fact beside the user's own, two facts of different sessions, or a count of values."""
    choices: list[Asked] = []
    pairs = [
        (own, other)
        for other in current
        for own in current
        if other.lookalike_of and own.fact_key == other.lookalike_of
    ]
    facts = [mention for mention in current if mention.memory_type in ("fact", "constraint", "preference")]
    if len(facts) > 1:
        pairs.append(tuple(_some(rng, facts, 2)))
    for one, two in pairs:
        if one.session is not two.session and one.value != two.value:
            question = f"Please tell me {one.noun} and {two.noun}."
            choices.append(("multi-session", question, f"{one.value}; {two.value}", [one, two]))
    counted = [
        (mention, mention.topic.count_question)
        for mention in changed
        if mention.topic and mention.topic.count_question
    ]
    for mention, question in _some(rng, counted, 1):
        chain = [
            entry for entry in user.mentions if entry.fact_key == mention.fact_key and not entry.repeat_of
        ]
        choices.append(("multi-session", question, str(len(chain)), chain))
    return _some(rng, choices, 1)


def _some(rng: random.Random, entries: list, num: int) -> list:
    return rng.sample(entries, min(num, len(entries)))


def _evidence(user: User, mentions: list[Mention]) -> list[dict]:
    """Every turn that supports the answer, repeats of a statement included."""
    return [
        {"session_id": mention.session.session_id, "turn_index": turn}
        for mention in user.mentions
        if mention in mentions or mention.repeat_of in mentions
        for turn in mention.evidence_turns
    ]
