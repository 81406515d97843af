"""The store: a run is seen whole or not at all, whenever its writer dies; a user sees their own rows only."""

import datetime as dt
import itertools
import json
import shutil

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from cluster.consolidate.candidates import total_order, with_ingestion
from cluster.evaluate.haystack import Haystack
from cluster.store.errors import StoreError
from cluster.store.files import Files
from cluster.store.sql import quote
from cluster.store.store import Store
from tests.dying import killed_before
from tests.unit.cluster.store.stores import (
    DIM,
    MOON,
    SCHEMAS,
    STEPS,
    TEA,
    active,
    commit,
    memory,
    nightly_run,
    rejection,
    run_row,
    segment,
    tags_of,
    vector,
    view,
)

# --- runs and views -----------------------------------------------------------------------------------


def test_a_committed_run_is_there(store):
    commit(store, "run1", TEA, MOON, rejection("a.parquet:1"))
    (run,) = store.runs()
    assert (run["run_id"], run["job"], run["encoder"]) == ("run1", "backfill", "encoder-1")
    assert run["started_at"] == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert abs(run["finished_at"] - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    assert active(store, "segments", "segment_id") == ["moon", "tea"]
    assert active(store, "turns", "content") == ["Green tea", "I drink tea", "I saw the moon"]
    assert active(store, "records", "semantic_text") == ["Ann drinks tea", "Bob saw the moon"]
    assert store.rows("rejections", ["source"]).to_pylist() == [{"source": "a.parquet:1"}]
    assert store.dim() == DIM
    (row, _) = store.rows("records", SCHEMAS["records"].names).to_pylist()
    life = ("active", "run_id", "closed_run_id", "encoder", "embedder", "created_at")
    assert [row[name] for name in life] == [True, "run1", None, "encoder-1", "embedder-1", run["started_at"]]


@pytest.mark.parametrize("kills", [False, True])
def test_of_undated_sessions_of_one_run_the_later_in_the_archive_is_the_newer(store, monkeypatch, kills):
    """Regression: they were ordered by their ids. Also where another process finishes a killed commit."""
    told = [
        segment(f"g{session}", text, session=session, records=[text])
        for session, text in (
            ("z", "Ann lives in Oslo"),
            ("m", "Ann lives in Bergen"),
            ("a", "Ann lives in Rome"),
        )
    ]
    if kills:
        killed_before(monkeypatch, STEPS, 14, lambda: commit(store, "run1", *told))
        assert Store(store.uri, must_exist=False).recover() == "run1"
    else:
        commit(store, "run1", *told)
    assert [text.split()[-1] for text in as_undated(store)] == ["Oslo", "Bergen", "Rome"]


def as_undated(store):
    """Texts of the records, oldest first, as a consolidation orders those of undated sessions."""
    names = ["user_id", "session_id", "session_time", "evidence", "record_id", "semantic_text", "created_at"]
    found = store.rows("records", names)
    index = found.schema.get_field_index("session_time")
    none = pa.nulls(len(found), found.schema.field(index).type)
    found = found.set_column(index, found.schema.field(index), none)
    found = with_ingestion(found, dt.datetime(2027, 1, 1, tzinfo=dt.UTC))
    return found.take(pa.array(total_order(found))).column("semantic_text").to_pylist()


@pytest.mark.parametrize("step_s", [-600, 0, 600], ids=["minutes back", "still", "minutes ahead"])
def test_of_undated_sessions_of_two_runs_the_later_run_s_is_the_newer_whatever_the_clock_says(store, step_s):
    """Regression: what a writer whose clock was behind brought was the older one, and was closed."""
    for number, place in enumerate(("Oslo", "Bergen", "Rome")):
        text = f"Ann lives in {place}"
        rows = segment(f"g{number}", text, session=f"s{9 - number}", records=[text])
        begun = dt.datetime(2026, 1, 2, tzinfo=dt.UTC) + number * dt.timedelta(seconds=step_s)
        commit(store, f"run{number}", rows, started_at=begun.isoformat())
    assert [text.split()[-1] for text in as_undated(store)] == ["Oslo", "Bergen", "Rome"]


def test_an_empty_store_has_no_rows(store, tmp_path):
    assert (store.runs(), store.run(), store.dim(), store.table("records")) == ([], None, 0, None)
    assert store.rows("segments", ["segment_id"], where="active").num_rows == 0
    assert store.search("ann", "tea", vector("tea"), 5) == []
    assert store.recover() is None
    for uri in (tmp_path / "store", tmp_path / "nowhere"):
        with pytest.raises(StoreError, match=r"run jobs\.backfill first"):
            Store(str(uri))


def test_views_as_of_a_run_stay(store):
    commit(store, "run1", TEA)
    first = view(store)
    commit(store, "run2", segment("tea2", "I drink coffee", records=["Ann drinks coffee"]), closed=["tea"])
    commit(store, "run3", MOON)
    assert [row["run_id"] for row in store.runs()] == ["run1", "run2", "run3"]
    assert store.run()["run_id"] == "run3"
    as_of = view(store, "run1")
    assert {name: as_of[name] for name in SCHEMAS} == {name: first[name] for name in SCHEMAS}
    assert active(store, "records", "semantic_text", "run1") == ["Ann drinks tea"]
    assert active(store, "records", "semantic_text", "run2") == ["Ann drinks coffee"]
    assert active(store, "records", "semantic_text") == ["Ann drinks coffee", "Bob saw the moon"]
    (hit,) = store.search("ann", "tea", vector("tea"), 1, as_of="run1")
    assert "tea" in hit.get("semantic_text", hit.get("content"))
    with pytest.raises(StoreError, match=r"--as-of run9: no such run .*\['run1', 'run2', 'run3'\]"):
        store.rows("records", ["record_id"], as_of="run9")


def test_a_view_is_not_cut_short(store):
    texts = [f"Turn number {index}" for index in range(2500)]
    commit(store, "run1", segment("many", *texts, records=texts[:1500]))
    assert store.rows("turns", ["content"]).num_rows == 2500
    assert store.rows("records", ["record_id"], where="active").num_rows == 1500


def test_every_run_is_tagged_with_the_versions_it_names(store):
    commit(store, "run1", TEA)
    commit(store, "run2", MOON, closed=["tea"])
    for row in store.runs():
        assert set(json.loads(row["versions"])) == set(SCHEMAS)
        assert tags_of(store, row["run_id"]) == json.loads(row["versions"])


def test_plain_lancedb_opens_it(store):
    commit(store, "run1", TEA)
    commit(store, "run2", MOON)
    table = lancedb.connect(store.uri).open_table("records")
    assert table.count_rows("active") == 2
    (row,) = table.search(vector("Bob saw the moon")).where("user_id = 'bob'").limit(5).to_list()
    assert row["semantic_text"] == "Bob saw the moon"
    table.checkout("run1")
    assert table.count_rows() == 1


def test_runs_without_rows_of_some_tables(store):
    commit(store, "run1", segment("quiet", "Hm"))
    commit(store, "run2", rejection("a.parquet:7"))
    commit(store, "run3")
    assert [row["run_id"] for row in store.runs()] == ["run1", "run2", "run3"]
    assert store.rows("records", ["record_id"]).num_rows == 0
    assert store.rows("rejections", ["source"]).num_rows == 1
    assert [hit["kind"] for hit in store.search("ann", "hm", vector("Hm"), 5)] == ["turn"]


# --- closing ------------------------------------------------------------------------------------------


def test_a_closed_segment_takes_its_rows_along(store):
    commit(store, "run1", TEA, MOON)
    commit(store, "run2", closed=["tea"])
    assert active(store, "segments", "segment_id") == ["moon"]
    assert active(store, "turns", "content") == ["I saw the moon"]
    assert active(store, "records", "semantic_text") == ["Bob saw the moon"]
    for name in ("segments", "turns", "records"):
        rows = store.rows(name, ["user_id", "active", "run_id", "closed_run_id"]).to_pylist()
        closed = {"user_id": "ann", "active": False, "run_id": "run1", "closed_run_id": "run2"}
        kept = {"user_id": "bob", "active": True, "run_id": "run1", "closed_run_id": None}
        assert all(row in (closed, kept) for row in rows)
    (reason,) = store.rows("records", ["closed_reason"], where="NOT active").to_pylist()
    assert reason == {"closed_reason": "segment_replaced"}


def test_a_replaced_turn_is_updated_in_place(store):
    commit(store, "run1", TEA)
    grown = segment("tea2", "I drink tea", "Black tea", "And coffee", records=["Ann drinks tea"])
    commit(store, "run2", grown, closed=["tea"])
    rows = store.rows("turns", ["turn_index", "content", "segment_id", "active", "run_id"]).to_pylist()
    assert sorted((row["turn_index"], row["content"]) for row in rows) == [
        (0, "I drink tea"),
        (1, "Black tea"),
        (2, "And coffee"),
    ]
    assert {(row["segment_id"], row["active"], row["run_id"]) for row in rows} == {("tea2", True, "run2")}
    records = store.rows("records", ["segment_id", "active", "closed_run_id"]).to_pylist()
    assert sorted(records, key=str) == [
        {"segment_id": "tea", "active": False, "closed_run_id": "run2"},
        {"segment_id": "tea2", "active": True, "closed_run_id": None},
    ]


def test_a_segment_that_is_encoded_again_gives_way_to_itself(store):
    commit(store, "run1", segment("tea", "I drink tea", records=["Ann drinks tea", "Ann drinks"]))
    commit(
        store,
        "run2",
        segment("tea", "I drink tea", records=["Ann drinks tea", "Ann likes tea"]),
        closed=["tea"],
    )
    assert active(store, "segments", "run_id") == ["run2"]
    assert active(store, "turns", "run_id") == ["run2"]
    assert active(store, "records", "semantic_text") == ["Ann drinks tea", "Ann likes tea"]
    assert store.rows("records", ["semantic_text"], where="closed_run_id = 'run2'").to_pylist() == [
        {"semantic_text": "Ann drinks"}
    ]


def test_a_segment_that_comes_back_stands_once(store):
    """Regression: it was added beside its closed rows; at the next change both of a turn's became active."""
    end = segment("end", "Green tea", first_turn=1, records=["Ann drinks green tea"])
    commit(store, "run1", segment("begin", "I drink tea"), end)
    commit(store, "run2", closed=["end"])
    commit(store, "run3", end)
    for name in ("segments", "turns", "records"):
        rows = store.rows(name, ["active", "run_id", "closed_run_id"], where="segment_id = 'end'").to_pylist()
        assert rows == [{"active": True, "run_id": "run3", "closed_run_id": None}]
    longer = segment("end2", "Green tea", "Hot", first_turn=1, records=["Ann drinks hot tea"])
    commit(store, "run4", longer, closed=["end"])
    assert active(store, "turns", "content") == ["Green tea", "Hot", "I drink tea"]
    assert store.rows("turns", ["turn_id"]).num_rows == 3
    assert active(store, "records", "semantic_text") == ["Ann drinks hot tea"]


def test_closing_what_is_not_there_changes_nothing(store):
    commit(store, "run1", TEA)
    before = view(store)
    commit(store, "run2", closed=["never seen", "' OR true --"])
    after = view(store)
    assert {name: after[name] for name in SCHEMAS} == {name: before[name] for name in SCHEMAS}


def test_replacing_rows_take_the_place_of_their_key(store):
    """As consolidation writes them: an old revision closed by hand, the next one beside it."""
    commit(store, "run1", TEA, MOON)
    (old,) = store.rows("records", SCHEMAS["records"].names, where="user_id = 'ann'").to_pylist()
    closed = old | {"active": False, "closed_run_id": "run2", "closed_reason": "update"}
    following = old | {"revision": 2, "semantic_text": "Ann drinks green tea", "run_id": "run2"}
    Files(store.uri, "staging").put_rows("revised.parquet", [closed, following], SCHEMAS["records"])
    store.commit(run_row("run2"), DIM, replaces={"records": ["revised.parquet"]})
    assert active(store, "records", "semantic_text") == ["Ann drinks green tea", "Bob saw the moon"]
    assert active(store, "records", "semantic_text", "run1") == ["Ann drinks tea", "Bob saw the moon"]
    (row,) = store.rows("records", SCHEMAS["records"].names, where="NOT active").to_pylist()
    assert row == closed


def test_many_closings_at_once(store):
    ids = [f"{number:032x}" for number in range(3000)]
    parts = [segment(segment_id, "x", session=segment_id) for segment_id in ids]
    commit(store, "run1", {name: [row for part in parts for row in part[name]] for name in parts[0]})
    commit(store, "run2", closed=ids[1:])
    assert active(store, "segments", "segment_id") == ids[:1]
    assert active(store, "turns", "segment_id") == ids[:1]


# --- crashes ------------------------------------------------------------------------------------------


def first_run(store):
    commit(store, "run2", TEA, MOON, rejection("a.parquet:1"), memory("ann", 1))


@pytest.mark.parametrize("run", [first_run, nightly_run])
def test_a_writer_may_die_at_any_step(tmp_path, monkeypatch, run):
    """Before recovery a reader sees the run before; after it, what an undisturbed writer would have left."""
    base = tmp_path / "base"
    Store(str(base), must_exist=False)
    if run is not first_run:
        commit(Store(str(base), must_exist=False), "run1", TEA, MOON, memory("ann", 1), memory("bob", 1))
    before = view(Store(str(base), must_exist=False))
    shutil.copytree(base, tmp_path / "whole")
    whole = Store(str(tmp_path / "whole"), must_exist=False)
    steps = killed_before(monkeypatch, STEPS, None, lambda: run(whole))
    expected = view(whole)
    assert len(steps) > 12
    for number, step in enumerate(steps):
        path = tmp_path / f"killed{number}"
        shutil.copytree(base, path)
        writer = Store(str(path), must_exist=False)
        assert killed_before(monkeypatch, STEPS, number, lambda writer=writer: run(writer))[-1] == "killed"

        seen = view(Store(str(path), must_exist=False))
        committed = seen["runs"] == expected["runs"]
        assert seen == (expected if committed else before), f"a part is seen before {step}"
        assert committed == (number > len(steps) - 1 - steps[::-1].index("Files.create"))

        was_decided = bool(writer.intents())
        following = Store(str(path), must_exist=False)
        assert following.recover() == ("run2" if was_decided else None)
        if not was_decided:
            run(following)  # nothing was promised yet: the job runs again
        assert following.recover() is None
        assert view(Store(str(path))) == expected, f"killed before {step}"
        for row in following.runs():
            assert tags_of(following, row["run_id"]) == json.loads(row["versions"])


def test_dying_again_during_recovery(tmp_path, monkeypatch):
    base = tmp_path / "base"
    commit(Store(str(base), must_exist=False), "run1", TEA, MOON)
    shutil.copytree(base, tmp_path / "whole")
    nightly_run(Store(str(tmp_path / "whole")))
    expected = view(Store(str(tmp_path / "whole")))
    store = Store(str(base))
    num_steps = len(killed_before(monkeypatch, STEPS, 6, lambda: nightly_run(store)))
    for number in itertools.count(1):
        # Each recovery gets one step further than the last.
        steps = killed_before(monkeypatch, STEPS, number, lambda: Store(str(base)).recover())
        if "killed" not in steps:
            break
    assert number + num_steps > 10
    assert view(Store(str(base))) == expected


def test_a_reader_keeps_its_view_while_a_run_is_written(store, monkeypatch):
    commit(store, "run1", TEA)
    reader = Store(store.uri)
    steps = killed_before(monkeypatch, STEPS, 20, lambda: nightly_run(store))
    assert steps[-2:] == ["LanceDataset.commit", "killed"]
    assert active(reader, "turns", "content") == ["Green tea", "I drink tea"]
    assert {hit["run_id"] for hit in reader.search("ann", "tea", vector("tea"), 10)} == {"run1"}
    store.recover()
    assert active(reader, "turns", "content") == ["And coffee", "Black tea", "I drink tea"]


@pytest.mark.parametrize("table", ["states", "decisions"])
def test_a_store_of_another_release_is_refused(store, table):
    commit(store, "run1", TEA)
    lancedb.connect(store.uri).drop_table(table)
    with pytest.raises(StoreError, match=rf"lacks the tables \['{table}'\]"):
        Store(store.uri)


# --- schema -------------------------------------------------------------------------------------------


def test_another_schema_is_refused_and_both_are_shown(store):
    commit(store, "run1", TEA)
    with pytest.raises(StoreError, match=r"another schema") as refused:
        store.commit(run_row("run2"), DIM * 2, turn_dim=DIM * 2)
    message = str(refused.value)
    assert "fixed_size_list<item: float>[4]" in message
    assert "fixed_size_list<item: float>[8]" in message
    assert store.uri in message and "'turns'" in message
    assert [row["run_id"] for row in store.runs()] == ["run1"]


# --- search -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A store with two users, the same words of both, and closed rows."""
    store = Store(str(tmp_path_factory.mktemp("busy") / "store"), must_exist=False)
    parts = [
        segment(
            "a1", "I drink tea", "The cat is called Ünïcödé 🙂", records=["Ann drinks tea", "Ann has a cat"]
        ),
        segment("b1", "I drink tea", user="bob", records=["Bob drinks tea"]),
        segment("q1", "I drink tea", user="o'brien", records=["O'Brien drinks tea"]),
        segment("c1", "Old tea", session="closed", records=["Ann drank old tea"]),
    ]
    commit(store, "run1", *parts)
    commit(
        store,
        "run2",
        segment("a2", "Tea again", session="t", records=["Ann drinks tea again"]),
        closed=["c1"],
    )
    return store


ANNS = {
    "I drink tea",
    "The cat is called Ünïcödé 🙂",
    "Ann drinks tea",
    "Ann has a cat",
    "Tea again",
    "Ann drinks tea again",
}


def texts(hits):
    return {hit.get("semantic_text") or hit["content"] for hit in hits}


ODD_TEXTS = [
    "",
    "   ",
    "\n",
    "tea",
    '"tea',
    "'tea",
    "tea AND",
    "OR NOT tea",
    "+tea -cat",
    "(tea",
    "tea*",
    "te?",
    "tea~2",
    "tea^3",
    "field:tea",
    "[a TO b]",
    "{}",
    '{"match": {}}',
    "\\",
    "/tea/",
    "' OR 1=1 --",
    "ünïcödé 🙂",
    "茶を飲みます",
    "\0",
    "tea " * 3000,
    "x" * 20_000,
    "the of and",
]


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: repr(text[:12]))
def test_any_text_finds_the_users_active_rows(busy, text):
    hits = busy.search("ann", text, vector("tea"), 50)
    assert {hit["user_id"] for hit in hits} == {"ann"}
    assert all(hit["active"] for hit in hits)
    assert texts(hits) == ANNS
    assert len(hits) == len(ANNS)


