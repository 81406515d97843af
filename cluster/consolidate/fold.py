"""The fold: memories and candidate pairs in; revisions, tombstones and decisions out. Pure but for `decide`.

Pairs point from newer to older, so they form a directed graph without cycles. It is decided newest first, in
layers: a target's sources all lie in earlier layers and have their final state when it is decided. A source
that was deleted is represented by what it was deleted for, its *heirs*, so that a chain of three values
leaves one; a source that was rewritten speaks with its new text. Every layer is one batch of `decide`.

What holds whatever a decider answers: a memory is closed only where a newer one of the same user is active
at the end and stands for it. Memories that repeat a statement are united without a decision being asked:
the newest stays, with the evidence of all. A pinned memory is neither closed nor rewritten, and nobody is
asked about it: a decision says that it stays.

The result does not depend on the order in which memories or pairs arrive, nor on how `decide` batches.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from cluster.language.claims import statement_key
from schemas.identity import joined

UNITE = "unite"
"""Fingerprint of the decider of repeats, which asks nobody."""

PINNED = "pinned"
"""Fingerprint of the decider of pinned memories, which asks nobody either: they stay."""


@dataclass(frozen=True)
class Memory:
    """An active record, as the fold sees it."""

    record_id: str
    revision: int
    user_id: str
    session_time: str
    """ISO 8601 in UTC, empty where unknown: the event time."""
    session_id: str
    turn: int
    text: str
    memory_type: str = "fact"
    entities: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    temporal: tuple[str, str, str] = ("", "", "")
    """t_ref, t_valid_from, t_valid_to."""
    evidence: tuple[tuple[str, int], ...] = ()
    """(session_id, turn_index), sorted."""
    last_revision: int = 0
    """The highest revision that the record ever had, where that is not this one."""
    ingested_at: str = ""
    """ISO 8601 in UTC: when the store first heard of the session. Orders sessions of one time, or of none."""
    is_pinned: bool = False
    """Whether somebody has pinned it by hand."""
    extra: tuple[tuple[str, str], ...] = ()
    """Values of the encoder's extra fields, by name."""

    @property
    def order(self) -> tuple[str, str, str, int, str]:
        """Place in the strict total order of a user's memories."""
        return self.session_time, self.ingested_at, self.session_id, self.turn, self.record_id

    @property
    def comparable(self) -> tuple[str, bool]:
        """Only memories that agree in this may bear on each other: of one user, both dated or both not."""
        return self.user_id, bool(self.session_time)

    @functools.cached_property
    def key(self) -> str:
        """Memories of a user with equal keys repeat each other."""
        return statement_key(self.text, self.memory_type, self.temporal)


@dataclass(frozen=True)
class Source:
    """A newer memory in its final state, as a question shows it."""

    memory: Memory
    score: float
    """Cosine with the target; of an heir, that of the source which it represents."""
    wordings: tuple[str, ...] = ()
    """Other words for the same statement, of repeats that are newer than the target."""


