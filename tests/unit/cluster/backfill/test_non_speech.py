"""What is no speech is shown as a marker; what is speech is shown as it is, to the character."""

import base64
import json
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.backfill.non_speech import MIN_CHARS, shorten

RANDOM = random.Random(7)
BYTES = RANDOM.randbytes(3000)
BASE64 = base64.b64encode(BYTES).decode()
ROWS = [
    {"id": number, "name": f"row{number}", "v": [RANDOM.random() for _ in range(4)]} for number in range(30)
]


def lines(template: str, num: int = 12) -> str:
    return "\n".join(template.format(n=number, m=10 + number, x=RANDOM.random()) for number in range(num))


JUNK = {
    "data URI": (f"data:image/png;base64,{BASE64}", "[file image/png, 4 kB]"),
    "base64": (BASE64, "[base64 data, 4 kB]"),
    "base64 in lines": (
        "\n".join(BASE64[start : start + 64] for start in range(0, 4000, 64)),
        "[base64 data, 4 kB]",
    ),
    "hex": (BYTES.hex(), "[hex dump, 6 kB]"),
    "hex in pairs": (BYTES[:400].hex(" "), "[hex dump, 1 kB]"),
    "hex as C": (", ".join(f"0x{byte:02x}" for byte in BYTES[:200]), "[hex dump, 1 kB]"),
    "JSON": (json.dumps(ROWS), "[JSON, 3 kB]"),
    "JSON over lines": (json.dumps(ROWS, indent=2), "[JSON, 5 kB]"),
    "JSON lines": ("\n".join(map(json.dumps, ROWS)), "[JSON, 3 kB]"),
    "rows of JSON that was cut off": (json.dumps(ROWS)[1:-20], "[JSON, 3 kB]"),
    "log": (
        lines(
            "2026-01-05T10:00:{m}.000Z ERROR worker[{n}] refused host=10.0.0.{n} at m.handle (/srv/x.js:{n})"
        ),
        "[log, 12 lines]",
    ),
    "system log": (
        lines("Jan  5 10:00:{m} box sshd[{n}]: Failed password for root from 10.0.0.{n}"),
        "[log, 12",
    ),
    "access log": (
        lines('10.0.0.{n} - - [05/Jan/2026:10:00:{m} +0000] "GET /a/{n} HTTP/1.1" 200 {m}'),
        "[log",
    ),
    "log with levels only": (lines("INFO: request {n} took {x} seconds, cache miss"), "[log, 12 lines]"),
    "stack trace": (
        "Traceback (most recent call last):\n"
        + lines('  File "/srv/app/m{n}.py", line {m}, in call\n    f()'),
        "[log, 13 lines]",
    ),
    "table with tabs": (lines("{n}\t{m}\t{x}\t{m}\t{n}", 20), "[table, 20 lines]"),
    "CSV": ("id,name,score,city\n" + lines("{n},Anna {n},{x},Oslo"), "[table, 13 lines]"),
    "table with bars": (
        "| name | age |\n|---|---|\n" + lines("| Somebody named {n} | {m} |"),
        "[table, 13 lines]",
    ),
    "aligned table": (lines("job-{n}     {x:.9f}     {m}       {n}"), "[table, 12 lines]"),
    "numbers in a line": (" ".join(f"{RANDOM.random():.3f}" for _ in range(200)), "[data, 1 kB]"),
    "one character": ("=" * 900, "[=, 900 times]"),
    "white space": ("\n" * 900, "\n\n"),
}


@pytest.mark.parametrize(("junk", "marker"), JUNK.values(), ids=JUNK)
def test_what_is_no_speech_becomes_a_marker_and_the_words_around_it_stay(junk, marker):
    shown = shorten(f"I live in Ulm.\n{junk}\nWhat is it?").text
    assert shown.startswith("I live in Ulm.\n") or junk.isspace()
    assert shown.endswith("\nWhat is it?") or junk.isspace()
    assert marker in shown
    assert len(shown) < 80


def test_words_in_the_line_of_a_block_stay():
    assert shorten(f"Parse this: {json.dumps(ROWS)} What is row 3?").text == (
        "Parse this: [JSON, 3 kB] What is row 3?"
    )
    assert shorten(f"Look at ![it](data:image/png;base64,{BASE64}) please").text == (
        "Look at ![it]([file image/png, 4 kB]) please"
    )


SPEECH = {
    "profile": "About me:\n" + "\n".join(f"- Name {n}: Tomas, a tram driver from Brno" for n in range(12)),
    "family": "\n".join(f"My cousin Ana{n}, 3{n}, a nurse in Graz, has two sons" for n in range(9)),
    "diary": "\n".join(f"2026-01-0{n} 08:00 I went to see the doctor about my knee" for n in range(1, 9)),
    "schedule": "\n".join(f"at 1{n}:30 I walk the dog (the old one), at 1{n}:45 I eat" for n in range(9)),
    "chat": "\n".join(f"[09:0{n}] Ann: I live in Leeds, and I'm a vet for horses" for n in range(9)),
    "small table": "| pet | age |\n|---|---|\n| Rex the dog, a very old one | 12 |\n| Kiwi | 3 |" + " " * 300,
    "small JSON": json.dumps({"name": "Anna", "city": "Oslo"}) + " is what I wrote about myself. " * 12,
    "long words": "pneumonoultramicroscopicsilicovolcanoconiosis-" * 20,
    "Chinese": "我叫李雷，今年三十二岁，出生在成都，现在住在杭州西湖区。" * 30,
    "Hindi": "मैं दिल्ली में रहता हूँ और मेरी दो बहनें हैं। " * 30,
    "Thai": "ฉันอาศัยอยู่ในกรุงเทพและทำงานเป็นครู" * 30,
    "Arabic": "أعيش في القاهرة وأعمل مهندسًا في شركة صغيرة، " * 30,
    "laughter": "😂" * 400,
    "poem": "\n".join(f"The {n} winds, the rain, the sea; and I, alone; and you, away" for n in range(9)),
    "prices": "I paid 12.50, 3.20 and 7.99 euros, then 14.00 more; my rent is 850, it was 790 before. " * 5,
}


@pytest.mark.parametrize("speech", SPEECH.values(), ids=SPEECH)
def test_speech_is_shown_as_it_is(speech):
    assert len(speech) >= MIN_CHARS
    assert shorten(speech).text == speech


PIECES = st.sampled_from([*(junk for junk, _ in JUNK.values()), "I live in Ulm. ", "\n", "x" * 40, "你好"])


@given(st.lists(PIECES | st.text(string.printable, max_size=60), max_size=6).map("".join))
def test_every_place_of_what_is_shown_is_a_place_of_the_text_in_order(text):
    shown = shorten(text)
    places = [shown.origin(place) for place in range(len(shown.text) + 1)]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, len(text))
    markers = {place for place, is_marker in zip(shown.starts, shown.are_markers, strict=True) if is_marker}
    piece_of = {}
    for start, is_marker in zip(shown.starts, shown.are_markers, strict=True):
        piece_of[start] = is_marker
    is_marker = False
    for place, char in enumerate(shown.text):
        is_marker = piece_of.get(place, is_marker)
        assert is_marker or text[places[place]] == char
    assert len(markers) <= len(shown.text)


@given(st.text(st.sampled_from('{}[]",:0aA \n\t|='), max_size=600))
def test_any_text_is_shortened_without_error(text):
    assert len(shorten(text).text) <= len(text)
