"""Ids are hashes of several strings: how these become one, so that no other strings become the same."""

import json


def joined(*parts: str) -> str:
    """The parts in one string, from which they could be told again.

    Parts are put behind each other with NUL between them, as ids have always been made. Where a part holds a
    NUL itself, that would be the string of other parts as well ("a" and "b\\0c", "a\\0b" and "c"): they are
    written as JSON instead, behind a NUL, with which no string of the first kind begins.
    """
    if parts[0] and not any("\0" in part for part in parts):
        return "\0".join(parts)
    return "\0" + json.dumps(parts)
