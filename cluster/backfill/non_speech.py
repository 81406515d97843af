"""Parts of a message that are not speech: files in base64, dumps, logs, JSON, tables, endless white space.

The encoder sees a short marker in their place, because they say nothing about anybody and would cost a call
for every thousand tokens. The store keeps the whole turn. Ordinary text stays unchanged, to the character, so
that its segments keep their ids. Only long blocks are replaced: a list of a family in four lines is worth
reading. Junk among memories is another matter, see cluster.audit.
"""

import bisect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

MIN_CHARS = 300
"""A shorter block is left alone."""

MIN_LINES = 6
"""Lines of a log or rows of a table, as are fewer of them."""

MIN_REPEATS = 500
"""White space, or one character, is cut from this many on."""


@dataclass(frozen=True)
class Shown:
    """A text as the encoder sees it."""

    text: str
    starts: tuple[int, ...] = (0,)
    """Where in `text` its pieces begin, rising: what was kept, or the marker of what was not."""
    origins: tuple[int, ...] = (0,)
    """Where the same pieces begin in the original."""
    are_markers: tuple[bool, ...] = (False,)

    def origin(self, position: int) -> int:
        """The place in the original of a place in `text`; that of a marker's inside is what it stands for."""
        piece = bisect.bisect_right(self.starts, position) - 1
        if self.are_markers[piece]:
            return self.origins[piece]
        return self.origins[piece] + position - self.starts[piece]


@dataclass(frozen=True)
class Block:
    """A part of a text that is no speech."""

    start: int
    end: int
    marker: str


def shorten(text: str) -> Shown:
    """The text with a marker for each block that is no speech."""
    if len(text) < MIN_CHARS:
        return Shown(text)
    blocks = _apart([*_encoded(text), *_json(text), *_line_blocks(text), *_repeats(text)])
    blocks = _apart([*blocks, *_data_lines(text, blocks)])
    if not blocks:
        return Shown(text)
    pieces, starts, origins, are_markers, done, length = [], [], [], [], 0, 0

    def add(piece: str, origin: int, is_marker: bool) -> None:
        nonlocal length
        if piece:
            pieces.append(piece)
            starts.append(length)
            origins.append(origin)
            are_markers.append(is_marker)
            length += len(piece)

    for block in blocks:
        add(text[done : block.start], done, False)
        add(block.marker, block.start, True)
        done = block.end
    add(text[done:], done, False)
    # The end of the text is a place too, that of the original's end.
    return Shown("".join(pieces), (*starts, length), (*origins, len(text)), (*are_markers, False))


def _apart(blocks: list[Block]) -> list[Block]:
    """Blocks in order; of two that overlap the one that begins first, or is longer."""
    kept: list[Block] = []
    for block in sorted(blocks, key=lambda block: (block.start, -block.end)):
        if not kept or block.start >= kept[-1].end:
            kept.append(block)
    return kept


def _block(start: int, end: int, kind: str) -> Block:
    size = end - start
    return Block(start, end, f"[{kind}, {size / 1000:.0f} kB]" if size >= 1000 else f"[{kind}]")


# --- files, written as text -----------------------------------------------------------------------------

_DATA_URI = re.compile(
    r"data:(?P<kind>[\w.+-]+/[\w.+-]+)?(?:;[\w.=+-]+)*,[^\s\"'()<>\[\]]{100,}", re.IGNORECASE
)
_CODED = re.compile(
    r"(?<![A-Za-z0-9+/_=-])(?:[A-Za-z0-9+/_=-]{200,}|(?:[A-Za-z0-9+/]{40,}\r?\n){3,}[A-Za-z0-9+/]*={0,2})"
)
_HEX = re.compile(
    r"(?<![0-9A-Fa-f])(?:(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[\s,:;]*){100,}|(?:(?:0x)?[0-9A-Fa-f]{4,16}[\s,:;]+){40,})",
    re.ASCII,
)
_HEX_LETTER = re.compile("[A-Fa-fx]")
_DIGIT, _UPPER, _LOWER = re.compile("[0-9]"), re.compile("[A-Z]"), re.compile("[a-z]")


