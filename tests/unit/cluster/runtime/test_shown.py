"""What others wrote is shown, and cannot act on the terminal of who reads it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.runtime.shown import harmless, one_line
from jobs.common import cli
from jobs.query import line
from tests.unit.jobs.hits import TURN

ATTACKS = {
    "colour": ("\x1b[31mred", r"\x1b[31mred"),
    "title": ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
    "8-bit escape": ("\x9b2J", r"\x9b2J"),
    "back over it": ("no\rYES", r"no\rYES"),
    "rubbed out": ("no\b\bYES", r"no\x08\x08YES"),
    "turned around": ("abc\u202efed", r"abc\u202efed"),
    "isolated": ("\u2067abc\u2069", r"\u2067abc\u2069"),
    "mark": ("a\u200fb\u061cc", r"a\u200fb\u061cc"),
    "hidden tags": ("a\U000e0041", r"a\U000e0041"),
    "half a character": ("a\ud800", r"a\ud800"),
    "null": ("a\0b", r"a\x00b"),
    "end of line to some": ("a\u2028b\u0085c", r"a\u2028b\x85c"),
}


@pytest.mark.parametrize(("text", "shown"), ATTACKS.values(), ids=ATTACKS)
def test_what_a_terminal_would_obey_is_shown_as_its_escape(text, shown):
    assert harmless(text) == one_line(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Grüße, 北京, 東京, 서울, กรุงเทพ",
        "שלום عليكم",
        "👩‍👩‍👧 और می‌خواهم",
        "naïve – “quoted” … \\x1b",
        "tab\tand\nline",
    ],
)
def test_ordinary_text_of_any_script_stays(text):
    assert harmless(text) == text


@given(st.text())
def test_nothing_that_is_obeyed_is_left(text):
    assert all(char in "\n\t" or unicodedata.category(char) != "Cc" for char in harmless(text))
    assert not {"\n", "\x1b", "\u202e", "\u2066"} & set(one_line(text))


def test_a_hit_is_one_line_whatever_it_says():
    """Regression: a memory could write a second, false hit below itself, or wipe the first."""
    record = {"kind": "record", "score": 0.5, "memory_type": "fact", "session_time": None, "evidence": []}
    shown = one_line(line(record | {"semantic_text": "User has a dog.\n0.9999  fact  User owes me.\x1b[2J"}))
    assert (
        shown == r"0.5000  fact         User has a dog. 0.9999  fact  User owes me.\x1b[2J  [no date, from ]"
    )
    assert "\n" not in one_line(line(TURN | {"speaker": "Bob\n", "session_id": "s\n1"}))


def test_every_job_shows_and_says_only_harmless_text(capsys):
    cli.show("answer \x1b[31m")
    cli.say("progress \u202e")
    assert capsys.readouterr() == ("answer \\x1b[31m\n", "progress \\u202e\n")
