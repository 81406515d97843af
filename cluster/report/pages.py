"""Pages that one opens in a browser: each is one file without a request to anywhere, from disk or a bucket.

Whatever others wrote is text here. Jinja escapes every value, what a browser would obey inside a text
(controls, marks that turn it around) is shown as its escape, and the page's policy lets nothing run and
nothing load but its own style and script, which it names by their hashes.
"""

import base64
import datetime as dt
import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.backfill.redact import shown_id
from cluster.report.compare import Comparison
from cluster.report.memories import Memory, UserPage, days_of, user_page
from cluster.report.overview import PROJECTED, Overview, ages, overview
from cluster.report.quality import Quality
from cluster.report.runs import Night, RunEntry, Spent
from cluster.report.svg import Chart, Series, Span, draw, newest, timeline
from cluster.report.words import cell, count, digits, seconds, size
from cluster.runtime.shown import harmless
from cluster.store.files import put_below
from schemas.archive import who
from schemas.store import BY_HAND

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
INDEX = "index.html"
COMPARED = "compare.html"
HTML = "text/html; charset=utf-8"

NUM_USERS = 50
"""Users that the report names: those who said nothing for longest."""

MAX_EVENTS = 100
"""Newest nights that went wrong, and operations, that have a row of their own above all runs."""

MAX_SPANS = 300
"""Statements in one timeline; the page has all of them below."""

MAX_TICKS = 8
MAX_SHORT = 160
MAX_LABEL = 26


def write_report(
    uri: str,
    output: str,
    user_id: str | None = None,
    quality: Quality | None = None,
    *,
    now: dt.datetime | None = None,
) -> list[str]:
    """Write the report of a store into a folder or bucket; the paths of its pages, relative to it. `quality`
    is what somebody measured with known questions.

    StoreError where there is no store, or nothing of the user. Pages of an earlier report stay until they are
    written again.
    """
    pages, user_pages = {}, []
    if user_id is not None:
        found = user_page(uri, user_id, now=now)
        path = f"user-{hashlib.sha256(user_id.encode()).hexdigest()[:12]}.html"
        pages[path] = of_user(found)
        user_pages = [(found.shown_id, path)]
    pages[INDEX] = of_store(overview(uri, now=now), user_pages, quality)
    for path, text in pages.items():
        put_below(output, path, text.encode(), HTML)
    return sorted(pages)


def write_comparison(
    output: str,
    found: Comparison,
    tables: dict[str, list[tuple[str, ...]]],
    *,
    now: dt.datetime | None = None,
) -> list[str]:
    """Write the page of a comparison; its path. `tables`: `memories`, `work` and, where it was measured,
    `retrieval`, each with rows of a name and what the first and the second have."""
    page = of_comparison(found, tables, now or dt.datetime.now(dt.UTC))
    put_below(output, COMPARED, page.encode(), HTML)
    return [COMPARED]


# --- templates ------------------------------------------------------------------------------------------


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: object) -> object:
        return value if isinstance(value, Markup) or not isinstance(value, str) else harmless(value)

    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "anchor": anchor,
        "cell": cell,
        "count": count,
        "day": _day,
        "decision": _decision,
        "draw": draw,
        "price": _price,
        "remarks": _remarks,
        "run_link": _run_link,
        "seconds": seconds,
        "short": _short,
        "shown_id": shown_id,
        "size": size,
        "time": _time,
        "who": who,
    }
    return found


def _render(template: str, title: str, script: str = "", **values: object) -> str:
    """A page. `script` names a file beside the templates."""
    from markupsafe import Markup

    style, code = _text("page.css"), _text(script) if script else ""
    sources = [f"style-src '{_hash(style)}'", *([f"script-src '{_hash(code)}'"] if code else [])]
    policy = "; ".join(["default-src 'none'", *sources, "base-uri 'none'", "form-action 'none'"])
    return (
        _environment()
        .get_template(template)
        .render(title=title, policy=Markup(policy), style=Markup(style), script=Markup(code), **values)
    )


@functools.cache
def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


