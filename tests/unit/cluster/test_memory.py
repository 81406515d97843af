"""Reading memories from Python, on real stores; the model of the embedder is scripted."""

import dataclasses
import datetime as dt
import re
import shutil
from pathlib import Path

import pytest

from cluster import memory as module
from cluster.embed import questions
from cluster.memory import Memories, Turn
from cluster.models.resolve import resolve_embedder
from cluster.models.sources import ModelError
from cluster.store.errors import StoreError
from cluster.store.files import Files
from cluster.store.store import Store
from schemas.profiles.embedder import EmbedderProfile
from schemas.store import DECISIONS_SCHEMA, records_schema
from tests.unit.cluster.store import stores
from tests.unit.cluster.store.stores import DIM, digest, run_row, segment, vector

ROOT = Path(__file__).parents[3]
PROFILE = resolve_embedder(EmbedderProfile(name="scripted", model="owner/scripted"))
OTHER = resolve_embedder(EmbedderProfile(name="other", model="owner/other"))
DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

LYON = segment("lyon", "I live in Lyon", "How nice", user="me", session="s1", records=["User lives in Lyon."])
OSLO = segment("oslo", "We moved to Oslo", user="me", session="s2", records=["User lives in Oslo."])
MOON = segment("moon", "I saw the moon", user="bob", session="s3", records=["User saw the moon."])
LYON_ID, OSLO_ID = digest("lyon", "User lives in Lyon."), digest("oslo", "User lives in Oslo.")


class Scripted:
    """In the place of cluster.embed.embedder.Embedder; knows what was loaded."""

    loaded: list[str]

    def __init__(self, profile):
        Scripted.loaded.append(profile.name)

    def embed_queries(self, texts):
        return [vector(text) for text in texts]


@pytest.fixture(autouse=True)
def models(monkeypatch):
    monkeypatch.setattr(Scripted, "loaded", [], raising=False)
    monkeypatch.setattr(questions, "Embedder", Scripted)
    return Scripted