def _encoded(text: str) -> Iterator[Block]:
    for match in _DATA_URI.finditer(text):
        yield _block(*match.span(), f"file {match['kind'] or 'data'}")
    for match in _HEX.finditer(text):
        if len(match[0]) >= MIN_CHARS and _DIGIT.search(match[0]):
            kind = "hex dump" if _HEX_LETTER.search(match[0]) else "numbers"
            yield _block(match.start(), match.start() + len(match[0].rstrip()), kind)
    for match in _CODED.finditer(text):
        # Words joined by hyphens have no digits, "aaaa" has one kind of letter.
        if all(kind.search(match[0]) for kind in (_DIGIT, _UPPER, _LOWER)):
            yield _block(*match.span(), "base64 data")


# --- JSON -----------------------------------------------------------------------------------------------

_JSON_START = re.compile(r'[\[{]\s*(?:["\[{\]}0-9-]|true|false|null)')
_BETWEEN = re.compile(r"[\s,]*")
_REST_OF_LINE = re.compile(r"[\s,]*.*")
_DECODER = json.JSONDecoder()


def _json(text: str) -> Iterator[Block]:
    """JSON values that are long, alone or in a row: also the rows of an array that was cut off."""
    begun, ended = 0, None
    position, steps = 0, 8 * len(text)
    while steps > 0:
        match = _JSON_START.search(text, position)
        if match is None:
            break
        try:
            _, end = _DECODER.raw_decode(text, match.start())
        except (ValueError, RecursionError) as error:
            position = match.start() + 1
            is_long = ended is not None and ended - begun >= MIN_CHARS
            if ended is not None and is_long and _BETWEEN.fullmatch(text, ended, match.start()):
                # The row in which it was cut off.
                rest = _REST_OF_LINE.match(text, ended)
                assert rest is not None, "it matches the empty text"
                ended = position = rest.end()
            # What was looked at in vain, and the counting of lines that every error of json begins with.
            steps -= getattr(error, "pos", len(text)) - match.start() + len(text) // 500 + 1
            continue
        if ended is not None and _BETWEEN.fullmatch(text, ended, match.start()):
            ended = end
        else:
            yield from _long_json(begun, ended)
            begun, ended = match.start(), end
        position = end
    yield from _long_json(begun, ended)


def _long_json(start: int, end: int | None) -> Iterator[Block]:
    if end is not None and end - start >= MIN_CHARS:
        yield _block(start, end, "JSON")


# --- logs and tables, line by line ------------------------------------------------------------------------

_LEVEL = r"(?:ERROR|WARN|WARNING|INFO|DEBUG|TRACE|FATAL|CRITICAL|NOTICE|SEVERE|VERBOSE)"
_TIME = re.compile(
    r"\W{0,2}(?:\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d|\d\d/\w{3}/\d{4}:\d\d:\d\d|\w{3} +\d{1,2} \d\d:\d\d:\d\d"
    r"|\d\d:\d\d:\d\d\b|\[ *\d+\.\d+\])",
    re.ASCII,
)
_TECHNICAL = re.compile(
    rf"\b{_LEVEL}\b|\b[\w.]+=\S|\[\d+\]:|(?:/[\w.-]+){{2}}|\b0x[0-9a-f]{{4}}|\bHTTP/\d|\w::\w"
)
_LOG = re.compile(
    rf"\[?{_LEVEL}\]?(?:[\s:|\]]|$)|(?:\d{{1,3}}\.){{3}}\d{{1,3}} \S+ \S+ \["
    r"|\s*at [\w$<>/]+\.[\w$.<>/]* ?\(|\s+at \S+\.\w+:\d+|\s*File \".+\", line \d+|\s*\.\.\. \d+ more"
    r"|Caused by: |goroutine \d+|Traceback \(most|\s+\S+\.go:\d+",
    re.ASCII,
)
_RULE = re.compile(r"[\s|+=:*_─━│┃┌┐└┘├┤┬┴┼╔╗╚╝═║-]*")
_NUMBER = re.compile(r"[\s$€£%()+-]*\d[\d\s.,:/%eE+-]*")
_COLUMNS = re.compile(r"(?<=\S)(?: {2,}| *\t *)(?=\S)")
_DELIMITERS = ("\t", "|", ";", ",")
_LINE = re.compile(rf".{{{MIN_CHARS},}}")
_DATA_BEGINS, _DATA_ENDS = frozenset("0123456789[({"), frozenset("0123456789])}")

