"""Sample: writes conversations with known answers as an archive, to try, train and test the pipeline on.

The conversations were written by hand, person by person; jobs/sample/corpus/README.md says how. DIR gets the
archive (Parquet), DIR/_gold what a memory store should hold at the end: memories.jsonl, questions.jsonl,
secrets.jsonl, pairs.jsonl (older and newer memories, and what becomes of the older), and the manifest
world.json. With --num-users the conversations are generated instead, for load tests; they are no measure of
quality. The same options give the same bytes.

    python -m jobs.sample --archive data/sample                          # about 100 sessions
    python -m jobs.sample --archive data/train --people train --segments
    python -m jobs.sample --archive data/large --num-users 1000 --num-weeks 8
"""

import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import BaseError
from pydantic import Field, field_validator, model_validator

from cluster.store.clients import told
from jobs.common.cli import JobConfig, JobError, UsageError, main, say
from jobs.common.manifest import text_of
from jobs.common.metrics import metrics
from jobs.common.place import Place
from jobs.sample.world import START, build_world
from jobs.sample.written import SPLITS, Split, Written, corpus_hash, read_people, read_segments
from schemas.archive import ARCHIVE_SCHEMA, ROW_GROUP_SESSIONS
from schemas.manifest import RunManifest, RunStatus

SAMPLE_FILES = "sample-*.parquet"

GOLD, WORLD = "_gold", "_gold/world.json"

SESSIONS_PER_FILE = 32 * ROW_GROUP_SESSIONS

SEGMENT_TURNS = 4
"""Only for the count in the manifest: what the encoder sees of a session at a time by default."""


FEW_SESSIONS = 90
"""People are added to the default sample until it has so many sessions."""


class SampleConfig(JobConfig):
    """Which conversations, and where they go."""

    archive: str = Field(min_length=1)
    """Folder or object-store URI of the archive; made if missing. May hold an older sample, but no other
    archive."""
    people: Literal["few", "all", Split] = "few"
    """Whose conversations: those of one split of the corpus, of all of them, or of a few people of `tune`."""
    persons: list[str] | None = None
    """Only these people, by the names of their files, for example `otti-bristol`."""
    segments: bool = False
    """Write the corpus's single segments too, each as its own user: they are for training."""
    language: str | None = None
    """Only people, and segments, who write this language: `en`, `zh`, `de`, `es` or `fr`."""
    num_users: int | None = Field(None, ge=1, le=100_000)
    """Generate the conversations of so many users instead."""
    num_weeks: int = Field(4, ge=1, le=520)
    """Weeks that generated conversations cover, two or three sessions per user and week."""
    seed: int = Field(7, ge=0)
    """Seed of generated conversations: the same seed gives the same files, byte for byte."""

    @field_validator("archive", mode="before")
    @classmethod
    def _as_text(cls, archive: object) -> object:
        return str(archive) if isinstance(archive, Path) else archive

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        written = self.model_fields_set & {"people", "persons", "segments", "language"}
        if self.num_users is not None and written:
            named = ", ".join(sorted(written))
            raise ValueError(
                f"num_users={self.num_users}: generates conversations, where {named} would choose written "
                "ones; leave out one or the other"
            )
        return self


def run(config: SampleConfig) -> dict:
    """Write archive and gold; the manifest comes last and says that the world is complete."""
    with Place(config.archive) as place:
        try:
            return _run(config, place)
        except (BaseError, FileNotFoundError) as error:
            remedy = "see that the bucket is there and can be written"
            raise JobError(f"archive={config.archive!r}: {told(error)}; {remedy}") from error


def _run(config: SampleConfig, place: Place) -> dict:
    started_s = time.monotonic()
    archive = config.archive if place.is_bucket else str(Path(config.archive))
    _check_folder(place, archive)
    world, facts = _world(config)
    # Without its manifest the older sample is not complete any more, whatever happens from here on.
    place.delete([WORLD])
    files = _write_archive(place, sessions=world.sessions)
    rows = {name: getattr(world, name) for name in ("memories", "questions", "secrets", "pairs")}
    for name in rows:
        _write_jsonl(place, f"{GOLD}/{name}.jsonl", rows[name])
    counts = _counts(world.sessions, rows)
    manifest = RunManifest.with_keys(
        {"files": files, "counts": counts} | _by_kind(rows) | facts,
        job="sample",
        status=RunStatus.DONE,
        config=config.model_dump(mode="json", exclude={"archive", "storage"}),
        summary=counts,
    )
    metrics.ended(manifest)
    text = text_of(manifest, indent=2) + "\n"
    _write(place, WORLD, lambda path: path.write_text(text, encoding="utf-8"))
    gold = f"{archive}/{GOLD}"
    say(f"wrote {len(world.sessions):,} sessions to {archive} and what to remember of them to {gold}")
    return {
        "status": "done",
        "archive": archive,
        **counts,
        "seconds": round(time.monotonic() - started_s, 2),
    }


