"""Charts as inline SVG, without a script and without a style of their own: classes take their colours from
the page, so that they follow its light and dark.

A chart holds its axis labels, shows a zero as a line on the axis and what is not known as nothing. What it
shows stands in a table beside it too (see templates/macros.html.j2), so that nothing is told by colour alone.
"""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cluster.report.words import count
from cluster.runtime.shown import one_line

WIDTH = 720
CHAR, WIDE_CHAR = 6.6, 12.0
"""Widths of a character in the charts' 11 px, generously; the second of Chinese and the like."""

PLOT = 200
ROW = 22
TOP = 14
MAX_BARS = 60
"""Columns of one chart: more would be thinner than a line."""

ZERO = 2
"""Height of the bar of a zero."""

SMALLEST = 1e-9
"""What is less is no matter of a chart."""

Show = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """Values of one colour, one for each column; None where it is not known."""

    name: str
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Chart:
    """Columns of bars, or points with lines. `id` is unique on its page."""

    id: str
    title: str
    columns: tuple[str, ...]
    """What stands under each: a line, or two with a line break between them."""
    series: tuple[Series, ...]
    show: Show = count
    kind: str = "bars"
    """bars: beside one another; stacked: on one another; lines."""

    @property
    def table(self) -> list[tuple[str, list[str]]]:
        """Each column with its values, as they are shown; a dash for what is not known."""
        values = zip(*(series.values for series in self.series), strict=True)
        return [
            (" ".join(column.split("\n")), ["–" if one is None else self.show(one) for one in row])
            for column, row in zip(self.columns, values, strict=True)
        ]


def newest(columns: Sequence[str], *series: Series) -> tuple[tuple[str, ...], tuple[Series, ...]]:
    """The last MAX_BARS columns, with their values."""
    kept = tuple(Series(one.name, one.values[-MAX_BARS:]) for one in series)
    return tuple(columns[-MAX_BARS:]), kept


def text_width(text: str) -> float:
    """What a text takes in a chart, as it is shown there, at most."""
    return sum(WIDE_CHAR if unicodedata.east_asian_width(char) in "WF" else CHAR for char in one_line(text))


def steps(top: float, least: float = 0) -> list[float]:
    """From 0 to at least `top`, in up to five round steps of 1, 2 or 5 times a power of ten, and of `least`
    each: half a user is none."""
    if top < SMALLEST:
        return [0.0, 1.0 if top <= 0 else SMALLEST]
    size = 10.0 ** math.floor(math.log10(top / 4))
    step = next(factor * size for factor in (1, 2, 5, 10) if top / (factor * size) <= 5)
    step = max(step, least)
    return [number * step for number in range(math.ceil(top / step - 1e-9) + 1)]


def draw(chart: Chart) -> Markup:
    """The chart as an `svg` element."""
    stacked = chart.kind == "stacked"
    known = [[one or 0 for one in row] for row in zip(*(s.values for s in chart.series), strict=True)]
    highest = max((sum(row) if stacked else max(row, default=0) for row in known), default=0)
    ticks = steps(highest, 1 if chart.show is count else 0)
    left = 12 + max(text_width(chart.show(tick)) for tick in ticks)
    lines = [column.split("\n") for column in chart.columns]
    bottom = TOP + PLOT
    height = bottom + 10 + 14 * max(map(len, lines), default=1)
    wide = (WIDTH - left - 12) / max(1, len(chart.columns))

    def y(value: float) -> float:
        return bottom - value / ticks[-1] * PLOT

    marks = [_tick(left, y(tick), chart.show(tick)) for tick in ticks]
    draw_series = _lines if chart.kind == "lines" else _bars
    marks += draw_series(chart, left, wide, y)
    marks += _column_labels(lines, left, wide, bottom)
    return _svg(chart.id, chart.title, height, marks)


def _bars(chart: Chart, left: float, wide: float, y: Callable[[float], float]) -> list[Markup]:
    stacked = chart.kind == "stacked"
    side = 1 if stacked else len(chart.series)
    bar = max(1.5, min(40.0, wide * 0.72) / side)
    marks = []
    for place, column in enumerate(chart.columns):
        low = 0.0
        for number, series in enumerate(chart.series):
            value = series.values[place]
            if value is None:
                continue
            x = left + wide * (place + 0.5) - bar * side / 2 + (0 if stacked else bar * number)
            top, base = y(low + value), y(low)
            if stacked and not value and any(one.values[place] for one in chart.series):
                continue
            kind = "zero" if not value else f"s{number}"
            tall = max(base - top, ZERO)
            marks.append(
                Markup(
                    '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                    "<title>{}</title></rect>"
                ).format(kind, x, base - tall, bar, tall, _said(chart, place, column, number))
            )
            low += value if stacked else 0
    return marks


