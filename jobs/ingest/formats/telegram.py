"""`telegram`: result.json of Telegram Desktop, of one chat or of all, one chat an item.

    {"name": "Ann", "type": "personal_chat", "id": 7, "messages": [{"id": 1, "type": "message",
     "date": "2024-05-01T09:00:00", "date_unixtime": "1714554000", "from": "Ann", "from_id": "user1",
     "text": ["Look: ", {"type": "link", "text": "https://example.com"}]}]}

Everybody in a chat stands as a user, since all tell of themselves, and turns keep their names. Chats are cut
into sessions where nobody wrote for four hours. Messages of the service (joined, pinned) and media without
words are left out; what was forwarded is a `tool` turn, for others said it.
"""

from collections.abc import Iterator

from jobs.ingest.fields import archive_id, named
from jobs.ingest.format import Format, Origin, Row
from jobs.ingest.mending import part_text
from schemas.archive import InvalidSession


def read_rows(item: dict, origin: Origin) -> Iterator[Row]:
    """The messages of one chat. Raises InvalidSession for what is no chat."""
    messages, chat = item.get("messages"), archive_id(item.get("id"))
    if not isinstance(messages, list):
        raise InvalidSession(f"messages: must be a list, not {type(messages).__name__}; check --format")
    name = item.get("name")
    if isinstance(name, str) and name.strip() and isinstance(chat, str):
        chat = f"{name} ({chat})"
    for message in messages:
        if isinstance(message, dict) and message.get("type") == "message" and (text := _text(message)):
            turn = {
                "role": "tool" if message.get("forwarded_from") else "user",
                "content": text,
                "speaker": message.get("forwarded_from") or message.get("from"),
                "time": named(message, ("date_unixtime", "date")),
            }
            yield Row(origin.user_id, chat, None, [turn], by_silence=True)


def _text(message: dict) -> str:
    """A text, or its pieces: words, links, mentions and the like."""
    text = message.get("text")
    return "".join(map(part_text, text)) if isinstance(text, list) else part_text(text)


def _matches(item: dict) -> bool:
    return (
        isinstance(item.get("messages"), list) and {"type", "id"} <= item.keys() and "session_id" not in item
    )


FORMAT = Format(
    name="telegram",
    what="a chat of a Telegram export",
    fields=("type", "id", "messages", "name"),
    matches=_matches,
    read=read_rows,
    is_rows=True,
)