@pytest.mark.parametrize(
    "user",
    [
        "' OR 1=1 --",
        "ann' --",
        "' OR user_id = 'bob",
        "\\' OR true --",
        "",
        "%",
        "ANN",
        "ann\0",
        "'",
        '"ann"',
        "🙂",
    ],
)
def test_no_name_opens_another_users_rows(busy, user):
    assert busy.search(user, "tea", vector("tea"), 50) == []


def test_a_quote_in_a_name_is_a_name(busy):
    assert texts(busy.search("o'brien", "tea", vector("tea"), 50)) == {"I drink tea", "O'Brien drinks tea"}
    assert quote("o'brien") == "'o''brien'"


def test_a_user_who_is_in_the_minority_is_found(tmp_path):
    """The filter comes before the ranking: a hundred better rows of others take no place."""
    store = Store(str(tmp_path / "store"), must_exist=False)
    others = [f"I drink tea {index}" for index in range(100)]
    commit(
        store, "run1", segment("many", *others, user="bob", records=others), segment("one", "Nothing of it")
    )
    (hit,) = store.search("ann", "drink tea", vector(others[0]), 3)
    assert hit["content"] == "Nothing of it"


@pytest.mark.parametrize("k", [1, 2, 3, 6, 7, 1000])
def test_k_rows_or_what_there_is(busy, k):
    hits = busy.search("ann", "tea", vector("Ann drinks tea"), k)
    assert len(hits) == min(k, len(ANNS))
    assert len({(hit["kind"], hit.get("record_id") or hit["turn_id"]) for hit in hits}) == len(hits)