def _lines(chart: Chart, left: float, wide: float, y: Callable[[float], float]) -> list[Markup]:
    marks = []
    for number, series in enumerate(chart.series):
        places = [
            (left + wide * (place + 0.5), y(value), place)
            for place, value in enumerate(series.values)
            if value is not None
        ]
        path = " ".join(f"{x:.1f},{top:.1f}" for x, top, _ in places)
        marks.append(Markup('<polyline class="l{}" points="{}"/>').format(number, path))
        for x, top, place in places:
            said = _said(chart, place, chart.columns[place], number)
            marks.append(
                Markup(
                    '<circle class="s{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>'
                ).format(number, x, top, said)
            )
    return marks


def _said(chart: Chart, place: int, column: str, number: int) -> str:
    series = chart.series[number]
    return one_line(f"{column}: {chart.show(series.values[place] or 0)} {series.name}")


def _tick(left: float, y: float, text: str) -> Markup:
    return Markup(
        '<line class="grid" x1="{0:.1f}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
        '<text class="axis" text-anchor="end" x="{3:.1f}" y="{4:.1f}">{5}</text>'
    ).format(left, WIDTH - 12, y, left - 6, y + 4, text)


def _column_labels(lines: list[list[str]], left: float, wide: float, bottom: float) -> list[Markup]:
    """As many labels as there is room for, the last column's always; all of them within the chart."""
    widest = max((text_width(line) for column in lines for line in column), default=0) + 8
    every = max(1, math.ceil(widest / wide))
    marks = []
    for place, column in enumerate(lines):
        if (len(lines) - 1 - place) % every:
            continue
        half = max(map(text_width, column), default=0) / 2
        x = min(max(left + wide * (place + 0.5), half + 1), WIDTH - half - 1)
        for number, line in enumerate(column):
            marks.append(
                Markup('<text class="axis" text-anchor="middle" x="{:.1f}" y="{:.1f}">{}</text>').format(
                    x, bottom + 14 * (number + 1) + 2, one_line(line)
                )
            )
    return marks


def _svg(name: str, title: str, height: float, marks: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="chart" role="img" aria-labelledby="{0}-title" viewBox="0 0 {1} {2:.0f}">'
        '<title id="{0}-title">{3}</title>{4}</svg>'
    ).format(name, WIDTH, height, one_line(title), Markup("").join(marks))


# --- spans of time ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """A bar of a timeline, in columns: from `start` to `end`, None where no end is known."""

    label: str
    start: float
    end: float | None
    href: str
    """Where on the page it leads: `#` and an id."""
    is_open: bool
    said: str
    """What its title says."""


def timeline(name: str, title: str, columns: Sequence[tuple[float, str]], spans: Sequence[Span]) -> Markup:
    """Spans one under another over an axis of columns: (place, label), the last of which is the end."""
    left, right = 12 + max((text_width(span.label) for span in spans), default=0), WIDTH - 14
    first, last = columns[0][0], columns[-1][0]
    wide = (right - left) / max(last - first, 1e-9)
    height = TOP + ROW * len(spans)

    def x(place: float) -> float:
        return left + (min(max(place, first), last) - first) * wide

    marks, free = [], left - 1000
    for place, label in columns:
        half = text_width(label) / 2
        at = min(max(x(place), half + 1), WIDTH - half - 1)
        line = Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>')
        marks.append(line.format(x(place), TOP, height))
        if at - half > free:
            text = Markup('<text class="axis" text-anchor="middle" x="{:.1f}" y="{}">{}</text>')
            marks.append(text.format(at, height + 14, one_line(label)))
            free = at + half + 6
    for number, span in enumerate(spans):
        y, begin = TOP + ROW * number, x(span.start)
        end = x(last if span.end is None else span.end)
        marks.append(
            Markup(
                '<a href="{}"><title>{}</title><text class="axis" x="6" y="{:.1f}">{}</text>'
                '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" rx="3"/></a>'
            ).format(
                span.href,
                one_line(span.said),
                y + ROW * 0.68,
                one_line(span.label),
                "s0" if span.is_open else "past",
                begin,
                y + 4,
                max(end - begin, 3),
                ROW - 8,
            )
        )
    return _svg(name, title, height + 22, marks)