def written_by(patch, profile):
    """The next commits are those of this embedder."""
    made = {"embedder": profile.fingerprint, "embedder_profile": profile.model_dump_json()}
    patch.setattr(stores, "run_row", lambda run_id: run_row(run_id) | made)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Two nights of two users; a decision of the third run closes what the second one replaced."""
    store = Store(str(tmp_path_factory.mktemp("template") / "store"), must_exist=False)
    with pytest.MonkeyPatch.context() as patch:
        written_by(patch, PROFILE)
        stores.commit(store, "run1", LYON, MOON)
        stores.commit(store, "run2", OSLO)
        supersede(store, "run3")
    staging = Files(store.uri, "staging")
    staging.delete(staging.paths())
    return store.uri


@pytest.fixture
def store(template, tmp_path, monkeypatch):
    written_by(monkeypatch, PROFILE)
    shutil.copytree(template, tmp_path / "store")
    return Store(str(tmp_path / "store"))


def supersede(store, run_id):
    """Lyon is deleted because of Oslo, as a consolidation commits it."""
    rows = store.rows("records", records_schema(DIM).names, f"record_id = '{LYON_ID}'").to_pylist()
    closed = [row | {"active": False, "closed_run_id": run_id, "closed_reason": "delete"} for row in rows]
    decision = {
        **dict.fromkeys(("prompt_tokens", "cached_tokens", "output_tokens"), 0),
        **{"decision_id": digest(run_id), "user_id": "me", "target_id": LYON_ID, "target_revision": 1},
        **{"source_ids": [OSLO_ID], "source_revisions": [1], "decider": "rules", "action": "delete"},
        **{
            "text": "",
            "outcome": "applied",
            "reason": "newer",
            "raw": "",
            "run_id": run_id,
            "decided_at": DAY,
        },
    }
    files = Files(store.uri, "staging")
    files.put_rows("records.parquet", closed, records_schema(DIM))
    files.put_rows("decisions.parquet", [decision], DECISIONS_SCHEMA)
    row = stores.run_row(run_id) | {"job": "consolidate"}
    inserts, replaces = {"decisions": ["decisions.parquet"]}, {"records": ["records.parquet"]}
    store.commit(row, DIM, inserts=inserts, replaces=replaces)


def files_of(store) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    paths = sorted(Path(store.uri).rglob("*"))
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in [Path(store.uri), *paths]}


def texts(hits) -> list[str]:
    return [hit.text for hit in hits]


# --- search ---------------------------------------------------------------------------------------------


def test_a_search_finds_what_holds_now_first_and_not_what_it_replaced(store):
    with Memories(store.uri) as memories:
        first, *others = memories.search("me", "Where do I live?", kind="record")
    assert (first.kind, first.id, first.text) == ("record", OSLO_ID, "User lives in Oslo.")
    assert (first.user_id, first.memory_type, first.said_at) == ("me", "fact", DAY)
    assert (first.evidence, first.replaced_by) == ((Turn("s2", 0),), None)
    assert [older.text for older in first.replaces] == ["User lives in Lyon."]
    assert others == []


def test_a_replaced_record_is_found_by_a_question_about_the_past_and_says_what_took_its_place(store):
    with Memories(store.uri) as memories:
        found = {hit.text: hit for hit in memories.search("me", "Where did I live before?", kind="record")}
    assert found["User lives in Lyon."].replaced_by == OSLO_ID
    assert found["User lives in Lyon."].since == DAY.date()


def test_a_turn_that_is_found_is_its_own_evidence(store):
    with Memories(store.uri) as memories:
        (hit,) = [hit for hit in memories.search("me", "moved to Oslo", kind="turn") if "Oslo" in hit.text]
    assert (hit.kind, hit.memory_type, hit.id) == ("turn", None, digest("me", "s2", 0))
    assert hit.evidence == (Turn("s2", 0, "user", None, "We moved to Oslo", DAY),)


def test_hits_are_what_the_store_s_own_search_returns_for_that_day(store):
    """Nothing is left out on the way: each hit has its whole row."""
    with Memories(store.uri) as memories:
        hits = memories.search("me", "Where do I live?", k=3, at=dt.date(2026, 2, 1))
    day, text = dt.date(2026, 2, 1), "Where do I live?"
    rows = store.search("me", text, vector(text), 3, "run3", at=day, asked_on=day)
    assert [dict(hit.row) for hit in hits] == rows


def test_nobody_else_s_rows_are_found(store):
    with Memories(store.uri) as memories:
        assert {hit.user_id for hit in memories.search("bob", "Where do I live?", k=100)} == {"bob"}
        assert memories.search("bob' OR 'a' = 'a", "Where do I live?") == []


def test_what_is_found_cannot_be_changed(store):
    with Memories(store.uri) as memories:
        (hit, *_), (life, *_) = memories.search("me", "Oslo"), memories.history(user="me")
    for found, name in ((hit, "text"), (life, "active"), (life.revisions[0], "text")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(found, name, "other")
    with pytest.raises(TypeError):
        hit.row["score"] = 1.0


def test_a_search_that_cannot_be_meant_is_refused(store):
    with Memories(store.uri) as memories:
        with pytest.raises(ValueError, match="k=0: give 1 or more"):
            memories.search("me", "Oslo", k=0)
        with pytest.raises(ValueError, match="kind='records': give one of"):
            memories.search("me", "Oslo", kind="records")


def test_a_reranker_reads_the_hits_of_every_search(store):
    def by_length(question, texts):
        return [len(text) for text in texts]

    with Memories(store.uri, reranker=by_length) as memories:
        found = texts(memories.search("me", "Oslo", kind="turn"))
    assert found == sorted(found, key=len, reverse=True) and len(found) == 3


# --- history and users ----------------------------------------------------------------------------------


def test_a_memory_s_life_has_its_revisions_what_was_said_and_what_closed_it(store):
    with Memories(store.uri) as memories:
        (life,) = memories.history(LYON_ID)
        both = memories.history(user="me")
        assert memories.history("unknown") == memories.history(user="unknown") == []
    assert (life.memory_id, life.user_id, life.active, life.text) == (
        LYON_ID,
        "me",
        False,
        "User lives in Lyon.",
    )
    (revision,) = life.revisions
    assert (revision.closed_run_id, revision.closed_reason, revision.decision) == ("run3", "delete", None)
    assert revision.evidence == (Turn("s1", 0, "user", None, "I live in Lyon", DAY),)
    (decision,) = life.decisions
    assert (decision.action, decision.outcome, decision.model) == ("delete", "applied", None)
    assert decision.target.text == "User lives in Lyon."
    assert [(one.memory_id, one.text) for one in decision.sources] == [(OSLO_ID, "User lives in Oslo.")]
    assert {one.memory_id for one in both} == {LYON_ID, OSLO_ID} and life in both


def test_a_history_is_of_a_memory_or_of_a_user(store):
    with Memories(store.uri) as memories:
        for given in ({}, {"memory_id": LYON_ID, "user": "me"}):
            with pytest.raises(ValueError, match="give one of the two"):
                memories.history(**given)


def test_users_are_those_of_whom_something_is_active(store):
    with Memories(store.uri) as memories:
        assert memories.users() == ["bob", "me"]
        stores.commit(store, "run4", closed=["moon"])
        assert memories.users() == ["me"]
        assert memories.users(as_of="run1") == ["bob", "me"]


# --- runs -----------------------------------------------------------------------------------------------


def test_a_call_is_answered_by_the_run_that_is_the_newest_when_it_begins(store, models):
    with Memories(store.uri) as memories:
        assert memories.run_id == "run3"
        assert "Green tea" not in texts(memories.search("me", "tea"))
        stores.commit(store, "run4", segment("tea", "Green tea", user="me", session="s4"))
        assert "Green tea" in texts(memories.search("me", "tea"))
        assert memories.run_id == "run4"
    assert models.loaded == ["scripted"]


def test_a_run_that_is_published_during_a_call_is_not_seen_by_it(store, monkeypatch):
    read = module.lives

    def meanwhile(seen, **asked):
        stores.commit(
            store, "run4", segment("tea", "Tea", user="me", session="s4", records=["User has tea."])
        )
        return read(seen, **asked)

    monkeypatch.setattr(module, "lives", meanwhile)
    with Memories(store.uri) as memories:
        assert {life.memory_id for life in memories.history(user="me")} == {LYON_ID, OSLO_ID}


def test_as_of_answers_by_what_was_known_then(store):
    with Memories(store.uri) as memories:
        assert texts(memories.search("me", "Where do I live?", kind="record", as_of="run1")) == [
            "User lives in Lyon."
        ]
        assert [life.active for life in memories.history(LYON_ID, as_of="run2")] == [True]
        for ask in (memories.users, lambda as_of: memories.history(LYON_ID, as_of=as_of)):
            with pytest.raises(StoreError, match=r"no such run .*'run1', 'run2', 'run3'"):
                ask(as_of="run9")


def test_a_folder_without_a_store_is_refused_by_its_name(tmp_path):
    with pytest.raises(StoreError, match=r"run jobs\.backfill first"):
        Memories(str(tmp_path / "nowhere"))


# --- models, and the store as it was ----------------------------------------------------------------------


def test_models_are_loaded_by_the_first_question_and_stay(store, models):
    with Memories(store.uri) as memories:
        memories.history(user="me"), memories.users()
        assert models.loaded == []
        for _ in range(3):
            memories.search("me", "Where do I live?")
        assert models.loaded == ["scripted"]


def test_a_question_is_embedded_by_what_embedded_the_run_that_answers_it(store, models, monkeypatch):
    with Memories(store.uri) as memories:
        memories.search("me", "tea")
        written_by(monkeypatch, OTHER)
        stores.commit(store, "run4")
        memories.search("me", "tea")
        memories.search("me", "tea", as_of="run3")
        assert models.loaded == ["scripted", "other"]
        assert memories.refresh() == "run4"
        assert models.loaded == ["scripted", "other", "other"]
        memories.search("me", "tea")
        assert len(models.loaded) == 3


def test_an_embedder_is_taken_from_where_it_is_now_and_no_other_is_taken(store, models):
    moved = PROFILE.model_copy(update={"name": "moved"})
    with Memories(store.uri, embedder=moved) as memories:
        memories.search("me", "tea")
    assert models.loaded == ["moved"]
    with Memories(store.uri, embedder=OTHER) as memories:
        with pytest.raises(ModelError, match=r"'other' .*the vectors of run run3 are of embedder 'scripted'"):
            memories.search("me", "tea")
        assert memories.users()


def test_a_reader_writes_nothing(store):
    before = files_of(store)
    with Memories(store.uri) as memories:
        memories.refresh(), memories.users(), memories.history(user="me"), memories.search("me", "Oslo")
    assert files_of(store) == before


def test_a_reader_that_was_closed_answers_nothing(store):
    with Memories(store.uri) as memories:
        pass
    for ask in (memories.users, memories.refresh, lambda: memories.search("me", "tea")):
        with pytest.raises(StoreError, match="the reader is closed"):
            ask()


# --- the pages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["README.md", "cluster/store/README.md"])
def test_the_snippet_of_a_page_runs_and_answers(page, store, capsys, monkeypatch):
    """It opens `store` and asks of `me`, as the commands around it do."""
    (snippet,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    monkeypatch.chdir(Path(store.uri).parent)
    exec(compile(snippet, page, "exec"), {})
    assert "User lives in Oslo." in capsys.readouterr().out


def test_values_of_extra_fields_are_in_hits_and_in_lives_and_are_empty_where_there_are_none(store):
    park = segment("park", "I love the park", user="me", session="s4", records=["User loves the park."])
    park["records"] = [row | {"extra": [("mood", "good")]} for row in park["records"]]
    stores.commit(store, "run4", park)
    with Memories(store.uri) as memories:
        hits = {hit.text: hit for hit in memories.search("me", "park")}
        assert hits["User loves the park."].extra == {"mood": "good"}
        assert hits["User loves the park."].row["extra"] == {"mood": "good"}
        assert hits["User lives in Oslo."].extra == hits["I love the park"].extra == {}
        lives = {life.text: life.revisions[-1].extra for life in memories.history(user="me")}
        assert lives["User loves the park."] == {"mood": "good"} and lives["User lives in Oslo."] == {}
