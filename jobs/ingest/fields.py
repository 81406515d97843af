"""What the formats share: turns, ids, times and roles as other systems write them."""

from collections.abc import Callable

ROLES = {
    "human": "user",
    "prompter": "user",
    "ai": "assistant",
    "llm": "assistant",
    "claude": "assistant",
    "gemini": "assistant",
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
"""Role names of other systems. Names that are not here are left as they are, for mend_session to judge."""


def archive_role(role: object) -> object:
    if not isinstance(role, str):
        return role
    return ROLES.get(role.lower(), role.lower())


def archive_id(value: object) -> object:
    """Numbers are good ids in many exports; the archive has strings."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def named(item: dict, names: tuple[str, ...]) -> dict:
    """Those fields of an item that may be its time, in the order of `names`, for jobs.ingest.mending."""
    return {name: item[name] for name in names if item.get(name) is not None}


def archive_turns(turns: object, archive_turn: Callable[[int, dict], dict]) -> object:
    """`archive_turn` over what are turns; what are none stays as it is, for mend_session to judge."""
    if not isinstance(turns, list):
        return turns
    return [archive_turn(index, turn) if isinstance(turn, dict) else turn for index, turn in enumerate(turns)]
