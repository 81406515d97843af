"""The ingest job: what it leaves in the archive folder, again and again."""

import errno
import gzip
import json
import subprocess
import sys

import filelock
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.backfill.archive import list_files
from jobs.common.cli import JobError, UsageError
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
    """All rows of the archive, older versions too, in the order of which the last counts."""
    archive = tmp_path / "archive"
    return [row for path in archive_files(archive) for row in pq.read_table(archive / path).to_pylist()]


def said(tmp_path):
    """session_id -> what the version that counts says."""
    return {row["session_id"]: [turn["content"] for turn in row["turns"]] for row in rows(tmp_path)}


def grown(number, *more):
    """The session of that number with more turns."""
    item = session(number)
    item["messages"] += [{"role": "user", "content": text} for text in more]
    return item


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
        "num_sessions_changed": 0,
        "num_turns": 2 * num_sessions,
        "num_rejections": 0,
        "num_duplicates": 0,
        "num_empty_turns": 0,
        "num_empty_chats": 0,
        "num_unknown_times": 0,
        "num_mended_parts": 0,
        "num_cut_files": 0,
        "seconds": 0,
    }
    assert files == [f"000001-{summary['ingest']}-{part:05}.parquet" for part in range(3)]
    groups = []
    for path in (tmp_path / "archive" / file for file in files):
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
    assert pq.ParquetFile(tmp_path / "archive" / path).num_row_groups == 2


def test_same_input_again_adds_nothing(tmp_path):
    items = [*map(session, range(70)), "{broken", session(1), session(2, text="Other")]
    first = ingest(tmp_path, write(tmp_path / "a.jsonl", items))
    left = contents(tmp_path / "archive")
    second = ingest(tmp_path, tmp_path / "a.jsonl")
    nothing = {"num_files": 0, "num_sessions": 0, "num_turns": 0, "num_duplicates": 71, "seconds": 0}
    assert second | {"seconds": 0} == first | nothing
    assert contents(tmp_path / "archive") == left
    assert sorted(left) == [
        f"000001-{first['ingest']}-00000.parquet",
        "_ingest.json",
        f"_rejections/{first['ingest']}.jsonl",
    ]


def test_older_input_again_does_not_bring_its_versions_back(tmp_path):
    """Yesterday's export ran again by mistake: what was said since must go on counting."""
    ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]))
    ingest(tmp_path, write(tmp_path / "b.jsonl", [grown(1, "More")]))
    left = contents(tmp_path / "archive")
    ingest(tmp_path, tmp_path / "a.jsonl")
    assert contents(tmp_path / "archive") == left


def test_lost_data_file_of_the_same_input_is_an_error(tmp_path):
    ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]))
    (path,) = archive_files(tmp_path / "archive")
    (tmp_path / "archive" / path).unlink()
    with pytest.raises(JobError, match=r"-00000\.parquet: is gone"):
        ingest(tmp_path, tmp_path / "a.jsonl")


def test_lost_record_is_made_again(tmp_path):
    ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1), session(2)]))
    left = contents(tmp_path / "archive")
    (tmp_path / "archive" / "_ingest.json").unlink()
    ingest(tmp_path, tmp_path / "a.jsonl")
    assert contents(tmp_path / "archive") == left


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
    assert named == archive_files(tmp_path / "archive")
    assert [name[:7] for name in named] == ["000001-", "000002-"]


def test_nightly_export_adds_what_is_new_or_changed(tmp_path):
    """An export that holds all of yesterday's must not put yesterday's sessions into memory twice."""
    write(tmp_path / "a.jsonl", map(session, range(100)))
    ingest(tmp_path, tmp_path / "a.jsonl")
    changed = {7: grown(7, "More"), 8: session(8, text="Edited")}
    write(tmp_path / "a.jsonl", [changed.get(number) or session(number) for number in range(105)])
    summary = ingest(tmp_path, tmp_path / "a.jsonl", max_rejected_fraction=0)
    assert (summary["num_sessions"], summary["num_sessions_changed"], summary["num_duplicates"]) == (7, 2, 98)
    assert [row["session_id"] for row in rows(tmp_path)[100:]] == [
        "s7",
        "s8",
        *(f"s{n}" for n in range(100, 105)),
    ]
    assert said(tmp_path)["s7"] == ["Question 7", "Answer 7", "More"]
    assert said(tmp_path)["s8"][0] == "Edited"


