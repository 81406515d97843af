"""Ranking of hits, pure: from a question, and rows with cosines and shared words, to the best hits.

A hit is a row of `records` or `turns` as a dict, with `kind` (record | turn), `cosine` with the question,
`words` (what text and question share, as a share of the best row of its table), and of records the days on
which they held: `since`, `until` (exclusive) and `replaced_by`, see cluster.store.validity.
"""

import datetime as dt
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from cluster.language.dates import resolve
from cluster.store.validity import Period, holds

RANK_OFFSET = 60
"""Of reciprocal ranks (Cormack et al., SIGIR 2009)."""

Rerank = Callable[[str, list[str]], list[float]]
"""Question and texts -> how well each answers it, a number a text; the greater the better."""


@dataclass(frozen=True)
class RankingSettings:
    """What counts how much. Cosines, with which all of it is added up, are 0.2 to 0.7 for what is near."""

    words: float = 0.1
    """Of shared words, at most. Chosen on 70 questions of a development chat of REALTALK, turns alone
    (recall@10 / MRR .29 / .22 at 0.05, .36 / .28 at 0.1, .36 / .34 at 0.2), and 125 of the written corpus's
    tune people with their gold as records (.956 / .736, .956 / .741, .932 / .739). On 234 of LongMemEval's
    development half 0.05 was best, and reciprocal ranks of words and vectors found less."""
    record: float = 0.1
    """Bonus of a record over a turn: it is short, and says what is worth keeping. Chosen on LongMemEval; on
    the corpus 0.15 finds as much."""
    repeat: float = 1.0
    """Taken from a hit that only repeats better hits. Chosen on LongMemEval."""
    held: float = 0.6
    """Share of a hit's content words that better hits of the same turns must hold for it to bring nothing
    new. On the corpus's tune people everything from 0.4 to 0.9 finds the same."""
    overlap: float = 0.1
    """Taken from a hit of turns that better hits stand for, in proportion to the words that they hold. On
    the corpus's tune people 0.1 to 0.3 find the same, 0.05 less."""
    name: float = 0.05
    """For a row that is by or about somebody whom the question names. On a chat of REALTALK and the corpus's
    tune people it makes no difference."""
    window: float = 0.1
    """For a row of the days that the question names. On a chat of REALTALK recall@10 .36 becomes .39; on the
    corpus's tune people it makes no difference."""
    near: float = 0.2
    """By how much less a replaced record may be like the question than its own turn, and still speak for it.
    Chosen on the corpus's tune people: stale rate .19 at 0, .17 at 0.1, .14 at 0.2."""
    ended: float = 0.05
    """Taken from a record whose time is over, in a question that does not ask about the past. On the
    corpus's tune people it makes no difference."""
    rerank: float = 1.0
    """Weight of a reranker's score, which is scaled to 0 to 1 over the hits that it reads: the default lets
    it decide alone."""
    reranked: int = 30
    """Best hits that a reranker reads."""


DEFAULT = RankingSettings()


# --- what is asked --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What a question asks for, as far as its words say."""

    text: str
    names: frozenset[str] = frozenset()
    """Words that may be names, in lower case."""
    first: dt.date | None = None
    """First day that the question names, and the last one."""
    last: dt.date | None = None
    is_past: bool = False
    """Whether it asks for what was before."""


_PAST = re.compile(
    r"\b(?:used to|before|previous(?:ly)?|former(?:ly)?|earlier|original(?:ly)?|initial(?:ly)?|first|in the"
    r" beginning|start(?:ed)? out|back (?:when|then|in)|no longer|prior to|my old"
    r"|(?:did|was|were|had)\b.*\b(?:when|while|during)"
    r"|früher|vorher|damals|zuvor|zuerst|erste[rsn]?|antes|primer[oa]?|al principio|cuando empe\w+|avant"
    r"|auparavant|autrefois|premi(?:er|ère)|prima|раньше|прежде|сначала)\b"
    r"|以前|之前|原来|原先|曾经|当初|最初|最开始|第一|过去|从前|昔",
    re.IGNORECASE,
)
"""Words of questions about what was before what is, or was first. Chosen on the questions of the written
corpus's tune people."""

