"""Exports of chats as files, and what is read of them."""

import datetime as dt
import json
import re
from pathlib import Path

from jobs.common.input_items import Rejection, read_items
from jobs.ingest import AUTO, read_files
from jobs.ingest.files import find_files
from jobs.ingest.formats import FORMATS
from jobs.ingest.recognise import recognise

SAMPLES = {path.stem: path for path in sorted((Path(__file__).parent / "histories").iterdir())}


def read(paths, format, columns=()):
    """Rows, and what was noted or rejected."""
    files = find_files([str(path) for path in paths], format)
    now, names = dt.datetime.now(dt.UTC), dict(column.split("=") for column in columns)
    if format == AUTO:
        kind, files = recognise(files, names)
    else:
        kind = FORMATS[format]
    found = [found for _, found in read_files(files, kind, "me", now, names)]
    rejections = [one for one in found if isinstance(one, Rejection)]
    return [one[2] for one in found if not isinstance(one, Rejection)], rejections


def told(rows):
    return [
        (
            row["user_id"],
            re.sub(r"-[0-9a-f]{16}$", "-*", row["session_id"]),
            f"{row['session_time']:%Y-%m-%d %H:%M}" if row["session_time"] else None,
            [(turn["role"], turn["content"]) for turn in row["turns"]],
        )
        for row in rows
    ]


def items_of(format):
    return [item for _, item in read_items(SAMPLES[format], format)]


def as_lines(items):
    return "".join(json.dumps(item) + "\n" for item in items)