def test_sessions_are_compared_with_their_newest_version(tmp_path):
    """The first file says A, the second B: B again is a duplicate, A again a change."""
    items = [session(1, text="A"), session(2)], [session(1, text="B")], [session(1, text="B"), session(3)]
    for number, part in enumerate([*items, [session(1, text="A"), session(4)]]):
        summary = ingest(tmp_path, write(tmp_path / f"{number}.jsonl", part))
        assert summary["num_duplicates"] == (number == 2)
        assert summary["num_sessions_changed"] == (number in (1, 3))
    assert said(tmp_path)["s1"][0] == "A"


def test_times_and_conversation_count_as_content(tmp_path):
    ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1), session(2)]))
    items = [session(1) | {"session_time": 1714554001}, session(2) | {"conversation_id": "c"}]
    assert ingest(tmp_path, write(tmp_path / "b.jsonl", items))["num_sessions_changed"] == 2


def test_session_that_grows_in_one_input_is_written_once(tmp_path):
    parts = [[session(1), session(2)], [grown(1, "b")], [grown(1, "b", "c"), session(1), session(2)]]
    (tmp_path / "in").mkdir()
    for number, items in enumerate(parts):
        write(tmp_path / "in" / f"day{number}.jsonl", items)
    summary = ingest(tmp_path, tmp_path / "in", max_rejected_fraction=0)
    assert (summary["num_sessions"], summary["num_sessions_changed"], summary["num_duplicates"]) == (2, 0, 4)
    assert len(rows(tmp_path)) == 2
    assert said(tmp_path)["s1"] == ["Question 1", "Answer 1", "b", "c"]


