"""Erasure follows: what went out in exports is named to their receivers, whatever dies meanwhile."""

import json
import shutil
from types import SimpleNamespace

import pytest

from cluster.forget import erase, exports, leftovers
from cluster.forget.exports import Exported
from cluster.interchange import tombstones
from cluster.interchange.cogx import identify as cogx_id
from cluster.interchange.lychee import identify as lychee_id
from cluster.interchange.mem0 import identify as mem0_id
from cluster.runtime.entry_points import EntryPointError
from cluster.store.files import Files, everything
from cluster.store.store import Store
from cluster.store.writer import Writer
from jobs import compact, export, forget
from jobs.common.cli import JobError, UsageError
from schemas.exchange import Memory
from tests.dying import killed_before
from tests.unit.cluster.store import stores
from tests.unit.cluster.store.stores import digest, segment

ANN, BOB = "ann-of-lyon", "bob-of-oslo"
LYON = segment("lyon", "I live in Lyon", user=ANN, session="s1-of-ann", records=["Ann lives in Lyon."])
TEA = segment("tea", "I drink tea", user=ANN, session="s2-of-ann", records=["Ann drinks tea."])
LATER = segment("later", "I have a cat", user=ANN, session="s3-of-ann", records=["Ann has a cat."])
MOON = segment("moon", "I saw the moon", user=BOB, session="s4-of-bob", records=["Bob saw the moon."])
LYON_ID = digest("lyon", "Ann lives in Lyon.")
TEA_ID = digest("tea", "Ann drinks tea.")
LATER_ID = digest("later", "Ann has a cat.")
MOON_ID = digest("moon", "Bob saw the moon.")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    store = Store(str(tmp_path_factory.mktemp("template") / "store"), must_exist=False)
    stores.commit(store, "run1", LYON, TEA, MOON)
    return store.uri


@pytest.fixture
def store(template, tmp_path):
    shutil.copytree(template, tmp_path / "store")
    return str(tmp_path / "store")


def send(store, tmp_path, name, to=None, **settings):
    output = str(tmp_path / (to or name))
    return export.run(export.ExportConfig(store=store, format=name, output=output, **settings))


def erase_of(store, **settings):
    return forget.run(forget.ForgetConfig(store=store, **settings))


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def receipt(summary):
    with open(summary["receipt"]) as file:
        return json.load(file)


def remembered(store):
    return [one.format for one in exports.exports(store)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("jsonl", {LYON_ID, TEA_ID}),
        ("parquet", {LYON_ID, TEA_ID}),
        ("mem0", {mem0_id(Memory(ANN, "", one)) for one in (LYON_ID, TEA_ID)}),
        ("cogx", {cogx_id(Memory(ANN, "", one)) for one in (LYON_ID, TEA_ID)}),
        ("lightmem", {mem0_id(Memory(ANN, "", one)) for one in (LYON_ID, TEA_ID)}),
        ("lychee", {lychee_id(Memory(ANN, text)) for text in ("Ann lives in Lyon.", "Ann drinks tea.")}),
        ("langgraph", {f"memories.{ANN}/{one}" for one in (LYON_ID, TEA_ID)}),
    ],
)
def test_a_receiver_with_ids_gets_those_of_a_forgotten_user(store, tmp_path, name, expected):
    send(store, tmp_path, name)
    summary = erase_of(store, user_id=ANN)
    (path,) = summary["tombstones"]
    assert path == f"{tmp_path}/{name}.tombstones/{summary['run_id']}.jsonl"
    found = lines(path)
    assert {line["id"] for line in found} == expected
    assert {(line["user_id"], line["closed_reason"]) for line in found} == {(ANN, "forgotten")}
    assert receipt(summary)["tombstones"] == [
        {
            "export": exports.exports(store)[0].export,
            "format": name,
            "path": path,
            "num_lines": 2,
        }
    ]


def test_a_format_that_can_no_longer_be_used_holds_up_no_erasure(store, tmp_path, monkeypatch):
    """Another distribution added it; the lines have the ids of the store then."""

    def refuse(name):
        raise EntryPointError("entry point 'mem0': cannot be imported")

    send(store, tmp_path, "mem0")
    monkeypatch.setattr(tombstones, "WRITERS", SimpleNamespace(get=refuse))
    (path,) = erase_of(store, user_id=ANN)["tombstones"]
    assert {line["record_id"] for line in lines(path)} == {None, LYON_ID, TEA_ID}


