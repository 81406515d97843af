"""Charts as inline SVG, without a script and without a style of their own: classes take their colours from
the page, so that they follow its light and dark.

A chart holds its axis labels, shows a zero as a line on the axis and what is not known as nothing, or, in
rows, as a dash. What it shows stands in a table beside it too (see templates/macros.html.j2), so that nothing
is told by colour alone.
"""

import itertools
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cluster.report.words import count, digits
from cluster.runtime.shown import one_line

WIDTH = 720
CHAR, WIDE_CHAR = 6.6, 12.0
"""Widths of a character in the charts' 11 px, generously; the second of Chinese and the like."""

LABEL_GAP = 8
PLOT = 200
ROW = 22
TOP = 14
MAX_BARS = 60
"""Columns of one chart: more would be thinner than a line."""

MAX_POINTS = 50
"""Points of one line that are marked: more would hide the line."""

MAX_CURVE = 300
"""Points of one line of a long training that are drawn."""

COLOURS = 5
"""Colours of series, see page.css. More series than these are told apart by their names, in rows."""

BAR = 14
"""Height of a bar in a row."""

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
    """Columns of bars, points with lines, or rows of bars. `id` is unique on its page."""

    id: str
    title: str
    columns: tuple[str, ...]
    """What stands under each: a line, or two with a line break between them. Of rows, what stands above each
    group of them."""
    series: tuple[Series, ...]
    show: Show = count
    kind: str = "bars"
    """bars: beside one another; stacked: on one another; lines; rows: one under another, each named, so that
    there may be any number of series, with names of any length."""
    of: str = "When"
    """What a column is, as the head of the table."""
    places: tuple[float, ...] | None = None
    """Of lines: where each column lies on an axis of numbers from 0 on, rising. None: side by side."""
    top: float = 0
    """The axis of values reaches at least so far."""

    @property
    def legend(self) -> tuple[str, ...]:
        """Names of the colours, where more than one is to be told apart."""
        return tuple(one.name for one in self.series) if self.kind != "rows" and len(self.series) > 1 else ()

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


def curves(
    name: str, title: str, lines: Mapping[str, Sequence[tuple[float, float]]], *, of: str, top: float = 0
) -> Chart:
    """A chart of lines over an axis of numbers. `lines`: name -> points, in rising order. What is no number
    is left out, and of more than MAX_CURVE points of a line every second, every third, ... stays."""
    kept = {}
    for line, points in lines.items():
        known = [(place, value) for place, value in points if math.isfinite(value)]
        every = math.ceil(len(known) / MAX_CURVE) or 1
        # From the last one back: where it ended is what one looks for.
        kept[line] = dict(known[::-1][::every])
    places = sorted({place for points in kept.values() for place in points})
    series = tuple(Series(line, tuple(map(points.get, places))) for line, points in kept.items())
    return Chart(name, title, tuple(map(count, places)), series, digits, "lines", of, tuple(places), top)


def text_width(text: str) -> float:
    """What a text takes in a chart, as it is shown there, at most."""
    return sum(WIDE_CHAR if unicodedata.east_asian_width(char) in "WF" else CHAR for char in one_line(text))


def steps(top: float, least: float = 0) -> list[float]:
    """From 0 to at least `top`, in up to five round steps of 1, 2 or 5 times a power of ten, and of `least`
    each: there is no half user."""
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
    ticks = steps(max(highest, chart.top), 1 if chart.show is count else 0)
    if chart.kind == "rows":
        return _rows(chart, ticks)
    left = 12 + max(text_width(chart.show(tick)) for tick in ticks)
    lines = [column.split("\n") for column in chart.columns]
    bottom = TOP + PLOT
    height = bottom + 10 + 14 * max(map(len, lines), default=1)
    wide = (WIDTH - left - 12) / max(1, len(chart.columns))

    def y(value: float) -> float:
        return bottom - value / ticks[-1] * PLOT

    marks = [_tick(left, y(tick), chart.show(tick)) for tick in ticks]
    if chart.places is None:
        middles = [left + wide * (place + 0.5) for place in range(len(chart.columns))]
        labels = _column_labels(lines, left, wide, bottom)
    else:
        numbers = steps(chart.places[-1] if chart.places else 0, 1)
        scale = (WIDTH - left - 24) / numbers[-1]
        middles = [left + 6 + place * scale for place in chart.places]
        labels = _number_labels(numbers, left + 6, scale, bottom)
        height = bottom + 24
    marks += _lines(chart, middles, y) if chart.kind == "lines" else _bars(chart, left, wide, y)
    return _svg(chart.id, chart.title, height, marks + labels)


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


