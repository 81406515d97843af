"""Records against the memories that people wrote down for the same conversations.

A record matches a memory if it rests on one of its turns, says or denies as the memory does, and holds one
alternative of every key. Matching is one to one, and takes as many memories that must be found as it can.
Records without evidence (of another system) are matched by user and words alone.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_NEGATION = re.compile(
    r"\b(?:not|never|no|nor|none|nobody|nothing|neither|without|cannot|quit|quits|stopped|lacks|dislikes?|hates?"
    r"|avoids?|refuses?|unable|gave up|nicht|kein\w*|nie|nunca|jamás|sin|ne\b.+?\bpas|jamais|sans)\b"
    r"|n['’]t\b|不|没|无|别",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


@dataclass(frozen=True)
class Found:
    """A record or memory as it is compared. `turns` are (session id, turn index)."""

    id: str
    user_id: str
    text: str
    turns: frozenset[tuple[str, int]] = frozenset()
    keys: tuple[tuple[str, ...], ...] = ()
    is_must: bool = True


def denies(text: str) -> bool:
    """Whether a statement is a negative one, by its words."""
    return bool(_NEGATION.search(text))


def holds_keys(text: str, keys: Iterable[Iterable[str]]) -> bool:
    """Whether one alternative of every key stands in the text; case does not count."""
    text = text.casefold()
    return all(any(alternative.casefold() in text for alternative in key) for key in keys)


def same_turns(record: Found, memory: Found) -> bool:
    """Whether a record may be compared with a memory at all."""
    return record.user_id == memory.user_id and (not record.turns or bool(record.turns & memory.turns))


def matches(record: Found, memory: Found) -> bool:
    """See above."""
    return (
        same_turns(record, memory)
        and denies(record.text) == denies(memory.text)
        and holds_keys(record.text, memory.keys)
    )


def pair(records: list[Found], memories: list[Found]) -> dict[str, str]:
    """Record id -> memory id, one to one."""
    from scipy.optimize import linear_sum_assignment

    pairs: dict[str, str] = {}
    of_user: dict[str, tuple[list[Found], list[Found]]] = defaultdict(lambda: ([], []))
    for side, rows in enumerate((records, memories)):
        for row in rows:
            of_user[row.user_id][side].append(row)
    for mine, wanted in of_user.values():
        # Any match before none, and what must be found before what may.
        worth = np.array([[matches(r, m) * (1000 + 10 * m.is_must) for m in wanted] for r in mine], float)
        if worth.size:
            for row, column in zip(*linear_sum_assignment(-worth), strict=True):
                if worth[row, column] > 0:
                    pairs[mine[row].id] = wanted[column].id
    return pairs


def score(records: list[Found], memories: list[Found]) -> dict:
    """Counts and shares; None where there is nothing to divide by. Lists of ids for who wants to look."""
    pairs = pair(records, memories)
    found = set(pairs.values())
    must = [memory for memory in memories if memory.is_must]
    missed = [memory.id for memory in must if memory.id not in found]
    wrong = [record for record in records if record.id not in pairs]
    turned, numbers = [], []
    for record in wrong:
        near = [memory for memory in memories if memory.id not in found and same_turns(record, memory)]
        if any(
            holds_keys(record.text, memory.keys) and denies(record.text) != denies(memory.text)
            for memory in near
        ):
            turned.append(record.id)
        elif any(_lost_number(record, memory) for memory in near):
            numbers.append(record.id)
    return {
        "num_records": len(records),
        "num_must": len(must),
        "num_may": len(memories) - len(must),
        "recall": _share(len(must) - len(missed), len(must)),
        "precision": _share(len(pairs), len(records)),
        "num_negations_lost": len(turned),
        "num_numbers_lost": len(numbers),
        "missed": missed,
        "wrong": [record.id for record in wrong],
        "negations_lost": turned,
        "numbers_lost": numbers,
    }


def _lost_number(record: Found, memory: Found) -> bool:
    """Whether the record would match, but for a number."""
    words = [key for key in memory.keys if not any(_NUMBER.fullmatch(item) for item in key)]
    return (
        0 < len(words) < len(memory.keys)
        and denies(record.text) == denies(memory.text)
        and holds_keys(record.text, words)
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
