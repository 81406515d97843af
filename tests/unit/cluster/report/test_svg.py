"""Charts hold what they draw: labels inside, zeros visible, what is not known left out."""

import datetime as dt
import itertools
import math
import re

from hypothesis import given
from hypothesis import strategies as st

from cluster.report.svg import (
    COLOURS,
    MAX_BARS,
    MAX_CURVE,
    TOP,
    WIDTH,
    ZERO,
    Chart,
    Series,
    Span,
    curves,
    draw,
    newest,
    steps,
    text_width,
    timeline,
)
from cluster.report.words import count, digits, seconds, size
from tests.unit.cluster.report.reading import Page


def rects(svg):
    return [one for one in Page(str(svg)).of("rect")]


def is_inside(svg) -> bool:
    """Whether all marks and texts lie within the chart, as wide as their characters are at most."""
    page = Page(str(svg))
    height = float(page.of("svg")[0]["viewbox"].split()[3])
    for text in re.findall(r"<text [^>]*>.*?</text>", str(svg), re.DOTALL):
        one = Page(text)
        place, wide = one.of("text")[0], text_width(one.texts[0] if one.texts else "")
        left = float(place["x"]) - {"middle": wide / 2, "end": wide}.get(place.get("text-anchor"), 0)
        if left < 0 or left + wide > WIDTH or not 0 < float(place["y"]) <= height:
            return False
    return all(
        float(one["x"]) >= 0
        and float(one["x"]) + float(one["width"]) <= WIDTH + 0.1
        and float(one["y"]) >= 0
        and float(one["y"]) + float(one["height"]) <= height
        for one in rects(svg)
    )


VALUES = st.none() | st.just(0) | st.floats(0, 1e12) | st.integers(0, 5)
COLUMNS = st.lists(
    st.tuples(
        st.dates().map(str) | st.text(max_size=12), st.sampled_from(["", "\nrollback"]), VALUES, VALUES
    ),
    min_size=1,
    max_size=MAX_BARS,
)


@given(
    COLUMNS,
    st.sampled_from(["bars", "stacked", "lines", "rows"]),
    st.sampled_from([count, seconds, lambda v: size(round(v))]),
)
def test_axes_hold_their_labels_and_bars_stay_in_the_chart(columns, kind, show):
    names = tuple(day + second for day, second, *_ in columns)
    series = tuple(Series(name, tuple(row[place] for row in columns)) for place, name in ((2, "a"), (3, "b")))
    chart = Chart("c", "Title", names, series, show, kind)
    svg = draw(chart)
    assert Page(str(svg)).problems == [] and is_inside(svg)
    assert len(chart.table) == len(columns)


def test_a_bar_of_zero_is_visible_and_an_unknown_one_is_not_there():
    svg = draw(Chart("c", "Title", ("x", "y", "z"), (Series("a", (0, None, 5.0)),)))
    zero, five = rects(svg)
    assert zero["class"] == "zero" and float(zero["height"]) == ZERO > 0
    assert five["class"] == "s0" and float(five["height"]) > 100
    assert Chart("c", "Title", ("x", "y"), (Series("a", (0, None)),)).table == [("x", ["0"]), ("y", ["–"])]


def test_stacked_bars_stand_on_one_another_and_those_beside_do_not_overlap():
    columns, series = ("x",), (Series("a", (2,)), Series("b", (3,)))
    low, high = rects(draw(Chart("c", "Title", columns, series, kind="stacked")))
    assert abs(float(high["y"]) + float(high["height"]) - float(low["y"])) < 0.2
    left, right = rects(draw(Chart("c", "Title", columns, series)))
    assert float(left["x"]) + float(left["width"]) <= float(right["x"]) + 0.1


def test_a_line_has_a_point_for_each_value_that_is_known():
    page = Page(str(draw(Chart("c", "Title", ("x", "y", "z"), (Series("a", (1, None, 2)),), kind="lines"))))
    assert len(page.of("circle")) == 2 and page.of("polyline")[0]["points"].count(",") == 2


@given(st.floats(0, 1e15))
def test_an_axis_has_round_steps_that_reach_its_highest_value(top):
    found = steps(top)
    assert found[0] == 0 and found[-1] >= top * (1 - 1e-9) and 2 <= len(found) <= 6


def test_an_axis_of_counts_has_no_halves():
    assert steps(2, 1) == [0, 1, 2]
    assert ">0.5<" not in str(draw(Chart("c", "Title", ("x",), (Series("a", (2,)),))))


def test_rows_name_every_bar_and_show_its_value_with_no_legend_to_hide_anything():
    names = [f"profile-{number}" for number in range(9)]
    series = tuple(Series(name, (0.0, None, 0.5)) for name in names)
    chart = Chart("c", "Title", ("recall", "precision", "f1"), series, digits, "rows", top=1)
    svg = draw(chart)
    assert chart.legend == () and is_inside(svg)
    assert all(str(svg).count(f">{name}</text>") == 3 for name in names)
    assert len(rects(svg)) == 18 and sum(one["class"] == "zero" for one in rects(svg)) == 9
    assert str(svg).count(">–</text>") == 9 and str(svg).count(">0.5</text>") == 9
    assert {one["class"] for one in rects(svg)} == {"zero", *(f"s{n}" for n in range(COLOURS))}