LINE_CHARS = 2000
"""Of a line, as much is looked at."""


def _line_blocks(text: str) -> Iterator[Block]:
    lines, position = [], 0
    for line in text.splitlines(keepends=True):
        lines.append((position, position + len(line.rstrip()), _kind_of(line[:LINE_CHARS].rstrip())))
        position += len(line)
    run: list[tuple[int, int, str]] = []
    kind = ""
    for start, end, found in [*lines, (0, 0, "end")]:
        # A blank line or a rule neither ends a block nor makes one; a log has lines that only indent.
        goes_on = found in ("", "rule", kind) or (kind == "log" and found == "indented")
        if goes_on:
            run += [(start, end, found)] if kind else []
            continue
        if kind:
            yield from _ended(run, kind)
        run, kind = (
            ([(start, end, found)], found) if found not in ("rule", "indented", "text", "end") else ([], "")
        )


def _ended(run: list[tuple], kind: str) -> Iterator[Block]:
    while run and run[-1][2] == "":
        run.pop()
    num_lines = sum(found == kind for _, _, found in run)
    start, end = run[0][0], run[-1][1]
    if num_lines >= MIN_LINES and end - start >= MIN_CHARS:
        name = "log" if kind == "log" else "table"
        yield Block(start, end, f"[{name}, {num_lines} lines]")


def _kind_of(line: str) -> str:
    """What a line is: log, a row of columns, a rule, indented, text, or "" for a blank one."""
    if not line.strip():
        return ""
    if _RULE.fullmatch(line):
        return "rule"
    if _LOG.match(line) or (_TIME.match(line) and _TECHNICAL.search(line)):
        return "log"
    for delimiter in _DELIMITERS:
        if line.count(delimiter) < 2:
            continue
        fields = line.strip("|").split(delimiter)
        share = sum(bool(_NUMBER.fullmatch(field)) for field in fields) / len(fields)
        # With a space behind its commas it is a sentence, unless most of it is numbers.
        if delimiter not in ",;" or share >= 0.6 or f"{delimiter} " not in line:
            return f"row {delimiter}"
    columns = _COLUMNS.split(line.strip())
    if len(columns) >= 3 and sum(bool(_NUMBER.fullmatch(field)) for field in columns) >= len(columns) / 3:
        return "row columns"
    return "indented" if line[0] in " \t" else "text"


def _data_lines(text: str, blocks: list[Block]) -> Iterator[Block]:
    """Of long lines outside of other blocks, what is mostly digits and signs, between its words."""
    edges = [0, *(edge for block in blocks for edge in (block.start, block.end)), len(text)]
    for begin, stop in zip(edges[::2], edges[1::2], strict=True):
        for line in _LINE.finditer(text, begin, stop):
            start, end = line.span()
            while start < end and text[start] not in _DATA_BEGINS:
                start += 1
            while start < end and text[end - 1] not in _DATA_ENDS:
                end -= 1
            # Only signs of ASCII count: other scripts write vowels as marks.
            plain = [char for char in text[start:end] if not char.isspace()]
            num_signs = sum(char.isascii() and not char.isalpha() for char in plain)
            if end - start >= MIN_CHARS and num_signs > 0.6 * len(plain):
                yield _block(start, end, "data")


# --- repeats ----------------------------------------------------------------------------------------------

_SPACE = re.compile(rf"(?<!\s)\s{{{MIN_REPEATS},}}")
_SAME = re.compile(rf"(\S)(?<!\1\1)\1{{{MIN_REPEATS - 1},}}")


def _repeats(text: str) -> Iterator[Block]:
    for match in _SPACE.finditer(text):
        yield Block(*match.span(), "\n\n" if "\n" in match[0] else " ")
    for match in _SAME.finditer(text):
        yield Block(*match.span(), f"[{match[1]}, {len(match[0])} times]")
