"""What nights cost without model calls, by the size of the archive: seconds, and memory of the driver.

    python -m tests.benchmarks.bench_scale --num-sessions 2000 10000
    python -m tests.benchmarks.bench_scale --num-sessions 100000 --quick
    python -m tests.benchmarks.bench_scale --num-sessions 20000 100000 --driver

Four nights for each size: the `first` one; an `unchanged` one; one with 1 % `new` sessions; one in which 1 %
of the sessions, all over the archive, have `grown` by two turns. The sessions are generated ones of
jobs.sample, under as many users as it takes. The stages run in this process, as with `--local`: so what is
called the driver's memory has what a worker takes in it, which does not grow with the archive. Encoder and
embedder answer at once; all else is the real thing, with the default encoder's tokenizer. With --quick
nothing is redacted and words are tokens: most of what a new session costs, and the same at any size.

A night is a process of its own. Its clock begins when the job opens the store, with all imports done:
`plan_s` ends before the encoder would be asked (inspect, ledger, cut, plan), `total_s` with the summary.
`cpu_s` are seconds of the processor until the plan, which say more on a busy machine. `plan_mib` is by how
much memory had grown by then at its peak. An exponent is the slope of log time over log size, against the
size before; `bytes_a_segment` is the slope of the peak, so that what is there at any size does not count.
`publish_s` is the commit, with the staged files read and deleted; `staged_a_million` how many these are for a
million encoded segments, in batches of --batch-size. The last line is JSON.

With --driver only what the driver does in an unchanged night, and no archive and no store: it reads a
watermark, plans, makes the ledger of segments that come in batches (SEGMENTS a session), and asks it of every
session.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

NIGHTS = ("first", "unchanged", "new", "grown")

SECONDS = ("plan_s", "cpu_s", "publish_s", "total_s")

PART = 100
"""Of so many sessions one is new, or has grown."""

SESSIONS_PER_FILE = 4096
"""As jobs.ingest writes them."""

SEGMENTS = 4
"""Of a session, with --driver."""


def sessions(num: int) -> Iterator[dict]:
    """Rows of the archive. Users differ by their ids, and every twentieth says the same."""
    from jobs.sample.world import build_world

    base = build_world(seed=7, num_users=20, num_weeks=4).sessions
    for number in range(num):
        row = base[number % len(base)]
        user = f"user-{number // len(base):06}-{row['user_id']}"
        yield row | {"user_id": user, "session_id": f"{user}-{row['session_id']}"}


def write_archive(folder: Path, num: int) -> None:
    for number, rows in enumerate(_groups(sessions(num), SESSIONS_PER_FILE)):
        _write(folder / f"{number:06}.parquet", rows)


def add_new(folder: Path, num: int) -> None:
    rows = [
        row | {"user_id": f"new-{row['user_id']}", "session_id": f"new-{row['session_id']}"}
        for row in sessions(num // PART)
    ]
    _write(folder / "100000-new.parquet", rows)


def add_grown(folder: Path, num: int) -> None:
    rows = []
    for number, row in enumerate(sessions(num)):
        if number % PART == 0:
            more = [turn | {"content": f"Once more: {turn['content']}"} for turn in row["turns"][:2]]
            rows.append(row | {"turns": row["turns"] + more})
    _write(folder / "200000-grown.parquet", rows)


def _groups(rows: Iterator[dict], size: int) -> Iterator[list[dict]]:
    group = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _write(path: Path, rows: list[dict]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from schemas.archive import ARCHIVE_SCHEMA, ROW_GROUP_SESSIONS

    table = pa.Table.from_pylist(rows, schema=ARCHIVE_SCHEMA)
    pq.write_table(
        table, path, row_group_size=ROW_GROUP_SESSIONS, compression="zstd", write_page_checksum=True
    )


# --- one night, in a process of its own -----------------------------------------------------------------


class Peak:
    """Resident memory of this process. Its peak counts from the last `reset` on."""

    @staticmethod
    def reset() -> None:
        Path("/proc/self/clear_refs").write_text("5")

    @staticmethod
    def bytes(name: str) -> int:
        (line,) = [
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)
        ]
        return int(line.split()[1]) << 10


def import_all() -> None:
    """What a backfill imports while it runs: that is no part of a night."""
    import lance  # noqa: F401

    import cluster.backfill.cut_stage
    import cluster.backfill.embed_stage
    import cluster.backfill.encode_stage
    import cluster.embed.turn_embedder
    import cluster.forget.erase
    import cluster.store.store  # noqa: F401
    import jobs.backfill  # noqa: F401


def night(archive: Path, store: Path, is_quick: bool, batch_size: int) -> dict:
    """A backfill without models; what it took."""
    from cluster.backfill import archive as reading
    from cluster.backfill import cut_stage, embed_stage, encode_stage
    from cluster.store.files import Files
    from jobs import backfill
    from jobs.common.choice import choose_encoder
    from tests.unit.cluster.backfill.scripted import ScriptedEmbedder, ScriptedEncoder, word_offsets

    if is_quick:
        cut_stage.redact_session = lambda row, **how: 0
        cut_stage.segment_offsets = lambda profile: word_offsets
    encode_stage.Encoder = ScriptedEncoder().load
    embed_stage.Embedder = ScriptedEmbedder().load
    # Tokenizer, redaction and Parquet once, so that their imports and tables are there.
    offsets = cut_stage.segment_offsets(profile := choose_encoder(None, None))
    path = reading.list_files(str(archive))[0]
    units = reading.plan_units([reading.inspect_file(str(archive), path)], limit_sessions=1)
    for row in reading.read_unit(str(archive), units[0]):
        cut_stage.redact_session(row, contacts=False, rules=())
        for segment in cut_stage.cut_session(row, offsets, profile):
            cut_stage.skipped(segment, profile)

    pool = {"batch_size": batch_size}
    config = backfill.BackfillConfig(archive=str(archive), store=str(store), local=True, encoder_pool=pool)
    at_plan: dict[str, float] = {}
    num_staged, check, publish = 0, backfill.check_plan, backfill.publish

    def check_plan(*arguments: object) -> None:
        at_plan.update(plan_s=time.monotonic() - started_s, peak=Peak.bytes("VmHWM"))
        at_plan["cpu_s"] = time.process_time() - started_cpu_s
        check(*arguments)

    def count_staged(*arguments: Any) -> bool:
        nonlocal num_staged
        num_staged = len(Files(str(store), "staging").paths())
        return publish(*arguments)

    backfill.check_plan, backfill.publish = check_plan, count_staged
    Peak.reset()
    before = Peak.bytes("VmRSS")
    started_s, started_cpu_s = time.monotonic(), time.process_time()
    summary = backfill.run(config)
    return {
        "status": summary["status"],
        "num_sessions": summary["num_sessions"],
        "num_segments": summary["num_segments"],
        "num_encoded": summary["num_segments_encoded"],
        "plan_s": round(at_plan["plan_s"], 2),
        "cpu_s": round(at_plan["cpu_s"], 2),
        "inspect_s": summary["stages"]["inspect"]["seconds"],
        "cut_s": summary["stages"]["cut"]["seconds"],
        "publish_s": summary["stages"]["publish"]["seconds"],
        "total_s": round(time.monotonic() - started_s, 2),
        "num_staged": num_staged,
        "peak_bytes": int(Peak.bytes("VmHWM") - before),
        "plan_bytes": int(at_plan["peak"] - before),
    }


# --- the driver alone -----------------------------------------------------------------------------------


def ids_of(number: int) -> tuple[str, str, list[str]]:
    """User, session and segments of a made-up session."""
    user = f"user-{number // 10:08}"
    ids = [hashlib.md5(f"{number} {place}".encode()).hexdigest() for place in range(SEGMENTS)]
    return user, f"{user}-{number % 10}", ids


def write_watermark(folder: Path, num: int) -> None:
    import numpy as np

    from cluster.backfill.archive import session_key
    from cluster.backfill.ledger import digest_of
    from cluster.backfill.watermark import ROW, KnownFile, Watermark
    from schemas.archive import ROW_GROUP_SESSIONS
    from schemas.stage_items import RowGroup

    files = {}
    for first in range(0, num, SESSIONS_PER_FILE):
        groups, rows = [], []
        for start in range(first, min(num, first + SESSIONS_PER_FILE), ROW_GROUP_SESSIONS):
            found = [ids_of(number) for number in range(start, min(num, start + ROW_GROUP_SESSIONS))]
            keys = b"".join(session_key(*ids) for *ids, _ in found)
            cut = [(digest_of(segments), SEGMENTS, 0, True, False) for *_, segments in found]
            groups.append(RowGroup(len(groups), start - first, keys))
            rows.append(np.array(cut, ROW).tobytes())
        files[f"{first:09}.parquet"] = KnownFile(b"%032d" % first, True, tuple(groups), tuple(rows))
    empty = Watermark.read(str(folder), "archive", "cut")
    dataclasses.replace(empty, files=files).save(str(folder), is_only=True)


def driver(folder: Path, num: int) -> dict:
    import pyarrow as pa

    from cluster.backfill.archive import plan_units
    from cluster.backfill.ledger import COLUMNS, Ledger
    from cluster.backfill.watermark import Watermark
    from schemas.stage_items import InspectedFile
    from schemas.store import SEGMENTS_SCHEMA

    schema, making_s = pa.schema([SEGMENTS_SCHEMA.field(name) for name in COLUMNS]), 0.0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal making_s
        for start in range(0, num, 2048):
            started_s = time.process_time()
            rows = [
                (user, session, segment, "encoder", "complete")
                for user, session, segments in map(ids_of, range(start, min(num, start + 2048)))
                for segment in segments
            ]
            batch = pa.record_batch([pa.array(column) for column in zip(*rows, strict=True)], schema=schema)
            making_s += time.process_time() - started_s
            yield batch

    Peak.reset()
    before, started_s = Peak.bytes("VmRSS"), time.process_time()
    known = Watermark.read(str(folder), "archive", "cut")
    found = known.filled(
        InspectedFile(file.path, identity=file.known or b"", is_known=True)
        for file in known.to_inspect(known.files)
    )
    units = plan_units(found)
    left, done = known.left(units, found, Ledger.of(batches()))
    assert not left and done.num_sessions == num and known.with_cuts(found, {}).files == known.files
    return {
        "num_segments": num * SEGMENTS,
        "cpu_s": round(time.process_time() - started_s - making_s, 2),
        "plan_bytes": Peak.bytes("VmHWM") - before,
    }


# --- all of them ----------------------------------------------------------------------------------------


def measure(num: int, folder: Path, is_quick: bool, batch_size: int) -> dict[str, dict]:
    archive, store = folder / "archive", folder / "store"
    archive.mkdir()
    prepare = {"first": write_archive, "new": add_new, "grown": add_grown}
    found = {}
    for name in NIGHTS:
        if name in prepare:
            in_child(prepare[name], archive, num)
        found[name] = in_child(night, archive, store, is_quick, batch_size)
        print(f"{num:,} sessions, {name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def in_child(work: Callable[..., Result], *arguments: object) -> Result:
    """What it returns, called in a process that has all of this one's imports and none of its threads."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(work, arguments)


