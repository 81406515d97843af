"""`claude-code`: sessions of Claude Code, the files `projects/*/*.jsonl`, an event a line.

    {"type": "user", "sessionId": "s1", "uuid": "1", "parentUuid": null, "isSidechain": false,
     "timestamp": "...", "message": {"role": "user", "content": "Fix lint."}}

What sub-agents said (sidechains), what the program wrote itself (meta, summaries) and what the model thought
are left out. What tools were asked and gave back, also commands that the user ran, are `tool` turns.
"""

import re
from collections.abc import Iterator

from jobs.ingest.fields import archive_role, message_turns, named
from jobs.ingest.format import Format, Origin, Row
from schemas.archive import InvalidSession

SKIPPED = ("isSidechain", "isMeta", "isCompactSummary", "isVisibleInTranscriptOnly", "isApiErrorMessage")

_REMINDER = re.compile(r"<system-reminder>.*?(?:</system-reminder>|\Z)", re.DOTALL)

_COMMAND = re.compile(
    r"\s*<(?:command-(?:name|message|args)|local-command-\w+|bash-(?:input|stdout|stderr))>"
)
"""How what the user did, and did not say, begins."""

_INTERRUPTED = re.compile(r"\s*\[Request interrupted by user[^\]]*\]\s*")


def read_rows(item: dict, origin: Origin) -> Iterator[Row]:
    """The turns of one event, if it is a message. Raises InvalidSession for a message that cannot be read."""
    kind = item.get("type")
    if kind not in ("user", "assistant") or any(item.get(name) is True for name in SKIPPED):
        return
    message = item.get("message")
    if not isinstance(message, dict):
        raise InvalidSession(f"message: must be an object, not {type(message).__name__}; check --format")
    role = archive_role(message.get("role", kind))
    turns = message_turns(role, message.get("content"), named(item, ("timestamp",)))
    yield Row(
        user_id=origin.user_id,
        conversation_id=None,
        session_id=item.get("sessionId"),
        turns=[turn for turn in map(_said, turns) if turn],
    )


def _said(turn: dict) -> dict | None:
    """A turn without what the program put into it; None where nothing is left."""
    if turn["role"] != "user" or not isinstance(turn["content"], str):
        return turn
    text = _REMINDER.sub("", turn["content"])
    if not text.strip() or _INTERRUPTED.fullmatch(text):
        return None
    return turn | {"role": "tool" if _COMMAND.match(text) else "user", "content": text}


FORMAT = Format(
    name="claude-code",
    what="a line of a Claude Code log",
    fields=("type", "sessionId", "message"),
    matches=lambda item: "type" in item and bool({"sessionId", "leafUuid"} & item.keys()),
    read=read_rows,
    files="*.jsonl*",
    is_rows=True,
)
