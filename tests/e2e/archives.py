"""Archives of the end-to-end tests."""

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.archive import ARCHIVE_SCHEMA


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
