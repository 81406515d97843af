"""Redact secrets in the text of a turn, before anything is stored.

`redact` replaces each secret by a marker, `[redacted:KIND]`, and leaves the words around it alone:

kind          | what is replaced                                                     | found by
--------------|----------------------------------------------------------------------|----------------------
private_key   | a whole PEM, PGP or PuTTY private key, truncated too; seed words     | .private_keys, .numbers
url_password  | the password in front of the @ in a URL                              | .headers
bearer_token  | the value of an Authorization header, JSON Web Tokens                | .headers
api_key       | provider tokens; what is assigned to an API key, token or secret;    | .tokens, .carriers,
              | signatures, session cookies                                          | .source_detectors
password      | passwords, passcodes and PINs in prose of ten languages, forms, code | .passwords, .carriers,
              | and command lines                                                    | .languages
card_number   | payment card numbers whose brand, length and check digit agree       | .cards
iban          | account numbers with right check digits                              | .numbers
national_id   | national ids with right check digits, or told as one                 | .numbers
one_time_code | codes of a text message, backup codes                                | .numbers
phone_number  | where `contacts` asks for it; email_address too                      | .contacts

What else is no one's business here, `rules` name: kinds of one's own, each with its regular expression.

`redact_turns` does a whole session, and so finds what one turn announces and the next one says. What begins
with a dot is in cluster.secrets.
"""

import functools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cluster.secrets import (
    Span,
    cards,
    carriers,
    headers,
    languages,
    numbers,
    passwords,
    private_keys,
    source_detectors,
    tokens,
)
from cluster.secrets.announced import announced
from cluster.secrets.contacts import find_contacts

KINDS = (
    *("private_key", "url_password", "bearer_token", "api_key", "password", "card_number"),
    *("iban", "national_id", "one_time_code", "phone_number", "email_address"),
)

Value = TypeVar("Value")

Rules = tuple[tuple[str, re.Pattern], ...]
"""Kinds beside KINDS and what is replaced by their markers; see `compiled`."""

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")


def compiled(rules: Mapping[str, str]) -> Rules:
    """Rules out of a config: kind -> regular expression. ValueError names the one that is none."""
    found = []
    for kind, pattern in rules.items():
        if not _KIND.fullmatch(kind) or kind in KINDS:
            raise ValueError(
                f"kind {kind!r}: a kind of one's own has up to 32 of a-z, 0-9 and _, a letter first, and is "
                f"none of {', '.join(KINDS)}"
            )
        try:
            made = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{kind}={pattern!r}: no regular expression: {error}") from None
        if made.search("") or made.search(f"[redacted:{kind}]"):
            raise ValueError(
                f"{kind}={pattern!r}: it is found in an empty text or in its own marker; make it narrower"
            )
        found.append((kind, made))
    return tuple(found)


MAX_PASSES = 4
"""A marker can change what its neighbours look like, so passes repeat until one finds nothing: two nearly
always. The limit keeps the time linear on text made to defeat that."""


@dataclass(frozen=True)
class Redacted:
    text: str = field(repr=False)
    """The text with markers. Out of the repr: it is still somebody's conversation."""
    counts: dict[str, int]
    """Redactions by kind; empty if there were none."""


def redact_turns(texts: list[str], *, contacts: bool = False, rules: Rules = ()) -> list[Redacted]:
    """The turns of a session in order, each redacted; one may say what the one before it asked for."""
    found, before = [], ""
    for text in texts:
        spans = announced(before, text)
        redacted = redact(_replace(text, spans), contacts=contacts, rules=rules)
        counts = Counter(redacted.counts) + Counter(kind for _, _, kind in spans)
        found.append(Redacted(redacted.text, dict(counts)))
        before = text
    return found


def redact(text: str, *, contacts: bool = False, rules: Rules = ()) -> Redacted:
    """Replace every secret in `text` by a marker, with `contacts` phone numbers and mail addresses too, and
    what `rules` find. Idempotent, raises on no string; linear in time, if the rules are."""
    counts: Counter[str] = Counter()
    finders = (*FINDERS, find_contacts) if contacts else FINDERS
    for _ in range(MAX_PASSES):
        found = [span for finder in finders for span in finder(text)]
        found += [(*match.span(), kind) for kind, rule in rules for match in rule.finditer(text) if match[0]]
        spans = _disjoint(found, text, rules)
        if not spans:
            break
        counts.update(kind for _, _, kind in spans)
        text = _replace(text, spans)
    return Redacted(text, dict(counts))


@functools.lru_cache(maxsize=4096)
def shown_id(value: str) -> str:
    """An id as people are shown it. Ids are names that somebody gave, and a key may be among them.

    Not a card number or the like: of ids that are counted up, every tenth has a right check digit.
    """
    found = redact(value)
    return value if found.counts.keys() <= {"card_number", "iban", "national_id"} else found.text


GIVEN_NAMES = ("user_id", "conversation_id", "session_id", "speaker")
"""Columns with names that somebody gave. The store needs the ids as they are: they are its keys."""


def shown_rows(value: Any) -> Any:
    """Rows, or what is made of them, as they are shown: names that somebody gave as `shown_id` has them."""
    if isinstance(value, list):
        return [shown_rows(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: shown_id(item) if name in GIVEN_NAMES and isinstance(item, str) else shown_rows(item)
        for name, item in value.items()
    }


def shown_by_id(values: Mapping[str, Value]) -> dict[str, Value]:
    """What is known of each id, by the ids as they are shown; numbered where several would be the same."""
    found: dict[str, Value] = {}
    for name, value in values.items():
        shown = key = shown_id(name)
        number = 1
        while key in found:
            number += 1
            key = f"{shown} {number}"
        found[key] = value
    return found


@functools.cache
def _marker(*kinds: str) -> re.Pattern:
    return re.compile(rf"\[redacted:(?:{'|'.join((*KINDS, *kinds))})\]")


def _disjoint(found: list[Span], text: str, rules: Rules) -> list[Span]:
    """Merge overlapping spans; the kind of the first stays. What overlaps an earlier marker is dropped."""
    if not found:
        return []
    markers = [(m.start(), m.end(), "") for m in _marker(*(kind for kind, _ in rules)).finditer(text)]
    merged: list[Span] = []
    for start, end, kind in sorted(found + markers, key=lambda span: (span[0], -span[1])):
        if merged and start < merged[-1][1]:
            first, last, first_kind = merged[-1]
            merged[-1] = (first, max(last, end), first_kind if kind else "")
        else:
            merged.append((start, end, kind))
    return [span for span in merged if span[2]]


def _replace(text: str, spans: list[Span]) -> str:
    pieces: list[str] = []
    done = 0
    for start, end, kind in spans:
        pieces += text[done:start], f"[redacted:{kind}]"
        done = end
    return "".join([*pieces, text[done:]])


FINDERS = (
    *(private_keys.find, headers.find, source_detectors.tokens, passwords.keys, passwords.passwords),
    *(source_detectors.quoted_assignments, cards.find, tokens.by_package, carriers.find, languages.find),
    *(*tokens.FINDERS, *numbers.FINDERS),
)
"""In order of precedence: of two that find exactly the same, the first names the kind."""