def test_hits_are_ranked_and_say_what_they_are(busy):
    hits = busy.search("ann", "cat", vector("Ann has a cat"), 50)
    assert hits[0]["semantic_text"] == "Ann has a cat"
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert {hit["kind"] for hit in hits} == {"record", "turn"}
    assert hits[0]["evidence"] == [{"session_id": "s", "turn_index": 0}]
    assert not {name for name in hits[0] if name.startswith("_")} | ({"vector"} & set(hits[0]))


def test_words_and_vectors_both_count(busy):
    cat = "The cat is called Ünïcödé 🙂"
    with_word, without = (
        next(
            hit["score"]
            for hit in busy.search("ann", text, vector("I drink tea"), 50, kind="turn")
            if cat in texts([hit])
        )
        for text in ("Ünïcödé", "zzz")
    )
    assert with_word > without
    by_vector = busy.search("ann", "zzz", vector("Ann has a cat"), 50)
    assert texts(by_vector[:1]) == {"Ann has a cat"}


def test_what_only_repeats_better_hits_comes_last(busy):
    hits = busy.search("ann", "zzz", vector("Ann drinks tea"), 50)
    assert texts(hits[:1]) == {"Ann drinks tea"}
    assert "I drink tea" in texts(hits[-2:])
    assert not texts(hits[-2:]) & {"Ann has a cat", "The cat is called Ünïcödé 🙂"}


