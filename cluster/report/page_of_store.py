"""The page of a store: its health, the last night, events, costs, growth, users and every run."""

import datetime as dt
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.report.overview import PROJECTED, Overview, ages
from cluster.report.quality import Quality
from cluster.report.rendering import remarks, render
from cluster.report.runs import Night, RunEntry, Spent
from cluster.report.svg import Chart, Series, newest
from cluster.report.words import count, digits, price, seconds, size

NUM_USERS = 50
"""Users that the report names: those who said nothing for longest."""

MAX_EVENTS = 100
"""Newest nights that went wrong, and operations, that have a row of their own above all runs."""


def of_store(
    found: Overview, user_pages: Sequence[tuple[str, str]] = (), quality: Quality | None = None
) -> str:
    """The report of a store. `user_pages`: (shown id, path) of pages that lie beside it."""
    nights = [night for night in found.nights if night.job == "night"]
    counts = [_night_counts(night) for night in nights[-1:-3:-1]]
    oldest = dt.datetime.min.replace(tzinfo=dt.UTC)
    stalest = sorted(found.users, key=lambda user: (user.last_said or oldest, user.user_id))[:NUM_USERS]
    stages = [
        (entry.job, name, stage.get("seconds"))
        for entry in (found.last.runs if found.last else ())
        for name, stage in entry.stages.items()
    ]
    return render(
        "report.html.j2",
        f"Report of {found.uri}",
        overview=found,
        made_at=found.made_at,
        user_pages=user_pages,
        night_counts=[(rows[0][0], [value for _, value in rows]) for rows in zip(*counts, strict=True)],
        quality=quality,
        quality_chart=_quality_chart(quality) if quality else None,
        num_projected=PROJECTED,
        charts=_charts(found),
        stages=stages,
        stalest=stalest,
        events=_events(found)[-MAX_EVENTS:][::-1],
    )


@dataclass(frozen=True)
class Event:
    """A night that went wrong, or an operation."""

    night: Night
    what: str
    spent: Spent
    next_good: RunEntry | None = None
    """Of a night: the first run of the next one that did what it was asked for; None where there is none."""


def _events(found: Overview) -> list[Event]:
    """All of them, oldest first. A run that only looked, such as a dry run, does not count."""
    events = []
    for place, (night, spent) in enumerate(zip(found.nights, found.money.by_night, strict=True)):
        is_night = night.job == "night"
        if night.job == "dry run" or (is_night and not night.is_bad):
            continue
        told = "; ".join(filter(None, (remarks(entry) for entry in night.runs)))
        later = (one.runs[0] for one in found.nights[place + 1 :] if one.job == "night" and one.is_good)
        events.append(Event(night, told, spent, next(later, None) if is_night else None))
    return events


def _night_counts(night: Night) -> list[tuple[str, int]]:
    return [
        ("sessions of the archive", night.total("num_sessions")),
        ("segments encoded", night.total("num_segments_encoded")),
        ("turns written", night.total("num_turns")),
        ("memories written", night.total("num_records")),
        ("memories closed by newer ones", night.total("num_deleted")),
        ("memories rewritten", night.total("num_rewritten")),
        ("repeats united", night.total("num_united")),
        ("segments whose session changed", night.total("num_segments_closed")),
        ("records refused by gates", night.stage_total("num_refused")),
        ("decisions refused by guards", night.total("num_refused")),
        ("decisions that failed", night.total("num_failed")),
        ("rejections", night.total("num_rejections")),
        ("secrets redacted", night.total("num_redactions")),
        ("answers that a killed run may have paid for in vain", night.total("num_in_doubt")),
    ]


def _quality_chart(quality: Quality) -> Chart:
    views = [("before the last night", quality.before), ("now", quality.now)]
    series = [
        Series(f"{name}, {count(view.num_questions)} questions", tuple(view.measures.values()))
        for name, view in views
        if view is not None
    ]
    title = "What the store's search finds of the turns that answer known questions, means"
    names = tuple(quality.now.measures)
    return Chart("quality-chart", title, names, tuple(series), digits, "rows", "Measure", top=1)


def _charts(found: Overview) -> dict[str, list[Chart]]:
    nights, money = found.nights, found.money
    columns = [_column(night.started_at, "" if night.job == "night" else night.job) for night in nights]

    def chart(name: str, title: str, *series: Series, at: Sequence[str] = columns, **more: object) -> Chart:
        kept, values = newest(at, *series)
        return Chart(name, title, kept, values, **more)  # type: ignore[arg-type] # fields of Chart

    def counted(name: str, value: Callable[[Night], int]) -> Series:
        return Series(name, tuple(map(value, nights)))

    costs = tuple(itertools.accumulate(spent.cost or 0.0 for spent in money.by_night))
    tokens = tuple(itertools.accumulate(float(spent.tokens) for spent in money.by_night))
    entries = {entry.run_id: entry for entry in found.entries}
    views = [_column(entries[view.run_id].started_at, entries[view.run_id].job) for view in found.views]
    classes = ages(found.users, found.made_at)
    of_costs = [
        chart(
            "tokens",
            "Tokens of each night",
            Series("read", tuple(float(spent.prompt_tokens) for spent in money.by_night)),
            Series("written", tuple(float(spent.output_tokens) for spent in money.by_night)),
            kind="stacked",
        ),
        chart("read", "Tokens, summed up", Series("tokens so far", tokens), kind="lines"),
    ]
    if money.total.cost is not None:
        paid = Series("cost", tuple(spent.cost for spent in money.by_night))
        of_costs.append(chart("cost", "Cost of each night", paid, show=price))
        of_costs.append(
            chart("paid", "Costs, summed up", Series("paid so far", costs), show=price, kind="lines")
        )
    return {
        "costs": of_costs,
        "time": [
            chart(
                "written",
                "What each night wrote, closed, refused and rejected",
                counted("written", lambda night: night.total("num_records")),
                counted("superseded", lambda night: night.total(*SUPERSEDED)),
                counted("refused", _refused),
                counted("rejected", lambda night: night.total("num_rejections")),
            ),
            chart(
                "took",
                "How long each night took",
                Series("seconds", tuple(night.seconds for night in nights)),
                show=seconds,
            ),
        ],
        "growth": [
            chart(
                "rows",
                "Active memories and turns of each view that is kept",
                Series("memories", tuple(float(view.num_records) for view in found.views)),
                Series("turns", tuple(float(view.num_turns) for view in found.views)),
                at=views,
                kind="lines",
            ),
            chart(
                "bytes",
                "What each view that is kept needs on disk",
                Series("bytes", tuple(float(view.num_bytes) for view in found.views)),
                at=views,
                show=lambda value: size(round(value)),
            ),
        ],
        "users": [
            chart(
                "fresh",
                "Users by how long ago they last said anything, at most",
                Series("users", tuple(float(num) for num in classes.values())),
                at=list(classes),
            )
        ],
    }


SUPERSEDED = ("num_deleted", "num_rewritten", "num_united")
"""Counts of memories that newer ones closed or changed."""


def _refused(night: Night) -> int:
    """By guards, and by gates."""
    return night.total("num_refused") + night.stage_total("num_refused")


def _column(time: dt.datetime, second: str) -> str:
    return f"{time:%Y-%m-%d}" + (f"\n{second}" if second else "")
