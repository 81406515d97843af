"""Questions with known evidence, of LongMemEval, LoCoMo, BEAM, REALTALK and the sample world, named as their
archive is.

The archive numbers turns as jobs.ingest leaves them: sessions by date, turns without text dropped.
"""

import datetime as dt
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from dateutil import parser
from pydantic import BeforeValidator

from jobs.common.cli import UsageError
from jobs.common.dialogues import (
    SESSION,
    beam_day,
    beam_session,
    beam_text,
    beam_turns,
    realtalk_sessions,
    realtalk_time,
    realtalk_user,
)
from jobs.common.input_items import read_all_items

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
    asked_on: dt.date | None = None
    """The day on which it is asked, where that is known: "last week" is seen from there."""
    at: dt.date | None = None
    """The day that it asks about, where it asks for what was true then."""
    stale: tuple[str, ...] = ()
    """Wrong answers that were right once."""


def _as_list(files: object) -> object:
    return [files] if isinstance(files, str) else files


QuestionFiles = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
"""Files with questions, as a setting: a list, or one name."""


def read_questions(path: str, format: str | None = None, *, option: str = "--questions") -> list[Question]:
    """All questions of a file (JSON lines or one JSON array, plain or gzip). UsageError names the first
    item that is not one."""
    questions = []
    for number, item in enumerate(read_all_items(path, option), 1):
        kind = format or _format_of(item)
        try:
            questions += READERS[kind or ""](item, Path(path))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"{option} {path}: item {number} is none of {kind or 'a known format'} "
                f"({type(error).__name__}: {error}); give a file of {', '.join(READERS)}"
            ) from None
    if not questions:
        raise UsageError(f"{option} {path}: holds no question; check the path")
    return questions


def _format_of(item: dict) -> str | None:
    marks = {
        "haystack_sessions": "longmemeval",
        "session_1": "realtalk",
        "qa": "locomo",
        "evidence": "sample",
    }
    marks |= {"information_extraction": "beam", "knowledge_update": "beam"}
    return next((kind for name, kind in marks.items() if name in item), None)


def _day(text: object) -> dt.date | None:
    """The day of a date in any writing; None where there is none."""
    if isinstance(text, str) and (found := re.match(r"(\d{4})[-/](\d\d)[-/](\d\d)", text)):
        return dt.date(*map(int, found.groups()))
    try:
        return parser.parse(text, fuzzy=True).date() if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None


def _is_kept(turn: dict, name: str = "content") -> bool:
    """Whether jobs.ingest keeps a turn; it drops those in which nothing was said."""
    return bool((turn.get(name) or "").strip())


# --- LongMemEval ----------------------------------------------------------------------------------------


def _longmemeval(item: dict, path: Path) -> list[Question]:
    """`has_answer` marks the evidence; a turn without it is not evidence. A session that is twice
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
            asked_on=_day(item.get("question_date")),
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
    days: list[dt.date | None] = []
    conversation = item["conversation"]
    for name, turns in conversation.items():
        if SESSION.fullmatch(name):
            kept = (turn for turn in turns if _is_kept(turn, "text") or _is_kept(turn, "blip_caption"))
            said |= {turn["dia_id"]: (name, index) for index, turn in enumerate(kept)}
            # LoCoMo also dates sessions that were never held.
            days.append(_day(conversation.get(f"{name}_date_time")))
    return _of_dialogue(item["qa"], str(item["sample_id"]), said, days)


def _of_dialogue(
    asked: list[dict], user_id: str, said: dict[str, TurnKey], days: list[dt.date | None]
) -> list[Question]:
    """Questions of two people's dialogue, asked on the day of its last session. Evidence D1:3-D1:5 is all
    from the first of these turns to the last."""
    questions = []
    for number, item in enumerate(asked):
        if item["category"] not in LOCOMO_TYPES:
            continue
        spans = re.findall(r"D(\d+):(\d+)(?:\s*-\s*D\1:(\d+))?", " ".join(item.get("evidence") or []))
        named = [
            f"D{part}:{turn}"
            for part, first, last in spans
            for turn in range(int(first), int(last or first) + 1)
        ]
        evidence = frozenset(said[dia_id] for dia_id in named if dia_id in said)
        questions.append(
            Question(
                question_id=f"{user_id}-q{number:03}",
                user_id=user_id,
                question_type=LOCOMO_TYPES[item["category"]],
                text=item["question"],
                answer=str(item.get("answer", "")),
                evidence=evidence,
                sessions=frozenset(session_id for session_id, _ in evidence),
                asked_on=max((day for day in days if day), default=None),
            )
        )
    return questions


# --- REALTALK -------------------------------------------------------------------------------------------


def _realtalk(item: dict, path: Path) -> list[Question]:
    """As LoCoMo's. Questions of which no evidence was said are left out: there is nothing to find."""
    said: dict[str, TurnKey] = {}
    names = realtalk_sessions(item)
    for name in names:
        kept = (turn for turn in item[name] if _is_kept(turn, "clean_text") or _is_kept(turn, "blip_caption"))
        said |= {turn["dia_id"]: (name, index) for index, turn in enumerate(kept)}
    days = [_day(realtalk_time(item.get(f"{name}_date_time"))) for name in names]
    questions = _of_dialogue(item["qa"], realtalk_user(item), said, days)
    return [question for question in questions if question.evidence]


