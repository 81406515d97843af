"""`slack`: the zip file of a workspace, a folder a channel with a file a day; one message an item.

    general/2024-05-01.json
    [{"type": "message", "user": "U1", "text": "Hi <@U2>", "ts": "1714554000.000100",
      "user_profile": {"real_name": "Ann"}, "thread_ts": "1714554000.000100"}]

Everybody stands as a user, since all tell of themselves, and turns keep their names, as the messages have
them. What bots wrote are `tool` turns. A thread is a session; the rest of a channel is cut where nobody wrote
for four hours. Who joined, and files without words, are left out.
"""

import html
import re
from collections.abc import Iterator

from jobs.ingest.fields import named
from jobs.ingest.format import Format, Origin, Row
from schemas.archive import InvalidSession

SAID = (None, "thread_broadcast", "me_message", "file_share", "bot_message")
"""Values of `subtype` of what somebody said."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_LINK = re.compile(r"<([@#!]?)([^<>|]*)(?:\|([^<>]*))?>")


def read_rows(item: dict, origin: Origin) -> Iterator[Row]:
    """One message. Raises InvalidSession for anything else."""
    text, thread = item.get("text"), item.get("thread_ts")
    if not isinstance(text, str):
        raise InvalidSession(f"text: must be a string, not {type(text).__name__}; check --format")
    if item.get("subtype") not in SAID or not (said := plain(text)):
        return
    is_bot = item.get("subtype") == "bot_message" or "bot_id" in item
    turn = {
        "role": "tool" if is_bot else "user",
        "content": said,
        "speaker": _name(item),
        "time": named(item, ("ts",)),
    }
    # A file is a day of the channel that its folder is; other names may be a channel's own.
    channel = origin.folder if _DAY.fullmatch(origin.place) and origin.folder else origin.place
    if isinstance(thread, str) and thread.strip():
        yield Row(origin.user_id, channel, f"{channel} {thread}", [turn])
    else:
        yield Row(origin.user_id, channel, None, [turn], by_silence=True)


def plain(text: str) -> str:
    """Slack's markup as people see it: `<@U1|ann>` is @ann, `<https://x|label>` label (https://x)."""

    def shown(link: re.Match[str]) -> str:
        mark, target, label = link[1], link[2], link[3]
        if mark:
            name = label or target.partition("^")[0]
            return f"{'@' if mark == '!' else mark}{name.removeprefix('@').removeprefix('#')}"
        return f"{label} ({target})" if label and label != target else target

    return html.unescape(_LINK.sub(shown, text)).strip()


def _name(item: dict) -> object:
    profile = item.get("user_profile") or item.get("bot_profile")
    profile = profile if isinstance(profile, dict) else {}
    names = (profile.get(name) for name in ("display_name", "real_name", "name"))
    return next((name for name in names if name), None) or item.get("username") or item.get("user")


FORMAT = Format(
    name="slack",
    what="a message of a Slack export",
    fields=("type", "ts", "text", "user"),
    matches=lambda item: item.get("type") == "message" and "ts" in item and "text" in item,
    read=read_rows,
    files="????-??-??.json*",
    is_rows=True,
)
