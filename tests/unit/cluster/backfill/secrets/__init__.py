"""Shapes of secrets and of what is none, put together from patterns, so that no scanner finds them here."""

import random
import re
import string
import uuid
from dataclasses import dataclass
from pathlib import Path

_ALPHABETS = {
    "a": string.ascii_letters + string.digits,
    "c": string.ascii_letters,
    "l": string.ascii_lowercase + string.digits,
    "u": "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
    "h": "0123456789abcdef",
    "d": string.digits,
    "b": string.ascii_letters + string.digits + "-_",
}
_DRAWN = re.compile(r"<(?:([aclhudb])(\d+)|(g))>")
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Shape:
    """A text, or several turns of one, with the values in it that must not stay."""

    group: str
    turns: tuple[str, ...]
    secrets: tuple[str, ...]


def fill(pattern: str, seed: object) -> str:
    """Put drawn characters in the place of <a24> and the like; the same ones for the same seed."""
    rng = random.Random(str(seed))

    def draw(found: re.Match) -> str:
        if found[3]:
            return str(uuid.UUID(int=rng.getrandbits(128), version=4))
        return "".join(rng.choices(_ALPHABETS[found[1]], k=int(found[2])))

    return _DRAWN.sub(draw, pattern).replace("\\n", "\n")


def shapes(seed: int = 0) -> list[Shape]:
    """The shapes of shapes.txt, filled."""
    found = []
    for number, line in enumerate(_lines("shapes.txt")):
        group, _, pattern = line.partition(" | ")
        text = fill(pattern, (seed, number))
        secrets = tuple(re.findall("«(.*?)»", text, re.DOTALL))
        turns = re.sub("[«»]", "", text).split(" || ")
        found.append(Shape(group, tuple(turns), secrets))
    return found


def innocent(seed: int = 0) -> list[str]:
    """The sentences of innocent.txt, filled."""
    return [fill(line, (seed, number)) for number, line in enumerate(_lines("innocent.txt"))]


def chats() -> list[list[str]]:
    """The turns of chats.txt."""
    return [line.split(" || ") for line in _lines("chats.txt")]


def is_gone(secret: str, text: str) -> bool:
    """Whether of a secret no eight characters in a row are left; of a shorter one, not all."""
    size = min(8, len(secret))
    return not any(secret[at : at + size] in text for at in range(len(secret) - size + 1))


def _lines(name: str) -> list[str]:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("# ") and line != "#"]