def _check_folder(place: Place, archive: str) -> None:
    """Refuse a folder with somebody's archive in it: its files would be read together with the sample."""
    if not place.is_bucket:
        if place.work.exists() and not place.work.is_dir():
            raise UsageError(f"archive={archive}: is a file; name a folder")
        place.work.mkdir(parents=True, exist_ok=True)
    for path in place.paths():
        is_hidden = any(part.startswith(("_", ".")) for part in path.split("/"))
        if path.endswith(".parquet") and not _is_own(path) and not is_hidden:
            raise UsageError(f"archive={archive}: holds {path}, no sample; choose an empty folder")


def _is_own(path: str) -> bool:
    return "/" not in path and fnmatch(path, SAMPLE_FILES)


def _write_archive(place: Place, *, sessions: list[dict]) -> list[str]:
    """Write the sessions, and remove files of a larger sample that was here before."""
    names: list[str] = []
    for start in range(0, len(sessions), SESSIONS_PER_FILE):
        rows = sessions[start : start + SESSIONS_PER_FILE]
        table = pa.Table.from_pylist(rows, schema=ARCHIVE_SCHEMA)
        names.append(f"sample-{len(names):05}.parquet")
        _write(place, names[-1], functools.partial(_write_table, table))
    place.delete([path for path in place.paths() if _is_own(path) and path not in names])
    return names


def _write_table(table: pa.Table, path: Path) -> None:
    pq.write_table(
        table, path, row_group_size=ROW_GROUP_SESSIONS, compression="zstd", write_page_checksum=True
    )


def _write_jsonl(place: Place, name: str, rows: list[dict]) -> None:
    text = "".join(_json(row) + "\n" for row in rows)
    _write(place, name, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _write(place: Place, name: str, write: Callable[[Path], object]) -> None:
    """Write under a name that readers ignore, then rename: no file is ever half there."""
    temporary = place.work / f"_{name.rpartition('/')[2]}.tmp"
    write(temporary)
    place.put(temporary, name)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _world(config: SampleConfig) -> tuple[Written, dict]:
    """The rows of all files, and what the manifest says of where they come from."""
    if config.num_users is not None:
        made = build_world(seed=config.seed, num_users=config.num_users, num_weeks=config.num_weeks)
        rows = {name: getattr(made, name) for name in ("sessions", "memories", "questions", "secrets")}
        return Written(**rows), {
            "seed": config.seed,
            "num_weeks": config.num_weeks,
            "first_day": START.isoformat(),
            "advice_sessions": made.advice_sessions,
            "shared_sentences": made.shared_sentences,
        }
    named: dict[str, tuple[str, ...]] = {"few": ("tune",), "all": SPLITS}
    splits = named.get(config.people, (config.people,))
    few = FEW_SESSIONS if config.people == "few" and config.persons is None else None
    world = read_people(splits, max_sessions=few, language=config.language, persons=config.persons)
    if missing := set(config.persons or ()) - {row["user_id"] for row in world.sessions}:
        raise UsageError(
            f"--persons {' '.join(sorted(missing))}: nobody of --people {config.people} has this name, or "
            "writes --language; see jobs/sample/corpus/people"
        )
    if config.segments and config.language in (None, "en"):
        single = read_segments()
        world.sessions.extend(single.sessions)
        world.memories.extend(single.memories)
    return world, {"people": config.people, "corpus": corpus_hash()}


def _counts(sessions: list[dict], rows: dict[str, list[dict]]) -> dict[str, int]:
    num_turns = [len(row["turns"]) for row in sessions]
    return {
        "num_users": len({row["user_id"] for row in sessions}),
        "num_sessions": len(sessions),
        "num_turns": sum(num_turns),
        "num_segments": sum(-(-num // SEGMENT_TURNS) for num in num_turns),
        **{f"num_{name}": len(found) for name, found in rows.items()},
    }


def _by_kind(rows: dict[str, list[dict]]) -> dict[str, dict[str, int]]:
    """What a test needs in addition to the gold."""
    return {
        "memories_by_type": _count(row["memory_type"] for row in rows["memories"]),
        "memories_by_status": _count(row["status"] for row in rows["memories"]),
        "questions_by_type": _count(row["question_type"] for row in rows["questions"]),
    }


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


if __name__ == "__main__":
    main(SampleConfig, run, __doc__)