_NOT_PAST = re.compile(
    r"\b(?:before (?:tomorrow|next|the end of|bed|going to bed|i go|we go)|before or after|antes o después"
    r"|first (?:name|aid|thing))\b",
    re.IGNORECASE,
)

_SINCE = re.compile(r"\b(?:since|after|as of|from)\b", re.IGNORECASE)

_NAME = re.compile(r"(?<![\w'’])[^\W\d_a-z]\w+")
"""A word with a capital, in any script that has them."""


def read_question(text: str, asked_on: dt.date | None = None) -> Asked:
    """`asked_on` is the day from which "last week" is seen; without it only whole dates are days."""
    dates = resolve(text, asked_on)
    first, last = (dt.date.fromisoformat(day) if day else None for day in (dates.valid_from, dates.valid_to))
    if first and not last:
        # A day, or the beginning of what goes on.
        last = (asked_on or dt.date.max) if _SINCE.search(text) else first
    named = (match[0].casefold() for match in _NAME.finditer(text))
    window_is_over = bool(asked_on and last and last < asked_on)
    return Asked(
        text=text,
        names=frozenset(name for name in named if name not in FUNCTION_WORDS),
        first=first,
        last=last,
        is_past=window_is_over or bool(_PAST.search(_NOT_PAST.sub("", text))),
    )


# --- words ----------------------------------------------------------------------------------------------

_FUNCTION_WORDS = """user users user's users' assistant
    a an and any are as at be been being but by can could did do does doing done for from get gets got had has
    have having he her hers him his how i i'd i'll i'm i've if in into is it it's its just like may me might
    mine my now of off on one or our ours out over own really she should so some such than that that's
    the their theirs them then there these they this those to too up us very was we we're were what what's
    when where which who whom whose why will with would yes you you're your yours also am about after again
    all because before here let more most much only other same still tell think well yeah ok okay hi hey hello
    thanks thank please"""

FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English words that carry no content of their own; the first are those of records: "User lives in Oslo"."""

_WORD = re.compile(r"[^\W_]+(?:['’.,-][^\W_]+)*")
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]+")
"""Scripts without spaces between words."""


def content_words(text: str) -> frozenset[str]:
    """Words that say something, without their English endings. Where no spaces part words, pairs of
    characters."""
    found = set()
    for match in _WORD.finditer(text.casefold().replace("’", "'")):
        if runs := _UNSPACED.findall(match[0]):
            found |= {run[start : start + 2] for run in runs for start in range(max(1, len(run) - 1))}
            continue
        if match[0] not in FUNCTION_WORDS:
            found |= {_stem(part) for part in re.split(r"[-']", match[0]) if part not in FUNCTION_WORDS}
    return frozenset(found - {"", "s", "t", "d", "m", "ll", "re", "ve"})


def _stem(word: str) -> str:
    for ending in ("ing", "ied", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    # "moved" and "move", "planned" and "plan", "study" and "studies" are one word.
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] in "ey" else word


# --- the order ------------------------------------------------------------------------------------------


def rank(
    hits: Iterable[dict],
    asked: Asked,
    k: int,
    *,
    at: dt.date | None = None,
    today: dt.date | None = None,
    has_one_scale: bool = True,
    rerank: Rerank | None = None,
    settings: RankingSettings = DEFAULT,
) -> list[dict]:
    """The `k` best hits, best first, each with its `score` in the place of `cosine` and `words`. A record's
    `replaces` are the records among `hits` in whose place it stands, the newest first.

    `at` is the day that the answer is about: what was not true then, or not said yet, is left out. Without
    it, what was replaced is left out unless the question asks about the past; `today` is the day on which
    other times are over. `has_one_scale` says whether cosines of records and turns can be compared; where
    two models made them, each table is ranked apart and both are merged by `reciprocal_ranks`.
    """
    day = at or today
    if not has_one_scale:
        # Reciprocal ranks are too small for what is taken from cosines.
        settings = replace(settings, near=0.0, overlap=0.0)
    hits = [hit | {"score": score_of(hit, asked, day, settings)} for hit in hits if _was_said(hit, at)]
    hits.sort(key=lambda hit: hit["kind"] != "record")
    if not has_one_scale:
        for kind in ("record", "turn"):
            of_kind = [hit for hit in hits if hit["kind"] == kind]
            for hit, score in zip(of_kind, reciprocal_ranks([hit["score"] for hit in of_kind]), strict=True):
                hit["score"] = score
    if rerank and hits:
        _rerank(hits, asked.text, rerank, settings)
    pairs = _older_and_newer(hits, at)
    if not asked.is_past:
        _current_first(hits, pairs, settings.near)
    for hit in hits:
        if hit["kind"] == "record":
            hit["replaces"] = [
                _named(older) for older, newer in pairs if newer is hit and _differs(older, hit)
            ]
    if at:
        kept = [hit for hit in hits if _holds(hit, at)]
    else:
        kept = [hit for hit in hits if asked.is_past or not _is_replaced(hit, None)]
    # Stable: of a record and a turn with one score, the record comes first.
    kept.sort(key=lambda hit: -hit["score"])
    _repeats_last(kept, settings)
    kept.sort(key=lambda hit: -hit["score"])
    return [_without(hit, "cosine", "words") for hit in kept[:k]]


def score_of(hit: dict, asked: Asked, day: dt.date | None, settings: RankingSettings) -> float:
    """What a hit is worth by itself."""
    score = (hit.get("cosine") or 0.0) + settings.words * (hit.get("words") or 0.0)
    score += settings.record * (hit["kind"] == "record")
    score += settings.name * bool(asked.names & _people(hit))
    score += settings.window * _is_in_window(hit, asked)
    until = hit.get("until")
    is_over = hit["kind"] == "record" and hit.get("memory_type") != "event" and until and day and until <= day
    return score - settings.ended * bool(is_over and not hit.get("replaced_by") and not asked.is_past)


def reciprocal_ranks(scores: list[float]) -> list[float]:
    """1 / (RANK_OFFSET + rank) of each score, the highest of which has rank 1."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    ranks = {index: place for place, index in enumerate(order, 1)}
    return [1 / (RANK_OFFSET + ranks[index]) for index in range(len(scores))]


def text_of(hit: dict) -> str:
    """What a hit says."""
    return hit["semantic_text"] if hit["kind"] == "record" else hit["content"]


def turns_of(hit: dict) -> set[tuple[str, int]]:
    """Turns that a hit stands for: itself, or those that it cites."""
    turns = hit["evidence"] or [] if hit["kind"] == "record" else [hit]
    return {(turn["session_id"], turn["turn_index"]) for turn in turns}


def _without(hit: dict, *names: str) -> dict:
    return {name: value for name, value in hit.items() if name not in names}


def _people(hit: dict) -> frozenset[str]:
    """Words of the names of who says it, and of whom and what it names."""
    names = [hit.get("speaker") or "", *(hit.get("entities") or ())]
    return frozenset(word for name in names for word in re.findall(r"\w+", name.casefold()))


def _said_on(hit: dict) -> dt.date | None:
    time = hit.get("time") or hit.get("session_time")
    return time.date() if time else None


def _is_in_window(hit: dict, asked: Asked) -> bool:
    if asked.first is None and asked.last is None:
        return False
    first, last = asked.first or dt.date.min, asked.last or dt.date.max
    since, until = hit.get("since") or _said_on(hit), hit.get("until")
    if since is None:
        return False
    if hit["kind"] == "record" and until and until > since:
        return since <= last and until > first
    return first <= since <= last


