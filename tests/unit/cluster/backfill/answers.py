"""Segments and answers of a scripted encoder."""

import datetime as dt
import json

DAY = dt.datetime(2024, 5, 1, 23, 30, tzinfo=dt.UTC)


def a_segment(*texts: str, first_turn: int = 0, context: tuple[str, ...] = (), **values) -> dict:
    """A segment whose turns are said by user and assistant in turn, beginning with the user."""
    current = [
        {"turn_index": first_turn + i, "role": ("user", "assistant")[i % 2], "speaker": None, "text": text}
        for i, text in enumerate(texts)
    ]
    earlier = [{"turn_index": 0, "role": "user", "speaker": None, "text": text} for text in context]
    ids = {"segment_id": "seg", "user_id": "u", "session_id": "s", "session_time": DAY}
    return ids | {"context": earlier, "current": current} | values


def said(text: str, *turns: int, **values) -> dict:
    return {"memory_type": "fact", "semantic_text": text, "evidence_turns": list(turns or [0])} | values


def answer(*records: dict) -> str:
    return json.dumps({"records": records})


def cut(*records: dict) -> str:
    return answer(*records)[:-2] + ', {"memory_type": "fa'


def texts_of(encoding) -> list[str]:
    return [record["semantic_text"] for record in encoding.records]
