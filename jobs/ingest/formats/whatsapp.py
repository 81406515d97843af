"""`whatsapp`: the text file of a chat, as a phone exports it, alone or in its zip file; one message an item.

    [2024-05-01, 09:00:12] Ann: Hello
    01/05/2024, 09:00 - Ann: Hello

jobs.common.whatsapp reads the lines. Everybody in a chat stands as a user, since all tell of themselves, and
turns keep their names. Chats are cut into sessions where nobody wrote for four hours. What the program wrote
(calls, who joined, deleted messages) and media are left out, their captions kept.
"""

import re
from collections.abc import Iterator

from jobs.ingest.fields import named
from jobs.ingest.format import Format, Origin, Row
from schemas.archive import InvalidSession

_MARK = "\u200e"
_EDITED = re.compile(r"\s*\u200e?<(?:This message was edited|Diese Nachricht wurde bearbeitet)>\s*$")
_FILE_LINE = re.compile(
    r"^\u200e?(?:<[^<>\n]{3,80}>|\S[^\n]*\.\w{2,4} \((?:file attached|Datei angehängt|archivo adjunto"
    r"|fichier joint)\))"
    r"[ \t]*(?:\n|$)"
)
_NOTHING = re.compile(
    r"(?:image|video|audio|sticker|GIF|document|Contact card) omitted"
    r"|(?:This message was deleted|You deleted this message|Missed (?:voice|video) call|null)\.?",
    re.IGNORECASE,
)


def read_rows(item: dict, origin: Origin) -> Iterator[Row]:
    """One message. Raises InvalidSession for anything else."""
    text, chat = item.get("text"), item.get("whatsapp_chat")
    if not isinstance(text, str):
        raise InvalidSession(f"text: must be a string, not {type(text).__name__}; check --format")
    # What the program writes in somebody's name begins with a mark that no keyboard has.
    is_service = not item.get("from") or (text.startswith(_MARK) and not _FILE_LINE.match(text))
    text = _EDITED.sub("", _FILE_LINE.sub("", text)).replace(_MARK, "").strip()
    if is_service or not text or _NOTHING.fullmatch(text):
        return
    turn = {"role": "user", "content": text, "speaker": item["from"], "time": named(item, ("time",))}
    yield Row(origin.user_id, chat, None, [turn], by_silence=True)


FORMAT = Format(
    name="whatsapp",
    what="a message of a WhatsApp chat",
    fields=("whatsapp_chat", "time", "from", "text"),
    matches=lambda item: "whatsapp_chat" in item,
    read=read_rows,
    is_rows=True,
)
