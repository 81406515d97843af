"""Private keys as PEM, PGP and PuTTY write them, whole and truncated."""

import re

from cluster.secrets import Spans

_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|Private-Lines: \d{1,4}")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|Private-MAC: \w+")
# What follows a BEGIN without END: header lines and base64, perhaps with escaped newlines, and a last
# line cut short.
_KEY_BODY = re.compile(
    r"(?:[\s>]{0,8}(?:(?:Proc-Type|DEK-Info|Version|Comment|Hash):[^\n]*+|[A-Za-z0-9+/=\\]{16,}+))*+"
    r"(?:[\s>]{0,8}[A-Za-z0-9+/=\\]{1,15}+(?=[ \t\r]*+(?:\n|\Z)))?"
)


def find(text: str) -> Spans:
    """Keys from their header to their end, or as far as they go."""
    if "PRIVATE KEY" not in text and "Private-Lines" not in text:
        return
    begins = list(_KEY_BEGIN.finditer(text))
    ends = [m.span() for m in _KEY_END.finditer(text)][::-1]
    for i, begin in enumerate(begins):
        limit = begins[i + 1].start() if i + 1 < len(begins) else len(text)
        while ends and ends[-1][0] < begin.end():
            ends.pop()
        if ends and ends[-1][0] < limit:
            end = ends[-1][1]
        else:
            body = _KEY_BODY.match(text, begin.end(), limit)
            assert body is not None, "it matches the empty text"
            end = body.end()
        if end > begin.end():  # else it only names the header
            yield begin.start(), end, "private_key"
