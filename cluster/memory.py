"""Memories for Python programs that read them: the models stay loaded from question to question.

    from cluster.memory import Memories

    with Memories("store") as memories:
        for hit in memories.search("me", "Where do I live?", k=5):
            print(hit.text, hit.said_at, hit.evidence)

Every call is answered by one run, whole: the newest when the call begins, or the one that `as_of` names. To
have several calls answered by the same run, give them `as_of=memories.run_id`. A reader writes nothing into
the store, takes no lease and starts no Ray. Threads may share one.

Errors are StoreError (no such store or run; a view that has expired) and ModelError (the models that wrote
the vectors are no longer there). Ids and texts are as the store has them.
"""

import datetime as dt
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from cluster.consolidate.history import lives
from cluster.embed.questions import QuestionEmbedder, embedder_of
from cluster.store.errors import StoreError
from cluster.store.ranking import Rerank, text_of
from cluster.store.runs import FinishedRun
from cluster.store.sql import quote
from cluster.store.store import Store
from schemas.profiles.embedder import EmbedderProfile

Kind = Literal["record", "turn"]
KINDS = ("record", "turn")


# --- what is found --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """A message of a conversation. In a hit on a record it has its place alone; the rest is None there, and
    where the message is no longer kept."""

    session_id: str
    turn_index: int
    role: str | None = None
    speaker: str | None = None
    text: str | None = None
    said_at: dt.datetime | None = None


@dataclass(frozen=True)
class Hit:
    """A record or a raw turn that a search has found."""

    kind: Kind
    id: str
    """`record_id` or `turn_id`."""
    user_id: str
    text: str
    score: float
    """The greater the better; comes from the order alone, and is no probability."""
    session_id: str
    said_at: dt.datetime | None
    """Time of the message or else of its session (UTC); None where nobody knows."""
    evidence: tuple[Turn, ...]
    """Messages that it rests on; of a turn, itself."""
    memory_type: str | None
    """None of a turn."""
    extra: Mapping[str, str] = field(hash=False)
    """Values of the extra fields that the encoder's profile names."""
    since: dt.date | None
    """First day on which a record held, as far as it is known."""
    until: dt.date | None
    """First day on which it no longer did; None while it holds."""
    replaced_by: str | None
    """Id of the record that took its place."""
    replaces: tuple["Party", ...]
    """Records in whose place it stands, as far as the search came upon them, the newest first."""
    row: Mapping[str, object] = field(repr=False, compare=False)
    """All columns of its table, but for the vector; cluster/store/README.md describes them."""


@dataclass(frozen=True)
class Party:
    """A revision of a memory that took part in a decision. `text` is None where it was erased."""

    memory_id: str
    revision: int
    text: str | None


@dataclass(frozen=True)
class Decision:
    """What a decider said of a memory (`target`) because of others (`sources`)."""

    decision_id: str
    action: str
    """update | delete | ignore | unite; of an edit by hand see schemas.edit"""
    outcome: str
    """applied | refused | failed; `reason` says why."""
    reason: str
    target: Party
    sources: tuple[Party, ...]
    decider: str
    model: str | None
    """None where no model was asked; of an edit by hand its author."""
    run_id: str
    decided_at: dt.datetime


@dataclass(frozen=True)
class Revision:
    """A state of a memory."""

    revision: int
    text: str
    memory_type: str
    extra: Mapping[str, str] = field(hash=False)
    """Values of the extra fields that the encoder's profile names."""
    active: bool
    said_at: dt.datetime | None
    evidence: tuple[Turn, ...]
    run_id: str
    closed_run_id: str | None
    closed_reason: str | None
    decision: Decision | None
    """Made this revision; None where the encoder did, or where the decision is no longer kept."""


@dataclass(frozen=True)
class Life:
    """A memory from its first revision to its last, with the decisions in which it took part."""

    memory_id: str
    user_id: str
    active: bool
    revisions: tuple[Revision, ...]
    decisions: tuple[Decision, ...]

    @property
    def text(self) -> str:
        """What it says, or said last."""
        return self.revisions[-1].text


# --- the reader -----------------------------------------------------------------------------------------


