"""The ingest job: what it leaves in the archive folder, again and again."""

import gzip
import json
import subprocess
import sys

import filelock
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import JobError, UsageError
from jobs.ingest import IngestConfig, output, run
from jobs.ingest.output import archive_files
from schemas.archive import ARCHIVE_SCHEMA, ROW_GROUP_SESSIONS


def session(number, user_id="u1", text=None):
    messages = [
        {"role": "user", "content": text or f"Question {number}"},
        {"role": "assistant", "content": f"Answer {number}"},
    ]
    return {"user_id": user_id, "session_id": f"s{number}", "session_time": 1714554000, "messages": messages}


def write(path, items):
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items))
    return path


def ingest(tmp_path, *paths, **changes):
    return run(
        IngestConfig.model_validate(
            {
                "format": "messages",
                "input": [str(path) for path in paths],
                "archive": str(tmp_path / "archive"),
                "max_rejected_fraction": 0.9,
            }
            | changes
        )
    )


def rows(tmp_path):
    files = archive_files(tmp_path / "archive")
    return [row for path in files for row in pq.read_table(path).to_pylist()]


def rejections(tmp_path, summary):
    path = tmp_path / "archive" / "_rejections" / f"{summary['ingest']}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def contents(folder):
    """What an ingest left, but for its lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".ingest.lock"
    }


def test_archive_has_the_schema_and_the_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "SESSIONS_PER_FILE", 2 * ROW_GROUP_SESSIONS)
    num_sessions = 5 * ROW_GROUP_SESSIONS + 3
    summary = ingest(tmp_path, write(tmp_path / "a.jsonl", map(session, range(num_sessions))))
    files = archive_files(tmp_path / "archive")
    assert summary | {"seconds": 0} == {
        "status": "done",
        "format": "messages",
        "archive": str(tmp_path / "archive"),
        "ingest": summary["ingest"],
        "num_input_files": 1,
        "num_files": 3,
        "num_sessions": num_sessions,
        "num_turns": 2 * num_sessions,
        "num_rejections": 0,
        "num_duplicates": 0,
        "num_empty_turns": 0,
        "num_cut_files": 0,
        "seconds": 0,
    }
    assert [path.name for path in files] == [f"{summary['ingest']}-{part:05}.parquet" for part in range(3)]
    groups = []
    for path in files:
        metadata = pq.ParquetFile(path).metadata
        assert pq.read_schema(path).equals(ARCHIVE_SCHEMA)
        groups.append([metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)])
    assert groups == [[64, 64], [64, 64], [64, 3]]
    assert [row["session_id"] for row in rows(tmp_path)] == [f"s{number}" for number in range(num_sessions)]


def test_long_sessions_close_their_row_group_early(tmp_path, monkeypatch):
    monkeypatch.setattr(output, "MAX_GROUP_CHARS", 50_000)
    items = [session(number, text="word " * 4_000) for number in range(6)]
    ingest(tmp_path, write(tmp_path / "a.jsonl", items))
    (path,) = archive_files(tmp_path / "archive")
    assert pq.ParquetFile(path).num_row_groups == 2


def test_same_input_again_leaves_identical_files(tmp_path):
    items = [*map(session, range(70)), "{broken", session(1), session(2, text="Other")]
    first = ingest(tmp_path, write(tmp_path / "a.jsonl", items))
    left = contents(tmp_path / "archive")
    second = ingest(tmp_path, tmp_path / "a.jsonl")
    assert first | {"seconds": 0} == second | {"seconds": 0}
    assert contents(tmp_path / "archive") == left
    assert sorted(left) == [
        "_ingest.json",
        f"_rejections/{first['ingest']}.jsonl",
        f"{first['ingest']}-00000.parquet",
    ]


def test_same_input_elsewhere_gives_the_same_data_files(tmp_path):
    write(tmp_path / "a.jsonl", map(session, range(3)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes())
    ingest(tmp_path, tmp_path / "a.jsonl", archive=str(tmp_path / "one"))
    ingest(tmp_path, tmp_path / "other" / "b.jsonl", archive=str(tmp_path / "two"))
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert {name: data for name, data in one.items() if name != "_ingest.json"} == {
        name: data for name, data in two.items() if name != "_ingest.json"
    }


def test_other_input_adds_files(tmp_path):
    ingest(tmp_path, write(tmp_path / "a.jsonl", map(session, range(3))))
    left = contents(tmp_path / "archive")
    summary = ingest(tmp_path, write(tmp_path / "b.jsonl", map(session, range(3, 5))))
    now = contents(tmp_path / "archive")
    assert summary["num_sessions"] == 2
    assert {name: now[name] for name in left if name != "_ingest.json"} == {
        name: data for name, data in left.items() if name != "_ingest.json"
    }
    assert sorted(row["session_id"] for row in rows(tmp_path)) == [f"s{number}" for number in range(5)]
    manifest = json.loads(now["_ingest.json"])
    assert len(manifest["ingests"]) == 2
    named = [file["file"] for entry in manifest["ingests"].values() for file in entry["files"]]
    assert sorted(named) == [path.name for path in archive_files(tmp_path / "archive")]


def test_grown_input_adds_its_new_sessions_only(tmp_path):
    """An export that holds all of yesterday's must not put yesterday's sessions into memory twice."""
    write(tmp_path / "a.jsonl", map(session, range(100)))
    ingest(tmp_path, tmp_path / "a.jsonl")
    changed = session(7, text="Other")
    write(tmp_path / "a.jsonl", [changed if n == 7 else session(n) for n in range(105)])
    summary = ingest(tmp_path, tmp_path / "a.jsonl")
    assert (summary["num_sessions"], summary["num_duplicates"], summary["num_rejections"]) == (5, 99, 1)
    (rejection,) = rejections(tmp_path, summary)
    assert rejection["line_or_item"] == 8
    assert "session_id='s7': user 'u1' has it already" in rejection["reason"]
    left = contents(tmp_path / "archive")
    ingest(tmp_path, tmp_path / "a.jsonl")
    assert contents(tmp_path / "archive") == left


def test_nothing_new_leaves_no_data_file(tmp_path):
    write(tmp_path / "a.jsonl", [session(1)])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    ingest(tmp_path, tmp_path / "a.jsonl")
    summary = ingest(tmp_path, tmp_path / "a.jsonl.gz")
    assert (summary["status"], summary["num_files"], summary["num_duplicates"]) == ("done", 0, 1)
    assert len(rows(tmp_path)) == 1


def test_duplicates_are_skipped_and_conflicts_rejected(tmp_path):
    items = [session(1), session(1), session(1, user_id="u2"), session(1, text="Other")]
    summary = ingest(tmp_path, write(tmp_path / "a.jsonl", items))
    assert (summary["num_sessions"], summary["num_duplicates"], summary["num_rejections"]) == (2, 1, 1)
    (rejection,) = rejections(tmp_path, summary)
    assert rejection["file"] == str(tmp_path / "a.jsonl")
    assert rejection["line_or_item"] == 4
    assert json.loads(rejection["raw"]) == items[3]


def test_rejections_and_notes_are_saved(tmp_path):
    empty = session(2)
    empty["messages"][1]["content"] = ""
    lone = '{"user_id": "u\\ud800", "session_id": "s", "messages": []}'
    path = write(tmp_path / "a.jsonl", [session(1), empty, lone, "x" * 5000])
    with open(path, "ab") as file:
        file.write(b"\xff\xfe\n")
    summary = ingest(tmp_path, path)
    saved = rejections(tmp_path, summary)
    assert (summary["num_sessions"], summary["num_rejections"], summary["num_empty_turns"]) == (2, 3, 1)
    assert summary["num_turns"] == 3
    assert [(line["line_or_item"], line["kind"]) for line in saved] == [
        (2, "turn"),
        (3, "item"),
        (4, "item"),
        (5, "item"),
    ]
    assert len(saved[2]["raw"]) == 2000
    assert set(saved[0]) == {"file", "line_or_item", "reason", "raw", "kind"}


def test_truncated_file_keeps_what_was_read_and_other_files(tmp_path):
    packed = gzip.compress("".join(json.dumps(session(n)) + "\n" for n in range(2000)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    write(tmp_path / "b.jsonl", [session(5000)])
    summary = ingest(tmp_path, tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl", max_rejected_fraction=0.05)
    assert (summary["num_rejections"], summary["num_cut_files"]) == (1, 1)
    found = [row["session_id"] for row in rows(tmp_path)]
    assert found == [*(f"s{number}" for number in range(len(found) - 1)), "s5000"]
    assert len(found) > 500


def test_too_many_rejections_publish_nothing(tmp_path):
    ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]))
    left = contents(tmp_path / "archive")
    items = [*(session(number) for number in range(2, 11)), "{broken"]
    summary = ingest(tmp_path, write(tmp_path / "b.jsonl", items), max_rejected_fraction=0.05)
    assert summary["status"] == "failed"
    assert summary["num_files"] == 0
    assert "1 of 10 sessions were rejected" in summary["error"]
    assert len(rejections(tmp_path, summary)) == 1
    now = contents(tmp_path / "archive")
    assert {name: data for name, data in now.items() if summary["ingest"] not in name} == left
    assert ingest(tmp_path, tmp_path / "b.jsonl", max_rejected_fraction=0.1)["status"] == "done"


def test_mended_rejections_take_their_file_along(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl", [session(1), session(2, text="long " * 100)])
    with monkeypatch.context() as patch:
        patch.setattr("schemas.archive.MAX_TURN_CHARS", 200)
        summary = ingest(tmp_path, tmp_path / "a.jsonl")
    assert len(rejections(tmp_path, summary)) == 1
    summary = ingest(tmp_path, tmp_path / "a.jsonl")
    assert (summary["num_sessions"], rejections(tmp_path, summary)) == (2, [])


def test_interrupted_ingest_leaves_the_archive_as_it_was(tmp_path, monkeypatch):
    ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]))
    left = contents(tmp_path / "archive")
    (tmp_path / "archive" / ".ingest-left-by-a-killed-one.parquet").write_bytes(b"half")

    def stop(*arguments):
        raise KeyboardInterrupt

    write(tmp_path / "b.jsonl", map(session, range(100, 300)))
    with monkeypatch.context() as patch:
        patch.setattr("jobs.ingest.publish", stop)
        with pytest.raises(KeyboardInterrupt):
            ingest(tmp_path, tmp_path / "b.jsonl")
    assert contents(tmp_path / "archive") == left
    assert ingest(tmp_path, tmp_path / "b.jsonl")["num_sessions"] == 200


def test_older_parts_of_the_same_ingest_are_removed(tmp_path, monkeypatch):
    write(tmp_path / "a.jsonl", map(session, range(130)))
    with monkeypatch.context() as patch:
        patch.setattr(output, "SESSIONS_PER_FILE", ROW_GROUP_SESSIONS)
        assert ingest(tmp_path, tmp_path / "a.jsonl")["num_files"] == 3
    assert ingest(tmp_path, tmp_path / "a.jsonl")["num_files"] == 1
    assert len(rows(tmp_path)) == 130


def test_sessions_of_files_from_other_jobs_count_as_known(tmp_path):
    (tmp_path / "archive" / "sub").mkdir(parents=True)
    ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]), archive=str(tmp_path / "made"))
    (made,) = archive_files(tmp_path / "made")
    pq.write_table(pq.read_table(made), tmp_path / "archive" / "sub" / "sample.parquet")
    summary = ingest(tmp_path, write(tmp_path / "b.jsonl", [session(1), session(2)]))
    assert (summary["num_sessions"], summary["num_duplicates"]) == (1, 1)


@pytest.mark.parametrize("damage", ["no parquet", "other columns"])
def test_strange_parquet_file_in_the_archive_is_an_error(tmp_path, damage):
    (tmp_path / "archive").mkdir()
    path = tmp_path / "archive" / "x.parquet"
    if damage == "no parquet":
        path.write_bytes(b"nonsense")
    else:
        pq.write_table(pa.table({"n": [1]}), path)
    with pytest.raises(JobError, match=r"x\.parquet: no archive file"):
        ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]))


def test_strange_manifest_is_an_error_before_any_work(tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "_ingest.json").write_text("[]")
    with pytest.raises(JobError, match=r"_ingest\.json: no ingest manifest"):
        ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]))
    assert list(contents(tmp_path / "archive")) == ["_ingest.json"]


def test_second_ingest_at_the_same_time_is_refused(tmp_path):
    (tmp_path / "archive").mkdir()
    with (
        filelock.FileLock(tmp_path / "archive" / ".ingest.lock"),
        pytest.raises(JobError, match="another ingest is writing to it"),
    ):
        ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]))


def test_archive_must_be_a_folder(tmp_path):
    (tmp_path / "archive").write_text("")
    with pytest.raises(UsageError, match="archive="):
        ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]))


def test_empty_input_is_done_with_nothing(tmp_path):
    summary = ingest(tmp_path, write(tmp_path / "a.jsonl", []), max_rejected_fraction=0.0)
    assert (summary["status"], summary["num_sessions"], summary["num_files"]) == ("done", 0, 0)


@pytest.mark.parametrize("format", ["sharegpt", "chatgpt-export"])
def test_formats_without_users_need_a_user(format):
    with pytest.raises(ValueError, match="name theirs with --user-id"):
        IngestConfig(format=format, input=["a"], archive="b")
    assert IngestConfig(format=format, input=["a"], archive="b", user_id="me").user_id == "me"


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["--input", "a.jsonl"], 0, '"status": "done"', ""),
        (["--input", "bad.jsonl"], 1, '"status": "failed"', "raise the limit"),
        (["--input", "gone.jsonl"], 2, "", "input='gone.jsonl': no such file or folder"),
        (["--input", "a.jsonl", "--max-rejected-fraction", "2"], 2, "", "max_rejected_fraction='2'"),
        ([], 2, "", "input: not given"),
    ],
)
def test_command_line(tmp_path, request, arguments, code, out, err):
    write(tmp_path / "a.jsonl", [session(1)])
    write(tmp_path / "bad.jsonl", [session(1), "{broken"])
    done = subprocess.run(
        [sys.executable, "-m", "jobs.ingest", "--format", "messages", "--archive", "archive", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(request.config.rootpath)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert err in done.stderr
    if out:
        assert out in done.stdout
        summary = json.loads(done.stdout.splitlines()[-1])
        assert summary["num_sessions"] == 1
