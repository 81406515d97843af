"""What goes in and out at scale: megabytes a second, and the peak of memory above what was held before.

    python -m tests.benchmarks.bench_interchange export --num-memories 100000
    python -m tests.benchmarks.bench_interchange export --num-memories 1000000 --to jsonl parquet
    python -m tests.benchmarks.bench_interchange ingest --mb 100
    python -m tests.benchmarks.bench_interchange ingest --mb 1000

`export` writes a store of 100 users with vectors of 384 dimensions in each format (MB are those written);
`ingest` reads a ChatGPT export of so many megabytes. Each is measured in a process of its own, which has
loaded what it needs. No Ray, no model. The last line is JSON.
"""

import argparse
import concurrent.futures
import datetime as dt
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.bench_operations import num_bytes, write_store
from tests.memory import peak_kib

FORMATS = ("jsonl", "parquet", "markdown", "mem0", "cogx", "langgraph", "letta", "hindsight")

SAID = "the a my we moved to Oslo tea nurse works since May and likes long walks by river with Ann"
"""Words that the messages are made of."""


def in_a_process(call: Callable[..., dict], *values) -> dict:
    """What a function gives in a process of its own, so that peaks do not hide each other."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *values).result()


def measured(run: Callable[[], object], num: Callable[[], int]) -> dict:
    """Seconds, MB/s of `num()` bytes, and MiB of the peak above what the process held at its peak before."""
    before, started_s = peak_kib(), time.monotonic()
    run()
    seconds = time.monotonic() - started_s
    return {
        "seconds": round(seconds, 2),
        "mb_per_s": round(num() / 1e6 / seconds, 2),
        "peak_mib_above_start": (peak_kib() - before) >> 10,
    }


def make_store(uri: str, num: int) -> dict:
    write_store(uri, num, max(1, num // 100_000))
    return {}


def export(uri: str, name: str, output: str) -> dict:
    import lance  # noqa: F401
    import lancedb  # noqa: F401

    from jobs.export import ExportConfig
    from jobs.export import run as job

    config = ExportConfig(store=uri, format=name, output=output, remember=False)
    return measured(lambda: job(config), lambda: num_bytes(Path(output)))


def conversation(number: int, rng: random.Random) -> dict:
    """One of a ChatGPT export: 20 messages of 300 characters in the mean."""
    start, ids = 1_740_000_000 + 600 * number, [f"{number}-{place}" for place in range(21)]
    mapping = {ids[0]: {"id": ids[0], "parent": None, "children": [ids[1]], "message": None}}
    for place in range(1, 21):
        said = " ".join(rng.choices(SAID.split(), k=rng.randrange(20, 130)))
        message = {
            "id": ids[place],
            "author": {"role": ("assistant", "user")[place % 2], "metadata": {}},
            "create_time": start + place,
            "content": {"content_type": "text", "parts": [said]},
            "recipient": "all",
        }
        node = {"id": ids[place], "parent": ids[place - 1], "children": ids[place + 1 : place + 2]}
        mapping[ids[place]] = node | {"message": message}
    times = {"create_time": start, "update_time": start + 20}
    name = {"title": f"Talk {number}", "conversation_id": f"c{number}", "id": f"c{number}"}
    return name | times | {"mapping": mapping, "current_node": ids[-1]}


def write_chats(path: str, num: int) -> dict:
    """A file of about so many bytes."""
    rng, number = random.Random(0), 0
    with open(path, "w", encoding="utf-8") as file:
        file.write("[")
        while file.tell() < num:
            file.write((",\n" if number else "") + json.dumps(conversation(number, rng)))
            number += 1
        file.write("]\n")
    return {"num_conversations": number}


def ingest(path: str, archive: str) -> dict:
    import pyarrow.parquet  # noqa: F401

    from jobs.ingest import IngestConfig
    from jobs.ingest import run as job

    config = IngestConfig(input=[path], archive=archive, user_id="me", format="chatgpt-export")
    return measured(lambda: job(config), lambda: Path(path).stat().st_size)


def main(options: argparse.Namespace) -> dict:
    result: dict = {"taken": dt.date.today().isoformat()}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.part == "ingest":
            path = f"{folder}/conversations.json"
            result |= {"mb": options.mb} | in_a_process(write_chats, path, options.mb * 1_000_000)
            return result | in_a_process(ingest, path, f"{folder}/archive")
        store = f"{folder}/store"
        in_a_process(make_store, store, options.num_memories)
        result["num_memories"] = options.num_memories
        for name in options.to:
            result[name] = in_a_process(export, store, name, f"{folder}/{name}")
            print(json.dumps({name: result[name]}), flush=True)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("export", "ingest"))
    parser.add_argument("--num-memories", type=int, default=100_000)
    parser.add_argument("--to", nargs="+", default=FORMATS)
    parser.add_argument("--mb", type=int, default=100, help="megabytes of the file to ingest")
    parser.add_argument("--folder", type=Path, default=None, help="where everything is put")
    print(json.dumps(main(parser.parse_args())))
