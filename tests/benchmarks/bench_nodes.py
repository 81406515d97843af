"""How encoding spreads over the nodes of a cluster: batches a second of many nodes beside those of one.

    python -m tests.benchmarks.bench_nodes --num-nodes 1 8

Real Ray, real stages, staged files and tables; each node is a raylet of this machine with one encoder actor,
which has `in_flight` batches in work. The engine is a stand-in that sleeps SECONDS over each batch, one after
the other, as a card that is always busy: so what is measured is what Ray, staging and embedding put between.
The rate is of the last three quarters of the results. `efficiency` is the rate
of many nodes for each node, over that of one; `of_the_limit` the rate over that of actors that never wait.
Each node gets as many batches. The last line is JSON.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

from cluster.backfill import cut_stage
from cluster.backfill.embed_stage import EmbedStage
from cluster.backfill.encode_stage import EncodeStage
from cluster.backfill.staged import plan_path
from cluster.runtime import ClusterConfig, PoolConfig, Stage, connect, run_stage
from cluster.store.files import Files
from schemas.profiles.encoder import EncoderProfile
from schemas.stage_items import Batch, EncodedBatch
from tests.nodes import Cluster
from tests.unit.cluster.backfill import scripted

SEGMENTS = 64
"""Of a batch."""

WARM_UP = 4
"""The first of so many parts of the batches does not count: actors start meanwhile."""


class SleepingEncoder(scripted.ScriptedEncoder):
    """Answers all of a batch after so many seconds, one batch at a time."""

    def __init__(self, seconds: float):
        super().__init__()
        self._seconds, self._card = seconds, threading.Lock()

    def encode(self, segments):
        with self._card:
            time.sleep(self._seconds)
        return super().encode(segments)


class SleepingStage(EncodeStage):
    """The stage with that engine."""

    def __init__(self, profile: EncoderProfile, files: Files, seconds: float):
        super().__init__(profile, files, "bench", {}, {})
        self._load = lambda: SleepingEncoder(seconds)

    def __call__(self, batch: Batch) -> EncodedBatch:
        return super().__call__(batch)


class ScriptedEmbedStage(EmbedStage):
    """The stage with a model that answers at once."""

    def __init__(self, files: Files):
        super().__init__(scripted.ENCODER, scripted.EMBEDDER, files)
        self._embedder = scripted.ScriptedEmbedder()


def staged(folder: Path, num_batches: int) -> tuple[Files, list[Batch]]:
    """Batches of made-up segments, as the cut leaves them."""
    files, batches = Files(str(folder / "store"), "staging"), []
    rows = [scripted.session(number, num_turns=2) for number in range(SEGMENTS)]
    cut_stage.segment_offsets = lambda profile: scripted.word_offsets
    (found,) = scripted.cut(folder, files, rows, batch_size=SEGMENTS)
    (cut,) = found.batches
    table = files.get_table(plan_path(cut.batch_id))
    place = table.schema.get_field_index("segment_id")
    for number in range(num_batches):
        ids = [f"{number:06d}-{row}" for row in range(table.num_rows)]
        batches.append(Batch(f"batch-{number:06d}", table.num_rows, table.num_rows * 8))
        files.put_table(plan_path(batches[-1].batch_id), table.set_column(place, "segment_id", [ids]))
    return files, batches


def rate(num_nodes: int, options: argparse.Namespace) -> float:
    """Batches a second."""
    import ray

    with tempfile.TemporaryDirectory() as folder, Cluster("--num-cpus", "2") as nodes:
        os.environ.update(nodes.env)
        nodes.add("--num-cpus", "2", "--resources", '{"encoder": 1}', count=num_nodes)
        files, batches = staged(Path(folder), options.num_batches * num_nodes)
        connect(ClusterConfig(address=nodes.env["RAY_ADDRESS"]))
        try:
            pool = PoolConfig(num_cpus=2, min_size=num_nodes, max_size=num_nodes, num_threads=1)
            encode = {"profile": scripted.PROFILE, "files": files, "seconds": options.seconds}
            results = run_stage(
                batches,
                Stage(SleepingStage, encode, pool, in_flight=options.in_flight),
                Stage(ScriptedEmbedStage, {"files": files}, PoolConfig(num_cpus=1, num_threads=1)),
            )
            arrived_s = [time.monotonic() for _ in results]
            before = len(batches) // WARM_UP
            return (len(batches) - 1 - before) / (arrived_s[-1] - arrived_s[before])
        finally:
            ray.shutdown()


def main(options: argparse.Namespace) -> dict:
    rates = {num: rate(num, options) for num in options.num_nodes}
    first, *others = options.num_nodes
    found = {"seconds": options.seconds, "in_flight": options.in_flight, "num_batches": options.num_batches}
    found["batches_per_s"] = {num: round(one, 3) for num, one in rates.items()}
    found["of_the_limit"] = {num: round(one * options.seconds / num, 3) for num, one in rates.items()}
    found["efficiency"] = {num: round(rates[num] / num / (rates[first] / first), 3) for num in others}
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-nodes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--num-batches", type=int, default=20, help="of each node")
    parser.add_argument("--seconds", type=float, default=3.0, help="that a batch takes")
    parser.add_argument("--in-flight", type=int, default=2, help="batches that an actor has in work")
    print(json.dumps(main(parser.parse_args())))
