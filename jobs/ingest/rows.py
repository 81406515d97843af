"""Sessions whose turns stand in rows of their own, wherever in the input.

Rows are kept in a temporary SQLite database, which lies in memory while it is small and on disk beyond that.
A session's rows are put in order by their times where all have one, else they stay as they came. A chat that
knows no sessions is cut where it fell silent.
"""

import contextlib
import datetime as dt
import json
import sqlite3
from collections.abc import Iterable, Iterator

from jobs.common.input_items import ITEM, Rejection, as_raw
from jobs.common.splitting import MAX_ITEM_BYTES
from jobs.ingest.format import Row
from jobs.ingest.times import first_time
from schemas.archive import MAX_SESSION_TURNS, InvalidSession

SILENCE_S = 4 * 3600
"""A chat without sessions is cut where nobody wrote for so long. Those sessions are named after their first
message's time, so that a longer export of the same chat has the same ones."""

MAX_CUT_TURNS = 500
"""And after so many turns."""


class Rows:
    """Collects rows, then gives their sessions. Use as a context."""

    def __init__(self, now: dt.datetime):
        self._now = now
        # Without a name: a private database that goes when it is closed.
        self._db = sqlite3.connect("")
        columns = "seq INTEGER PRIMARY KEY, key, conversation, time_s REAL, file, number, turns"
        self._db.execute(f"CREATE TABLE rows ({columns})")
        self._files: list[str] = []

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *exception: object) -> None:
        self._db.close()

    def add(self, shown: str, number: int, row: Row, item: dict) -> Rejection | None:
        """Keep a row, or say why it belongs to no session."""
        if not row.turns:
            return None
        fields = [turn.get("time") or {} for turn in row.turns]
        times = (first_time(names, tuple(names), self._now)[0] for names in fields)
        time_s = next((time.timestamp() for time in times if time), None)
        problem = _problem("user_id", row.user_id, "name the user with --user-id")
        if row.by_silence:
            problem = problem or _problem("conversation_id", row.conversation_id, "name the chat")
            if not problem and time_s is None:
                problem = "time: is missing; a message without a time has no place in a chat without sessions"
        else:
            problem = problem or _problem("session_id", row.session_id, "name the session in the input")
        if problem:
            return Rejection(shown, number, problem, as_raw(item), ITEM)
        try:
            key = json.dumps([row.user_id, row.session_id, row.conversation_id if row.by_silence else None])
            conversation = json.dumps(row.conversation_id)
            turns = json.dumps(row.turns)
        except RecursionError:
            return Rejection(shown, number, "nested too deeply; flatten it at the source", as_raw(item), ITEM)
        if self._files[-1:] != [shown]:
            self._files.append(shown)
        values = (key, conversation, time_s, len(self._files) - 1, number, turns)
        self._db.execute("INSERT INTO rows VALUES (NULL, ?, ?, ?, ?, ?, ?)", values)
        return None

    def sessions(self) -> Iterator[tuple[str, int, object, dict | InvalidSession]]:
        """(file, number, source, session) of each session, in the order of their first rows."""
        self._db.execute("CREATE INDEX by_key ON rows (key)")
        query = "SELECT key, min(seq), max(seq), count(*), count(time_s), sum(length(turns)) FROM rows"
        keys = self._db.execute(f"{query} GROUP BY key ORDER BY min(seq)")
        for key, first, last, num_rows, num_timed, num_bytes in keys:
            user_id, session_id, _ = json.loads(key)
            file, number, first_turns, began_s, conversation = self._row(first)
            conversation_id = json.loads(conversation)
            session = {"user_id": user_id, "conversation_id": conversation_id, "session_id": session_id}
            shown, order = self._files[file], "seq"
            if num_timed == num_rows:
                # Newest first, rows of the same second are so too.
                order = "time_s, seq" if began_s <= self._row(last)[3] else "time_s, -seq"
            query = f"SELECT turns, time_s, file FROM rows WHERE key = ? ORDER BY {order}"
            rows = _distinct(self._db.execute(query, (key,)))
            if session_id is None:
                for part in _cut(rows):
                    name = f"{conversation_id} {dt.datetime.fromtimestamp(part[0][1], dt.UTC).isoformat()}"
                    turns = _turns(part)
                    yield shown, number, turns[0], session | {"session_id": name, "turns": turns}
            elif num_rows > MAX_SESSION_TURNS or num_bytes > MAX_ITEM_BYTES:
                size = f"{num_rows} rows with {num_bytes >> 20} MiB"
                limit = f"at most {MAX_SESSION_TURNS} with {MAX_ITEM_BYTES >> 20} MiB are read"
                reason = f"session_id={session_id[:80]!r}: {size}; {limit}; split the session at the source"
                yield shown, number, json.loads(first_turns)[0], InvalidSession(reason)
            else:
                turns = _turns(rows)
                yield shown, number, turns[0], session | {"turns": turns}

    def _row(self, seq: int) -> tuple[int, int, str, float, str]:
        query = "SELECT file, number, turns, time_s, conversation FROM rows WHERE seq = ?"
        return self._db.execute(query, (seq,)).fetchone()


_Kept = tuple[str, float, int]
"""(turns as JSON, seconds since 1970, number of the file)."""


def _turns(rows: Iterable[_Kept]) -> list[dict]:
    return [turn for turns, _, _ in rows for turn in json.loads(turns)]


def _distinct(rows: Iterable[_Kept]) -> Iterator[_Kept]:
    """Without rows that another file had already, of the same time: exports of one chat overlap."""
    now_s, seen = None, dict[str, int]()
    for turns, time_s, file in rows:
        if time_s is None or time_s != now_s:
            now_s, seen = time_s, {}
        if seen.setdefault(turns, file) == file:
            yield turns, time_s, file


def _cut(rows: Iterable[_Kept]) -> Iterator[list[_Kept]]:
    """Parts of a chat, from silence to silence."""
    part: list[_Kept] = []
    for row in rows:
        if part and (row[1] - part[-1][1] > SILENCE_S or len(part) >= MAX_CUT_TURNS):
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _problem(name: str, value: object, remedy: str) -> str:
    if isinstance(value, str) and value.strip():
        with contextlib.suppress(UnicodeEncodeError):
            value.encode()
            return ""
    shown = repr(value)[:80] if isinstance(value, str | int | float | None) else type(value).__name__
    return f"{name}={shown}: must be a non-empty string; {remedy}"
