"""Thirty nights, told by the report and by the history: what happened on which day, why, and what it cost."""

import datetime as dt

import pytest

from cluster.report.health import health
from cluster.report.pages import write_report
from jobs.history import HistoryConfig
from jobs.history import run as history
from tests.e2e.operations.stores import ANN
from tests.unit.cluster.report import month as story
from tests.unit.cluster.report.month import Month
from tests.unit.cluster.report.reading import Page, pages_in, problems, table

NOW = dt.datetime(2026, 3, 30, 8, tzinfo=dt.UTC)
GONE = "its process ended without a word (killed, out of memory, or its machine went)"
CHANGING = [day for day in range(1, 31) if story.said_on(day) or day == story.PAID_REST]
"""Nights that something was there for."""


@pytest.fixture(scope="module")
def pages(month, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("month-report")
    write_report(month.uri, str(folder), ANN, now=NOW)
    return pages_in(folder)


@pytest.fixture(scope="module")
def index(pages) -> str:
    return pages["index.html"]


def day(number: int) -> str:
    return f"2026-03-{number:02}"


def price(num: int) -> str:
    """What so many requests cost, as the report says it."""
    return f"{num * story.COST:.4f}"


def cap_of(month: Month) -> str:
    return f"max_cost={month.cap}: reached; a higher cap goes on"


def test_what_went_wrong_and_what_was_done_by_hand_is_told_with_day_reason_cost_and_counts(month, index):
    told = table(index, "Nights that did not end well and runs of other jobs")
    went_on, paid_rest = (month.run_id(f"night {number}") for number in (story.WENT_ON, story.PAID_REST))
    rolled_back = f"undone by the rollback {month.run_id('rollback')}"
    num = month.told["reembed"]["num_rows_embedded"]
    expected = [
        (story.REEMBEDDED, "reembed", "done", "–", f"embedded {num} rows anew"),
        (story.IMPORTED, "rollback", "done", "–", f"back to run {month.run_id(f'night {story.IMPORTED}')}"),
        (story.IMPORTED, "import", "done", "–", f"brought 40 records; {rolled_back}"),
        (story.CAPPED, "night", "stopped", price(2), f"{cap_of(month)}; the next good night is backfill"),
        (story.KILLED, "night", "interrupted", "–", f"{GONE}; the next good night is backfill {went_on}"),
        (story.FORGOTTEN, "forget", "done", "–", "removed 2 records; removed 4 turns"),
    ]
    assert [tuple(row[:4]) for row in told] == [(day(number), *rest) for number, *rest, _ in expected]
    assert all(row[4].startswith(what) for row, (*_, what) in zip(told, expected, strict=True)), told
    assert paid_rest in told[3][4]


def test_every_night_stands_in_the_report_on_its_day_with_how_it_ended(month, index):
    rows = table(index, "All ")
    nights = {row[3][:10]: row for row in reversed(rows) if row[1] == "backfill"}
    assert list(nights) == [day(number) for number in range(1, story.NUM_NIGHTS + 1)]
    assert len(rows) == story.NUM_NIGHTS + len(story.COMPARED) + 4
    odd = {story.KILLED: "interrupted", story.CAPPED: "stopped"}
    for number in range(1, story.NUM_NIGHTS + 1):
        status = odd.get(number, "done" if number in CHANGING else "unchanged")
        assert nights[day(number)][2] == status, number
    assert {row[1]: row[2] for row in rows if row[1] != "backfill"} == dict.fromkeys(
        ("consolidate", "forget", "import", "rollback", "reembed"), "done"
    ), "a night in which nothing is to be brought back has no run that says so"


def test_a_night_that_goes_on_with_another_tells_its_own_costs_and_the_sum_is_what_was_paid(month, index):
    """The endpoint counts itself what it is paid; what a kill left in doubt it was paid twice."""
    in_doubt = 1
    spent = {
        name: num - (in_doubt if name == f"night {story.KILLED}" else 0)
        for name, num in month.num_paid.items()
    }
    # What a killed process paid stands with the night that goes on from it.
    spent[f"night {story.WENT_ON}"] += spent.pop(f"night {story.KILLED}")
    by_night = {row[0]: row[1] for row in table(index, "Cost of each night")}
    running = {row[0]: row[1] for row in table(index, "Costs, summed up")}
    tokens = {row[0]: row[1] for row in table(index, "Tokens, summed up")}
    summed = 0
    for number in range(1, story.NUM_NIGHTS + 1):
        num = spent.get(f"night {number}", 0)
        summed += num
        assert by_night[day(number)] == ("–" if number == story.KILLED else price(num) if num else "0")
        assert running[day(number)] == price(summed), number
        assert tokens[day(number)] == f"{110 * summed:,}", number
    assert summed == sum(month.num_paid.values()) - in_doubt == 31
    text = Page(index).text
    assert f"In all {summed * 100:,} tokens read, {summed * 10} written; {price(summed)} paid to" in text
    recent = sum(month.num_paid[f"night {number}"] for number in range(24, 31))
    reckoned = f"{round(recent * 110 * 30 / 7):,} tokens and {recent * story.COST * 30 / 7:.4f}"
    assert f"The next 30 nights {reckoned}, if they are like the last 7" in text


def test_the_growth_shows_what_was_imported_and_taken_out_again(index):
    views = table(index, "Active memories and turns of each view")
    at = {name: int(memories) for name, memories, _ in views}
    before = at[f"{day(story.IMPORTED)} backfill"]
    assert at[f"{day(story.IMPORTED)} import"] == before + len(story.SPAM)
    assert at[f"{day(story.IMPORTED)} rollback"] == before
    assert at[f"{day(story.MOVED)} consolidate"] == at[f"{day(story.MOVED)} backfill"] - 1
    assert views[-1][1] == str(sum(int(row[1]) for row in table(index, "3 of 3 users")))
    written = {row[0]: row[1:] for row in table(index, "What each night wrote")}
    assert written[f"{day(story.IMPORTED)} import"][0] == "40" and written[day(story.MOVED)][1] == "1"
    assert written[day(story.CAPPED)][0] == "0" and written[day(story.PAID_REST)][0] == "4"


def test_of_who_was_forgotten_nothing_is_in_the_pages(month, pages):
    assert problems(pages) == []
    everything = " ".join(pages.values())
    assert story.BOB not in everything and "Petrel" not in everything
    assert not [row for row in table(pages["index.html"], "3 of 3 users") if story.BOB in row[0]]


def test_the_page_of_who_moved_tells_where_they_lived_and_until_when(pages):
    text = Page(next(html for name, html in pages.items() if name != "index.html")).text
    assert "User lives in Lyon." in text and "User lives in Oslo now." in text and "I live in Lyon." in text
    assert "applied: delete “User lives in Lyon.” because of “User lives in Oslo now.”" in text


def test_the_history_tells_the_same_in_lines(month, capsys):
    history(HistoryConfig(store=month.uri))
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert len(lines) == story.NUM_NIGHTS + len(story.COMPARED) + 4
    told = {name: lines[month.run_id(name)] for name in month.told}
    (killed,) = (line for line in lines.values() if "interrupted" in line)
    assert f"{day(story.KILLED)} 02:" in killed and GONE in killed and "backfill" in killed
    for name, number, parts in (
        (f"night {story.CAPPED}", story.CAPPED, ("stopped", cap_of(month), f"cost {price(2)}")),
        (f"night {story.PAID_REST}", story.PAID_REST, ("4 records", "done")),
        ("import", story.IMPORTED, ("40 records", f"(undone by {month.run_id('rollback')})")),
        ("rollback", story.IMPORTED, (f"to {month.run_id(f'night {story.IMPORTED}')}",)),
        ("forget", story.FORGOTTEN, ("2 records removed", "4 turns removed")),
        ("reembed", story.REEMBEDDED, ("rows embedded",)),
    ):
        assert day(number) in told[name] and all(part in told[name] for part in parts), told[name]
    (moved,) = (line for line in lines.values() if "1 closed" in line)
    assert day(story.MOVED) in moved and "consolidate" in moved


def test_as_json_the_history_has_every_run_with_its_status_reason_and_cost(month):
    runs = history(HistoryConfig(store=month.uri, as_json=True, since=dt.date(2026, 3, story.CAPPED)))["runs"]
    first = runs[0]
    assert (first["status"], first["job"], first["reason"]) == ("stopped", "backfill", cap_of(month))
    assert first["cost"] == pytest.approx(2 * story.COST) and not first["is_published"]
    assert [run["job"] for run in runs].count("backfill") == story.NUM_NIGHTS - story.CAPPED + 1


def test_the_store_is_well_after_all_that(month):
    found = health(month.uri)
    assert found.problems == () and found.last_bad is None
    assert found.last_good.run_id == month.run_id(f"night {story.NUM_NIGHTS}")