def dated(part, month):
    """A segment's rows, said in that month."""
    for row in [*part["turns"], *part["records"]]:
        row["session_time"] = dt.datetime(2026, month, 1, tzinfo=dt.UTC)
    return part


@pytest.fixture
def moved(store):
    """In run2 it was decided that Bergen has replaced Oslo."""
    parts = [
        dated(segment("a", "Oslo is home", session="s1", records=["Ann lives in Oslo"]), 1),
        dated(segment("b", "Bergen it is!", session="s2", records=["Ann moved to Bergen"]), 3),
    ]
    commit(store, "run1", *parts)
    (old,) = store.rows("records", SCHEMAS["records"].names, "segment_id = 'a'").to_pylist()
    old |= {"active": False, "closed_run_id": "run2", "closed_reason": "delete"}
    decision = dict.fromkeys(SCHEMAS["decisions"].names) | {
        "decision_id": "d1",
        "user_id": "ann",
        "target_id": old["record_id"],
        "source_ids": [parts[1]["records"][0]["record_id"]],
        "action": "delete",
        "outcome": "applied",
        "run_id": "run2",
    }
    commit(store, "run2", {"records": [old], "decisions": [decision]})
    return store


NEAR_OSLO = vector("Ann lives in Oslo")


def test_what_has_replaced_a_memory_comes_first_in_its_place(moved):
    hits = moved.search("ann", "Where do I live?", NEAR_OSLO, 10)
    assert texts(hits[:1]) == {"Ann moved to Bergen"}
    assert "Ann lives in Oslo" not in texts(hits)
    assert "Ann lives in Oslo" not in texts(moved.search("ann", "Where?", NEAR_OSLO, 10, kind="record"))


