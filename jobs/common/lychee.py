"""The sessions of a LycheeMem server as items. They stand in `sessions.db`, a SQLite database.

    {"session_id": "s1", "turn_count": 1,
     "turns": [{"role": "user", "content": "Hello", "created_at": "2024-05-01 09:00:00"}]}

Its table `turns` has a row a turn, in their order; an item is like an answer to `/memory/session/ID`. What
the server has not yet moved into the file stands in `sessions.db-wal` beside it, and is read too.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

MAGIC = b"SQLite format 3\0"

_TURN = ("role", "content", "created_at")
_SESSIONS = "SELECT min(id), session_id, count(*) FROM turns GROUP BY session_id ORDER BY min(id)"
# Not by the text of the session's id, which may be no UTF-8.
_OF_SESSION = "FROM turns WHERE session_id = (SELECT session_id FROM turns WHERE id = ?)"
_SIZE = f"SELECT sum(length(CAST(content AS BLOB))) {_OF_SESSION}"
_TURNS = f"SELECT {', '.join(_TURN)} {_OF_SESSION} ORDER BY id"


@dataclass(frozen=True)
class Session:
    """One session of the file, of which nothing is read yet."""

    session_id: object
    num_turns: int
    first_id: int
    """Of its turns."""
    database: sqlite3.Connection

    def num_bytes(self) -> int:
        """Of its texts. Raises sqlite3.Error where the file is damaged."""
        return self.database.execute(_SIZE, (self.first_id,)).fetchone()[0] or 0

    def item(self) -> dict:
        """It with its turns, those included that the server has put into a summary and marks as deleted.
        Raises sqlite3.Error where the file is damaged."""
        turns = [
            dict(zip(_TURN, row, strict=True)) for row in self.database.execute(_TURNS, (self.first_id,))
        ]
        return {"session_id": self.session_id, "turns": turns, "turn_count": len(turns)}


def log_of(path: Path) -> Path | None:
    """What a database has not yet moved into its file, if there is any."""
    log = path.with_name(f"{path.name}-wal")
    try:
        return log if log.stat().st_size else None
    except OSError:
        return None


def is_file(path: Path) -> bool:
    """Whether a file is a database with such a table."""
    try:
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return False
        with _opened(path) as database:
            names = {name for _, name, *_ in database.execute("PRAGMA table_info(turns)")}
        return names >= {"id", "session_id", *_TURN}
    except (OSError, sqlite3.Error):
        return False


def sessions(path: Path) -> Iterator[Session]:
    """Its sessions, in the order in which they began. Raises sqlite3.Error where it is damaged."""
    with _opened(path) as database:
        for first_id, session_id, num_turns in database.execute(_SESSIONS):
            yield Session(session_id, num_turns, first_id, database)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    # A file at rest is opened without a log, which SQLite would leave beside it.
    at_rest = "" if log_of(path) else "&immutable=1"
    place = f"file:{quote(str(path.absolute()))}?mode=ro{at_rest}"
    with contextlib.closing(sqlite3.connect(place, uri=True)) as database:
        # Text that is no UTF-8 is mended, and noted, like that of other formats.
        database.text_factory = lambda data: data.decode(errors="surrogateescape")
        yield database