@pytest.mark.parametrize(
    ("name", "of_user", "of_session"),
    [
        ("markdown", {"path": f"{ANN}.md"}, {"path": f"{ANN}.md", "line": "- [2026-01-01] Ann drinks tea."}),
        (
            "letta",
            {"path": f"{ANN}/"},
            {"path": f"{ANN}/reference/fact.md", "line": "- [2026-01-01] Ann drinks tea."},
        ),
        ("hindsight", {"bank": ANN}, {"bank": ANN, "document_id": "s2-of-ann"}),
    ],
)
def test_a_receiver_without_ids_gets_the_place(store, tmp_path, name, of_user, of_session):
    send(store, tmp_path, name)
    for settings, expected in (({"session_id": "s2-of-ann"}, of_session), ({"user_id": ANN}, of_user)):
        (path,) = erase_of(store, **settings)["tombstones"]
        assert lines(path) == [expected | {"closed_reason": "forgotten"}]


def test_only_exports_that_had_something_of_the_erased_get_a_tombstone(store, tmp_path):
    send(store, tmp_path, "jsonl", "of-bob", user_id=(BOB,))
    send(store, tmp_path, "jsonl", "of-ann", user_id=(ANN,))
    send(store, tmp_path, "jsonl", "not-remembered", remember=False)
    stores.commit(Store(store), "run2", LATER)
    send(store, tmp_path, "mem0", "later")
    summary = erase_of(store, memory=LATER_ID)
    assert summary["tombstones"] == [f"{tmp_path}/later.tombstones/{summary['run_id']}.jsonl"]
    summary = erase_of(store, user_id=ANN)
    assert [path.split("/")[-2] for path in summary["tombstones"]] == [
        "of-ann.tombstones",
        "later.tombstones",
    ]


def test_of_a_view_that_has_expired_everything_that_may_have_been_in_it_is_named(store, tmp_path):
    send(store, tmp_path, "jsonl")
    stores.commit(Store(store), "run2", LATER)
    compact.run(compact.CompactConfig(store=store, keep_runs=1))
    (path,) = erase_of(store, user_id=ANN)["tombstones"]
    assert {line["id"] for line in lines(path)} == {LYON_ID, TEA_ID, LATER_ID}


def test_the_list_of_exports_holds_nobodys_name_and_forgets_with_the_store(store, tmp_path):
    send(store, tmp_path, "jsonl", f"for-{ANN}", user_id=(ANN,))
    send(store, tmp_path, "jsonl", "both", user_id=(ANN, BOB))
    send(store, tmp_path, "cogx", f"all-with-{ANN}")
    (of_both,) = [one for one in exports.exports(store) if one.output.endswith("/both")]
    assert [of_both.has(user) for user in (ANN, BOB, "eve")] == [True, True, False]
    folder = tmp_path / "store" / "_slowwave" / "exports"
    said = "".join(path.read_text() for path in folder.iterdir())
    for path in (f"for-{ANN}", f"with-{ANN}"):
        said = said.replace(path, "")
    assert ANN not in said
    assert LYON_ID not in said
    summary = erase_of(store, user_id=ANN)
    assert (summary["is_clean"], summary["num_tombstones"]) == (True, 3)
    left = exports.exports(store)
    assert [(one.format, one.has(ANN), one.has(BOB)) for one in left] == [
        ("jsonl", False, True),
        ("cogx", True, True),  # it was of all users
    ]
    assert left[1].output == f"{tmp_path}/all-with-[forgotten]"
    assert not [path for path, data in everything(store) if ANN.encode() in data]
    assert of_both.users and not set(of_both.users) <= set(left[0].users)


def test_a_folder_for_tombstones_can_be_named(store, tmp_path):
    send(store, tmp_path, "jsonl")
    summary = erase_of(store, user_id=ANN, tombstones=str(tmp_path / "graves"))
    (path,) = summary["tombstones"]
    assert path.startswith(f"{tmp_path}/graves/") and len(lines(path)) == 2


