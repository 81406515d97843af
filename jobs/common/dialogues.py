"""BEAM and REALTALK: what reading their conversations and reading their questions have in common."""

import datetime as dt
import re
from typing import Any

SESSION = re.compile(r"session_(\d{1,9})", re.ASCII)

_TAIL = re.compile(r"\s*->->[^\n]*\Z")


def beam_turns(batch: dict) -> list:
    """The turns of a batch of BEAM in their order; everything else is left out."""
    turns = batch.get("turns")
    if not isinstance(turns, list):
        raise ValueError(f"turns: must be a list of lists of turns, not {type(turns).__name__}")
    return [turn for group in turns for turn in (group if isinstance(group, list) else [group])]


def beam_text(content: Any) -> Any:
    """What was said, without the mark of the plan that it follows (`->-> 1,2`)."""
    return _TAIL.sub("", content) if isinstance(content, str) else content


def beam_session(batch: dict) -> str:
    """A batch is a session."""
    number = batch["batch_number"]
    if not isinstance(number, int):
        raise ValueError(f"batch_number: must be a number, not {type(number).__name__}")
    return f"batch_{number}"


def beam_day(batch: dict) -> Any:
    """The day of a batch is that of its first turn which has one, written March-15-2024: as YYYY-MM-DD. What
    is not written so stays as it is."""
    anchors = [turn.get("time_anchor") for turn in beam_turns(batch) if isinstance(turn, dict)]
    anchor: Any = next((anchor for anchor in [batch.get("time_anchor"), *anchors] if anchor), None)
    try:
        return dt.datetime.strptime(anchor, "%B-%d-%Y").date().isoformat()
    except (TypeError, ValueError):
        return anchor


def realtalk_user(chat: dict) -> str:
    """Two people are one user of ours, named by both."""
    names = [chat["name"][name] for name in ("speaker_1", "speaker_2")]
    if not all(isinstance(name, str) for name in names):
        raise TypeError("must be names")
    return "-".join(names)


def realtalk_time(text: Any) -> Any:
    """29.12.2023, 22:42:04 in ISO 8601. What is not written so stays as it is."""
    try:
        return dt.datetime.strptime(text, "%d.%m.%Y, %H:%M:%S").isoformat()
    except (TypeError, ValueError):
        return text


def realtalk_sessions(chat: dict) -> list[str]:
    """Names of a chat's sessions in their order."""
    found = [name for name in chat if SESSION.fullmatch(name)]
    return sorted(found, key=lambda name: int(name.removeprefix("session_")))


def with_caption(text: object, caption: object) -> object:
    """A turn's text with what its picture shows, if it has one with a caption."""
    if isinstance(caption, str) and caption.strip() and isinstance(text, str | None):
        return f"{text or ''} [image: {caption.strip()}]".strip()
    return text
