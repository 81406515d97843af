"""`gemini-takeout`: MyActivity.json of Gemini in Google Takeout (as JSON, not as HTML), a prompt an item.

    {"header": "Gemini Apps", "title": "Prompted What is open?", "time": "2026-03-02T09:15:00.000Z",
     "products": ["Gemini Apps"], "safeHtmlItem": [{"html": "<p>Museums</p>"}]}

The export has no chats: prompts are put in order, and cut into sessions where nobody asked for four hours.
Activities of other kinds, which have no answer and no prompt, are left out. The mark "Prompted" in front of
a prompt is taken off; in exports in other languages it stays.
"""

import html
import re
from collections.abc import Iterator

from jobs.ingest.fields import named
from jobs.ingest.format import Format, Origin, Row

PROMPTED = "Prompted "

_BREAK = re.compile(r"<(?:br|/p|/div|/li|/tr|/h\d|/pre)\b[^>]*>\s*", re.IGNORECASE)
_TAG = re.compile(r"<!--.*?-->|<(?:style|script)\b.*?</(?:style|script)>|</?[a-zA-Z][^>]*>", re.DOTALL)


def read_rows(item: dict, origin: Origin) -> Iterator[Row]:
    """A prompt and its answer."""
    title, answers, time = item.get("title"), item.get("safeHtmlItem"), named(item, ("time",))
    texts = (
        [one["html"] for one in answers if isinstance(one, dict) and isinstance(one.get("html"), str)]
        if isinstance(answers, list)
        else []
    )
    if not isinstance(title, str) or not (texts or title.startswith(PROMPTED)):
        return
    turns = [{"role": "user", "content": title.removeprefix(PROMPTED), "time": time}]
    answer = "\n".join(filter(None, map(_text, texts)))
    turns += [{"role": "assistant", "content": answer, "time": time}] if answer else []
    yield Row(origin.user_id, "gemini", None, turns, by_silence=True)


def _text(markup: str) -> str:
    """HTML without its tags, a line for each of its blocks."""
    return html.unescape(_TAG.sub("", _BREAK.sub("\n", markup))).strip()


def _matches(item: dict) -> bool:
    header = item.get("header")
    return isinstance(header, str) and ("Gemini" in header or "Bard" in header) and "products" in item


FORMAT = Format(
    name="gemini-takeout",
    what="an entry of Gemini in Google's MyActivity.json",
    fields=("header", "title", "products", "safeHtmlItem"),
    matches=_matches,
    read=read_rows,
    is_rows=True,
)
