"""What a user tells: which facts, in which sessions, how they change, and who says the same."""

import datetime as dt
import random
from typing import Any

from jobs.sample.people import Decks, Mention, Session, User, spoken, with_article
from jobs.sample.phrases import PHRASES, Topic

THIRD_VALUE_SHARE = 0.35
CHANGED_PREFERENCE_SHARE = 0.25
MOVED_EVENT_SHARE = 0.25
PAST_EVENT_SHARE = 0.25
OLD_LOOKALIKE_SHARE = 0.75
LOOKED_UP_SHARE = 0.5
FULL_SHARE = 0.9
"""Statements per exchange at which a user has told enough; the rest is small talk."""

DAYS_AGO = (("today", 0), ("yesterday", 1), ("two days ago", 2), ("three days ago", 3), ("a week ago", 7))
DAYS_AHEAD = (
    ("tomorrow", 1),
    ("the day after tomorrow", 2),
    ("in three days", 3),
    ("in five days", 5),
    ("a week from today", 7),
    ("in ten days", 10),
)
SHARED_TOPICS = ("city", "allergy", "hobby", "diet", "pref-coffee", "gym-schedule")
"""Each pair of users says the same sentence about one of these, in turn."""


def tell_all(*, rng: random.Random, decks: Decks, user: User, num_weeks: int, partner: User | None) -> None:
    """Plan what `user` says in every session that is not advice, after `partner` who shares a sentence."""
    _Teller(rng, decks, user, partner).tell_all(num_weeks)


def _topic(key: str) -> Topic:
    topics = (*PHRASES.changing, *PHRASES.preferences, *PHRASES.constraints)
    return next(topic for topic in topics if topic.key == key)


