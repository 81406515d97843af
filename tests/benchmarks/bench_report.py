"""What the report of a large store costs: seconds to make and to open it, and the peak of memory. No model.

    python -m tests.benchmarks.bench_report --num-memories 50000
    python -m tests.benchmarks.bench_report --num-memories 1000000

The store has so many records and as many turns, of NUM_USERS users. Its first run wrote seven tenths of them,
NUM_RUNS - 1 nights the rest, each with decisions about one memory in twenty of the night's, rejections and a
manifest; every view is kept. Vectors have 16 dimensions, since a report reads none. `report` is all of
`index.html`, `user` that and the page of one user. Each is made in a process of its own, which has loaded
what it needs; the peak is that of its memory above what it held before, `cpu_s` the time of the processor.
`load_ms` is how long headless Chromium takes until the page's load event, the median of five times. The last
line is JSON.
"""

import argparse
import datetime as dt
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.benchmarks.bench_consolidate import records, synthetic
from tests.benchmarks.bench_interchange import in_a_process, measured
from tests.benchmarks.bench_operations import num_bytes

DIM = 16
FIRST_SHARE = 0.7
BEGAN = dt.datetime(2026, 3, 1, 2, tzinfo=dt.UTC)
STAGED_AT_ONCE = 50_000
USER = "u000001"


def turns(columns: dict) -> dict:
    """Columns of a turn behind each record."""
    keys = ("segment_id", "user_id", "conversation_id", "session_id", "session_time", "vector")
    num = len(columns["record_id"])
    return {name: columns[name] for name in keys} | {
        "turn_id": [f"t{name}" for name in columns["record_id"]],
        "turn_index": [0] * num,
        "role": ["user"] * num,
        "speaker": [None] * num,
        "time": columns["session_time"],
        "content": [
            f"By the way, {text[:-1]}, and that was quite something." for text in columns["semantic_text"]
        ],
    }


def decisions(columns: dict, run_id: str, when: dt.datetime) -> list[dict]:
    """A decision about one in twenty of these records."""
    ids, users = columns["record_id"], columns["user_id"]
    known = {"decider": "rules", "model": "", "prompt": "", "text": "", "outcome": "applied", "raw": ""}
    known |= {"target_revision": 1, "source_revisions": [1], "action": "delete", "reason": "newer"}
    known |= dict.fromkeys(("prompt_tokens", "cached_tokens", "output_tokens"), 0)
    return [
        known
        | {
            "decision_id": f"d{ids[place]}",
            "user_id": users[place],
            "target_id": ids[place],
            "run_id": run_id,
        }
        | {"source_ids": [ids[place]], "decided_at": when}
        for place in range(0, len(ids), 20)
    ]


def rejections(run_id: str, num: int) -> list[dict]:
    row = {"stage": "archive", "user_id": None, "session_id": None, "detail": "turns: none", "run_id": run_id}
    return [
        row
        | {"rejection_id": f"{run_id}-{number}", "source": f"{run_id}.parquet:{number}"}
        | {"reason": ("no_turns", "unknown_role")[number % 2], "raw": "{}" * 100}
        for number in range(num)
    ]


