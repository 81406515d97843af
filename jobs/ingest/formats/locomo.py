"""`locomo`: samples of LoCoMo (arXiv 2402.17753), each a long conversation of two people in sessions.

A sample is one user of ours. Both people stand as users, since both tell of themselves, and turns keep their
names. Shared images are in the text by their captions.
"""

import functools
from collections.abc import Iterator

from jobs.common.dialogues import SESSION, with_caption
from jobs.ingest.fields import archive_id, archive_turns
from jobs.ingest.format import Format, Origin, holds
from schemas.archive import InvalidSession


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict | InvalidSession]]:
    """The sessions of one sample, in their order. Raises InvalidSession if it cannot be read."""
    conversation = item.get("conversation")
    if not isinstance(conversation, dict):
        kind = type(conversation).__name__
        raise InvalidSession(f"conversation: must be an object, not {kind}; check --format")
    speakers = []
    for name in ("speaker_a", "speaker_b"):
        speaker = conversation.get(name)
        if not isinstance(speaker, str):
            raise InvalidSession(f"conversation.{name}: must be a name, not {type(speaker).__name__}")
        speakers.append(speaker)
    if len(set(speakers)) != 2:
        raise InvalidSession(f"speaker_a={speaker!r}: must not be the name of speaker_b too")
    sessions = [name for name in conversation if SESSION.fullmatch(name)]
    if not sessions:
        raise InvalidSession("conversation: has no session_1; check --format")
    for name in sorted(sessions, key=lambda name: int(name.removeprefix("session_"))):
        sample_id, turns = item.get("sample_id"), conversation[name]
        date = conversation.get(f"{name}_date_time")
        source = {"sample_id": sample_id, "session_id": name, "date": date, "turns": turns}
        yield (
            source,
            {
                "user_id": archive_id(sample_id),
                "conversation_id": archive_id(sample_id),
                "session_id": name,
                "session_time": {f"{name}_date_time": date},
                "turns": archive_turns(turns, functools.partial(_archive_turn, speakers)),
            },
        )


def _archive_turn(speakers: list[str], index: int, turn: dict) -> dict:
    speaker, caption = turn.get("speaker"), turn.get("blip_caption")
    # Somebody else's word is kept, and is neither user's.
    result = {"role": "user" if speaker in speakers else None, "speaker": speaker}
    if "text" in turn or caption:
        result["content"] = with_caption(turn.get("text"), caption)
    return result


FORMAT = Format(
    name="locomo",
    what="a sample of LoCoMo",
    fields=("sample_id", "conversation"),
    matches=lambda item: holds([item.get("conversation")], "speaker_a"),
    read=read_sessions,
    names_users=True,
)
