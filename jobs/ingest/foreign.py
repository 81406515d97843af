"""What an item is that the chosen format cannot read: told by its fields, so that the error can name it."""

from collections.abc import Callable

KINDS: tuple[tuple[str, str, Callable[[dict], bool]], ...] = (
    ("a conversation of a ChatGPT export", "chatgpt-export", lambda item: "mapping" in item),
    ("a conversation of a Claude.ai export", "", lambda item: "chat_messages" in item),
    ("a question of LongMemEval", "longmemeval", lambda item: "haystack_sessions" in item),
    ("a Grok export", "", lambda item: _holds(item.get("conversations"), "responses")),
    ("a ShareGPT conversation", "sharegpt", lambda item: isinstance(item.get("conversations"), list)),
    ("a sample of LoCoMo", "locomo", lambda item: _holds([item.get("conversation")], "speaker_a")),
    ("a batch of BEAM", "beam", lambda item: "batch_number" in item and "turns" in item),
    ("a chat of REALTALK", "realtalk", lambda item: "name" in item and "session_1" in item),
    ("a row of WildChat or LMSYS", "", lambda item: isinstance(item.get("conversation"), list)),
    ("a chat of Open WebUI", "", lambda item: _holds([item.get("chat")], "history")),
    ("an entry of Google's MyActivity.json", "", lambda item: "header" in item and "products" in item),
    (
        "a line of a Claude Code log",
        "",
        lambda item: "type" in item and bool({"sessionId", "leafUuid"} & item.keys()),
    ),
    ("a session of chat messages", "messages", lambda item: isinstance(item.get("messages"), list)),
    ("a chat without an id, as training data has it", "", lambda item: "messages" in item and len(item) == 1),
    ("one message, and not a session of them", "", lambda item: "role" in item and "content" in item),
    ("a memory of a memory system, not a conversation", "", lambda item: "memory" in item),
)
"""(kind, format that reads it or "", whether an item is one), the surest first."""


def hint(item: object, format: str) -> str:
    """What the item is and what to do with it; "" where nothing is known, or the format is right."""
    if not isinstance(item, dict):
        return ""
    for kind, reader, matches in KINDS:
        if matches(item):
            if reader == format:
                continue  # as far as its fields say
            remedy = f"use --format {reader}" if reader else "bring it into the shape of --format messages"
            return f"this is {kind}: {remedy}"
    return ""


def _holds(items: object, name: str) -> bool:
    return isinstance(items, list) and bool(items) and isinstance(items[0], dict) and name in items[0]