@dataclass(frozen=True)
class Question:
    """One decision to be made: does this target still stand, given these sources, oldest first?"""

    target: Memory
    sources: tuple[Source, ...]

    def decision_id(self, decider: str) -> str:
        """Key of the ledger: texts, dates, decider. A revision that only adds evidence asks nothing new."""
        shown = [self.target, *(source.memory for source in self.sources)]
        parts = [decider]
        for memory in shown:
            parts += [memory.record_id, memory.text, memory.session_time, *memory.temporal]
        parts += [wording for source in self.sources for wording in source.wordings]
        return hashlib.sha256(joined(*parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Verdict:
    """The answer to a question, checked. Only an `applied` one changes anything."""

    action: str
    """update | delete | ignore; empty where none could be read."""
    outcome: str = "applied"
    """applied | refused | failed."""
    text: str = ""
    confidence: float = 1.0
    reason: str = ""
    raw: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    is_known: bool = False
    """From the ledger: its row is in the store already."""


Decide = Callable[[list[Question]], list[Verdict]]


@dataclass(frozen=True)
class Pair:
    """A candidate: `source` and `target` are record ids of one user."""

    target: str
    source: str
    score: float


@dataclass
class Change:
    """What becomes of one memory in this run."""

    memory: Memory
    """The revision that was read."""
    closed_reason: str = ""
    """Not empty for a tombstone: delete | unite."""
    revised: Memory | None = None
    """The next revision, unless closed."""
    decision_id: str = ""

    @property
    def is_rewritten(self) -> bool:
        """The text is another one, and needs a vector of its own."""
        return self.revised is not None and self.revised.text != self.memory.text


@dataclass
class Folded:
    """Result of a fold. Rows are those of DECISIONS_SCHEMA, see `decision_row`."""

    changes: list[Change] = field(default_factory=list)
    decisions: list[dict] = field(default_factory=list)
    num_layers: int = 0
    num_questions: int = 0
    num_known: int = 0


@dataclass
class _State:
    before: Memory
    """As it was read."""
    memory: Memory
    closed_reason: str = ""
    heirs: list[int] = field(default_factory=list)
    wordings: list[tuple[tuple, str]] = field(default_factory=list)
    decision_id: str = ""

    @property
    def final(self) -> Memory:
        """With the number of its next revision, where it has changed."""
        if self.memory == self.before:
            return self.memory
        return replace(self.memory, revision=max(self.before.revision, self.before.last_revision) + 1)


def fold(
    memories: list[Memory], pairs: list[Pair], decide: Decide, *, decider: str, max_sources: int = 10
) -> Folded:
    """Decide all pairs. ValueError for a pair that crosses users, joins a dated memory with an undated one,
    or does not point from newer to older.

    `decider` is the fingerprint for the ledger. A question shows at most `max_sources` sources, newest kept.
    """
    first = {memory.record_id: memory for memory in sorted(memories, key=lambda m: (m.user_id, *m.order))}
    states = [_State(memory, memory) for memory in first.values()]
    index = {record_id: number for number, record_id in enumerate(first)}
    edges: dict[int, dict[int, float]] = {}
    for pair in pairs:
        target, source = index[pair.target], index[pair.source]
        if states[target].memory.comparable != states[source].memory.comparable:
            raise ValueError(f"pair {pair}: its memories belong to two users, or only one of them has a time")
        if source <= target:
            raise ValueError(f"pair {pair}: the source must be newer than the target")
        edges.setdefault(target, {})[source] = pair.score
    folded = Folded()
    _unite_repeats(states, folded)
    # Repeats speak through their survivor from here on, so that a layer never waits for a closed memory.
    edges = {
        target: _merged((_survivor(states, source), score) for source, score in sources.items())
        for target, sources in sorted(edges.items())
        if not states[target].closed_reason
    }
    for layer in layers(edges):
        folded.num_layers += 1
        asked: list[tuple[int, Question]] = []
        for target in layer:
            sources = _final_sources(states, edges[target], max_sources)
            if states[target].memory.is_pinned:
                _keep(states, target, sources, folded)
                continue
            key = states[target].memory.key
            repeated = [number for number, _ in sources if states[number].memory.key == key]
            if repeated:
                _unite(states, target, repeated[-1], folded)
            elif sources:
                shown = tuple(_source(states, target, number, score) for number, score in sources)
                asked.append((target, Question(states[target].memory, shown)))
        verdicts = decide([question for _, question in asked]) if asked else []
        for (target, question), verdict in zip(asked, verdicts, strict=True):
            folded.num_questions += 1
            folded.num_known += verdict.is_known
            decision_id = question.decision_id(decider)
            if not verdict.is_known:
                folded.decisions.append(decision_row(question, verdict, decider))
            if verdict.outcome == "applied":
                _apply(states, index, target, question, verdict, decision_id)
    for state in states:
        if state.closed_reason:
            folded.changes.append(Change(state.before, state.closed_reason, None, state.decision_id))
        elif state.memory != state.before:
            folded.changes.append(Change(state.before, "", state.final, state.decision_id))
    return folded


def layers(edges: dict[int, dict[int, float]]) -> list[list[int]]:
    """Targets in the order of deciding: every source of a target lies in an earlier layer, or in none.

    Sources have greater numbers than their targets: one pass from the greatest target down finds the depth.
    """
    depth: dict[int, int] = {}
    for target in sorted(edges, reverse=True):
        depth[target] = 1 + max((depth.get(source, 0) for source in edges[target]), default=0)
    found: list[list[int]] = [[] for _ in range(max(depth.values(), default=0))]
    for target in sorted(depth):
        found[depth[target] - 1].append(target)
    return found


def decision_row(question: Question, verdict: Verdict, decider: str) -> dict:
    """A row of DECISIONS_SCHEMA, less what only the run and its decider know."""
    return {
        "decision_id": question.decision_id(decider),
        "user_id": question.target.user_id,
        "target_id": question.target.record_id,
        "target_revision": question.target.revision,
        "source_ids": [source.memory.record_id for source in question.sources],
        "source_revisions": [source.memory.revision for source in question.sources],
        "decider": decider,
        "action": verdict.action,
        "text": verdict.text,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "raw": verdict.raw,
        "prompt_tokens": verdict.prompt_tokens,
        "cached_tokens": verdict.cached_tokens,
        "output_tokens": verdict.output_tokens,
    }


# --- states -------------------------------------------------------------------------------------------


def _unite_repeats(states: list[_State], folded: Folded) -> None:
    groups: dict[tuple, list[int]] = {}
    for number, state in enumerate(states):
        groups.setdefault((state.memory.comparable, state.memory.key), []).append(number)
    for members in groups.values():
        for number in members[:-1]:
            if states[number].memory.is_pinned:
                _keep(states, number, [(members[-1], 1.0)], folded)
            else:
                _unite(states, number, members[-1], folded)


def _keep(states: list[_State], target: int, sources: list[tuple[int, float]], folded: Folded) -> None:
    """Say of a pinned memory that it stays, whatever these say."""
    shown = tuple(_source(states, target, number, score) for number, score in sources)
    question = Question(states[target].memory, shown)
    verdict = Verdict("ignore", reason="it is pinned by hand")
    folded.decisions.append(decision_row(question, verdict, PINNED))


def _unite(states: list[_State], target: int, source: int, folded: Folded) -> None:
    """Close the target; the source takes its evidence over."""
    question = Question(states[target].memory, (Source(states[source].final, 1.0),))
    folded.decisions.append(decision_row(question, Verdict(UNITE, reason="the same statement"), UNITE))
    _absorb(states, target, source, question.decision_id(UNITE))


def _absorb(states: list[_State], target: int, source: int, decision_id: str) -> None:
    old, new = states[target], states[source]
    old.closed_reason, old.heirs, old.decision_id = UNITE, [source], decision_id
    evidence = tuple(sorted({*new.memory.evidence, *old.memory.evidence}))
    entities = tuple(dict.fromkeys([*new.memory.entities, *old.memory.entities]))
    tags = tuple(dict.fromkeys([*new.memory.tags, *old.memory.tags]))
    extra = _newest_values([new.memory, old.memory])
    changed = replace(new.memory, evidence=evidence, entities=entities, tags=tags, extra=extra)
    if changed != new.memory:
        new.memory, new.decision_id = changed, decision_id
    new.wordings += [(old.memory.order, old.memory.text), *old.wordings]


def _newest_values(memories: list[Memory]) -> tuple[tuple[str, str], ...]:
    """Of each extra field the value of the first memory that has one; they come newest first."""
    values: dict[str, str] = {}
    for memory in memories:
        values |= {name: value for name, value in memory.extra if name not in values}
    return tuple(values.items())


def _survivor(states: list[_State], number: int) -> int:
    while states[number].closed_reason == UNITE:
        number = states[number].heirs[0]
    return number


def _merged(scored: Iterable[tuple[int, float]]) -> dict[int, float]:
    merged: dict[int, float] = {}
    for number, score in scored:
        merged[number] = max(score, merged.get(number, -1.0))
    return merged


def _final_sources(
    states: list[_State], sources: dict[int, float], max_sources: int
) -> list[tuple[int, float]]:
    """Active memories that stand for the target's sources, oldest first, at most `max_sources`."""
    final: dict[int, float] = {}
    seen: set[int] = set()
    open_ones = sorted(sources.items())
    while open_ones:
        number, score = open_ones.pop()
        if states[number].closed_reason:
            if number not in seen:
                seen.add(number)
                open_ones += [(heir, score) for heir in states[number].heirs]
        else:
            final[number] = max(score, final.get(number, -1.0))
    return sorted(final.items())[-max_sources:]


def _source(states: list[_State], target: int, number: int, score: float) -> Source:
    order, state = states[target].memory.order, states[number]
    wordings = sorted(said for said in state.wordings if said[0] > order and said[1] != state.memory.text)
    return Source(state.final, score, tuple(dict.fromkeys(text for _, text in wordings)))


def _apply(
    states: list[_State],
    index: dict[str, int],
    target: int,
    question: Question,
    verdict: Verdict,
    decision_id: str,
) -> None:
    state, sources = states[target], [index[source.memory.record_id] for source in question.sources]
    if verdict.action == "delete":
        state.closed_reason, state.heirs, state.decision_id = "delete", sources, decision_id
    elif verdict.action == "update":
        rewritten = replace(state.memory, text=verdict.text)
        for number in reversed(sources):
            if states[number].memory.key == rewritten.key:
                # Rewritten to what a newer memory says already: one of the two is enough.
                _absorb(states, target, number, decision_id)
                return
        state.memory, state.decision_id = _rewritten(rewritten, question), decision_id


def _rewritten(memory: Memory, question: Question) -> Memory:
    """The target with its new text: evidence of all, entities that the text still names, the newest dates and
    values of extra fields."""
    sources = [source.memory for source in question.sources]
    entities = dict.fromkeys(name for one in [memory, *sources] for name in one.entities)
    folded_text = memory.text.casefold()
    dates = [one.temporal for one in reversed(sources)] + [memory.temporal]
    said_on, valid_from, valid_to = (next((date[i] for date in dates if date[i]), "") for i in range(3))
    return replace(
        memory,
        evidence=tuple(sorted({*memory.evidence, *(turn for one in sources for turn in one.evidence)})),
        entities=tuple(name for name in entities if name.casefold() in folded_text),
        tags=tuple(dict.fromkeys(tag for one in [memory, *sources] for tag in one.tags)),
        temporal=(said_on, valid_from, valid_to),
        extra=_newest_values([*reversed(sources), memory]),
    )