def test_folder_of_daily_exports_with_one_more_day_adds_that_day(tmp_path):
    """Old versions in the earlier days must not be taken for changes of what the archive ends with."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "day1.jsonl", [session(1), session(2)])
    write(tmp_path / "in" / "day2.jsonl", [grown(1, "b"), session(2)])
    ingest(tmp_path, tmp_path / "in")
    write(tmp_path / "in" / "day3.jsonl", [grown(1, "b"), grown(2, "c")])
    summary = ingest(tmp_path, tmp_path / "in")
    assert (summary["num_sessions"], summary["num_sessions_changed"], summary["num_duplicates"]) == (1, 1, 5)
    assert [row["session_id"] for row in rows(tmp_path)] == ["s2", "s1", "s2"]


def test_input_with_an_older_version_does_not_bring_it_back(tmp_path):
    """Days ingested one by one, then as a folder: an edited session must not go back to what it was."""
    (tmp_path / "in").mkdir()
    one = write(tmp_path / "in" / "day1.jsonl", [session(1)])
    two = write(tmp_path / "in" / "day2.jsonl", [session(1, text="Edited")])
    ingest(tmp_path, one)
    ingest(tmp_path, two)
    summary = ingest(tmp_path, tmp_path / "in")
    assert (summary["num_sessions"], summary["num_duplicates"], summary["num_rejections"]) == (0, 1, 1)
    edited = session(1, text="Edited")
    edited["messages"] += [{"role": "user", "content": "More"}]
    write(tmp_path / "in" / "day3.jsonl", [edited])
    summary = ingest(tmp_path, tmp_path / "in")
    assert (summary["num_sessions_changed"], summary["num_duplicates"], summary["num_rejections"]) == (
        1,
        1,
        1,
    )
    assert said(tmp_path)["s1"] == ["Edited", "Answer 1", "More"]


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


def test_empty_chats_are_counted_and_never_fail_an_export(tmp_path):
    items = [session(1), *(session(number) | {"messages": []} for number in range(2, 9))]
    summary = ingest(tmp_path, write(tmp_path / "a.jsonl", items), max_rejected_fraction=0)
    assert (summary["status"], summary["num_sessions"], summary["num_empty_chats"]) == ("done", 1, 7)
    assert summary["num_rejections"] == 0


@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_two_versions_of_a_chat_the_newer_by_its_own_times_is_taken(tmp_path, is_reversed):
    def version(text, minute, **fields):
        item = session(1, text=text) | fields
        item["messages"][1]["time"] = f"2026-01-05T09:{minute:02}:00Z"
        return item

    versions = [version("Old", 1), version("New", 2), version("Old", 0)]
    versions += [version("Older", 0, updated_at="2026-01-05T09:01:30Z")]
    items = versions[::-1] if is_reversed else versions
    for number, item in enumerate(items):
        write(tmp_path / f"{number}.jsonl", [item])
    paths = [tmp_path / f"{number}.jsonl" for number in range(len(items))]
    summary = ingest(tmp_path, *paths, max_rejected_fraction=0)
    assert (summary["num_sessions"], summary["num_duplicates"], summary["num_rejections"]) == (1, 3, 0)
    assert said(tmp_path)["s1"][0] == "New"


def test_a_chat_from_which_messages_were_taken_is_taken_as_it_is_now(tmp_path):
    """Its time of update says that the shorter version is the newer one."""
    versions = [grown(1, "More") | {"updated_at": 1714555000}, session(1) | {"updated_at": 1714556000}]
    ingest(tmp_path, write(tmp_path / "a.jsonl", versions), max_rejected_fraction=0)
    assert said(tmp_path)["s1"] == ["Question 1", "Answer 1"]


def test_rejections_and_notes_are_saved(tmp_path):
    empty = session(2)
    empty["messages"][1]["content"] = ""
    lone = '{"user_id": "u\\ud800", "session_id": "s", "messages": [{"role": "user", "content": "x"}]}'
    path = write(tmp_path / "a.jsonl", [session(1), empty, lone, "x" * 5000])
    with open(path, "ab") as file:
        file.write(b"\xff\xfe\n")
    summary = ingest(tmp_path, path)
    saved = rejections(tmp_path, summary)
    assert (summary["num_sessions"], summary["num_rejections"], summary["num_empty_turns"]) == (2, 3, 1)
    assert summary["num_turns"] == 3
    assert [(line["line_or_item"], line["kind"]) for line in saved] == [
        (2, "note"),
        (3, "item"),
        (4, "item"),
        (5, "item"),
    ]
    assert len(saved[2]["raw"]) == 2000
    assert set(saved[0]) == {"file", "line_or_item", "reason", "raw", "kind", "noted"}


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


@pytest.mark.parametrize("is_other_between", [False, True])
@pytest.mark.parametrize("num_published", [1, 2, 3])
def test_ingest_interrupted_while_it_publishes_is_completed(
    tmp_path, monkeypatch, num_published, is_other_between
):
    """Files of the first try stand in the archive already, and another ingest may have followed them."""
    monkeypatch.setattr(output, "SESSIONS_PER_FILE", ROW_GROUP_SESSIONS)
    write(tmp_path / "a.jsonl", map(session, range(5)))
    write(tmp_path / "b.jsonl", [*(grown(n, "b") for n in range(5)), *map(session, range(5, 150))])
    write(tmp_path / "c.jsonl", [*(grown(n, "c") for n in range(10)), *map(session, range(140, 160))])
    for archive in ("whole", "archive"):
        ingest(tmp_path, tmp_path / "a.jsonl", archive=str(tmp_path / archive))
    whole = ingest(tmp_path, tmp_path / "b.jsonl", archive=str(tmp_path / "whole"))
    assert whole["num_files"] == 3
    rename, renamed = output._rename, []

    def rename_some(place, temporary, name):
        if len(renamed) == num_published:
            raise KeyboardInterrupt
        renamed.append(name)
        rename(place, temporary, name)

    with monkeypatch.context() as patch:
        patch.setattr(output, "_rename", rename_some)
        with pytest.raises(KeyboardInterrupt):
            ingest(tmp_path, tmp_path / "b.jsonl")
    if is_other_between:
        ingest(tmp_path, tmp_path / "c.jsonl")
        assert archive_files(tmp_path / "archive")[-1].startswith("000003-")
    summary = ingest(tmp_path, tmp_path / "b.jsonl")
    left, expected = contents(tmp_path / "archive"), contents(tmp_path / "whole")
    if is_other_between:
        assert left.items() >= {name: data for name, data in expected.items() if name[0] != "_"}.items()
        assert said(tmp_path)["s1"][-1] == "c"
    else:
        assert summary | {"seconds": 0, "archive": ""} == whole | {"seconds": 0, "archive": ""}
        assert left == expected
    ingest(tmp_path, tmp_path / "b.jsonl")
    assert contents(tmp_path / "archive") == left


def test_sessions_of_files_from_other_jobs_count_as_known(tmp_path):
    (tmp_path / "archive" / "sub").mkdir(parents=True)
    ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]), archive=str(tmp_path / "made"))
    (made,) = archive_files(tmp_path / "made")
    sample = tmp_path / "archive" / "sub" / "sample.parquet"
    pq.write_table(pq.read_table(tmp_path / "made" / made), sample)
    summary = ingest(tmp_path, write(tmp_path / "b.jsonl", [session(1), session(2)]))
    assert (summary["num_sessions"], summary["num_duplicates"]) == (1, 1)
    left = contents(tmp_path / "archive")
    write(tmp_path / "c.jsonl", [grown(1, "More")])
    with pytest.raises(
        JobError, match=r"sub/sample\.parquet: has another version .* move it to .*/000000-sample"
    ):
        ingest(tmp_path, tmp_path / "c.jsonl")
    assert contents(tmp_path / "archive") == left
    sample.rename(tmp_path / "archive" / "000000-sample.parquet")
    assert ingest(tmp_path, tmp_path / "c.jsonl")["num_sessions_changed"] == 1
    assert said(tmp_path)["s1"][-1] == "More"


def test_archive_files_stand_in_the_order_of_the_reader(tmp_path):
    """Paths sort as text, not part by part: `a-b.parquet` stands before `a/b.parquet`."""
    names = ["a/b.parquet", "a-b.parquet", "a.parquet", "_a.parquet", "_rejections/a.parquet", "a/.b.parquet"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.parquet").mkdir()
    assert archive_files(tmp_path) == list_files(str(tmp_path)) == ["a-b.parquet", "a.parquet", "a/b.parquet"]


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


@pytest.mark.parametrize("folder", ["/sys", "/sys/new"])
def test_folder_that_cannot_be_written_is_wrong_usage(tmp_path, folder):
    with pytest.raises(UsageError, match=f"archive='{folder}': .*; name a folder to write to"):
        ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]), archive=folder)


@pytest.mark.parametrize("place", ["jobs.ingest.output.pq.ParquetWriter", "jobs.ingest.output._rename"])
def test_full_disk_is_an_error_with_a_remedy(tmp_path, monkeypatch, place):
    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, fail)
    with pytest.raises(
        JobError, match=r"archive='.*': .*No space left on device; see that it can be written"
    ):
        ingest(tmp_path, write(tmp_path / "a.jsonl", [session(1)]))
    assert contents(tmp_path / "archive") == {}


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


FOREIGN = [
    (
        "messages",
        {"mapping": {}, "title": "t", "id": "c"},
        "a conversation of a ChatGPT export: use --format",
    ),
    (
        "chatgpt-export",
        {"uuid": "u", "chat_messages": []},
        "a conversation of a Claude.ai export: use --format",
    ),
    (
        "messages",
        {"id": "a", "conversations": [{"from": "human"}]},
        "a ShareGPT conversation: use --format sharegpt",
    ),
    (
        "sharegpt",
        {"messages": [{"role": "user"}], "session_id": "s"},
        "a session of chat messages: use --format messages",
    ),
    ("messages", {"haystack_sessions": []}, "a question of LongMemEval: use --format longmemeval"),
    ("messages", {"conversation": {"speaker_a": "A"}}, "a sample of LoCoMo: use --format locomo"),
    ("messages", {"conversation": [], "hashed_ip": "2"}, "a row of WildChat: use --format wildchat"),
    (
        "messages",
        {"conversations": [{"responses": []}]},
        "a conversation of a Grok export: use --format grok",
    ),
    ("messages", {"id": "a", "chat": {"history": {}}}, "a chat of Open WebUI: use --format open-webui"),
    ("messages", {"header": "Gemini Apps", "products": []}, "an entry of Gemini in Google's MyActivity.json"),
    ("messages", {"sessionId": "s", "type": "user"}, "a line of a Claude Code log"),
    ("messages", {"type": "summary", "summary": "x", "leafUuid": "y"}, "a line of a Claude Code log"),
    (
        "messages",
        {"messages": [{"role": "user", "content": "x"}]},
        "a chat without a session, as training data has",
    ),
    ("messages", {"role": "user", "content": "x", "user_id": "u", "session_id": "s"}, "one message, and not"),
    ("messages", {"id": "1", "memory": "x"}, "a memory of a memory system"),
]


@pytest.mark.parametrize(("format", "item", "named"), FOREIGN, ids=lambda value: str(value)[:30])
def test_an_item_that_another_system_wrote_is_named_as_what_it_is(tmp_path, format, item, named):
    path = write(tmp_path / "a.jsonl", [item])
    summary = ingest(tmp_path, path, format=format, user_id="me")
    assert summary["status"] == "failed"
    (reason,) = summary["reasons"]
    assert reason.startswith(f"{path}:1: this is {named}")


def test_a_reason_that_is_shown_quotes_no_secret(tmp_path, capsys):
    key = "sk_live_" + "a1B2" * 6
    path = write(tmp_path / "a.jsonl", [session(1) | {"messages": key}, session(2) | {"user_id": [key]}])
    summary = ingest(tmp_path, path)
    assert summary["status"] == "failed" and "[redacted:api_key]" in summary["reasons"][0]
    said = capsys.readouterr()
    assert key not in f"{summary}{said.out}{said.err}"


def test_a_failure_shows_the_first_three_reasons_that_differ(tmp_path, capsys):
    items = [*["{broken"] * 5, session(1) | {"user_id": None}, session(2) | {"session_id": 5.5}]
    items += [session(3) | {"messages": "hi"}, session(4)]
    path = write(tmp_path / "a.jsonl", items)
    summary = ingest(tmp_path, path, max_rejected_fraction=0.1)
    assert [reason.partition(": ")[0] for reason in summary["reasons"]] == [f"{path}:{n}" for n in (1, 6, 7)]
    assert "user_id=None: must be a non-empty string; name the user with --user-id" in summary["reasons"][1]
    shown = capsys.readouterr().err
    assert all(f"  {reason}\n" in shown for reason in summary["reasons"])


@pytest.mark.parametrize(("items", "found"), [([], "nothing"), ([session(1) | {"messages": []}], "1 empty")])
def test_an_empty_input_is_reported_as_empty(tmp_path, capsys, items, found):
    summary = ingest(tmp_path, write(tmp_path / "a.jsonl", items), max_rejected_fraction=0)
    assert (summary["status"], summary["is_empty"]) == ("done", True)
    assert f"the input is empty: 1 files hold {found}" in capsys.readouterr().err
