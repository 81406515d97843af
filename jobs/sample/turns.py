"""From what a session has to tell to its turns: requests, replies, and small talk in between."""

import random
from dataclasses import dataclass, field

from jobs.sample.people import Decks, Mention, Session
from jobs.sample.phrases import PHRASES

MAX_EXCHANGES = 4
"""A user turn and its reply make one exchange: no session is longer than eight turns."""

MERGE_SHARE = 0.06
PROBE_SHARE = 0.8


@dataclass(kw_only=True, eq=False)
class _Exchange:
    text: str
    reply: str
    mentions: list[Mention] = field(default_factory=list)
    secrets: list[tuple[str, str]] = field(default_factory=list)
    is_open: bool = False
    """Another statement, or a secret, may be added to the user's turn."""


def write_turns(*, rng: random.Random, decks: Decks, session: Session) -> None:
    """Write the session's turns, and note in which of them each statement and each secret stands."""
    if session.is_advice:
        exchanges = _advice(rng=rng, decks=decks, num_exchanges=session.num_exchanges)
    else:
        exchanges = _talk(rng=rng, decks=decks, session=session)
    for number, exchange in enumerate(exchanges):
        asked, answered = 2 * number, 2 * number + 1
        session.turns += [("user", exchange.text), ("assistant", exchange.reply)]
        evidence = {"user": [asked], "assistant": [answered], "both": [asked - 1, asked]}
        for mention in exchange.mentions:
            mention.evidence_turns = evidence[mention.source_role]
        session.secret_turns += [(kind, secret, asked) for kind, secret in exchange.secrets]


def _advice(*, rng: random.Random, decks: Decks, num_exchanges: int) -> list[_Exchange]:
    """A general question, a follow-up, thanks: as many of them as there is room for."""
    # The table holds pairs of lines: a question and its follow-up.
    number = decks.deal(tuple(range(0, len(PHRASES.advice), 2)))
    (question, answer), (follow_up, second) = PHRASES.advice[number : number + 2]
    if rng.random() < 0.5:
        question = f"{rng.choice(PHRASES.advice_openers)} {question[0].lower()}{question[1:]}"
    exchanges = [
        _Exchange(text=question, reply=answer),
        _Exchange(text=follow_up, reply=second),
        _thanks(rng),
    ]
    return exchanges[:num_exchanges]


def _thanks(rng: random.Random) -> _Exchange:
    text, reply = rng.choice(PHRASES.thanks)
    return _Exchange(text=text, reply=reply)


def _talk(*, rng: random.Random, decks: Decks, session: Session) -> list[_Exchange]:
    own = [mention for mention in session.mentions if not mention.lookalike_of]
    rng.shuffle(own)
    # "My neighbour has one as well" comes after what it resembles.
    mentions = own + [mention for mention in session.mentions if mention.lookalike_of]
    lead = _probe(rng=rng, mentions=mentions, num_exchanges=session.num_exchanges)
    probed = [mention for exchange in lead for mention in exchange.mentions]
    exchanges = [
        _Exchange(text=mention.text, reply=mention.reply, mentions=[mention], is_open=not mention.is_alone)
        for mention in mentions
        if mention not in probed
    ]
    while _must_merge(rng=rng, exchanges=exchanges, room=session.num_exchanges - len(lead)):
        _merge(rng=rng, exchanges=exchanges)
    for kind, secret in session.secrets:
        room = MAX_EXCHANGES - len(lead) - len(exchanges)
        _type_secret(rng=rng, exchanges=exchanges, kind=kind, secret=secret, is_full=room <= 0)
    num_missing = session.num_exchanges - len(lead) - len(exchanges)
    if num_missing > 0 and rng.random() < 0.4:
        exchanges.append(_thanks(rng))
        num_missing -= 1
    for _ in range(num_missing):
        exchanges.insert(0, _advice(rng=rng, decks=decks, num_exchanges=1)[0])
    return lead + exchanges


def _probe(*, rng: random.Random, mentions: list[Mention], num_exchanges: int) -> list[_Exchange]:
    """The assistant may ask back. Only as the first thing, so that one segment has question and answer."""
    able = [(mention, mention.probe) for mention in mentions if mention.probe]
    if not able or len(mentions) + 1 > num_exchanges or rng.random() > PROBE_SHARE:
        return []
    mention, (question, answer) = able[0]
    mention.source_role = "both"
    return [
        _Exchange(text=mention.ask, reply=question),
        _Exchange(text=answer, reply=mention.reply, mentions=[mention]),
    ]


def _is_single(exchange: _Exchange) -> bool:
    return exchange.is_open and len(exchange.mentions) == 1


def _must_merge(*, rng: random.Random, exchanges: list[_Exchange], room: int) -> bool:
    """Two statements share a turn where the session is full, and now and then anyway."""
    if sum(_is_single(exchange) for exchange in exchanges) < 2:
        return False
    return len(exchanges) > room or rng.random() < MERGE_SHARE


def _merge(*, rng: random.Random, exchanges: list[_Exchange]) -> None:
    first, second = [exchange for exchange in exchanges if _is_single(exchange)][:2]
    one, two = first.mentions[0], second.mentions[0]
    first.text = f"{one.say} {one.ask} {rng.choice(PHRASES.joiners)} {two.say}"
    first.mentions.append(two)
    exchanges.remove(second)


def _type_secret(
    *, rng: random.Random, exchanges: list[_Exchange], kind: str, secret: str, is_full: bool
) -> None:
    """Half of the secrets stand in a turn with something to remember, the others in a turn of their own."""
    template, reply = rng.choice(PHRASES.secret_says[kind])
    said = template.format(s=secret)
    hosts = [exchange for exchange in exchanges if exchange.is_open]
    if hosts and (is_full or rng.random() < 0.5):
        host = rng.choice(hosts)
        host.text, host.reply = f"{host.text} {said}", f"{host.reply} {reply}"
        host.secrets.append((kind, secret))
    else:
        exchanges.append(_Exchange(text=said, reply=reply, secrets=[(kind, secret)], is_open=True))
