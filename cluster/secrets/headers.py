"""Passwords in URLs, values of Authorization headers, JSON Web Tokens."""

import re

from cluster.secrets import Spans
from cluster.secrets.placeholders import is_placeholder

# Up to the last @ before the path; a # or ? behind digits alone is behind a port.
_URL_PASSWORD = re.compile(r"://[^\s:/?#@\"'<>]{0,100}:(?!\d{1,5}[?#])([^\s/\"'<>]{1,256})@")
_HEADER = re.compile(
    r"(?i:authorization)[\"'`*\]\\]{0,4}\s{0,4}[:=,][\"'`*\\]{0,4}\s{0,4}[\"'`\\]{0,2}"
    r"(?i:bearer|basic|token|apikey|digest)\s{1,4}([^\s\"'`\\,;<>]{6,4096})"
)
_BEARER = re.compile(r"\b[Bb]earer\s{1,4}(?=[\w.~+/=-]{0,200}?[0-9])([\w.~+/=-]{16,4096})")
_JSON_WEB_TOKEN = re.compile(r"(?<![\w-])(eyJ[\w=-]{8,}+(?:\.[\w=-]++){1,4})")

_SHAPES = (  # a lower-case part that is quick to look for, the regex, the kind
    ("://", _URL_PASSWORD, "url_password"),
    ("authorization", _HEADER, "bearer_token"),
    ("bearer", _BEARER, "bearer_token"),
    ("eyj", _JSON_WEB_TOKEN, "bearer_token"),
)


def find(text: str) -> Spans:
    """Such values, without what stands before them."""
    lowered = text.lower()
    for part, regex, kind in _SHAPES:
        for m in regex.finditer(text) if part in lowered else ():
            if not is_placeholder(m[1]):
                yield *m.span(1), kind
