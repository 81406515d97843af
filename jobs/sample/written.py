"""The written corpus: people whose conversations, memories, questions and pairs were written by hand.

One JSON-lines file a person in corpus/people/SPLIT, files of single segments in corpus/segments; the format
and the labelling rules are in corpus/README.md. Here they become rows of an archive and of its gold.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

CORPUS = Path(__file__).with_name("corpus")

Split = Literal["train", "tune", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""Adapters learn from `train`; gates, thresholds and this project's choices are made on `tune`; `test` is for
final scores alone."""

TURN_SECONDS = 40


@dataclass(frozen=True, kw_only=True)
class Written:
    """Rows as they stand in the files, in their order."""

    sessions: list[dict] = field(default_factory=list)
    memories: list[dict] = field(default_factory=list)
    questions: list[dict] = field(default_factory=list)
    secrets: list[dict] = field(default_factory=list)
    pairs: list[dict] = field(default_factory=list)


def read_people(
    splits: tuple[str, ...],
    *,
    max_sessions: int | None = None,
    language: str | None = None,
    persons: Collection[str] | None = None,
) -> Written:
    """The people of these splits, or those of them who write one language, or who are named.

    With `max_sessions` so many of them, in the order of their names, as have that many sessions together.
    Sessions are ordered by time, so that users take turns in the archive.
    """
    found = Written()
    for split in splits:
        for path in sorted((CORPUS / "people" / split).glob("*.jsonl")):
            lines = _lines(path)
            is_enough = max_sessions is not None and len(found.sessions) >= max_sessions
            is_named = persons is None or lines[0]["person_id"] in persons
            if is_named and not is_enough and language in (None, lines[0]["language"]):
                _add_person(found, split, lines)
    found.sessions.sort(key=lambda row: (row["session_time"], row["session_id"]))
    return found


def read_segments() -> Written:
    """The single segments, each as the only session of a user of its own."""
    found = Written()
    for path in sorted((CORPUS / "segments").glob("*.jsonl")):
        for number, line in enumerate(_lines(path)):
            user_id = f"single-{path.stem}-{number:03}"
            session = {"session_id": f"{user_id}-s01", "time": f"{line['day']}T12:00:00Z", **line}
            memories = [
                {"id": f"{user_id}-m{index:02}"} | memory for index, memory in enumerate(line["memories"])
            ]
            found.sessions.append(_session_row(user_id, session))
            found.memories.extend(_memory_rows(user_id, "en", [session | {"memories": memories}]))
    return found


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _add_person(found: Written, split: str, lines: list[dict]) -> None:
    by_kind: dict[str, list[dict]] = {}
    for line in lines:
        by_kind.setdefault(line["kind"], []).append(line)
    person = by_kind["person"][0]
    user_id, sessions = person["person_id"], by_kind["session"]
    memories = list(_memory_rows(user_id, person["language"], sessions))
    found.sessions.extend(_session_row(user_id, session) for session in sessions)
    found.memories.extend(memories)
    found.questions.extend(_question_row(user_id, line, memories) for line in by_kind.get("question", []))
    found.secrets.extend(_secret_rows(user_id, by_kind.get("secret", []), memories))
    found.pairs.extend(
        {
            "user_id": user_id,
            "split": split,
            "language": person["language"],
            "older": line["older"],
            "newer": line["newer"],
            "older_should": line["label"],
        }
        for line in by_kind.get("pair", [])
    )


def _session_row(user_id: str, session: dict) -> dict:
    time = dt.datetime.fromisoformat(session["time"])
    return {
        "user_id": user_id,
        "conversation_id": session["session_id"],
        "session_id": session["session_id"],
        "session_time": time,
        "turns": [
            {
                "role": role,
                "content": content,
                "speaker": None,
                "time": time + dt.timedelta(seconds=TURN_SECONDS * number),
            }
            for number, (role, content) in enumerate(session["turns"])
        ],
    }


def _memory_rows(user_id: str, language: str, sessions: list[dict]) -> Iterator[dict]:
    """Rows of memories.jsonl. `status`: current, superseded by another, or repeat of an earlier one."""
    ended_by = {
        older: memory["id"]
        for session in sessions
        for memory in session["memories"]
        for older in memory.get("supersedes", [])
    }
    for session in sessions:
        for memory in session["memories"]:
            ended = ended_by.get(memory["id"])
            yield {
                "memory_id": memory["id"],
                "user_id": user_id,
                "session_id": session["session_id"],
                "session_time": dt.datetime.fromisoformat(session["time"]).isoformat(),
                "language": language,
                "memory_type": memory["type"],
                "semantic_text": memory["text"],
                "said": memory.get("said") or memory["text"],
                "entities": memory["entities"],
                "temporal": {
                    "t_ref": session["time"][:10],
                    "t_valid_from": memory.get("from", ""),
                    "t_valid_to": memory.get("to", ""),
                },
                "tags": [],
                "evidence_turns": memory["evidence"],
                "source_role": memory.get("source", "user"),
                "is_must": not memory.get("may", False),
                "is_negated": memory.get("negated", False),
                "keys": memory.get("keys", []),
                "supersedes": memory.get("supersedes", []),
                "status": "superseded" if ended else "repeat" if memory.get("same_as") else "current",
                "superseded_by": ended,
                "same_as": memory.get("same_as"),
            }


def _question_row(user_id: str, line: dict, memories: list[dict]) -> dict:
    evidence = {(session_id, turn) for session_id, turn in line["evidence"]}
    outdated = _outdated(evidence, memories) if line["type"] in ("current", "last") else set()
    return {
        "question_id": line["id"],
        "user_id": user_id,
        "question": line["text"],
        "answer": line["answer"],
        "question_type": line["type"],
        "evidence": [{"session_id": name, "turn_index": turn} for name, turn in sorted(evidence)],
        "outdated": [{"session_id": name, "turn_index": turn} for name, turn in sorted(outdated)],
        "stale": line.get("stale", []),
        "at": line.get("at"),
        "question_date": f"{line['asked']}T12:00:00+00:00",
    }


def _outdated(evidence: set[tuple[str, int]], memories: list[dict]) -> set[tuple[str, int]]:
    """Turns of memories that those in the evidence supersede, directly or through others."""
    by_id = {row["memory_id"]: row for row in memories}
    open_ids = [older for row in memories if _turns(row) & evidence for older in row["supersedes"]]
    turns: set[tuple[str, int]] = set()
    while open_ids:
        row = by_id[open_ids.pop()]
        turns |= _turns(row)
        open_ids += row["supersedes"]
    return turns - evidence


def _turns(row: dict) -> set[tuple[str, int]]:
    return {(row["session_id"], turn) for turn in row["evidence_turns"]}


def _secret_rows(user_id: str, lines: list[dict], memories: list[dict]) -> Iterator[dict]:
    for number, line in enumerate(lines):
        turn = (line["session_id"], line["turn"])
        yield {
            "secret_id": f"{user_id}-x{number:02}",
            "user_id": user_id,
            "session_id": line["session_id"],
            "turn_index": line["turn"],
            "kind": line["what"],
            "secret": line["secret"],
            "memories_in_turn": [row["memory_id"] for row in memories if turn in _turns(row)],
        }


def corpus_hash() -> str:
    """16 hex digits over every file of the corpus."""
    digest = hashlib.sha256()
    for path in sorted(CORPUS.rglob("*.jsonl")):
        digest.update(f"{path.relative_to(CORPUS)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
