"""Keys in the paths of URLs: webhooks, bots, links that open what they name to whoever has them.

A path says what something is called, and a reader of a config needs it. So only three things count as keys:
what stands behind an address that is known to end in one, tokens of providers, and parts that chance has
drawn; the last not in object stores, whose names open nothing.
"""

import functools
import re
from collections.abc import Iterator
from itertools import pairwise

from cluster.secrets import Span, Spans
from cluster.secrets.carriers import HOOKS
from cluster.secrets.tokens import by_package, documented, prefixed

_URL = re.compile(r"(?<![a-z0-9])([a-z][a-z0-9+.-]{1,20})://[^\s\"'<>\\]+", re.IGNORECASE)
_OF_WEB = re.compile(r"(?:https?|wss?)\Z")
"""How the schemes end in whose paths keys are found."""

_BEHIND = re.compile(
    r"/(?:(?:web)?hooks?|incoming|catch|token|secret|key|api-?key|invite|shared?|download-token)(?=/)",
    re.IGNORECASE,
)
"""Parts behind which keys stand, such as digests and UUIDs, that elsewhere are names."""

_PART = re.compile(r"[^/]+")
_RUN = re.compile(r"[A-Za-z0-9]{16,}")
_KINDS = (str.islower, str.isupper, str.isdigit)

MIN_CHANGES = 0.4
"""Of the pairs of neighbours in a part, so many are of two kinds (small, capital, digit) where chance has
drawn it: of letters and digits alike 20 of 21 of 20 characters have as many, and all three
kinds. Words and versions that were put together have less."""


def in_paths(text: str) -> Spans:
    """Keys in the paths of all URLs of a text."""
    for found in _URL.finditer(text):
        start, path, end = _path(found)
        if start < end:
            for first, last, kind in _of_providers(text[found.start() : end], found.start()):
                if last > start:
                    yield max(first, start), last, kind
            if _OF_WEB.search(found[1].lower()):
                yield from _drawn(path, start)


def _path(url: re.Match) -> tuple[int, str, int]:
    """(where the path of a URL begins in its text, the path, where it ends)."""
    whole, after = url[0].rstrip(".,;:!)]}"), len(url[1]) + 3
    start = whole.find("/", after)
    if start < 0:
        return url.end(), "", url.end()
    end = min((at for at in (whole.find("?", start), whole.find("#", start)) if at >= 0), default=len(whole))
    return url.start() + start, whole[start:end], url.start() + end


def _of_providers(url: str, start: int) -> Iterator[Span]:
    for found in HOOKS.finditer(url):
        yield start + found.start("v"), start + found.end("v"), "api_key"
    for find in (documented, prefixed, functools.partial(by_package, with_placeholders=True)):
        yield from ((start + first, start + last, kind) for first, last, kind in find(url))


def _drawn(path: str, start: int) -> Iterator[Span]:
    behind = _BEHIND.search(path)
    for part in _PART.finditer(path):
        is_behind = behind is not None and part.start() > behind.start() + 1
        if _is_drawn(part[0]) or (is_behind and _is_digest(part[0])):
            yield start + part.start(), start + part.end(), "api_key"


def _is_drawn(part: str) -> bool:
    for run in _RUN.findall(part):
        kinds = [next((i for i, is_it in enumerate(_KINDS) if is_it(char)), 3) for char in run]
        changes = sum(one != other for one, other in pairwise(kinds))
        if len(set(kinds)) == 3 and changes >= MIN_CHANGES * (len(run) - 1):
            return True
    return False


def _is_digest(part: str) -> bool:
    """Whether a part looks as a digest, a UUID or a drawn name of small letters does."""
    bare = re.sub(r"[-_.~=]", "", part)
    return len(bare) >= 12 and len(re.findall(r"\d", bare)) >= 3 and bool(re.search("[A-Za-z]", bare))