class _Teller:
    """Plans what one user says."""

    def __init__(self, rng: random.Random, decks: Decks, user: User, partner: User | None):
        self.rng, self.decks, self.user = rng, decks, user
        self.shared = _topic(SHARED_TOPICS[user.index // 2 % len(SHARED_TOPICS)])
        self.echoes: dict[str, Mention | str] = {}
        """What the partner said that this user says as well: a statement, or only its value."""
        if partner is not None:
            assert partner.shared is not None
            self.echoes[self.shared.key] = partner.shared
            if partner.index // 2 % 2:
                # Every other pair lives in the same city too, in words of their own.
                self.echoes.setdefault("city", partner.first_city)

    def tell_all(self, num_weeks: int) -> None:
        rng, user, shared = self.rng, self.user, self.shared
        chains = self._chains()
        repeated = user.index % 2 * (len(chains) - 1)
        for number, topic in enumerate(chains):
            num_values = 2 + num_weeks // 12 + (rng.random() < THIRD_VALUE_SHARE)
            told = self._tell_topic(
                topic, num_values, "other words" if repeated and number == repeated else ""
            )
            if number == user.index % len(chains):
                self._tell_lookalike(topic, told)
        constraint = shared if shared.memory_type == "constraint" else self.decks.deal(PHRASES.constraints)
        self._tell_topic(constraint, 1, "" if user.index % 2 else "same words")
        preference = shared if shared.memory_type == "preference" else self.decks.deal(PHRASES.preferences)
        self._tell_topic(preference, 1 + (rng.random() < CHANGED_PREFERENCE_SHARE))
        crafts = (self._tell_procedure, self._tell_failure, self._tell_tool)
        if len(user.talks()) > 3:
            self._tell_event(is_moved=user.index % 4 == 1)
            crafts[user.index % len(crafts)]()
        # Facts, events and crafts until the sessions are full; long worlds have more to tell.
        target = int(sum(session.num_exchanges for session in user.talks()) * FULL_SHARE)
        spare = [*PHRASES.stable, *PHRASES.preferences, *PHRASES.constraints, *PHRASES.changing]
        while len(user.mentions) < target:
            kind = rng.random()
            known = [mention.topic for mention in user.mentions if mention.topic]
            left = [topic for topic in spare if topic not in known]
            if kind < 0.4 and left:
                topic = rng.choice(left)
                self._tell_topic(topic, 2 if topic in PHRASES.changing else 1)
            elif kind < 0.8:
                self._tell_event(is_moved=rng.random() < MOVED_EVENT_SHARE)
            else:
                rng.choice(crafts)()

    def _chains(self) -> list[Topic]:
        """The facts that change: the city, and two of the others in turn, so that every kind occurs."""
        user, shared, others = self.user, self.shared, PHRASES.changing[1:]
        chains = [PHRASES.changing[0], *(others[(2 * user.index + step) % len(others)] for step in range(2))]
        chains = chains[: max(1, len(user.talks()) // 2)]
        if shared.memory_type == "fact" and shared not in chains:
            chains[1:] = [*chains[1:2], shared] if len(chains) > 2 else [shared]
        return chains

    def _free_sessions(self, num: int, since: dt.datetime | None = None) -> list[Session]:
        """`num` sessions in time order, those with the most room; fewer where the user has fewer."""
        talks = [session for session in self.user.talks() if since is None or session.time >= since]
        order = list(range(len(talks)))
        self.rng.shuffle(order)
        order.sort(key=lambda position: len(talks[position].mentions) / talks[position].num_exchanges)
        return [talks[position] for position in sorted(order[:num])]

    # --- facts, preferences, constraints

    def _tell_topic(self, topic: Topic, num_values: int, repeat: str = "") -> list[Mention]:
        """A first value, its changes and a repeat, each in a later session than the one before.

        `repeat` is "same words" (for a single value), "other words" (of the last value) or empty.
        """
        user, echo = self.user, self.echoes.get(topic.key)
        sessions = self._free_sessions(num_values + bool(repeat))
        if len(sessions) < 2:
            repeat = ""
        is_word_for_word = repeat == "same words"
        changing, repeating = (sessions[:-1], sessions[-1:]) if repeat else (sessions, [])
        told: list[Mention] = []
        for session in changing:
            begins = not told
            value = self.decks.deal(topic.values, self._avoid(topic))
            if begins and echo:
                value = echo if isinstance(echo, str) else echo.value
            user.used += [value, *_entities(topic, value)]
            is_alone = begins and (topic is self.shared or is_word_for_word)
            mention = self._state(session, topic, value, None if begins else told[-1], is_alone=is_alone)
            if begins and isinstance(echo, Mention):
                _same_words(mention, echo)
            told.append(mention)
        for session in repeating:
            again = self._state(session, topic, told[-1].value, None, is_alone=is_word_for_word)
            if is_word_for_word:
                _same_words(again, told[-1])
            again.repeat_of = told[-1]
        if topic is self.shared:
            user.shared = told[0]
        if topic.key == "city":
            user.first_city = told[0].value
        return told

    def _avoid(self, topic: Topic) -> list[str]:
        """Values that the user has used, or whose name has been: not two pets called Toffee."""
        used = set(self.user.used)
        return [value for value in topic.values if used & {value, *_entities(topic, value)}]

    def _state(
        self, session: Session, topic: Topic, value: str, old: Mention | None, *, is_alone: bool
    ) -> Mention:
        """The value of a topic, which may replace an `old` one."""
        rng = self.rng
        words = {"v": value, "av": with_article(value)}
        say, semantic, valid_from = rng.choice(topic.says), topic.semantic, ""
        if old is not None:
            date = session.time.date()
            # A change must not lie before the last time that the old value was said to hold.
            gap = (date - old.session.time.date()).days
            when, days = rng.choice([entry for entry in DAYS_AGO if entry[1] < max(gap, 1)])
            words |= {"old": old.value, "aold": with_article(old.value), "when": when}
            say, semantic = rng.choice(topic.changes), topic.changed or topic.semantic
            valid_from = (date - dt.timedelta(days=days if "{when}" in say else 0)).isoformat()
            old.is_superseded = True
        probe = None
        if topic.probe and old is None and not is_alone:
            probe = (topic.probe[0], topic.probe[1].format(**words))
        return self._tell(
            session,
            topic.asks,
            say.format(**words),
            fact_key=f"{self.user.user_id}/{topic.key}",
            memory_type=topic.memory_type,
            value=value,
            semantic_text=semantic.format(**words),
            entities=_entities(topic, value),
            tags=list(topic.tags),
            valid_from=valid_from,
            question=topic.question,
            noun=topic.noun,
            probe=probe,
            is_alone=is_alone,
            topic=topic,
            supersedes=old,
        )

    def _tell_lookalike(self, topic: Topic, told: list[Mention]) -> None:
        """Somebody else's fact with one of the user's own values, in or after the session of that value."""
        lookalike = self.rng.choice(topic.lookalikes)
        # Mostly a value that the user has had: an update of the user's own fact may not reach it.
        resembled = told[0] if self.rng.random() < OLD_LOOKALIKE_SHARE else told[-1]
        value = resembled.value
        session = self._free_sessions(1, since=resembled.session.time)[0]
        words = {"v": value, "av": with_article(value)}
        self._tell(
            session,
            topic.asks,
            lookalike.say.format(**words),
            fact_key=f"{self.user.user_id}/{lookalike.key}",
            memory_type="fact",
            value=value,
            semantic_text=lookalike.semantic.format(**words),
            entities=_entities(topic, value),
            tags=list(topic.tags),
            question=f"What is {lookalike.noun}?",
            noun=lookalike.noun,
            lookalike_of=f"{self.user.user_id}/{topic.key}",
        )

    # --- events

    def _tell_event(self, *, is_moved: bool) -> None:
        """An appointment, a past event or a deadline; a moved appointment is told again with its new date."""
        rng = self.rng
        sessions = self._free_sessions(2 if is_moved else 1)
        is_moved = len(sessions) == 2
        is_deadline = not is_moved and rng.random() < 0.15
        template = self.decks.deal(PHRASES.deadlines if is_deadline else PHRASES.event_labels)
        label, entities = self._fill(template)
        fact_key = self.user.new_key(f"{'deadline' if is_deadline else 'event'} {label}")
        if fact_key[-1].isdigit():
            # The user has told of such an event before; a second one must be told apart.
            label = f"{rng.choice(('next', 'other', 'extra', 'later'))} {label}"
        today, last = sessions[0].time.date(), sessions[-1].time.date()
        when, days = rng.choice(DAYS_AHEAD)
        date = today + dt.timedelta(days=days)
        if is_moved or rng.random() < 0.5:
            # Still ahead when it is moved.
            date = last + dt.timedelta(days=rng.randint(4, 16))
            when = f"on {spoken(date, today)}"
        says, semantic, asks = PHRASES.event_says, "User has {alabel} on {date}.", PHRASES.event_asks
        if is_deadline:
            says, semantic = PHRASES.deadline_says, "User's {label} is due by {date}."
            asks = PHRASES.deadline_asks
        elif not is_moved and rng.random() < PAST_EVENT_SHARE:
            when, days = rng.choice(DAYS_AGO[1:])
            date = today - dt.timedelta(days=days)
            says, semantic = PHRASES.event_past_says, "User had {alabel} on {date}."
            asks = PHRASES.event_past_asks

        def tell(says: tuple[str, ...], semantic: str, date: dt.date, session: Session) -> Mention:
            words = {"label": label, "alabel": with_article(label), "when": when}
            told_date = spoken(date, session.time.date())
            return self._tell(
                session,
                asks,
                rng.choice(says).format(**words, date=told_date),
                fact_key=fact_key,
                memory_type="event",
                value=label,
                semantic_text=semantic.format(**words, date=date.isoformat()),
                entities=entities,
                tags=["deadline" if is_deadline else "appointment"],
                valid_from="" if is_deadline else date.isoformat(),
                valid_to=date.isoformat() if is_deadline else "",
                question=f"When is my {label} due?" if is_deadline else f"What is the date of my {label}?",
                noun=f"my {label}",
            )

        first = tell(says, semantic, date, sessions[0])
        if is_moved:
            later = date + dt.timedelta(days=rng.randint(2, 10))
            second = tell(PHRASES.event_moved_says, "User's {label} was moved to {date}.", later, sessions[1])
            second.supersedes, first.is_superseded = first, True

    # --- crafts: procedures, failures, tools

    def _tell_procedure(self) -> None:
        session = self._free_sessions(1)[0]
        task, template = self.decks.deal(PHRASES.procedures)
        steps, entities = self._fill(template)
        self._tell(
            session,
            PHRASES.procedure_asks,
            self.rng.choice(PHRASES.procedure_says).format(task=task, v=steps),
            fact_key=self.user.new_key(f"procedure {task}"),
            memory_type="procedure",
            value=steps,
            semantic_text=f"User's procedure for {task}: {steps}.",
            entities=entities,
            tags=["routine", task],
            question=f"What are my steps for {task}?",
            noun=f"my steps for {task}",
            is_alone=True,
        )

    def _tell_failure(self) -> None:
        session = self._free_sessions(1)[0]
        thing, template = self.decks.deal(PHRASES.failures)
        trigger, entities = self._fill(template)
        self._tell(
            session,
            PHRASES.failure_asks,
            self.rng.choice(PHRASES.failure_says).format(thing=thing, v=trigger),
            fact_key=self.user.new_key(f"failure {thing}"),
            memory_type="failure_pattern",
            value=trigger,
            semantic_text=f"User's {thing} fails whenever {trigger}.",
            entities=[thing, *entities],
            tags=["failure", thing],
            question=f"In which situation does my {thing} fail?",
            noun=f"what makes my {thing} fail",
        )

    def _tell_tool(self) -> None:
        """What a tool can do: reported by the user, or looked up by the assistant."""
        session = self._free_sessions(1)[0]
        tool = self.decks.deal(PHRASES.tool_names)
        task, template = self.decks.deal(PHRASES.tools)
        ability, _ = self._fill(template)
        mention = self._tell(
            session,
            PHRASES.tool_user_asks,
            self.rng.choice(PHRASES.tool_says).format(tool=tool, v=ability),
            fact_key=self.user.new_key(f"tool {tool} {task}"),
            memory_type="tool_affordance",
            value=ability,
            semantic_text=f"{tool} {ability}.",
            entities=[tool],
            tags=["tool", task],
            question=f"What did we find out about whether {tool} can {task}?",
            noun=f"what {tool} can do when asked to {task}",
        )
        if self.rng.random() < LOOKED_UP_SHARE:
            mention.text = self.rng.choice(PHRASES.tool_questions).format(tool=tool, task=task)
            mention.reply = self.rng.choice(PHRASES.tool_answers).format(tool=tool, v=ability)
            mention.source_role, mention.is_alone = "assistant", True

    def _tell(self, session: Session, asks: tuple[tuple[str, str], ...], say: str, **fields: Any) -> Mention:
        """A mention in a session, whose statement stands in the flow of a request, before or after it."""
        rng = self.rng
        asked = [mention.ask for mention in session.mentions]
        ask, reply = rng.choice([pair for pair in asks if pair[0] not in asked] or asks)
        say = say[0].upper() + say[1:]
        text = f"{say} {ask}" if rng.random() < 0.65 else f"{ask} {say}"
        if rng.random() < 0.2:
            text = f"{rng.choice(PHRASES.openers)} {text}"
        if rng.random() < 0.3:
            reply = f"{rng.choice(PHRASES.acknowledgements)} {reply}"
        mention = Mention(say=say, ask=ask, text=text, reply=reply, **fields)
        self.user.place(mention, session)
        return mention

    def _fill(self, template: str) -> tuple[str, list[str]]:
        """Fill the slots of a template. Cities, names and employers are entities, and not used again."""
        decks, user = self.decks, self.user
        named = {"city": PHRASES.cities, "name": PHRASES.first_names, "employer": PHRASES.employers}
        plain = {"hour": PHRASES.hours, "number": PHRASES.numbers}
        slots = {
            slot: decks.deal(table, user.used) for slot, table in named.items() if f"{{{slot}}}" in template
        }
        entities = list(slots.values())
        user.used += entities
        slots |= {slot: decks.deal(table) for slot, table in plain.items() if f"{{{slot}}}" in template}
        return template.format(**slots), entities


def _same_words(mention: Mention, model: Mention) -> None:
    mention.say, mention.ask, mention.text = model.say, model.ask, model.text
    mention.reply = model.reply


def _entities(topic: Topic, value: str) -> list[str]:
    return {"value": [value], "last": value.split()[-1:], "none": []}[topic.entity]
