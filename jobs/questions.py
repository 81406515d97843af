"""Questions with known evidence, of LongMemEval, LoCoMo and the sample world, named as their archive is.

The archive numbers turns as jobs.ingest leaves them: sessions by date, turns without text dropped.
"""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from jobs.cli import UsageError
from jobs.items import read_all_items

TurnKey = tuple[str, int]
"""Session id and turn index."""

LOCOMO_TYPES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
"""Category 5 asks for what was never said; there is nothing to retrieve."""


@dataclass(frozen=True)
class Question:
    """A question about one user's history. `evidence` may be empty: what cannot be answered has none."""

    question_id: str
    user_id: str
    question_type: str
    text: str
    answer: str
    evidence: frozenset[TurnKey]
    sessions: frozenset[str]
    """Sessions that the answer rests on. LongMemEval names some also where it marks no turn."""
    outdated: frozenset[TurnKey] = frozenset()
    """For a changed value: turns that state an older one. The other evidence states the current one."""


def read_questions(path: str, format: str | None = None, *, option: str = "--questions") -> list[Question]:
    """All questions of a file (JSON lines or one JSON array, plain or gzip). UsageError for what is none."""
    questions = []
    for number, item in enumerate(read_all_items(path, option), 1):
        kind = format or _format_of(item)
        try:
            questions += READERS[kind](item, Path(path))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"{option} {path}: item {number} is none of {kind or 'a known format'} "
                f"({type(error).__name__}: {error}); give a file of {', '.join(READERS)}"
            ) from None
    if not questions:
        raise UsageError(f"{option} {path}: holds no question; check the path")
    return questions


def _format_of(item: dict) -> str | None:
    marks = {"haystack_sessions": "longmemeval", "qa": "locomo", "evidence": "sample"}
    return next((kind for name, kind in marks.items() if name in item), None)


def _is_kept(turn: dict, name: str = "content") -> bool:
    """Whether jobs.ingest keeps a turn; it drops those in which nothing was said."""
    return bool((turn.get(name) or "").strip())


# --- LongMemEval ----------------------------------------------------------------------------------------


def _longmemeval(item: dict, path: Path) -> list[Question]:
    """`has_answer` marks the evidence; where a turn lacks it, the turn is none. A session that stands twice
    in a haystack has the suffix #2 by date. For a knowledge update, the latest session with evidence states
    the current value and the others an outdated one, whatever the question asks for."""
    dated = zip(item["haystack_dates"], item["haystack_session_ids"], item["haystack_sessions"], strict=True)
    evidence: list[TurnKey] = []
    names: list[str] = []
    for _, session_id, turns in sorted(dated, key=lambda session: _date(session[0])):
        name, number = session_id, 1
        while name in names:
            number += 1
            name = f"{session_id}#{number}"
        names.append(name)
        kept = (turn for turn in turns if _is_kept(turn))
        evidence += [(name, index) for index, turn in enumerate(kept) if turn.get("has_answer")]
    outdated = []
    if item["question_type"] == "knowledge-update" and evidence:
        outdated = [key for key in evidence if key[0] != evidence[-1][0]]
    return [
        Question(
            question_id=str(item["question_id"]),
            user_id=str(item["question_id"]),
            question_type=item["question_type"],
            text=item["question"],
            answer=str(item["answer"]),
            evidence=frozenset(evidence),
            sessions=frozenset(item["answer_session_ids"]),
            outdated=frozenset(outdated),
        )
    ]


def _date(text: str) -> list[int]:
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if len(numbers) != 5:
        raise ValueError(f"haystack_dates: {text!r} must be a date like '2023/05/20 (Sat) 02:21'")
    return numbers


# --- LoCoMo ---------------------------------------------------------------------------------------------


def _locomo(item: dict, path: Path) -> list[Question]:
    """`evidence` names turns by their dia_id (`D1:3`); what it names but nobody said is left out."""
    said: dict[str, TurnKey] = {}
    for name, turns in item["conversation"].items():
        if re.fullmatch(r"session_\d+", name):
            kept = (turn for turn in turns if _is_kept(turn, "text") or _is_kept(turn, "blip_caption"))
            said |= {turn["dia_id"]: (name, index) for index, turn in enumerate(kept)}
    questions = []
    for number, asked in enumerate(item["qa"]):
        if asked["category"] not in LOCOMO_TYPES:
            continue
        named = re.findall(r"D\d+:\d+", " ".join(asked.get("evidence") or []))
        evidence = frozenset(said[dia_id] for dia_id in named if dia_id in said)
        questions.append(
            Question(
                question_id=f"{item['sample_id']}-q{number:03}",
                user_id=str(item["sample_id"]),
                question_type=LOCOMO_TYPES[asked["category"]],
                text=asked["question"],
                answer=str(asked.get("answer", "")),
                evidence=evidence,
                sessions=frozenset(session_id for session_id, _ in evidence),
            )
        )
    return questions


# --- the sample world -----------------------------------------------------------------------------------


def _sample(item: dict, path: Path) -> list[Question]:
    """Older values of what a knowledge update asks for are in memories.jsonl, beside the questions."""
    evidence = frozenset((turn["session_id"], turn["turn_index"]) for turn in item["evidence"])
    outdated: frozenset[TurnKey] = frozenset()
    if item["question_type"] == "knowledge-update":
        memories = [row for row in _memories(path) if row["user_id"] == item["user_id"]]
        asked = {
            row["fact_key"]
            for row in memories
            if row["status"] == "current" and row["value"] == item["answer"] and _turns(row) & evidence
        }
        older = [row for row in memories if row["fact_key"] in asked and row["status"] == "superseded"]
        outdated = frozenset().union(*map(_turns, older)) - evidence
    return [
        Question(
            question_id=item["question_id"],
            user_id=item["user_id"],
            question_type=item["question_type"],
            text=item["question"],
            answer=str(item["answer"]),
            evidence=evidence,
            sessions=frozenset(session_id for session_id, _ in evidence),
            outdated=outdated,
        )
    ]


@functools.lru_cache(maxsize=1)
def _memories(questions: Path) -> list[dict]:
    path = questions.with_name("memories.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def _turns(memory: dict) -> frozenset[TurnKey]:
    return frozenset((memory["session_id"], turn) for turn in memory["evidence_turns"])


READERS = {"longmemeval": _longmemeval, "locomo": _locomo, "sample": _sample}