def measure_driver(num: int, folder: Path) -> dict[str, dict]:
    in_child(write_watermark, folder, num)
    return {"driver": in_child(driver, folder, num)}


def table(results: dict[int, dict[str, dict]]) -> list[dict]:
    rows = []
    for name in dict.fromkeys(name for found in results.values() for name in found):
        before: dict | None = None
        for num, found in results.items():
            row = found[name]
            first = found.get("first")
            shown = {"night": name, "sessions": num, "segments": row["num_segments"]}
            shown |= {key: row[key] for key in ("num_encoded", *SECONDS) if key in row}
            if first:
                shown |= {f"{key}_of_first": round(row[key] / max(first[key], 0.01), 3) for key in SECONDS}
            shown["plan_mib"] = round(row["plan_bytes"] / (1 << 20), 1)
            if "peak_bytes" in row:
                shown["peak_mib"] = round(row["peak_bytes"] / (1 << 20), 1)
            if row.get("num_encoded"):
                shown["staged_a_million"] = round(row["num_staged"] / row["num_encoded"] * 1e6)
            if before:
                grown = math.log(row["num_segments"] / before["num_segments"])
                for key in [name for name in SECONDS if name in row]:
                    shown[f"exponent_{key}"] = round(
                        math.log(max(row[key], 0.01) / max(before[key], 0.01)) / grown, 2
                    )
                more = row["num_segments"] - before["num_segments"]
                shown["bytes_a_segment"] = round((row["plan_bytes"] - before["plan_bytes"]) / more, 1)
            before = row
            rows.append(shown)
    return rows


def main(options: argparse.Namespace) -> None:
    import_all()
    results = {}
    for num in sorted(options.num_sessions):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            place = Path(folder)
            results[num] = (
                measure_driver(num, place)
                if options.driver
                else measure(num, place, options.quick, options.batch_size)
            )
    rows = table(results)
    names = list(dict.fromkeys(name for row in rows for name in row))
    widths = [max(len(name), *(len(str(row.get(name, ""))) for row in rows)) for name in names]
    for line in [dict(zip(names, names, strict=True)), *rows]:
        print(
            "  ".join(str(line.get(name, "")).rjust(width) for name, width in zip(names, widths, strict=True))
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-sessions", type=int, nargs="+", default=[2_000, 10_000])
    parser.add_argument("--quick", action="store_true", help="without redaction and tokenizer")
    parser.add_argument("--batch-size", type=int, default=64, help="segments that are encoded together")
    parser.add_argument("--driver", action="store_true", help="only what the driver does, without a store")
    parser.add_argument("--folder", type=Path, default=None, help="where archives and stores are put")
    main(parser.parse_args())
