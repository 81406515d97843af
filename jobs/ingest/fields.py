"""What the formats share: turns, ids, times and roles as other systems write them."""

import datetime as dt
from collections.abc import Callable

from schemas.archive import InvalidSession

ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "developer": "system",
    "function": "tool",
    "function_call": "assistant",
    "function_response": "tool",
    "tool_call": "assistant",
    "tool_response": "tool",
    "observation": "tool",
}
"""Role names of other systems. Names that are not here are left as they are, for check_session to judge."""


def archive_role(role: object) -> object:
    if not isinstance(role, str):
        return role
    return ROLES.get(role.lower(), role.lower())


def archive_id(value: object) -> object:
    """Numbers are good ids in many exports; the archive has strings."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def archive_time(where: str, value: object) -> dt.datetime | None:
    """An ISO 8601 string or seconds since 1970 as time; without a zone it is UTC. Raises InvalidSession."""
    try:
        if value is None:
            return None
        if isinstance(value, str):
            time = dt.datetime.fromisoformat(value.strip())
            return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return dt.datetime.fromtimestamp(value, dt.UTC)
    except (ValueError, OverflowError, OSError):
        pass
    shown = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    raise InvalidSession(f"{where}={shown[:80]}: must be an ISO 8601 time or seconds since 1970, or null")


def archive_turns(turns: object, archive_turn: Callable[[int, dict], dict]) -> object:
    """`archive_turn` over what are turns; what are none stays as it is, for check_session to refuse."""
    if not isinstance(turns, list):
        return turns
    return [archive_turn(index, turn) if isinstance(turn, dict) else turn for index, turn in enumerate(turns)]