# --- BEAM -----------------------------------------------------------------------------------------------


def _beam(item: dict, path: Path) -> list[Question]:
    """probing_questions.json as it lies in BEAM, two folders below chat.json, whose turns it names by their
    number. The user is named as the conversation's folder: ingest its chat.json with that --user-id.
    Questions of which no evidence was said are left out, as those that cannot be answered."""
    folder = path.absolute().parents[1]
    if not (folder / "chat.json").is_file():
        raise ValueError(f"{folder / 'chat.json'}: no such file; the questions name its turns")
    batches = json.loads((folder / "chat.json").read_text(encoding="utf-8"))
    said: dict[int, TurnKey] = {}
    for batch in batches:
        kept = (turn for turn in beam_turns(batch) if (beam_text(turn.get("content")) or "").strip())
        said |= {turn["id"]: (beam_session(batch), index) for index, turn in enumerate(kept)}
    asked_on = max((day for batch in batches if (day := _day(beam_day(batch)))), default=None)
    questions = []
    for kind, asked in item.items():
        for number, one in enumerate(asked):
            named = one.get("source_chat_ids")
            evidence = frozenset(said[turn] for turn in _numbers(named) if turn in said)
            if not evidence:
                continue
            older = _numbers(named.get("original_info")) if kind == "knowledge_update" else []
            newer = _numbers(named.get("updated_info")) if kind == "knowledge_update" else []
            answers = (
                one.get(name) for name in ("answer", "ideal_answer", "ideal_response", "ideal_summary")
            )
            questions.append(
                Question(
                    question_id=f"{folder.name}-{kind}-{number}",
                    user_id=folder.name,
                    question_type=kind,
                    text=one["question"],
                    answer=str(next((answer for answer in answers if answer), "")),
                    evidence=evidence,
                    sessions=frozenset(session_id for session_id, _ in evidence),
                    outdated=frozenset(said[turn] for turn in {*older} - {*newer} if turn in said),
                    asked_on=asked_on,
                )
            )
    return questions


def _numbers(named: object) -> list[int]:
    """All numbers in lists and objects within each other."""
    if isinstance(named, int):
        return [named]
    inner = named.values() if isinstance(named, dict) else named if isinstance(named, list) else ()
    return [number for one in inner for number in _numbers(one)]


# --- the sample world -----------------------------------------------------------------------------------


def _sample(item: dict, path: Path) -> list[Question]:
    """Turns with older values are named by the question itself, or for a knowledge update found in
    memories.jsonl, beside the questions."""
    evidence = frozenset((turn["session_id"], turn["turn_index"]) for turn in item["evidence"])
    outdated = frozenset((turn["session_id"], turn["turn_index"]) for turn in item.get("outdated", ()))
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
            asked_on=_day(item.get("question_date")),
            at=_day(item.get("at")),
            stale=tuple(item.get("stale") or ()),
        )
    ]


@functools.lru_cache(maxsize=1)
def _memories(questions: Path) -> list[dict]:
    path = questions.with_name("memories.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def _turns(memory: dict) -> frozenset[TurnKey]:
    return frozenset((memory["session_id"], turn) for turn in memory["evidence_turns"])


READERS = {
    "longmemeval": _longmemeval,
    "locomo": _locomo,
    "realtalk": _realtalk,
    "beam": _beam,
    "sample": _sample,
}
