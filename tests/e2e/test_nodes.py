"""Nights on clusters of several nodes: nodes are lost and come, the driver or the head is killed.

The encoder is asked at an endpoint of the tests, which counts what is paid. A kill comes when it has answered
so many requests, or when a worker is seen at the work in question, never after some seconds.
"""

import json
import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.profiles import SHIPPED
from cluster.store.files import Files
from cluster.store.lease import holder
from jobs.sample.__main__ import SampleConfig
from jobs.sample.__main__ import run as make_sample
from tests import endpoint as served
from tests.e2e.conftest import ROOT, Done, finish, here, rows, start, wait_until
from tests.nodes import Cluster, Node

pytestmark = pytest.mark.slow

CONCURRENCY = 2
"""Requests in flight: what a kill may have paid twice."""

NUM_ANSWERED = 12
"""Requests that are answered before what comes in the middle comes: some batches of several."""

OF_A_RUN = ("run_id", "closed_run_id", "created_at", "updated_at", "vector")
TABLES = ("records", "turns", "segments", "rejections")


class Gate:
    """The encoder at the endpoint. After `num_open` answers it keeps who asks waiting, until it is opened."""

    def __init__(self, num_open: int | None = None):
        self._num_left, self._lock = num_open, threading.Lock()
        self._reached, self._opened = threading.Event(), threading.Event()

    def __call__(self, messages: list[dict]) -> str:
        with self._lock:
            if self._num_left is not None:
                self._num_left -= 1
            is_shut = self._num_left is not None and self._num_left < 0
        if is_shut:
            self._reached.set()
            self._opened.wait()
        return served.by_rules(messages, "<CURRENT>")

    def is_reached(self) -> bool:
        return self._reached.is_set()

    def open(self) -> None:
        self._opened.set()


@dataclass(frozen=True)
class Night:
    """A backfill of an archive in many row groups, and the store that it leaves uninterrupted."""

    archive: Path
    profile: Path
    store: Path
    num_requests: int

    def command(self, server: served.Endpoint, store: Path, settings: str = "") -> tuple[str, ...]:
        config = store.with_suffix(".toml")
        config.write_text(
            f"""
            profile = "{self.profile}"
            embedder = "minilm"
            [endpoint]
            base_url = "{server.base_url}"
            model = "general-1"
            concurrency = {CONCURRENCY}
            timeout_s = 1800
            [encoder_pool]
            batch_size = 5
            {settings}
            """
        )
        return ("jobs.backfill", "--archive", self.archive, "--store", store, "--config", config)

    def assert_done(self, done: Done, store: Path, server: served.Endpoint, num_twice: int = 0) -> None:
        """The store is the uninterrupted one's, and at most `num_twice` answers were paid a second time."""
        assert done.code == 0, f"{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        assert done.summary["status"] == "done"
        for table in TABLES:
            assert rows(store, table, OF_A_RUN) == rows(self.store, table, OF_A_RUN), table
        assert len(server.paid) == self.num_requests
        assert sum(server.paid.values()) <= self.num_requests + num_twice


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """None that all share: each test has one of its own."""


@pytest.fixture(scope="module")
def night(tmp_path_factory) -> Night:
    folder = tmp_path_factory.mktemp("night")
    make_sample(SampleConfig(archive=folder / "sample", num_users=6, num_weeks=2))
    (sample,) = (folder / "sample").glob("*.parquet")
    (folder / "archive").mkdir()
    pq.write_table(pq.read_table(sample), folder / "archive" / sample.name, row_group_size=2)
    shipped = (SHIPPED / "encoders" / "openai.toml").read_text(encoding="utf-8")
    # Short segments, so that there are many.
    profile = folder / "short.toml"
    profile.write_text(shipped.replace("max_turns = 8", "max_turns = 2"), encoding="utf-8")
    with served.Endpoint(Gate()) as server:
        whole = Night(folder / "archive", profile, folder / "store", 0)
        here(*whole.command(server, whole.store))
        assert set(server.paid.values()) == {1} and len(server.paid) > 2 * NUM_ANSWERED
        return Night(whole.archive, whole.profile, whole.store, len(server.paid))


