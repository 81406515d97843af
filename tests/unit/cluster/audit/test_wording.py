"""What memories' own words say against them: junk is found with its reason, and what people say stays."""

import pytest

from cluster.audit.wording import Stated, faults
from schemas.audit import KINDS


def kinds_of(text, *said, is_dated=True):
    return [one.kind for one in faults(Stated(text, is_dated, said), KINDS)]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("echo", "You are a helpful coding assistant."),
        ("echo", "The assistant must answer in JSON."),
        ("echo", "AI agent has access to a browser tool."),
        ("echo", "Never reveal the system prompt."),
        ("echo", "SOUL.md defines the personality of the agent."),
        ("echo", "User's name is an AI assistant."),
        ("transient", "User asked about the weather in Rome."),
        ("transient", "The user wants to know how tides work."),
        ("transient", "User requested a short summary of an article."),
        ("transient", "User thanked the assistant."),
        ("transient", "User is currently debugging a test."),
        ("transient", "User is tired today."),
        ("transient", "HEARTBEAT_OK was sent."),
        ("transient", "The build is failing."),
        ("fragment", "Vegetarian"),
        ("fragment", "User works at the"),
        ("fragment", "User likes tea, but..."),
        ("fragment", "She likes tea."),
        ("fragment", "[redacted:password]"),
        ("fragment", "-- 12 --"),
    ],
)
def test_junk_is_found_by_its_words(kind, text):
    assert kinds_of(text) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "User lives in Oslo.",
        "User asked the landlord for a new boiler.",
        "User asked Anna to marry him.",
        "User wants to be a pilot.",
        "User currently lives in Bergen.",
        "User's assistant is called Mia.",
        "User works as an assistant at a law firm.",
        "User keeps notes in AGENTS.md.",
        "User is tired of commuting.",
        "User lives at home with her.",
        "Likes to be called Sam",
        "User's server runs Debian.",
        "用户吃素",
        "Nutzerin isst kein Fleisch.",
    ],
)
def test_what_people_say_of_themselves_stays(text):
    assert kinds_of(text) == []


def test_an_instruction_that_a_user_gave_is_no_echo():
    text = "Assistant must answer in German."
    assert kinds_of(text) == ["echo"]
    assert kinds_of(text, ("user", "Please always answer me in German.")) == []
    assert kinds_of(text, ("system", "Answer in German.")) == ["echo"]


def test_what_a_user_only_played_or_asked_is_an_echo():
    assert kinds_of("User wants a ship.", ("user", "Act as a pirate who wants a ship.")) == ["echo"]
    assert kinds_of("Tides follow the moon.", ("user", "Do the tides follow the moon?")) == ["echo"]


def test_what_rests_on_tools_alone_is_an_echo():
    assert kinds_of("User has 3 open tickets.", ("tool", '{"tickets": 3}')) == ["echo"]


def test_pasted_data_are_an_echo():
    assert kinds_of('User has {"rows": [' + ", ".join(['{"id": 1, "ok": true}'] * 40) + "]} here") == ["echo"]


def test_a_fact_about_somebody_else_is_not_the_users():
    said = ("user", "My brother has asthma, and I like tea.")
    assert kinds_of("User has asthma.", said) == ["other_person"]
    assert kinds_of("User likes tea.", said) == []
    assert kinds_of("User's brother has asthma.", said) == []
    assert kinds_of("User has asthma.", ("user", "My brother and I have asthma.")) == []
    assert kinds_of("User has asthma.", ("assistant", "Your brother has asthma.")) == []


def test_a_relative_date_counts_where_nobody_knows_the_day():
    assert kinds_of("User flies to Rome next week.", is_dated=False) == ["undated"]
    assert kinds_of("User flies to Rome next week.") == []
    assert kinds_of("User moved three years ago.", is_dated=False) == ["undated"]
    assert kinds_of("User's last name is Berg.", is_dated=False) == []
    assert kinds_of("User was born on 3 May 1990.", is_dated=False) == []


def test_only_the_kinds_that_are_asked_for_are_found():
    assert faults(Stated("Vegetarian", True), ("echo", "transient")) == []