def test_of_a_name_that_is_too_long_its_end_is_shown_and_its_title_has_the_whole():
    name = "/a/folder/with/a/long/name/" * 4 + "adapter:base"
    svg = draw(Chart("c", "Title", ("recall",), (Series(name, (0.5,)),), digits, "rows"))
    assert is_inside(svg) and re.search(r">….*adapter:base</text>", str(svg))
    assert f"{name}</title>" in str(svg)


POINTS = st.lists(
    st.tuples(st.integers(0, 10**6), st.floats(0, 100) | st.just(math.nan) | st.just(math.inf)), max_size=20
)


@given(POINTS, POINTS, st.sampled_from([0, 1]))
def test_a_curve_keeps_its_points_and_numbers_inside_and_leaves_out_what_is_no_number(one, other, top):
    lines = {"training": sorted(dict(one).items()), "validation": sorted(dict(other).items())}
    chart = curves("c", "Title", lines, of="Step", top=top)
    svg = draw(chart)
    page = Page(str(svg))
    assert page.problems == [] and is_inside(svg) and "nan" not in str(svg) and "inf" not in str(svg)
    known = sum(math.isfinite(value) for points in lines.values() for _, value in points)
    assert len(page.of("circle")) == known
    assert all(0 <= float(dot["cx"]) <= WIDTH and float(dot["cy"]) >= TOP for dot in page.of("circle"))


def test_points_lie_where_their_numbers_are_and_the_last_ones_of_a_long_line_are_kept():
    short = Page(str(draw(curves("c", "Title", {"a": [(0, 1.0), (10, 2.0), (40, 3.0)]}, of="Step"))))
    first, second, third = (float(one["cx"]) for one in short.of("circle"))
    assert abs((third - first) - 4 * (second - first)) < 0.5
    chart = curves("c", "Title", {"a": [(step, step / 2) for step in range(1, 5001)]}, of="Step")
    assert len(chart.columns) <= MAX_CURVE and chart.table[-1] == ("5,000", ["2,500"])
    assert not Page(str(draw(chart))).of("circle"), "so many marks would hide the line"


def test_of_many_columns_the_newest_are_drawn():
    columns, (series,) = newest([str(n) for n in range(100)], Series("a", tuple(map(float, range(100)))))
    assert len(columns) == len(series.values) == MAX_BARS and columns[-1] == "99"


def test_the_last_column_is_labelled_whatever_is_left_out():
    names = tuple((dt.date(2026, 1, 1) + dt.timedelta(days=day)).isoformat() for day in range(60))
    svg = str(draw(Chart("c", "Title", names, (Series("a", (1.0,) * 60),))))
    shown = [name for name in names if f">{name}</text>" in svg]
    assert names[-1] in shown and 5 <= len(shown) <= 10


@given(
    st.lists(st.tuples(st.floats(-5, 20), st.none() | st.floats(-5, 20), st.text(max_size=26)), max_size=12),
    st.lists(st.integers(0, 15), min_size=2, max_size=9, unique=True),
)
def test_a_timeline_keeps_its_spans_and_labels_inside(items, places):
    spans = [Span(label, start, end, "#m1", end is None, label) for start, end, label in items]
    columns = [(float(place), f"2026-01-{place + 1:02}") for place in sorted(places)]
    svg = timeline("t", "Title", columns, spans)
    assert Page(str(svg)).problems == [] and is_inside(svg) and len(rects(svg)) == len(spans)


def test_numbers_are_written_for_people():
    assert [size(one) for one in (0, 999, 1234, 5_600_000, 2 * 10**12)] == [
        "0 B",
        "999 B",
        "1.23 kB",
        "5.6 MB",
        "2 TB",
    ]
    assert [count(one) for one in (0, 1234567, 0.25, 2.0)] == ["0", "1,234,567", "0.25", "2"]
    told = [seconds(one) for one in (None, 0.4, 99, 200, 7500)]
    assert told == ["–", "0.4 s", "99 s", "3 min 20 s", "2 h 5 min"]


@given(st.integers(1, MAX_BARS), st.sampled_from(["2026-03-30", "30 March", "a", "2026-03-30 02:01:43"]))
def test_labels_of_columns_do_not_touch_each_other(num, label):
    names = tuple(f"{label}{number % 10}" for number in range(num))
    svg = draw(Chart("c", "Title", names, (Series("a", tuple(float(one) for one in range(num))),)))
    labels = [
        (float(one["x"]), text_width(f"{label}0"))
        for one in Page(str(svg)).of("text")
        if one.get("text-anchor") == "middle"
    ]
    assert labels
    for (left, width), (right, _) in itertools.pairwise(sorted(labels)):
        assert right - left >= width
