"""The text file of a WhatsApp chat as items, a message each: what a line's first words mean depends on the
phone that wrote it, and on its language.

    [2024-05-01, 09:00:12] Ann: Hello        iOS
    01/05/2024, 09:00 - Ann: Hello           Android
    5/1/24, 9:00 AM - Ann: Hello             Android, American

Whether the day or the month comes first is told by the dates of the whole file. Times have no zone, and are
taken as they stand.
"""

import codecs
import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

CHAT_FILE = "_chat.txt"
"""Name of the chat in the zip file that iOS makes."""

_FILE = re.compile(r"(?i)whatsapp.*\.txt")
_TITLE = re.compile(r"(?i)^whatsapp[- ]chat[- ]*(?:with|mit|con|avec|com|met|-)?\s+")
_MARKS = "\u200e\u200f\u202a\u202c\ufeff"
"""Marks of direction, which stand in front of what people did not write."""

_LINE = re.compile(
    rf"[{_MARKS}]*(?P<open>\[)?(?P<date>\d{{1,4}}[./-]\d{{1,2}}[./-]\d{{1,4}})\.?,?\s+"
    r"(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?:[:.](?P<second>\d{2}))?\s*(?P<half>[AaPp])?(?(half)\.?\s?[Mm]\.?)"
    r"(?(open)\]\s|\s-\s)(?P<rest>.*)",
    re.DOTALL,
)
_SPEAKER = re.compile(rf"[{_MARKS}]*(?P<from>[^:\n]{{1,80}}?):(?:\s|$)(?P<text>.*)", re.DOTALL)
NUM_LOOKED_AT = 5
"""Lines at the beginning of a file, of which one must be a message's."""


@dataclass(frozen=True)
class Message:
    """A message, or what the program itself wrote, which nobody says."""

    date: tuple[int, int, int]
    """As the numbers stand there."""
    time: dt.time | None
    half: str
    """"a" or "p" of a clock of twelve hours; empty for one of 24."""
    separator: str
    speaker: str | None
    text: str


def is_file(name: str) -> bool:
    """Whether a file of this name is a chat."""
    return name == CHAT_FILE or bool(_FILE.fullmatch(name))


def title(path_name: str, member: str | None) -> str:
    """What a chat is called, by the names of its files."""
    name = PurePosixPath(member or path_name).name
    if name == CHAT_FILE:
        name = path_name
    stem = re.sub(r"\.(?:txt|zip|gz|zst|zstd)\b", "", name)
    return _TITLE.sub("", stem) or stem


def is_chat(head: bytes) -> bool:
    """Whether a text that begins so is a chat."""
    text = head[:4096].decode(errors="replace").lstrip("\ufeff")
    return any(_LINE.match(line) for line in text.splitlines()[:NUM_LOOKED_AT])


def items(chat: str, lines: Callable[[], Iterable[str]]) -> Iterator[tuple[int, dict]]:
    """(line, message as an item) of a chat. `lines` gives its lines, and is asked twice."""
    is_day_first = day_comes_first(message for _, message in _messages(lines()))
    for number, message in _messages(lines()):
        time = _time(message, is_day_first)
        yield (
            number,
            {
                "whatsapp_chat": chat,
                "time": time.isoformat() if time else None,
                "from": message.speaker,
                "text": message.text,
            },
        )


MAX_TEXT_CHARS = 1 << 20
"""Of one message: what is behind that in a line, and lines behind that, are left out."""


def text_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a text in parts, without their ends. Damaged characters are replaced."""
    decoder, rest = codecs.getincrementaldecoder("utf-8-sig")("replace"), ""
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from (line[:MAX_TEXT_CHARS].removesuffix("\r") for line in whole)
        rest = rest[:MAX_TEXT_CHARS]
    if rest:
        yield rest


def _messages(lines: Iterable[str]) -> Iterator[tuple[int, Message]]:
    first, head, more, num_chars = 0, None, list[str](), 0
    for number, line in enumerate(lines, 1):
        if found := _LINE.match(line):
            if head is not None:
                yield first, _message(head, more)
            first, head, more, num_chars = number, found, [], 0
        elif num_chars < MAX_TEXT_CHARS:
            more.append(line)
            num_chars += len(line) + 1
    if head is not None:
        yield first, _message(head, more)


def _message(head: re.Match[str], more: list[str]) -> Message:
    one, two, three = (int(part) for part in re.split(r"[./-]", head["date"]))
    said = _SPEAKER.match(head["rest"])
    text = "\n".join([said["text"] if said else head["rest"], *more]).strip()
    try:
        time = dt.time(int(head["hour"]), int(head["minute"]), int(head["second"] or 0))
    except ValueError:
        time = None
    separator = next(char for char in head["date"] if not char.isdigit())
    speaker = said["from"].strip(_MARKS + " ~\u202f\xa0") if said else None
    return Message((one, two, three), time, (head["half"] or "").lower(), separator, speaker, text)


def day_comes_first(messages: Iterable[Message]) -> bool:
    """Whether the day stands before the month; where the year comes first it does not matter."""
    backwards = {True: 0, False: 0}
    last = {True: (0, 0, 0), False: (0, 0, 0)}
    habit = True
    for message in messages:
        one, two, year = message.date
        if one > 31:
            return True
        if one > 12 or two > 12:
            return one > 12
        habit = not (message.half and message.separator == "/")
        for is_day_first in backwards:
            day = (year, two, one) if is_day_first else (year, one, two)
            backwards[is_day_first] += day < last[is_day_first]
            last[is_day_first] = day
    return habit if backwards[True] == backwards[False] else backwards[True] < backwards[False]


def _time(message: Message, is_day_first: bool) -> dt.datetime | None:
    one, two, three = message.date
    year, month, day = (
        (one, two, three) if one > 31 else (three, two, one) if is_day_first else (three, one, two)
    )
    if message.time is None:
        return None
    hour = message.time.hour
    if message.half:
        hour = hour % 12 + (12 if message.half == "p" else 0)
    try:
        date = dt.date(year + 2000 if year < 100 else year, month, day)
        return dt.datetime.combine(date, message.time.replace(hour=hour))
    except ValueError:
        return None