def test_a_question_about_the_past_finds_a_replaced_memory_with_its_end(moved):
    hit = moved.search("ann", "Where did I live before?", NEAR_OSLO, 10)[0]
    assert hit["semantic_text"] == "Ann lives in Oslo"
    assert (hit["since"], hit["until"]) == (dt.date(2026, 1, 1), dt.date(2026, 3, 1))
    (newer,) = moved.rows("records", ["record_id"], "segment_id = 'b'").to_pylist()
    assert hit["replaced_by"] == newer["record_id"]


def test_search_at_a_day_has_what_was_true_then(moved):
    in_february = moved.search("ann", "Where do I live?", NEAR_OSLO, 10, at=dt.date(2026, 2, 1))
    assert texts(in_february) == {"Ann lives in Oslo", "Oslo is home"}
    in_march = moved.search("ann", "Where do I live?", NEAR_OSLO, 10, at=dt.date(2026, 3, 1))
    assert texts(in_march) == {"Ann moved to Bergen", "Bergen it is!", "Oslo is home"}


def test_what_was_not_replaced_yet_in_an_older_view_is_current_there(moved):
    hit = moved.search("ann", "Where do I live?", NEAR_OSLO, 10, as_of="run1")[0]
    assert (hit["semantic_text"], hit["until"]) == ("Ann lives in Oslo", None)