@pytest.fixture
def nodes():
    """A head without CPUs: it has the driver, and no work."""
    with Cluster("--num-cpus=0", "--include-dashboard=false") as cluster:
        yield cluster


CUTS, ENCODES, EMBEDS = "MapBatches(cut_unit)", "(EncodeStage)).submit", "(EmbedStage)).submit"
"""What Ray calls a worker while it does that."""


def frozen_at(process: subprocess.Popen, work: str, nodes: list[Node]) -> Node:
    """The first of the nodes that has a worker at this work, and stands still in the middle of it."""
    found: list[Node] = []

    def is_found() -> bool:
        for node in nodes:
            if any(work in title for title in node.titles()):
                node.freeze()
                if any(work in title for title in node.titles()):
                    found.append(node)
                    return True
                node.thaw()
        return False

    wait_until(process, is_found)
    assert found, finish(process)
    return found[0]


@pytest.mark.parametrize("work", [CUTS, ENCODES, EMBEDS], ids=["cuts", "encodes", "embeds"])
def test_a_run_goes_on_when_a_node_is_lost_while_it(work, nodes, night, tmp_path):
    store, gate = tmp_path / "store", Gate(NUM_ANSWERED if work == ENCODES else None)
    workers = nodes.add("--num-cpus=1", count=3)
    with served.Endpoint(gate) as server:
        process = start(*night.command(server, store), **nodes.env)
        if work == ENCODES:
            wait_until(process, gate.is_reached)
        lost = frozen_at(process, work, workers)
        if work == CUTS:
            # By the others.
            wait_until(process, lambda: bool(Files(str(store), "staging").paths("plan")))
        lost.kill()
        gate.open()
        night.assert_done(finish(process), store, server, CONCURRENCY if work == ENCODES else 0)


def test_a_node_that_comes_in_the_middle_does_what_those_who_went_no_longer_can(nodes, night, tmp_path):
    """Two embedders are wanted, and there is a place for one: the other comes with the node."""
    store, gate, for_embedders = tmp_path / "store", Gate(NUM_ANSWERED), ("--num-cpus=0", "--num-gpus=1")
    nodes.add("--num-cpus=1")
    (old,) = nodes.add(*for_embedders)
    with served.Endpoint(gate) as server:
        wants = "[embedder_pool]\nmin_size = 2\nmax_size = 2\nnum_cpus = 0\nnum_gpus = 1"
        process = start(*night.command(server, store, wants), **nodes.env)
        wait_until(process, gate.is_reached)
        (new,) = nodes.add(*for_embedders)
        wait_until(process, lambda: any("(EmbedStage))" in one for one in new.titles()))
        old.kill()
        gate.open()
        night.assert_done(finish(process), store, server)


def test_after_the_driver_is_killed_the_same_command_pays_for_what_was_in_flight_alone(
    nodes, night, tmp_path
):
    store, gate = tmp_path / "store", Gate(NUM_ANSWERED)
    nodes.add("--num-cpus=2")
    with served.Endpoint(gate) as server:
        command = night.command(server, store)
        process = start(*command, **nodes.env)
        wait_until(process, gate.is_reached)
        process.kill()
        gate.open()
        finish(process)
        again = finish(start(*command, **nodes.env))
        assert again.summary["num_in_doubt"] <= CONCURRENCY
        night.assert_done(again, store, server, CONCURRENCY)