def _was_said(hit: dict, at: dt.date | None) -> bool:
    """Whether a turn was said by that day; of records it counts when they held."""
    day = _said_on(hit)
    return hit["kind"] == "record" or at is None or day is None or day <= at


def _holds(hit: dict, at: dt.date) -> bool:
    """Whether a record was true on a day."""
    if hit["kind"] == "turn":
        return True
    period = Period(hit.get("since"), hit.get("until"), hit.get("replaced_by"))
    return holds(period, at, is_event=hit.get("memory_type") == "event")


def _is_replaced(hit: dict, at: dt.date | None) -> bool:
    """Whether something else holds in its place, on that day or now."""
    if not hit.get("replaced_by"):
        return False
    return at is None or hit.get("until") is None or hit["until"] <= at


def _rerank(hits: list[dict], question: str, rerank: Rerank, settings: RankingSettings) -> None:
    best = sorted(hits, key=lambda hit: -hit["score"])[: settings.reranked]
    scores = [float(score) for score in rerank(question, [text_of(hit) for hit in best])]
    low, high = min(scores), max(scores)
    for hit, score in zip(best, scores, strict=True):
        hit["score"] += settings.rerank * ((score - low) / (high - low) if high > low else 1.0)


def _older_and_newer(hits: list[dict], at: dt.date | None) -> list[tuple[dict, dict]]:
    """Each replaced record with the one that stands in its place in the end; the latest replaced first."""
    records = sorted((hit for hit in hits if hit["kind"] == "record"), key=lambda hit: hit["revision"])
    current = {hit["record_id"]: hit for hit in records if not _is_replaced(hit, at)}
    replaced = {hit["record_id"]: hit for hit in records if _is_replaced(hit, at)}
    pairs = []
    for hit in records:
        if not _is_replaced(hit, at):
            continue
        name, seen = hit["replaced_by"], set()
        while name not in current and name in replaced and name not in seen:
            seen.add(name)
            name = replaced[name]["replaced_by"]
        if name in current:
            pairs.append((hit, current[name]))
    pairs.sort(key=lambda pair: pair[0].get("until") or dt.date.min, reverse=True)
    return pairs


def _named(hit: dict) -> dict:
    return {"record_id": hit["record_id"], "revision": hit["revision"], "text": text_of(hit)}


def _differs(older: dict, newer: dict) -> bool:
    """Whether a revision says something else, and not the same of more evidence."""
    return text_of(older) != text_of(newer)


def _current_first(hits: list[dict], pairs: list[tuple[dict, dict]], near: float) -> None:
    """What was replaced speaks through what took its place: this stands where the older one stood, or
    further up, and the turns that the older one spoke for stand behind it."""
    turns = {turn: hit for hit in hits if hit["kind"] == "turn" for turn in turns_of(hit)}
    for hit, newer in sorted(pairs, key=lambda pair: -pair[0]["score"]):
        newer["score"] = max(newer["score"], hit["score"])
        for spoken_for in turns_of(hit) - turns_of(newer):
            turn = turns.get(spoken_for)
            # A turn that is about something else as well stands by itself.
            if turn and turn["score"] <= hit["score"] + near:
                turn["score"] = min(turn["score"], newer["score"] - 1e-6)


def _repeats_last(hits: list[dict], settings: RankingSettings) -> None:
    """Take down what only repeats better hits, best first: its turns all stand further up, and its words.
    A hit that says more of these turns than they do stays, a little lower."""
    held: dict[tuple[str, int], frozenset[str]] = {}
    for hit in hits:
        turns, words = turns_of(hit), content_words(text_of(hit))
        if turns <= held.keys():
            known = frozenset().union(*(held[turn] for turn in turns))
            share = len(words & known) / len(words) if words else 1.0
            if share >= settings.held:
                hit["score"] -= settings.repeat
                continue
            hit["score"] -= settings.overlap * share
        for turn in turns:
            held[turn] = held.get(turn, frozenset()) | words
