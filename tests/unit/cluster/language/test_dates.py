"""Dates of statements: every example is a day on which it was said, what was said, and what it means."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.language.dates import resolve

SATURDAY = "2026-01-10"


@pytest.mark.parametrize(
    ("day", "said", "text", "valid_from", "valid_to"),
    [
        (SATURDAY, "User adopted a cat yesterday.", "User adopted a cat on 2026-01-09.", "2026-01-09", ""),
        (
            SATURDAY,
            "User has a dentist appointment next Friday at 10.",
            "User has a dentist appointment on 2026-01-16 at 10.",
            "2026-01-16",
            "",
        ),
        (
            "2026-05-14",
            "User's wife Ines starts at the bank on Monday.",
            "User's wife Ines starts at the bank on 2026-05-18.",
            "2026-05-18",
            "",
        ),
        (
            "2026-05-14",
            "User's gearbox died last week.",
            "User's gearbox died in the week of 2026-05-04.",
            "2026-05-04",
            "2026-05-10",
        ),
        (
            "2025-11-20",
            "User bought a hob last month.",
            "User bought a hob in October 2025.",
            "2025-10-01",
            "2025-10-31",
        ),
        (
            "2026-01-05",
            "User quit chess in March.",
            "User quit chess in March 2025.",
            "2025-03-01",
            "2025-03-31",
        ),
        (
            "2026-01-05",
            "User plans to move in March.",
            "User plans to move in March 2026.",
            "2026-03-01",
            "2026-03-31",
        ),
        (
            "2025-03-15",
            "User is moving two weeks from today.",
            "User is moving on 2025-03-29.",
            "2025-03-29",
            "",
        ),
        (
            "2024-07-01",
            "User has been sober since the 4th of March 2021.",
            "User has been sober since 2021-03-04.",
            "2021-03-04",
            "",
        ),
        (
            "2024-05-13",
            "User's van is in the garage until Friday.",
            "User's van is in the garage until 2024-05-17.",
            "",
            "2024-05-17",
        ),
        ("2024-05-01", "User was ill three days ago.", "User was ill on 2024-04-28.", "2024-04-28", ""),
        (
            "2024-05-01",
            "User got the keys on the 15th.",
            "User got the keys on 2024-04-15.",
            "2024-04-15",
            "",
        ),
        (
            "2024-05-01",
            "User gets the keys on the 15th.",
            "User gets the keys on 2024-05-15.",
            "2024-05-15",
            "",
        ),
        (
            "2024-05-01",
            "User stays from 7 to 10 September.",
            "User stays from 2024-09-07 to 2024-09-10.",
            "2024-09-07",
            "2024-09-10",
        ),
        (
            "2024-11-02",
            "User's essay is due on the 1st of March.",
            "User's essay is due on 2025-03-01.",
            "",
            "2025-03-01",
        ),
        (
            "2026-03-15",
            "User moved to Oslo last March.",
            "User moved to Oslo in March 2025.",
            "2025-03-01",
            "2025-03-31",
        ),
        (
            "2026-05-14",
            "User stays from 28 to 3 June.",
            "User stays from 2026-05-28 to 2026-06-03.",
            "2026-05-28",
            "2026-06-03",
        ),
        (
            "2026-05-14",
            "User stays from 28 May to 3 June.",
            "User stays from 2026-05-28 to 2026-06-03.",
            "2026-05-28",
            "2026-06-03",
        ),
        (
            "2026-05-14",
            "User is away from Monday until Friday.",
            "User is away from 2026-05-18 until 2026-05-22.",
            "2026-05-18",
            "2026-05-22",
        ),
        ("2026-05-14", "User fell on Thursday.", "User fell on 2026-05-14.", "2026-05-14", ""),
        ("2026-05-14", "User ate out on 3 May.", "User ate out on 2026-05-03.", "2026-05-03", ""),
        ("2026-12-26", "User cooked on Christmas.", "User cooked on 2026-12-25.", "2026-12-25", ""),
        ("2026-05-14", "User moved in yesterday.", "User moved in on 2026-05-13.", "2026-05-13", ""),
        (
            "2026-05-14",
            "User was at the May 2024 concert.",
            "User was at the May 2024 concert.",
            "2024-05-01",
            "2024-05-31",
        ),
    ],
)
def test_words_of_time_become_the_days_that_they_mean(day, said, text, valid_from, valid_to):
    found = resolve(said, dt.date.fromisoformat(day))
    assert (found.text, found.valid_from, found.valid_to) == (text, valid_from, valid_to)


@pytest.mark.parametrize(
    "text",
    [
        "User trains every Tuesday and Thursday.",
        "User works Monday to Friday.",
        "User swims on Wednesday evenings.",
        "User's birthday is on 4 July.",
        "User may buy a car soon.",
        "User's friend April lives in Austin.",
        "User recently moved.",
        "User has 2019 stamps.",
        "User lives on the fifth floor.",
        "User lost 5 kilos in the last year.",
        "User married half a year ago.",
        "User lives in 15 years.",
    ],
)
def test_what_comes_again_or_is_vague_sets_no_date(text):
    found = resolve(text, dt.date(2026, 1, 10))
    assert (found.text, found.valid_from, found.valid_to) == (text, "", "")


def test_without_the_day_of_the_message_only_whole_dates_count():
    assert resolve("User moved yesterday.", None).text == "User moved yesterday."
    assert resolve("User moved on 3 May 2024.", None).valid_from == "2024-05-03"


@given(st.text(max_size=80), st.dates(dt.date(1990, 1, 1), dt.date(2100, 1, 1)))
def test_any_text_is_read_and_a_resolved_text_stays_as_it_is(text, day):
    found = resolve(text, day)
    assert resolve(found.text, day).text == found.text
    assert not (found.valid_from and found.valid_to) or found.valid_from <= found.valid_to