class Memories:
    """A store, open for reading."""

    def __init__(self, uri: str, *, embedder: EmbedderProfile | None = None, reranker: Rerank | None = None):
        """`uri` is a folder or an object-store URI. `embedder` says where the store's embedder is now, if it
        is no longer where the store says. `reranker` reads the best hits of every search once more, as a
        cluster.models.reranker.Reranker does. Models are loaded when they are first needed."""
        self._store: Store | None = Store(uri)
        self._embedder, self._reranker = embedder, reranker
        self._loaded: dict[str, QuestionEmbedder] = {}
        self._loading = threading.Lock()

    def __enter__(self) -> "Memories":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the models and the store go; the reader answers nothing more."""
        self._store = None
        self._loaded.clear()

    @property
    def run_id(self) -> str:
        """The newest run: what a call without `as_of` is answered by."""
        return self.known_run()

    def known_run(self, as_of: str | None = None) -> str:
        """The whole id of the run that is named, be it by the beginning of its id; not given, the newest."""
        return self._view(as_of)[1].run_id

    def refresh(self) -> str:
        """Load the models of the newest run now, let those of other runs go, and return the run's id.

        Answers are always of the newest run. This is for the time: without it the first question, also the
        first after `jobs.reembed`, waits until the models are loaded. Where their files have been put in
        order, it also makes them be looked at again.
        """
        seen, view = self._view(None)
        self._loaded.clear()
        self._questions(seen, view)
        return view.run_id

    def search(
        self,
        user: str,
        text: str,
        *,
        k: int = 10,
        kind: Kind | None = None,
        at: dt.date | None = None,
        asked_on: dt.date | None = None,
        as_of: str | None = None,
    ) -> list[Hit]:
        """The user's `k` best records and turns for a question, best first; nobody else's are looked at.

        `kind` leaves it at records or at turns. `at` is the day that the answer is about: what was true then,
        and had been said by then. `asked_on` is the day from which "last week" is seen; not given, it is that
        of `at`, else today.
        """
        if k < 1:
            raise ValueError(f"k={k}: give 1 or more")
        if kind not in (None, *KINDS):
            raise ValueError(f"kind={kind!r}: give one of {KINDS}, or leave it out for both")
        seen, view = self._view(as_of)
        rows = self._questions(seen, view).search(
            user,
            text,
            k,
            kind=kind,
            at=at,
            asked_on=asked_on or at or dt.datetime.now(dt.UTC).date(),
            rerank=self._reranker,
        )
        return [_hit(row) for row in rows]

    def history(
        self, memory_id: str | None = None, *, user: str | None = None, as_of: str | None = None
    ) -> list[Life]:
        """The life of one memory, or of all memories of a user, oldest first; empty where there is none."""
        if (memory_id is None) == (user is None):
            raise ValueError(f"memory_id={memory_id!r}, user={user!r}: give one of the two")
        seen, view = self._view(as_of)
        column, value = ("user_id", user) if memory_id is None else ("record_id", memory_id)
        assert value is not None
        return [_life(found) for found in lives(seen, where=f"{column} = {quote(value)}", as_of=view.run_id)]

    def users(self, *, as_of: str | None = None) -> list[str]:
        """Ids of the users of whom there is an active record or turn, sorted."""
        seen, view = self._view(as_of)
        found: set[str] = set()
        for name in ("turns", "records"):
            rows = seen.rows(name, ["user_id"], "active", view.run_id)
            found.update(rows.column("user_id").unique().to_pylist())
        return sorted(found)

    def _view(self, as_of: str | None) -> tuple[Store, FinishedRun]:
        """The store as it is now, and the named run or the newest."""
        if self._store is None:
            raise StoreError("the reader is closed; open the store again with Memories(uri)")
        seen = self._store.snapshot()
        view = seen.view(as_of)
        return seen, view

    def _questions(self, seen: Store, view: FinishedRun) -> QuestionEmbedder:
        """The loaded embedder of a view."""
        profile = view.embedder_profile
        with self._loading:
            if profile not in self._loaded:
                found = embedder_of(view.row, self._embedder)
                self._loaded[profile] = QuestionEmbedder(found, seen, view.run_id)
            return self._loaded[profile].on(seen, view.run_id)


# --- rows -> what is found ------------------------------------------------------------------------------


def _hit(row: dict) -> Hit:
    if row["kind"] == "record":
        name, said_at = row["record_id"], row["session_time"]
        evidence = [Turn(turn["session_id"], turn["turn_index"]) for turn in row["evidence"] or ()]
    else:
        own = _turn(row)
        name, said_at, evidence = row["turn_id"], own.said_at, [own]
    same: dict[str, Any] = {name: row.get(name) for name in ("memory_type", "since", "until", "replaced_by")}
    same |= {name: row[name] for name in ("kind", "user_id", "score", "session_id")}
    return Hit(
        id=name,
        text=text_of(row),
        said_at=said_at,
        evidence=tuple(evidence),
        extra=MappingProxyType(row.get("extra", {})),
        replaces=tuple(map(_party, row.get("replaces", ()))),
        row=MappingProxyType(row),
        **same,
    )


def _turn(row: dict) -> Turn:
    # Views of earlier releases lack some of these columns.
    said_at = row.get("time") or row["session_time"]
    names = ("role", "speaker")
    return Turn(
        row["session_id"],
        row["turn_index"],
        **{name: row.get(name) for name in names},
        text=row["content"],
        said_at=said_at,
    )


def _party(item: dict) -> Party:
    return Party(item["record_id"], item["revision"], item["text"])


def _decision(item: dict) -> Decision:
    names = ("decision_id", "action", "outcome", "reason", "decider", "model", "run_id", "decided_at")
    return Decision(
        **{name: item[name] for name in names},
        target=_party(item["target"]),
        sources=tuple(map(_party, item["sources"])),
    )


def _revision(row: dict) -> Revision:
    names = ("revision", "memory_type", "active", "run_id", "closed_run_id", "closed_reason")
    return Revision(
        **{name: row[name] for name in names},
        text=row["semantic_text"],
        extra=MappingProxyType(row["extra"]),
        said_at=row["session_time"],
        evidence=tuple(map(_turn, row["evidence"])),
        decision=_decision(row["decision"]) if row["decision"] else None,
    )


def _life(found: dict) -> Life:
    return Life(
        memory_id=found["record_id"],
        user_id=found["user_id"],
        active=found["active"],
        revisions=tuple(map(_revision, found["revisions"])),
        decisions=tuple(map(_decision, found["decisions"])),
    )
