"""What the formats share: turns, ids, times and roles as other systems write them."""

import hashlib
import json
from collections.abc import Callable

from jobs.ingest.mending import part_text, part_texts
from jobs.ingest.times import TURN_TIMES
from schemas.archive import InvalidSession

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
    "function_call": "tool",
    "function_response": "tool",
    "tool_call": "tool",
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
    """`archive_turn` of each turn; anything else stays as it is, and mend_session decides about it."""
    if not isinstance(turns, list):
        return turns
    return [archive_turn(index, turn) if isinstance(turn, dict) else turn for index, turn in enumerate(turns)]


CALLS = ("tool_use", "server_tool_use", "mcp_tool_use", "tool_call", "function_call")
"""Parts of a message that call a tool. What it gave back are parts whose kind ends with one of RESULTS."""

RESULTS = ("tool_result", "function_call_output", "tool_call_output")


def message_turns(role: object, content: object, time: dict, speaker: object = None) -> list[dict]:
    """Turns of one message: its words as its role's; calls of tools and what they gave back, as `tool`.

    What is neither text nor a list of parts stays, for mend_session to judge.
    """
    common = {"time": time, "speaker": speaker}
    if not isinstance(content, list):
        content = part_text(content) if isinstance(content, dict) else content
        return [] if content is None or content == "" else [{"role": role, "content": content} | common]
    turns: list[dict] = []
    words: list[object] = []

    def end_words() -> None:
        if text := part_texts(words):
            turns.append({"role": role, "content": text} | common)
        words.clear()

    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in CALLS:
            end_words()
            arguments = part.get("input", part.get("args", part.get("arguments")))
            turns.append(call_turn(part.get("name"), arguments, time))
        elif isinstance(kind, str) and kind.endswith(RESULTS):
            end_words()
            turns += result_turns(part.get("content", part.get("output")), time)
        else:
            words.append(part)
    end_words()
    return turns


def call_turn(name: object, arguments: object, time: dict) -> dict:
    """A tool that was called, as `name(arguments)`."""
    try:
        shown = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    except RecursionError:
        shown = "..."
    name = name if isinstance(name, str) else "tool"
    return {"role": "tool", "content": f"{name}({shown})", "speaker": name, "time": time}


def result_turns(content: object, time: dict, speaker: object = None) -> list[dict]:
    """What a tool gave back."""
    if content is not None and not isinstance(content, str | list | dict):
        content = str(content)
    text = part_texts(content if isinstance(content, list) else [content])
    return [{"role": "tool", "content": text, "speaker": speaker, "time": time}] if text else []


def chat_turns(message: object) -> list:
    """Turns of a message as OpenAI's chats have it, with its calls. What is no object stays as it is."""
    if not isinstance(message, dict):
        return [message]
    time, role = named(message, TURN_TIMES), archive_role(message.get("role"))
    speaker = message.get("speaker") or message.get("name")
    has_calls = "tool_calls" in message or "function_call" in message
    if "content" not in message and not has_calls:
        return [{"role": role, "speaker": speaker, "time": time}]
    turns = message_turns(role, message.get("content"), time, speaker)
    # Some write a call both among the parts and here.
    is_told = any(turn["role"] == "tool" for turn in turns)
    return turns if is_told else turns + [call_turn(*call, time) for call in calls_of(message)]


def calls_of(message: dict) -> list[tuple[object, object]]:
    """Name and arguments of each tool that a message calls beside its content."""
    calls, found = message.get("tool_calls"), []
    for call in [*(calls if isinstance(calls, list) else []), message.get("function_call")]:
        if isinstance(call, dict):
            function = call.get("function")
            function = function if isinstance(function, dict) else call
            found.append((function.get("name"), function.get("arguments", function.get("args"))))
    return found


def all_chat_turns(messages: object) -> object:
    """`chat_turns` of a list; anything else stays as it is, and mend_session decides about it."""
    if not isinstance(messages, list):
        return messages
    return [turn for message in messages for turn in chat_turns(message)]


def content_id(prefix: str, value: object) -> str:
    """A session's name, made of its content. Raises InvalidSession for what is nested too deeply."""
    try:
        digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
    except RecursionError:
        raise InvalidSession("nested too deeply; flatten it at the source") from None
    return f"{prefix}-{digest[:16]}"