def test_records_alone_and_turns_alone(busy):
    hits = busy.search("ann", "tea", vector("Ann drinks tea"), 50)
    for kind in ("record", "turn"):
        of_kind = busy.search("ann", "tea", vector("Ann drinks tea"), 50, kind=kind)
        assert {hit["kind"] for hit in of_kind} == {kind}
        assert sorted(texts(of_kind)) == sorted(texts(hit for hit in hits if hit["kind"] == kind))


def test_hits_that_bring_no_new_turn_take_no_place_in_a_measured_list(store):
    """As in a search, where they come last."""
    near = [f"Ann drinks tea {index}" for index in range(4)]
    commit(
        store,
        "run1",
        segment("near", "I drink tea", "Yes", records=near),
        segment("far", "I am far away", session="t", records=["Far away"]),
    )
    vectors = {text: np.array(vector(text), np.float32) for text in [*near, "Far away"]}
    asked = sum(vectors[text] for text in near) - 3 * vectors["Far away"]
    assert all(vectors[text] @ asked > vectors["Far away"] @ asked for text in near)
    assert Haystack(store, "ann").rankings(asked)["records"].turns([("s", 0), ("t", 0)]).tolist() == [0, 1]


def test_turns_of_another_model_are_ranked_apart(busy):
    """Their cosines have a scale of their own: what counts is the rank in the own table."""
    hits = busy.search("ann", "tea", vector("tea"), 100, turn_vector=vector("tea"))
    for kind in ("record", "turn"):
        # What repeats better hits stands one further down.
        scores = [hit["score"] % 1 for hit in hits if hit["kind"] == kind]
        assert sorted(round(1 / score) for score in scores) == list(range(61, 61 + len(scores)))
    assert hits[0]["kind"] == "record"


def test_search_as_of_a_run(busy):
    assert "Ann drank old tea" in texts(busy.search("ann", "tea", vector("tea"), 50, as_of="run1"))
    assert "Ann drinks tea again" not in texts(busy.search("ann", "tea", vector("tea"), 50, as_of="run1"))
