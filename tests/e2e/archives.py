"""Archives of the end-to-end tests."""

import datetime as dt
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.archive import ARCHIVE_SCHEMA, ROW_GROUP_SESSIONS


def write_archive(folder: Path, name: str, sessions: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(sessions, schema=ARCHIVE_SCHEMA), folder / name)
    return folder


def session(user: str, session_id: str, *texts: str) -> dict:
    turns = [
        {"role": ("user", "assistant")[index % 2], "content": text, "speaker": None, "time": None}
        for index, text in enumerate(texts)
    ]
    time = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    return {
        "user_id": user,
        "conversation_id": None,
        "session_id": session_id,
        "session_time": time,
        "turns": turns,
    }


WORK = ("nurse", "carpenter", "teacher", "pilot", "baker", "librarian", "plumber", "florist")
THINGS = (
    *("river", "window", "garden", "bridge", "market", "castle", "forest", "harbour"),
    *("library", "museum", "station", "theatre", "village", "kitchen", "painting", "mountain"),
    *("orchard", "fountain", "lantern", "meadow", "island", "tunnel", "bakery", "statue"),
    *("stadium", "chapel", "quarry", "canal", "cottage", "vineyard", "lighthouse", "windmill"),
)
CITIES = ("Oslo", "Lyon", "Porto", "Ghent", "Turin", "Malmo", "Basel", "Cork")


def write_unlike(folder: Path, num_sessions: int) -> Path:
    """Sessions of two turns, a segment each, no two of them alike."""
    rows = []
    for number in range(num_sessions):
        drawn = hashlib.sha256(str(number).encode()).digest()[:10]
        things = ", ".join(f"the {THINGS[byte % len(THINGS)]}" for byte in drawn)
        user = f"I work as a {WORK[number % 8]} in {CITIES[number // 8 % 8]}. Today I saw {things}."
        turns = [("user", user), ("assistant", f"That is a lot to see in one day: {things}.")]
        rows.append(
            {
                "user_id": f"user-{number % 40:02}",
                "session_id": f"session-{number:05}",
                "session_time": dt.datetime(2025, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=number),
                "turns": [{"role": role, "content": content} for role, content in turns],
            }
        )
    folder.mkdir()
    table = pa.Table.from_pylist(rows, schema=ARCHIVE_SCHEMA)
    pq.write_table(table, folder / "sessions.parquet", row_group_size=ROW_GROUP_SESSIONS)
    return folder
