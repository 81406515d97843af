"""`beam`: chat.json of a conversation of BEAM (arXiv 2510.27246): batches, each a session of one user.

The files name no user. Turns carry a mark of the plan by which they were written; it is no part of what was
said.
"""

from collections.abc import Iterator

from jobs.common.dialogues import beam_day, beam_session, beam_text, beam_turns
from jobs.ingest.fields import archive_role, archive_turns
from jobs.ingest.format import Format, Origin
from schemas.archive import InvalidSession


def read_sessions(item: dict, origin: Origin) -> Iterator[tuple[object, dict]]:
    """The session of one batch. Raises InvalidSession if it cannot be read."""
    if "batch_number" not in item:
        raise InvalidSession("batch_number: is missing; is this the chat.json of a conversation of BEAM?")
    try:
        turns, session_id = beam_turns(item), beam_session(item)
    except ValueError as error:
        raise InvalidSession(f"{error}; check --format") from None
    yield (
        item,
        {
            "user_id": origin.user_id,
            "conversation_id": origin.user_id,
            "session_id": session_id,
            "session_time": {"time_anchor": beam_day(item)},
            "turns": archive_turns(turns, _archive_turn),
        },
    )


def _archive_turn(index: int, turn: dict) -> dict:
    result = {"role": archive_role(turn.get("role"))}
    return result | ({"content": beam_text(turn["content"])} if "content" in turn else {})


FORMAT = Format(
    name="beam",
    what="a batch of BEAM",
    fields=("batch_number", "turns"),
    matches=lambda item: "batch_number" in item and "turns" in item,
    read=read_sessions,
)
