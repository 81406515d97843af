"""`realtalk`: a chat of REALTALK (arXiv 2502.13270), months of messages between two people, in sessions.

A chat is one user of ours, named by both people. Both stand as users, since both tell of themselves, and
turns keep their names. Shared pictures are in the text by their captions.
"""

from collections.abc import Iterator

from jobs.common.dialogues import realtalk_sessions, realtalk_time, realtalk_user, with_caption
from jobs.ingest.fields import archive_turns
from jobs.ingest.format import Format, Origin
from schemas.archive import InvalidSession


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The sessions of one chat, in their order. Raises InvalidSession if it cannot be read."""
    try:
        user = origin.user_id or realtalk_user(item)
    except (KeyError, TypeError):
        raise InvalidSession("name: must name speaker_1 and speaker_2; check --format") from None
    sessions = realtalk_sessions(item)
    if not sessions:
        raise InvalidSession("session_1: is missing; check --format")
    for name in sessions:
        date = item.get(f"{name}_date_time")
        yield (
            {"name": item.get("name"), "session_id": name, "date": date, "turns": item[name]},
            {
                "user_id": user,
                "conversation_id": user,
                "session_id": name,
                "session_time": {f"{name}_date_time": realtalk_time(date)},
                "turns": archive_turns(item[name], _archive_turn),
            },
        )


def _archive_turn(index: int, turn: dict) -> dict:
    result = {"role": "user", "speaker": turn.get("speaker")}
    if turn.get("date_time"):
        result["time"] = {"date_time": realtalk_time(turn["date_time"])}
    if "clean_text" in turn or turn.get("blip_caption"):
        result["content"] = with_caption(turn.get("clean_text"), turn.get("blip_caption"))
    return result


FORMAT = Format(
    name="realtalk",
    what="a chat of REALTALK",
    fields=("name", "session_1"),
    matches=lambda item: "name" in item and "session_1" in item,
    read=read_sessions,
    names_users=True,
)
