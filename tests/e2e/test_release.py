"""A store of the first release under the commands of every night, which name no models."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.archive import ARCHIVE_SCHEMA
from tests.e2e.conftest import here, job, rows
from tests.release import EMBEDDER, ENCODER, release_store


def write_night(folder, number: int):
    """A session in which no user speaks: its turns get vectors, and no engine has to start."""
    folder.mkdir(exist_ok=True)
    turn = {"role": "assistant", "content": f"Good night {number}.", "speaker": None, "time": None}
    session = {"user_id": "ann", "conversation_id": None, "session_id": f"s{number}", "turns": [turn]}
    session["session_time"] = dt.datetime(2026, 3, number, tzinfo=dt.UTC)
    table = pa.Table.from_pylist([session], schema=ARCHIVE_SCHEMA)
    pq.write_table(table, folder / f"{number}.parquet")
    return folder


def test_an_unchanged_night_goes_on_with_what_wrote_the_store_and_reembed_migrates_it(tmp_path):
    store = release_store(tmp_path / "store")
    night = ("jobs.backfill", "--archive", write_night(tmp_path / "archive", 1), "--store", store.uri)
    done = here(*night, "--consolidate")
    assert done.summary["status"] == "done" and done.summary["num_turns"] == 1
    assert "[embedder] minilm, which wrote this store; --embedder names another" in done.stderr
    assert "which wrote this store; --profile names another" in done.stderr
    assert (store.run()["encoder"], store.run()["embedder"]) == (ENCODER, EMBEDDER)
    assert {row["embedder"] for row in rows(store.uri, "turns")} == {EMBEDDER}

    # Once migrated, it goes on with the new one, with the same command.
    here("jobs.reembed", "--store", store.uri, "--embedder", "default")
    migrated = store.run()["embedder"]
    assert migrated != EMBEDDER
    write_night(tmp_path / "archive", 2)
    done = here(*night)
    assert "[embedder] default, which wrote this store" in done.stderr
    assert [row["embedder"] for row in rows(store.uri, "turns")] == [migrated] * 2
    found = job("jobs.query", "--store", store.uri, "--user-id", "ann", "--text", "Good night 2")
    assert found.summary["num_hits"] == 2