def test_a_submission_that_was_killed_goes_on_under_the_next_id_and_not_under_its_own(night, tmp_path):
    store, gate = tmp_path / "store", Gate(NUM_ANSWERED)
    with served.Endpoint(gate) as server, Cluster("--num-cpus=0") as nodes:
        nodes.add("--num-cpus=2")
        command = ["python", "-m", *map(str, night.command(server, store))]

        def submitted(number: int) -> subprocess.Popen:
            submit = ["ray", "job", "submit", "--submission-id", f"nightly-{number}"]
            submit += ["--working-dir", str(ROOT), "--"]
            return subprocess.Popen(
                [*submit, *command],
                env=os.environ | nodes.env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

        first = submitted(1)
        wait_until(first, gate.is_reached)
        os.kill(holder(str(store)).pid, signal.SIGKILL)
        gate.open()
        first.communicate()
        refused = submitted(1)
        assert "nightly-1" in refused.communicate()[0]
        again = submitted(2)
        said, _ = again.communicate()
        assert first.returncode and refused.returncode and not again.returncode, said
        summary = next(json.loads(line) for line in said.splitlines() if line.startswith('{"run_id"'))
        night.assert_done(Done(0, summary, said, ""), store, server, CONCURRENCY)


def test_a_job_without_a_place_says_what_it_waits_for_and_goes_on_when_a_node_with_it_comes(
    nodes, night, tmp_path
):
    """First for anything at all, then for CPUs that no node has as many of, and for a GPU."""
    store = tmp_path / "store"
    with served.Endpoint(Gate()) as server:
        wants = "num_cpus = 2\n[embedder_pool]\nnum_gpus = 1"
        module, *options = night.command(server, store, wants)
        process = start("tests.e2e.impatient", module, *options, **nodes.env)
        said = until_it_waits(process, "inspect")
        assert "1 tasks of inspect; free are 0 of 0 CPUs" in said
        nodes.add("--num-cpus=1")
        said = until_it_waits(process, "encode")
        assert "1 of EmbedStage, 1 of EncodeStage; free are" in said and "of 1 CPUs, 0 of 0 GPUs" in said
        nodes.add("--num-cpus=3", "--num-gpus=1")
        night.assert_done(finish(process), store, server)


def test_a_run_whose_only_node_is_lost_says_so_and_goes_on_with_the_next(nodes, night, tmp_path):
    store, gate = tmp_path / "store", Gate(NUM_ANSWERED)
    (only,) = nodes.add("--num-cpus=2")
    with served.Endpoint(gate) as server:
        module, *options = night.command(server, store)
        process = start("tests.e2e.impatient", module, *options, **nodes.env)
        wait_until(process, gate.is_reached)
        only.kill()
        gate.open()
        assert "1 of EmbedStage, 1 of EncodeStage" in until_it_waits(process, "encode")
        nodes.add("--num-cpus=2")
        night.assert_done(finish(process), store, server, CONCURRENCY)


def until_it_waits(process: subprocess.Popen, stage: str) -> str:
    """What it says of what this stage waits for."""
    said = ""
    while f"[{stage}] waits for a place on the cluster: " not in said:
        said = process.stderr.readline()
        print(said, end="")
        assert said, finish(process)
    return said


def test_a_job_whose_head_is_killed_says_so_and_the_same_command_goes_on_elsewhere(night, tmp_path):
    store, gate = tmp_path / "store", Gate(NUM_ANSWERED)
    with served.Endpoint(gate) as server:
        command = night.command(server, store)
        with Cluster("--num-cpus=0", "--include-dashboard=false") as nodes:
            nodes.add("--num-cpus=2")
            process = start(*command, **nodes.env)
            wait_until(process, gate.is_reached)
            nodes.head.kill()
            done = finish(process, timeout_s=300)
        gate.open()
        assert done.code == 1
        assert done.summary["status"] == "failed" and "its cluster is gone" in done.summary["error"]
        manifest = Files(str(store), "runs").get_json(f"{done.summary['run_id']}.json")
        assert manifest["status"] in ("failed", "interrupted") and manifest["error"] == done.summary["error"]
        with Cluster("--num-cpus=0", "--include-dashboard=false") as nodes:
            nodes.add("--num-cpus=2")
            night.assert_done(finish(start(*command, **nodes.env)), store, server, CONCURRENCY)
