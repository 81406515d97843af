"""Histories by another hand than the readers'. They have what real files have and no reader needs: settings,
hidden messages, media, thoughts, calls of tools, people who joined.

`exports/NAME.*` are written for these tests; that of LycheeMem is an answer of its own server. SHAPES of
test_ingest_histories names where each shape is told.
"""

from pathlib import Path

import pytest

from jobs.ingest import AUTO
from jobs.ingest.formats import FORMATS
from tests.unit.jobs.history_files import read, told

EXPORTS = {path.stem: path for path in sorted((Path(__file__).parent / "exports").iterdir())}

SAID, LOVELY, BASIL = ("user", "I grow tomatoes in Turin."), ("assistant", "Lovely."), ("user", "And basil.")
ASKED, SUNNY = ("user", "I grow tomatoes in Turin. Weather?"), ("assistant", "Sunny.")
CALL, RESULT = ("tool", 'weather({"city": "Turin"})'), ("tool", "sunny")
BRIEF, DAY = ("system", "Be brief."), "2025-06-01 09:00"

EXPECTED = {
    "messages": [("nina", "n1", DAY, [SAID, LOVELY])],
    "message-rows": [("5", "11", DAY, [SAID, LOVELY])],
    "chatgpt-export": [
        (
            "me",
            "68000000-aaaa",
            DAY,
            [
                ("user", "[image]\nI grow tomatoes on my balcony in Turin."),
                ("tool", "bio(User grows tomatoes in Turin.)"),
                ("tool", "Model set context updated."),
                LOVELY,
            ],
        )
    ],
    "claude-export": [
        (
            "me",
            "e1",
            DAY,
            [
                ("user", "I grow tomatoes on my balcony in Turin.\n[attachment]\nSan Marzano\n[balcony.png]"),
                ("assistant", "I'll search."),
                ("tool", 'web_search({"query": "tomatoes Turin"})'),
                ("tool", "A fruit."),
                LOVELY,
                ("user", "Which sort is best?"),
            ],
        )
    ],
    "claude-code": [
        (
            "me",
            "5f0",
            DAY,
            [
                ("user", "My project grows tomatoes; never touch the lock file."),
                ("assistant", "I look."),
                ("tool", 'Bash({"command": "ls", "description": "List"})'),
                ("tool", "I live in the listing"),
                ("tool", 'Task({"prompt": "Look"})'),
                ("tool", "Seen."),
                ("assistant", "Done."),
                ("user", "Thanks.\n[image]"),
            ],
        )
    ],
    "finetune": [
        ("me", "finetune-*", None, [BRIEF, ASKED, CALL, RESULT, SUNNY]),
        ("me", "p1", None, [("user", "What is this?\n[image]"), ("assistant", "A tomato.")]),
    ],
    "sharegpt": [
        ("me", "g_0", None, [BRIEF, SAID, LOVELY]),
        (
            "me",
            "sharegpt-*",
            None,
            [("system", "Help."), ("user", "Weather?"), ("tool", '{"name": "weather"}'), RESULT, SUNNY],
        ),
        ("me", "sharegpt-*", None, [("user", "Hello"), ("assistant", "Hi")]),
    ],
    "langchain": [("me", "langchain", None, [BRIEF, ASKED, CALL, RESULT, SUNNY])],
    "openai-responses": [("me", "conv_1", DAY, [ASKED, CALL, RESULT, SUNNY])],
    "gemini-takeout": [
        (
            "me",
            "gemini 2025-06-01T09:00:00.250000+00:00",
            DAY,
            [
                ("user", "I grow tomatoes in Turin & eat them."),
                ("assistant", "Lovely\nWater them.\n<3"),
            ],
        )
    ],
    "deepseek": [("me", "ds-1", DAY, [SAID, LOVELY, BASIL])],
    "grok": [("me", "x-1", DAY, [SAID, LOVELY, BASIL])],
    "open-webui": [("nina", "w-1", DAY, [SAID, LOVELY, BASIL])],
    "telegram": [
        (
            "me",
            "Leo (7) 2025-06-01T09:00:10+00:00",
            DAY,
            [
                SAID,
                ("user", "Lovely, a photo of mine."),
                ("tool", "I live in a greenhouse."),
                ("user", "Hi."),
            ],
        )
    ],
    "whatsapp": [
        ("me", "whatsapp 2025-06-01T09:00:00+00:00", DAY, [SAID, ("user", "Mine are red.")]),
        ("me", "whatsapp 2025-06-13T18:30:00+00:00", "2025-06-13 18:30", [BASIL]),
    ],
    "slack": [
        (
            "me",
            "slack 1748768400.250000",
            DAY,
            [("user", "I grow tomatoes in Turin (https://turin.example)."), ("user", "Lovely <3")],
        ),
        ("me", "slack 2025-06-01T09:00:30.000100+00:00", DAY, [("tool", "Frost is coming.")]),
    ],
    "lychee": [("me", "t1", DAY, [SAID, LOVELY])],
    "wildchat": [("c0ffee", "ffee", "2023-06-01 09:00", [SAID, LOVELY])],
    "lmsys": [("me", "0a1b", None, [SAID, LOVELY])],
    "longmemeval": [
        ("q9_abs", "answer_1", DAY, [SAID, LOVELY]),
        ("q9_abs", "noise_2", "2025-06-02 09:00", [BASIL]),
    ],
    "locomo": [
        ("conv-9", "session_1", DAY, [SAID, ("user", "Lovely, see mine. [image: a photo of a tomato]")])
    ],
    "beam": [("me", "batch_3", "2025-06-01 00:00", [SAID, LOVELY, BASIL])],
    "realtalk": [("me", "session_1", DAY, [SAID, ("user", "Lovely. [image: a tomato]")])],
}
"""format -> (user, session, time, turns) of each session; * stands for a digest."""


def test_every_format_has_an_export_by_another_hand():
    assert set(EXPORTS) == set(EXPECTED) == set(FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_by_another_hand_is_recognised_and_read(format, capsys):
    rows, rejections = read([EXPORTS[format]], AUTO)
    assert f"taken for {format}: " in capsys.readouterr().err
    assert sorted(told(rows), key=str) == sorted(EXPECTED[format], key=str)
    assert {one.kind for one in rejections} <= {"note"}
