"""Write a small world of conversations with known answers, to try the pipeline on.

A dozen users talk for some weeks: facts that change, preferences, events, constraints, procedures, failures,
tools, and advice with nothing to remember. DIR gets the archive (Parquet), DIR/_gold what a memory store
should hold at the end: memories.jsonl, questions.jsonl, secrets.jsonl and the manifest world.json.
The same seed gives the same bytes.

    python -m jobs.sample --archive data/sample
    python -m jobs.sample --archive data/large --num-users 1000 --num-weeks 8
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from jobs.cli import JobConfig, UsageError, main, say
from jobs.sample.world import START, World, build_world
from schemas.archive import ARCHIVE_SCHEMA, ROW_GROUP_SESSIONS

SAMPLE_FILES = "sample-*.parquet"

SESSIONS_PER_FILE = 32 * ROW_GROUP_SESSIONS

SEGMENT_TURNS = 4
"""Only for the count in the manifest: what the encoder sees of a session at a time by default."""


class SampleConfig(JobConfig):
    """Size and seed of the world, and where it goes."""

    archive: Path
    """Folder of the archive; made if missing. May hold an older sample, but no other archive."""
    seed: int = Field(7, ge=0)
    """Seed of the world: the same seed gives the same files, byte for byte."""
    num_users: int = Field(12, ge=1, le=100_000)
    """Users in the world."""
    num_weeks: int = Field(4, ge=1, le=520)
    """Weeks that the world covers, two or three sessions per user and week."""


def run(config: SampleConfig) -> dict:
    """Write archive and gold; the manifest comes last and says that the world is complete."""
    started_s = time.monotonic()
    gold = config.archive / "_gold"
    _check_folder(config.archive)
    gold.mkdir(parents=True, exist_ok=True)
    world = build_world(seed=config.seed, num_users=config.num_users, num_weeks=config.num_weeks)
    # Without its manifest the older sample is not complete any more, whatever happens from here on.
    (gold / "world.json").unlink(missing_ok=True)
    files = _write_archive(archive=config.archive, sessions=world.sessions)
    for name in ("memories", "questions", "secrets"):
        _write_jsonl(path=gold / f"{name}.jsonl", rows=getattr(world, name))
    manifest = _manifest(config=config, world=world, files=files)
    _write(
        gold / "world.json", lambda path: path.write_text(_json(manifest, indent=2) + "\n", encoding="utf-8")
    )
    say(f"wrote {len(world.sessions):,} sessions to {config.archive} and what to remember of them to {gold}")
    return {
        "status": "done",
        "archive": str(config.archive),
        **manifest["counts"],
        "seconds": round(time.monotonic() - started_s, 2),
    }


def _check_folder(archive: Path) -> None:
    """Refuse a folder with somebody's archive in it: its files would be read together with the sample."""
    if archive.exists() and not archive.is_dir():
        raise UsageError(f"archive={archive}: is a file; name a folder")
    own = set(archive.glob(SAMPLE_FILES))
    for path in sorted(archive.rglob("*.parquet")):
        relative = path.relative_to(archive)
        is_hidden = any(part.startswith(("_", ".")) for part in relative.parts)
        if path not in own and not is_hidden:
            raise UsageError(f"archive={archive}: holds {relative}, no sample; choose an empty folder")


def _write_archive(*, archive: Path, sessions: list[dict]) -> list[str]:
    """Write the sessions, and remove files of a larger sample that was here before."""
    names = []
    for start in range(0, len(sessions), SESSIONS_PER_FILE):
        rows = sessions[start : start + SESSIONS_PER_FILE]
        table = pa.Table.from_pylist(rows, schema=ARCHIVE_SCHEMA)
        names.append(f"sample-{len(names):05}.parquet")
        _write(archive / names[-1], lambda path, table=table: _write_table(table, path))
    for path in sorted(archive.glob(SAMPLE_FILES)):
        if path.name not in names:
            path.unlink()
    return names


def _write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(
        table, path, row_group_size=ROW_GROUP_SESSIONS, compression="zstd", write_page_checksum=True
    )


def _write_jsonl(*, path: Path, rows: list[dict]) -> None:
    text = "".join(_json(row) + "\n" for row in rows)
    _write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a name that readers ignore, then rename: no file is ever half there."""
    temporary = path.with_name(f"_{path.name}.tmp")
    write(temporary)
    os.replace(temporary, path)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _manifest(*, config: SampleConfig, world: World, files: list[str]) -> dict:
    """Seed, counts, and what a test wants to know about the world besides its gold."""
    num_turns = [len(row["turns"]) for row in world.sessions]
    return {
        "seed": config.seed,
        "num_weeks": config.num_weeks,
        "first_day": START.isoformat(),
        "files": files,
        "counts": {
            "num_users": config.num_users,
            "num_sessions": len(world.sessions),
            "num_turns": sum(num_turns),
            "num_segments": sum(-(-num // SEGMENT_TURNS) for num in num_turns),
            "num_memories": len(world.memories),
            "num_questions": len(world.questions),
            "num_secrets": len(world.secrets),
        },
        "memories_by_type": _count(row["memory_type"] for row in world.memories),
        "memories_by_status": _count(row["status"] for row in world.memories),
        "questions_by_type": _count(row["question_type"] for row in world.questions),
        "advice_sessions": world.advice_sessions,
        "shared_sentences": world.shared_sentences,
    }


def _count(values) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


if __name__ == "__main__":
    main(SampleConfig, run, __doc__)
