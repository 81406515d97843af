"""How well a store is searched, where questions are known: what the report shows of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """What the store's search finds of the turns that answer known questions, in the view of a run."""

    run_id: str
    num_questions: int
    """Those over which the means are: their answers rest on turns, and their users have something here."""
    measures: dict[str, float | None]
    """`recall@5`, ..., `MRR` -> mean, see jobs.evaluate retrieval. The same names in each view."""


@dataclass(frozen=True)
class Quality:
    """The newest view, and that before the last night."""

    now: Found
    before: Found | None
    """None where there was none, it is not kept, or it has nothing of these users."""