def write_store(uri: str, num_users: int, num: int, num_runs: int) -> dict:
    from cluster.store.files import Files
    from cluster.store.store import Store
    from jobs.common.manifest import put_run
    from schemas.manifest import RunManifest
    from schemas.store import DECISIONS_SCHEMA, REJECTIONS_SCHEMA, records_schema, turns_schema

    store, staging = Store(uri, must_exist=False), Files(uri, "staging")
    rng = np.random.default_rng(0)
    first = round(num * FIRST_SHARE)
    bounds = [0, *np.linspace(first, num, num_runs).round().astype(int).tolist()]
    for number in range(num_runs):
        begun = BEGAN + dt.timedelta(days=number)
        run_id = f"{begun:%Y%m%dT%H%M%S}-{number:06x}"
        inserts: dict[str, list[str]] = {name: [] for name in ("records", "turns", "decisions", "rejections")}
        for start in range(bounds[number], bounds[number + 1], STAGED_AT_ONCE):
            size = min(STAGED_AT_ONCE, bounds[number + 1] - start)
            texts, _ = synthetic(min(size, 5000), seed=start)
            vectors = rng.standard_normal((size, DIM)).astype(np.float32)
            columns = records(
                num_users, size, start, [texts[place % len(texts)] for place in range(size)], vectors
            )
            for name, rows, schema in (
                ("records", columns, records_schema(DIM)),
                ("turns", turns(columns), turns_schema(DIM)),
            ):
                known = pa.schema([field for field in schema if field.name in rows])
                staging.put_table(path := f"{name}-{start}.parquet", pa.table(rows, schema=known))
                inserts[name].append(path)
            staging.put_rows(
                path := f"d-{start}.parquet", decisions(columns, run_id, begun), DECISIONS_SCHEMA
            )
            inserts["decisions"].append(path)
        staging.put_rows(path := "rejections.parquet", rejections(run_id, 200), REJECTIONS_SCHEMA)
        inserts["rejections"].append(path)
        counts = {"num_records": bounds[number + 1] - bounds[number], "num_rejections": 200}
        counts |= {"prompt_tokens": 1000 * counts["num_records"], "output_tokens": 50 * counts["num_records"]}
        run = {
            "run_id": run_id,
            "job": "backfill",
            "started_at": begun.isoformat(),
            "summary": json.dumps(counts),
        }
        run |= {"encoder": "e", "embedder": "e", "embedder_profile": "{}", "config": "{}"}
        store.commit(run, DIM, inserts=inserts)
        staging.delete(staging.paths())
        times = {"started_at": begun, "finished_at": begun + dt.timedelta(hours=1), "seconds": 3600.0}
        stages = {"encode": {"seconds": 3500.0}, "publish": {"seconds": 100.0}}
        manifest = {"run_id": run_id, "job": "backfill", "summary": counts, "stages": stages, **times}
        put_run(Files(uri, "runs"), RunManifest.with_keys(counts, **manifest))
    return {}


def make(uri: str, output: str, user: str | None) -> dict:
    import lance  # noqa: F401
    import lancedb  # noqa: F401
    import polars  # noqa: F401

    from cluster.report.pages import write_report

    now, cpu_s = BEGAN + dt.timedelta(days=40), time.process_time()
    found = measured(lambda: write_report(uri, output, user, now=now), lambda: num_bytes(Path(output)))
    del found["mb_per_s"]
    return found | {"cpu_s": round(time.process_time() - cpu_s, 2)}


def opened(folder: Path, home: Path) -> dict[str, dict]:
    """Page -> its bytes, and milliseconds until its load event."""
    from tests.browser.browser import Browser

    found = {}
    spent = "performance.getEntriesByType('navigation')[0].loadEventStart"
    with Browser(home / "profile") as browser:
        for path in sorted(folder.glob("*.html")):
            times = [browser.open(path).run(spent) for _ in range(5)]
            found[path.name.partition("-")[0].removesuffix(".html")] = {
                "kb": round(path.stat().st_size / 1000),
                "load_ms": round(statistics.median(times)),
            }
    return found


def main(options: argparse.Namespace) -> dict:
    result = {
        "taken": dt.date.today().isoformat(),
        **{name: getattr(options, name) for name in ("num_memories", "num_users", "num_runs")},
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        home = Path(options.keep or folder)
        store, pages = str(home / "store"), Path(folder) / "pages"
        if not Path(store).exists():
            in_a_process(write_store, store, options.num_users, options.num_memories, options.num_runs)
        result["store_mb"] = num_bytes(Path(store)) // 1_000_000
        for name, user in (("report", None), ("user", USER)):
            result[name] = in_a_process(make, store, str(pages), user)
            print(json.dumps({name: result[name]}), flush=True)
        return result | {"opened": opened(pages, Path(folder))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-memories", type=int, default=50_000)
    parser.add_argument("--num-users", type=int, default=1000)
    parser.add_argument("--num-runs", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=None, help="where store and pages are put")
    parser.add_argument(
        "--keep", type=Path, default=None, help="folder whose `store` is used, and left there"
    )
    print(json.dumps(main(parser.parse_args())))
