"""Bookkeeping of a backfill: what a run has to do, and what its summary says of it."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.common.rejected import new_rejections
from jobs.common.turns import joined_paths, paths_of
from schemas.stage_items import Batch, EmbeddedBatch, UnitCut, UsersRead

if TYPE_CHECKING:
    from cluster.backfill.watermark import Known
    from cluster.store.files import Files
    from cluster.store.store import Store


@dataclass
class Plan:
    """What a run has to do, gathered from the units."""

    num_rows: int = 0
    """Rows that count, and files or row groups that cannot be read."""
    num_superseded: int = 0
    num_known: int = 0
    """Of the sessions, those that were not read: they are as they were, and the store has all they gave."""
    num_sessions: int = 0
    num_segments: int = 0
    num_pending: int = 0
    num_asked: int = 0
    """Of these, segments that the encoder is asked about."""
    num_other_language: int = 0
    """Of these, segments in a language that the encoder does not read."""
    num_tokens: int = 0
    num_redactions: int = 0
    num_forgotten: int = 0
    """Sessions that were left out, or have turns that were, because of jobs.forget."""
    num_unknown_times: int = 0
    """Times that are not plausible. They are looked at each night: one ahead of now may become usable."""
    unknown_times: list[str] = field(default_factory=list)
    """Some of these, with their rows."""
    known_rejections: int = 0
    batches: list[Batch] = field(default_factory=list)
    closed_segments: list[str] = field(default_factory=list)
    rejections: list[dict] = field(default_factory=list)

    @classmethod
    def of(cls, known: "Known", num_superseded: int) -> "Plan":
        """With what is known, and need not be cut."""
        return cls(num_superseded=num_superseded, num_known=known.num_sessions, **dataclasses.asdict(known))

    def add(self, result: UnitCut, staging: "Files") -> None:
        from cluster.backfill.cut_stage import NUM_SHOWN

        for name in ("num_sessions", "num_segments", "num_redactions", "num_forgotten", "num_unknown_times"):
            setattr(self, name, getattr(self, name) + getattr(result, name))
        self.unknown_times = [*self.unknown_times, *result.unknown_times][:NUM_SHOWN]
        self.batches += result.batches
        self.closed_segments += result.closed_segments
        self.num_pending += sum(batch.num_segments for batch in result.batches)
        for name in ("num_asked", "num_other_language", "num_tokens"):
            setattr(self, name, getattr(self, name) + sum(getattr(batch, name) for batch in result.batches))
        if result.rejections:
            self.rejections += staging.get_table(result.rejections).to_pylist()

    def reject(self, rows: list[dict], store: "Store") -> None:
        """Rows of REJECTIONS_SCHEMA, of which those that the store has already are only counted."""
        new = new_rejections(rows, store)
        self.known_rejections += len(rows) - len(new)
        self.rejections += new

    def counts(self) -> dict:
        """For the summary."""
        return {
            "num_sessions": self.num_sessions,
            "num_sessions_superseded": self.num_superseded,
            "num_sessions_known": self.num_known,
            "num_segments": self.num_segments,
            "num_segments_closed": len(self.closed_segments),
            "num_segments_other_language": self.num_other_language,
            "num_rejections": len(self.rejections),
            "num_rejections_known": self.known_rejections,
            "num_redactions": self.num_redactions,
            "num_forgotten": self.num_forgotten,
            "num_unknown_times": self.num_unknown_times,
            "input_tokens": self.num_tokens,
        }


def staged_tables(
    done: list[EmbeddedBatch], read: Sequence[UsersRead] = ()
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Staged files of batches and of users read, as Store.commit takes them: `inserts` and `replaces`.

    Rejections replace earlier ones: what is tried again in vain must not be there twice. Turns of a batch
    whose users were read have been staged again, with their vectors.
    """
    inserts: dict[str, list[str]] = {}
    for batch in done:
        for table, path in batch.tables.items():
            if table != "turns" or not batch.users:
                inserts.setdefault(table, []).append(path)
    replaces = {"rejections": inserts.pop("rejections", [])}
    turns, changed = paths_of(read)
    return joined_paths(inserts, turns), joined_paths(replaces, changed)


MAX_GIVEN_BACK = 3
"""Batches that each worker may give back, none done by anybody in between, before the run ends."""

SPENT = ("num_segments_encoded", "num_calls", "prompt_tokens", "cached_tokens", "output_tokens")
"""What a batch has cost, also where it was given back behind that."""


@dataclass
class Workers:
    """Which workers have given batches back since one was done: whether anybody can still do the work."""

    num_workers: int
    """That there are at least."""
    given_back: Counter[str] = field(default_factory=Counter)

    def has_done(self) -> None:
        self.given_back.clear()

    def has_given_back(self, worker: str) -> bool:
        """Note it; True when all of them keep giving back."""
        self.given_back[worker] += 1
        return self.given_back.total() >= MAX_GIVEN_BACK * max(self.num_workers, len(self.given_back))


def batch_counts(done: list[EmbeddedBatch]) -> dict:
    """Sums over the batches, for the summary. What earlier attempts had encoded counts no tokens here."""
    names = [
        "num_segments_encoded",
        "num_records",
        "num_turns",
        "prompt_tokens",
        "cached_tokens",
        "output_tokens",
    ]
    return _sums(done, names)


def encode_times(done: list[EmbeddedBatch]) -> dict:
    """Outcomes and actor seconds of the encode stage, for the summary.

    Of several batches that an actor has in work at a time each has its share of the seconds: the sums are
    the time in which the actors had work, however many batches they had.
    """
    counts = [
        "num_calls",
        "num_complete",
        "num_split",
        "num_partial",
        "num_rejected",
        "num_skipped",
        "num_refused",
        "num_values_left_out",
    ]
    seconds = ["encode_load_s", "encode_s", "embed_load_s", "embed_s"]
    return {name: round(total, 2) for name, total in _sums(done, [*counts, *seconds]).items()}


def _sums(done: list[EmbeddedBatch], names: list[str]) -> dict:
    return {name: sum(getattr(batch, name) for batch in done) for name in names}