def _lines(chart: Chart, middles: Sequence[float], y: Callable[[float], float]) -> list[Markup]:
    marks = []
    for number, series in enumerate(chart.series):
        places = [
            (middles[place], y(value), place)
            for place, value in enumerate(series.values)
            if value is not None
        ]
        path = " ".join(f"{x:.1f},{top:.1f}" for x, top, _ in places)
        marks.append(Markup('<polyline class="l{}" points="{}"/>').format(number, path))
        for x, top, place in places if len(places) <= MAX_POINTS else ():
            said = _said(chart, place, chart.columns[place], number)
            marks.append(
                Markup(
                    '<circle class="s{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>'
                ).format(number, x, top, said)
            )
    return marks


def _rows(chart: Chart, ticks: list[float]) -> Markup:
    """A group of bars for each column, below its name; each bar between the series' name and its value."""
    left = 12 + max((text_width(series.name) for series in chart.series), default=0)
    left = min(left, WIDTH * 0.45)
    right = WIDTH - 18 - max((text_width(value) for _, row in chart.table for value in row), default=0)
    scale = (right - left) / ticks[-1]
    group = ROW + (BAR + 4) * len(chart.series) + 6
    bottom = TOP + group * len(chart.columns)
    line = Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>')
    marks = [line.format(left + tick * scale, TOP, bottom) for tick in ticks]
    text = Markup('<text class="{}" text-anchor="{}" x="{:.1f}" y="{:.1f}">{}</text>')
    for place, column in enumerate(chart.columns):
        y = TOP + group * place + ROW - 6
        marks.append(text.format("head", "start", 6, y, _shortened(column, (WIDTH - 12) / 1.1)))
        for number, series in enumerate(chart.series):
            y = TOP + group * place + ROW + (BAR + 4) * number
            value = series.values[place]
            marks.append(text.format("axis", "end", left - 6, y + 11, _shortened(series.name, left - 12)))
            if value is None:
                marks.append(text.format("axis", "start", left + 4, y + 11, "–"))
                continue
            wide = max(value * scale, ZERO)
            kind = f"s{number % COLOURS}" if value else "zero"
            bar = Markup(
                '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}"><title>{}</title></rect>'
            )
            marks.append(bar.format(kind, left, y, wide, BAR, _said(chart, place, column, number)))
            marks.append(text.format("axis", "start", left + wide + 4, y + 11, chart.show(value)))
    labels = _number_labels(ticks, left, scale, bottom, chart.show)
    return _svg(chart.id, chart.title, bottom + 24, marks + labels)


def _shortened(text: str, width: float) -> str:
    """The text, or dots and as much of its end as there is room for: names of one folder differ there."""
    text = one_line(text)
    if text_width(text) <= width:
        return text
    while text_width("…" + text) > width:
        text = text[1:]
    return "…" + text


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
    halves = [max(map(text_width, column), default=0) / 2 for column in lines]
    # At the edge a label stands nearer to its neighbour than its column does.
    centres = [
        min(max(left + wide * (place + 0.5), half + 1), WIDTH - half - 1) for place, half in enumerate(halves)
    ]

    def fit(shown: list[int]) -> bool:
        pairs = itertools.pairwise(shown)
        return all(centres[two] - centres[one] >= halves[one] + halves[two] + LABEL_GAP for one, two in pairs)

    columns = range(len(lines))
    choices = ([place for place in columns if (columns[-1] - place) % every == 0] for every in columns[1:])
    marks = []
    for place in next(filter(fit, choices), columns[-1:]):
        for number, line in enumerate(lines[place]):
            marks.append(
                Markup('<text class="axis" text-anchor="middle" x="{:.1f}" y="{:.1f}">{}</text>').format(
                    centres[place], bottom + 14 * (number + 1) + 2, one_line(line)
                )
            )
    return marks


def _number_labels(
    numbers: list[float], left: float, scale: float, bottom: float, show: Show = count
) -> list[Markup]:
    """As many numbers of a horizontal axis as there is room for, from its left end on."""
    widest = max(text_width(show(one)) for one in numbers) + LABEL_GAP
    every = max(1, math.ceil(widest / max((numbers[1] - numbers[0]) * scale, 1)))
    marks = []
    for number in numbers[::every]:
        half = text_width(show(number)) / 2
        x = min(max(left + number * scale, half + 1), WIDTH - half - 1)
        text = Markup('<text class="axis" text-anchor="middle" x="{:.1f}" y="{:.1f}">{}</text>')
        marks.append(text.format(x, bottom + 16, show(number)))
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