# --- the report -----------------------------------------------------------------------------------------


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
    return _render(
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
    """All of them, oldest first. What only looked, as a dry run, is none."""
    events = []
    for place, (night, spent) in enumerate(zip(found.nights, found.money.by_night, strict=True)):
        is_night = night.job == "night"
        if night.job == "dry run" or (is_night and not night.is_bad):
            continue
        told = "; ".join(filter(None, (_remarks(entry) for entry in night.runs)))
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
        of_costs.append(chart("cost", "Cost of each night", paid, show=_price))
        of_costs.append(
            chart("paid", "Costs, summed up", Series("paid so far", costs), show=_price, kind="lines")
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


def anchor(entry: RunEntry) -> str:
    """The id of a run's row: a hash, since a run's id may hold what an id on a page may not."""
    return f"run-{hashlib.sha256(entry.run_id.encode()).hexdigest()[:12]}"


def _run_link(entry: RunEntry | None) -> "Markup | str":
    from markupsafe import Markup

    if entry is None:
        return "none"
    link = '<a href="#{}">{}</a> ({})'
    return Markup(link).format(anchor(entry), harmless(f"{entry.job} {entry.run_id}"), _time(entry.ended_at))


TOLD = {
    "forget": [("removed", "num_records_removed", "records"), ("removed", "num_turns_removed", "turns")],
    "import": [("brought", "num_records", "records"), ("rejected", "num_rejections", "rows")],
    "reembed": [("embedded", "num_rows_embedded", "rows anew")],
}
"""Counts that tell what an operation did: verb, name, what is counted."""


def _remarks(entry: RunEntry) -> str:
    told = [entry.reason] if entry.reason else []
    for verb, name, what in TOLD.get(entry.job, ()):
        told += [f"{verb} {count(num)} {what}"] if (num := entry.counts.get(name)) else []
    told += [f"back to run {entry.counts.get('to')}"] if entry.job == "rollback" else []
    told += [f"undone by the rollback {entry.undone_by}"] if entry.undone_by else []
    told += ["its view has expired"] if entry.is_published and not entry.has_view else []
    return "; ".join(told)


# --- two views ------------------------------------------------------------------------------------------


def of_comparison(found: Comparison, tables: dict[str, list[tuple[str, ...]]], now: dt.datetime) -> str:
    """The page of a comparison."""
    both, alone = (found.counts[name] for name in ("same", "changed")), ("only_first", "only_second")
    series = [Series(name, (float(num),) * 2) for name, num in zip(("same", "changed"), both, strict=True)]
    series.append(Series("only here", tuple(float(found.counts[name]) for name in alone)))
    title = "Memories of the first and of the second"
    chart = Chart("kinds", title, ("first", "second"), tuple(series), kind="stacked")
    return _render(
        "compare.html.j2",
        "A comparison of memories",
        found=found,
        made_at=now,
        tables={"retrieval": None} | tables,
        users=list(found.of_user.items())[:NUM_USERS],
        chart=chart,
    )


# --- measures -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What a job has measured, as the page of it tells it."""

    title: str
    charts: tuple[Chart, ...]
    caption: str
    """Of the table."""
    rows: tuple[dict, ...] = ()
    """Of the table, all with the same keys, the first of which names a row."""
    facts: tuple[tuple[str, str], ...] = ()
    notes: str = ""
    """What the numbers are."""

    def is_number(self, name: str) -> bool:
        """Whether a column of the table has numbers alone."""
        return all(row[name] is None or isinstance(row[name], int | float) for row in self.rows)


def of_measures(found: Measured, now: dt.datetime | None) -> str:
    """The page of what was measured. `now`: None where the same measures must give the same bytes."""
    return _render("measured.html.j2", found.title, found=found, made_at=now)


# --- a user ---------------------------------------------------------------------------------------------


def of_user(page: UserPage) -> str:
    """The page of one user."""
    numbered = [
        (number, memory, place)
        for number, memory in enumerate(page.memories, 1)
        for place in range(len(memory.revisions))
    ]
    shown = numbered[-MAX_SPANS:]
    left_out = len(numbered) - len(shown)
    return _render(
        "user.html.j2",
        f"Memories of {page.shown_id}",
        "search.js",
        page=page,
        made_at=page.made_at,
        index=INDEX,
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
    text = " ".join(_statement(memory, place).split())
    label = text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"
    return Span(label, start, end, f"#m{number}", is_open, said)


def _statement(memory: Memory, place: int) -> str:
    return memory.revisions[place].row["semantic_text"] or "(not kept)"


def _decision(row: dict) -> str:
    """A decision in one sentence: what, to what, because of what, by whom, and whether it was applied."""
    if row["decider"] == BY_HAND:
        return (
            f"by hand: {row['action']} “{_short(row['target']['text'] or '(not kept)')}”, by {row['model']} "
            f"({row['reason']}) in run {row['run_id']} on {_day(row['decided_at'])}, decision "
            f"{row['decision_id']}"
        )
    by = f"{row['model']}, prompt {row['prompt']}" if row["model"] else row["decider"]
    sources = "; ".join(f"“{_short(one['text'] or '(not kept)')}”" for one in row["sources"])
    why = f" ({row['reason']})" if row["reason"] else ""
    return (
        f"{row['outcome']}: {row['action']} “{_short(row['target']['text'] or '(not kept)')}” because of "
        f"{sources or 'nothing'}{why}, by {by} in run {row['run_id']} on {_day(row['decided_at'])}, decision "
        f"{row['decision_id']}"
    )


# --- values ---------------------------------------------------------------------------------------------


def _time(time: dt.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _day(time: dt.datetime | None) -> str:
    return time.date().isoformat() if time else "no date"


def _price(value: float) -> str:
    return "0" if value == 0 else f"{value:,.2f}" if value >= 1 else f"{value:.4f}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_SHORT else text[: MAX_SHORT - 1] + "…"
