"""The page of a user: their memories, when each was true, when it was known, and who decided what."""

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.report.memories import Memory, UserPage, days_of
from cluster.report.rendering import render, short
from cluster.report.svg import Span, timeline

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_SPANS = 300
"""Statements in one timeline; the page has all of them below."""

MAX_TICKS = 8
MAX_LABEL = 26


def of_user(page: UserPage, index: str) -> str:
    """The page of one user. `index`: the page of the store, beside it."""
    numbered = [
        (number, memory, place)
        for number, memory in enumerate(page.memories, 1)
        for place in range(len(memory.revisions))
    ]
    shown = numbered[-MAX_SPANS:]
    left_out = len(numbered) - len(shown)
    return render(
        "user.html.j2",
        f"Memories of {page.shown_id}",
        "search.js",
        page=page,
        made_at=page.made_at,
        index=index,
        num_active=sum(memory.is_active for memory in page.memories),
        left_out=f"The {left_out:,} oldest are left out here and stand below." if left_out else "",
        true_chart=_true_chart(page, shown),
        known_chart=_known_chart(page, shown),
    )


Shown = Sequence[tuple[int, Memory, int]]
"""Number of a memory on its page, the memory, and which of its revisions."""


def _true_chart(page: UserPage, shown: Shown) -> "Markup":
    today = page.made_at.date()
    days = sorted([today, *days_of(page.memories)])
    first, last = days[0].toordinal(), days[-1].toordinal()
    spans = []
    for number, memory, place in shown:
        true = memory.revisions[place].true
        period = f"from {true.since or 'an unknown day'} until {true.until or 'now'}"
        said = f"{_statement(memory, place)}: {period}"
        start = float((true.since or days[0]).toordinal())
        end = float(true.until.toordinal()) if true.until else None
        spans.append(_span(number, memory, place, start, end, said, is_open=true.until is None))
    num = max(1, min(MAX_TICKS, last - first))
    places = [round(first + (last - first) * tick / num) for tick in range(num + 1)]
    columns = [(float(place), dt.date.fromordinal(place).isoformat()) for place in places]
    return timeline("chart-true", f"When memories of {page.shown_id} were true", columns, spans)


def _known_chart(page: UserPage, shown: Shown) -> "Markup":
    own = {
        run.run_id
        for _, memory, place in shown
        for run in (memory.revisions[place].known_from, memory.revisions[place].known_to)
        if run
    }
    runs = [run for run in page.runs if run.run_id in own] or list(page.runs[-1:])
    places = {run.run_id: float(place) for place, run in enumerate(runs)}
    spans = []
    for number, memory, place in shown:
        revision = memory.revisions[place]
        begun, ended = revision.known_from, revision.known_to
        said = (
            f"{_statement(memory, place)}: from run {revision.row['run_id']} until "
            f"{revision.row['closed_run_id'] or 'now'}"
        )
        start = places[begun.run_id] if begun else 0.0
        end = places[ended.run_id] if ended else None
        spans.append(_span(number, memory, place, start, end, said, is_open=ended is None))
    columns = [
        (place, f"{run.started_at:%Y-%m-%d}") for run, place in zip(runs, places.values(), strict=True)
    ]
    columns.append((float(len(runs)), "now"))
    return timeline("chart-known", f"When memories of {page.shown_id} were known", columns, spans)


def _span(
    number: int, memory: Memory, place: int, start: float, end: float | None, said: str, *, is_open: bool
) -> Span:
    label = short(_statement(memory, place), MAX_LABEL)
    return Span(label, start, end, f"#m{number}", is_open, said)


def _statement(memory: Memory, place: int) -> str:
    return memory.revisions[place].row["semantic_text"] or "(not kept)"