def test_nothing_is_erased_where_a_tombstone_cannot_be_written(store, tmp_path):
    send(store, tmp_path, "jsonl")
    (tmp_path / "jsonl.tombstones").write_text("in the way")
    with pytest.raises(UsageError, match=r"--tombstones\. Nothing was erased"):
        erase_of(store, user_id=ANN)
    assert len(stores.active(Store(store), "records", "record_id")) == 3
    assert erase_of(store, user_id=ANN, tombstones=str(tmp_path / "g"))["num_tombstones"] == 1


STEPS = [
    (Writer, "publish"),
    (exports, "_write_tombstone"),
    *((erase, name) for name in ("clean", "_write_receipt")),
    (leftovers, "delete_for_good"),
]


def test_a_kill_at_any_step_ends_with_the_tombstones_when_the_same_command_is_run_again(
    store, tmp_path, monkeypatch
):
    send(store, tmp_path, "mem0")
    send(store, tmp_path, "letta")
    whole = tmp_path / "whole"
    shutil.copytree(store, whole)
    graves = tmp_path / "graves"

    def work(uri):
        return erase_of(str(uri), user_id=ANN, tombstones=str(graves))

    steps = killed_before(monkeypatch, STEPS, None, lambda: work(whole))
    assert [step.rpartition(".")[2] for step in steps] == [
        *("publish", "_write_tombstone", "_write_tombstone", "clean", "_write_receipt", "delete_for_good")
    ]
    expected = sorted(path.read_text() for path in graves.iterdir())
    assert len(expected) == 2
    for number in range(len(steps)):
        shutil.rmtree(graves)
        shutil.copytree(store, again := tmp_path / f"again-{number}")
        assert killed_before(monkeypatch, STEPS, number, lambda uri=again: work(uri))[-1] == "killed"
        work(again)
        assert sorted(path.read_text() for path in graves.iterdir()) == expected
        files = Files(str(again), "receipts")
        (found,) = [found for path in files.paths() if (found := files.get_json(path))]
        assert [one["format"] for one in found["tombstones"]] == ["mem0", "letta"]
        assert found["proof"]["is_clean"]
        shutil.rmtree(again)


def test_an_export_during_which_somebody_was_forgotten_does_not_go_out(store, tmp_path, monkeypatch):
    remember = exports.remember

    def late(*args, **kwargs):
        monkeypatch.setattr(exports, "remember", remember)
        erase_of(store, user_id=ANN)
        remember(*args, **kwargs)

    monkeypatch.setattr(exports, "remember", late)
    with pytest.raises(JobError, match="forgotten while this was exported"):
        send(store, tmp_path, "jsonl")
    assert not (tmp_path / "jsonl").exists()
    assert remembered(store) == []


def test_an_export_that_goes_out_while_a_forgetting_begins_gets_a_tombstone_with_the_stores_ids(
    store, tmp_path, monkeypatch
):
    known = exports.exports

    def before_it(uri):
        found = known(uri)
        monkeypatch.setattr(exports, "exports", known)
        send(store, tmp_path, "mem0")
        return found

    monkeypatch.setattr(exports, "exports", before_it)
    summary = erase_of(store, user_id=ANN)
    (one,) = receipt(summary)["tombstones"]
    assert {line["record_id"] for line in lines(one["path"])} == {None, LYON_ID, TEA_ID}


def test_an_export_goes_out_of_a_store_that_may_only_be_read(store, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setattr(exports, "remember", refuse)
    assert send(store, tmp_path, "jsonl")["is_remembered"] is False
    assert "jobs.forget will write no tombstone" in capsys.readouterr().err


def test_an_entry_of_a_format_that_this_release_does_not_know_gets_the_stores_ids(store, tmp_path):
    send(store, tmp_path, "jsonl")
    files = Files(store, "exports")
    (path,) = files.paths()
    files.put_json(path, files.get_json(path) | {"format": "of-later"})
    assert isinstance(exports.exports(store)[0], Exported)
    (path,) = erase_of(store, session_id="s2-of-ann")["tombstones"]
    assert [line["record_id"] for line in lines(path)] == [TEA_ID]


def test_a_damaged_entry_is_named_and_nothing_is_erased(store, tmp_path):
    send(store, tmp_path, "jsonl")
    files = Files(store, "exports")
    (path,) = files.paths()
    files.put_json(path, {"export": "x"})
    with pytest.raises(JobError, match=rf"_slowwave/exports/{path} is damaged"):
        erase_of(store, user_id=ANN)
    assert len(stores.active(Store(store), "records", "record_id")) == 3
