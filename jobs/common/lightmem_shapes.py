"""LightMem's messages, entries and times as ours, tokens counted in its names, and the JSON in an answer."""

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.backfill.encoder import Encoding
    from cluster.consolidate.fold import Question, Verdict
    from cluster.models.asking import Answer


def sessions_of(number: int, topics: list, roles: set[str]) -> Iterator[tuple[dict, list[int]]]:
    """(session of one topic and time, source id of each turn) for cluster.backfill.segmenter."""
    position = 0
    for topic, messages in enumerate(topics):
        sittings: dict[str, list[tuple[int, Mapping]]] = {}
        for message in messages:
            # LightMem numbers exchanges: two messages have one source id.
            source_id = message.get("sequence_number", position) // 2
            position += 1
            if message.get("role") in roles and (message.get("content") or "").strip():
                sitting = message.get("session_time") or message.get("time_stamp") or ""
                sittings.setdefault(sitting, []).append((source_id, message))
        for sitting, said in sittings.items():
            turns = [
                {
                    "role": message["role"],
                    "content": message["content"],
                    "speaker": message.get("speaker_name"),
                    "time": None,
                }
                for _, message in said
            ]
            session = {
                "user_id": "",
                "conversation_id": None,
                "session_id": f"{number}/{topic}/{sitting}",
                "session_time": time_of(said[0][1].get("time_stamp") or sitting),
                "turns": turns,
            }
            yield session, [source_id for source_id, _ in said]


def time_of(text: str) -> dt.datetime | None:
    """LightMem's times: ISO 8601, or 2023/05/20 (Sat) 02:21."""
    cleaned = re.sub(r"\s*\(\w+\)\s*", " ", text).replace("/", "-").strip()
    try:
        time = dt.datetime.fromisoformat(cleaned)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


def question_of(target: dict, candidates: list[dict]) -> "Question":
    """A decision as cluster.consolidate.decider asks it: sources in order, each later than the target."""
    from cluster.consolidate.fold import Memory, Question, Source

    def memory(entry: dict) -> Memory:
        payload = entry["payload"]
        time = time_of(str(payload.get("time_stamp") or ""))
        return Memory(
            record_id=str(entry["id"]),
            revision=1,
            user_id="",
            session_time=time.isoformat() if time else "",
            session_id="",
            turn=0,
            text=payload["memory"],
        )

    def score(entry: dict) -> float:
        queue = entry["payload"].get("update_queue") or []
        return next((link["score"] for link in queue if link["id"] == target["id"]), 0.0)

    older = memory(target)
    sources = [Source(memory(entry), score(entry)) for entry in candidates]
    # Two entries of the same moment are each other's candidate in LightMem; the order is strict here.
    newer = [source for source in sources if source.memory.order > older.order]
    return Question(older, tuple(sorted(newer, key=lambda source: source.memory.order)))


def no_usage() -> dict[str, int]:
    return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def counted(usage: dict[str, int], spent: "Answer | Encoding | Verdict") -> dict[str, int]:
    """Add what a reply, encoding or verdict cost, in LightMem's names."""
    usage["prompt_tokens"] += spent.prompt_tokens
    usage["completion_tokens"] += spent.output_tokens
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    return usage


def repair(text: str) -> str:
    """The JSON object in an answer: out of its code fence or the prose around it, and closed if it was cut.

    A text without an opening brace, or cut within a key, comes back unchanged for the parser to refuse.
    """
    start = text.find("{")
    if start < 0:
        return text
    try:
        return json.dumps(json.JSONDecoder().raw_decode(text, start)[0])
    except ValueError:
        pass
    # Complete members stay; what was begun behind the last comma goes.
    for comma in [match.start() for match in re.finditer(",", text[start:])][::-1]:
        try:
            return json.dumps(json.loads(text[start : start + comma] + "}"))
        except ValueError:
            continue
    return text
