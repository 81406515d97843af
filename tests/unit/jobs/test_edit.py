"""Edits by hand of real stores: what becomes of a memory, and who may change it afterwards. The embedder is
scripted."""

import datetime as dt
import json

import numpy as np
import pytest

from cluster.embed import embedder
from cluster.models.resolve import resolve_embedder
from cluster.store.store import Store
from jobs import audit, edit, forget, history, rollback
from jobs.common import choice
from jobs.common.cli import JobError, UsageError, parse_config
from jobs.common.consolidation import consolidate
from jobs.common.run import writing
from jobs.common.update_config import UpdateConfig
from schemas.audit import DISCARD
from schemas.profiles.embedder import EmbedderProfile
from schemas.store import table_schemas
from tests.unit.cluster.store import stores
from tests.unit.cluster.store.stores import DIM, digest, segment, vector

PROFILE = resolve_embedder(EmbedderProfile(name="scripted", model="owner/scripted"))
OSLO, TEA = "User lives in Oslo.", "User drinks tea."
OSLO_ID, TEA_ID = digest("home", OSLO), digest("tea", TEA)
WHO = {"author": "op@desk", "reason": "ticket 7"}


class Scripted:
    """In the place of cluster.embed.embedder.Embedder."""

    def __init__(self, profile):
        assert profile == PROFILE

    def embed(self, texts):
        return np.array([vector(text) for text in texts], np.float32)


@pytest.fixture(autouse=True)
def models(monkeypatch):
    monkeypatch.setattr(embedder, "Embedder", Scripted)
    monkeypatch.setattr(choice, "choose_embedder", lambda name, store: PROFILE)
    made = {"embedder": PROFILE.fingerprint, "embedder_profile": PROFILE.model_dump_json()}
    row = stores.run_row
    monkeypatch.setattr(stores, "run_row", lambda run_id: row(run_id) | made)


HOME = segment("home", "I live in Oslo", user="me", session="s1", records=[OSLO])


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store"), must_exist=False)
    tea = segment("tea", "I drink tea", user="me", session="s2", records=[TEA])
    cat = segment("cat", "I have a cat", user="bob", session="b1", records=["User has a cat."])
    stores.commit(store, "run1", HOME, tea, cat)
    return store


def change(store, **settings):
    return edit.run(edit.EditConfig(store=store.uri, **WHO | settings))


def rows(store, where=None):
    found = store.rows("records", table_schemas(DIM)["records"].names, where).to_pylist()
    return {(row["record_id"], row["revision"]): row for row in found}


def active(store):
    return {row["semantic_text"]: row for row in rows(store, "active").values()}


def decisions(store):
    names = ["target_id", "target_revision", "decider", "model", "action", "reason", "text", "outcome"]
    found = store.rows("decisions", [*names, "run_id", "decision_id"]).to_pylist()
    return {(row["action"], row["target_id"]): row for row in found}


def told(store, *places, at, run_id="later", **parts):
    """Commit that the user lives in these places, as said at a time."""
    made = [
        segment(f"moved {place}", f"I live in {place}", user="me", session=f"s {place}", records=[text])
        for place in places
        if (text := f"User lives in {place}.")
    ]
    for part in made:
        for kind in part.values():
            for row in kind:
                row["session_time"] = at
    stores.commit(store, run_id, *made, **parts)


def decide(store):
    with writing(store.uri, "test") as held:
        return consolidate(UpdateConfig(store=store.uri, decider="rules", local=True), held)


PAST, AHEAD = dt.datetime(2026, 2, 1, tzinfo=dt.UTC), dt.timedelta(hours=1)


def written(tmp_path, *lines):
    (path := tmp_path / "edits.jsonl").write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    )
    return str(path)


# --- what an edit is --------------------------------------------------------------------------------------


def test_a_correction_is_a_revision_with_author_and_reason_and_a_vector_of_its_own(store):
    before = rows(store)[OSLO_ID, 1]
    summary = change(store, memory_id=OSLO_ID[:8], text="User  lives in Bergen.")
    assert (summary["status"], summary["num_corrected"], summary["num_edits"]) == ("done", 1, 1)
    assert (store.run()["job"], store.run()["run_id"]) == ("edit", summary["run_id"])
    old, new = rows(store)[OSLO_ID, 1], rows(store)[OSLO_ID, 2]
    assert old | {"updated_at": before["updated_at"]} == before | {
        "active": False,
        "closed_run_id": summary["run_id"],
        "closed_reason": "edited",
    }
    assert (new["active"], new["semantic_text"], new["encoder"]) == (True, "User lives in Bergen.", "hand")
    assert new["normalized_text"] == "fact: User lives in Bergen."
    assert new["vector"] == pytest.approx(vector("User lives in Bergen."))
    assert (new["evidence"], new["created_at"]) == (before["evidence"], before["created_at"])
    decision = decisions(store)["correct", OSLO_ID]
    assert (decision["decider"], decision["model"], decision["reason"]) == ("hand", "op@desk", "ticket 7")
    assert (decision["target_revision"], decision["decision_id"]) == (2, new["decision_id"])


def test_what_was_corrected_holds_for_as_long_as_what_it_corrects(store):
    change(store, memory_id=OSLO_ID, text="User lives in Bergen.")
    new = active(store)["User lives in Bergen."]
    assert new["temporal"]["t_valid_from"] == "2026-01-01"
    assert dt.datetime.now(dt.UTC) - new["session_time"] < dt.timedelta(minutes=1)


def test_kind_and_dates_are_corrected_without_a_model(store, monkeypatch):
    monkeypatch.setattr(edit, "embed", None)
    change(store, memory_id=TEA_ID, type="preference", valid_from="2020-05-01", valid_to="2027-01-01")
    new = active(store)[TEA]
    assert new["memory_type"] == "preference"
    assert new["temporal"] == {
        "t_ref": "2026-01-01",
        "t_valid_from": "2020-05-01",
        "t_valid_to": "2027-01-01",
    }


def test_a_memory_is_added_without_invented_evidence(store):
    summary = change(store, user_id="me", text="User is allergic to nuts.", type="constraint", pin=True)
    assert (summary["num_added"], summary["num_pinned"]) == (1, 1)
    new = active(store)["User is allergic to nuts."]
    assert (new["user_id"], new["memory_type"], new["evidence"]) == ("me", "constraint", [])
    assert (new["revision"], new["encoder"], new["run_id"]) == (1, "hand", summary["run_id"])
    (ledger,) = store.rows("segments", ["user_id", "outcome", "num_records"], "outcome = 'hand'").to_pylist()
    assert ledger == {"user_id": "me", "outcome": "hand", "num_records": 1}
    assert (
        store.search("me", "nuts", np.array(vector("User is allergic to nuts."), np.float32), 1)[0][
            "record_id"
        ]
        == (new["record_id"])
    )


def test_the_same_edit_again_changes_nothing(store):
    same = [
        {"memory_id": OSLO_ID, "text": "User lives in Bergen."},
        {"memory_id": TEA_ID, "pin": True},
        {"user_id": "me", "text": "User has a boat."},
    ]
    for one in same:
        assert change(store, **one)["status"] == "done"
    run = store.run()
    for one in same:
        assert (change(store, **one)["status"], store.run()) == ("unchanged", run)
    change(store, memory_id=TEA_ID, close=True)
    assert change(store, memory_id=TEA_ID, close=True)["status"] == "unchanged"


def test_secrets_are_replaced_by_markers_and_no_manifest_has_what_was_said(store, tmp_path):
    said = {"text": "User's password is hunter2horse!", "reason": "told me: hunter2horse!"}
    assert (
        change(store, user_id="me", **said | {"text": "My password is hunter2horse!"})["num_redactions"] == 1
    )
    assert not any("hunter2horse" in text for text in active(store))
    change(store, user_id="me", text="User sings in a choir.", author="me", reason="sings, he said")
    for path in (tmp_path / "store" / "_slowwave" / "runs").glob("*.json"):
        assert not any(word in path.read_text() for word in ("choir", "hunter2", "he said"))
    assert not any("choir" in row["config"] for row in store.runs())


# --- history, rollback, search ----------------------------------------------------------------------------


def test_a_life_and_the_list_of_runs_tell_of_an_edit(store, capsys):
    change(store, memory_id=OSLO_ID, text="User lives in Bergen.", pin=True)
    history.run(history.HistoryConfig(store=store.uri, memory=OSLO_ID))
    life = capsys.readouterr().out
    assert "made by decision" in life and "(by hand, op@desk, run" in life
    assert "correct User lives in Bergen." in life and "ticket 7" in life
    assert "; active, pinned" in life and ": edited\n" in life
    history.run(history.HistoryConfig(store=store.uri))
    assert "1 corrected, 1 pinned" in capsys.readouterr().out


def test_a_rollback_undoes_all_edits_of_a_run(store, tmp_path):
    before = stores.view(store)
    lines = [
        {"memory_id": OSLO_ID, "text": "User lives in Bergen."},
        {"memory_id": TEA_ID, "close": True},
        {"user_id": "bob", "text": "User has a dog."},
    ]
    assert change(store, file=written(tmp_path, *lines), author="a", reason="r")["num_edits"] == 3
    rollback.run(rollback.RollbackConfig(store=store.uri, to="run1"))
    assert stores.view(store)["records"] == before["records"]
    assert stores.view(store)["decisions"] == []
    assert change(store, memory_id=OSLO_ID, text="User lives in Bergen.")["status"] == "done"


def ask(store, text, **when):
    asked = np.array(vector(text), np.float32)
    return [hit["semantic_text"] for hit in store.search("me", text, asked, 5, kind="record", **when)]


def test_what_is_closed_with_a_day_was_true_until_then_and_what_is_closed_without_never_was(store):
    change(store, memory_id=OSLO_ID, close=True, valid_to="2026-03-01")
    change(store, memory_id=TEA_ID, close=True)
    assert rows(store)[OSLO_ID, 2]["closed_reason"] == "delete"
    assert rows(store)[TEA_ID, 2]["closed_reason"] == DISCARD
    assert OSLO not in ask(store, OSLO) and TEA not in ask(store, TEA)
    assert OSLO in ask(store, OSLO, at=dt.date(2026, 2, 1))
    assert OSLO not in ask(store, OSLO, at=dt.date(2026, 3, 1))
    assert OSLO in ask(store, "Where did the user live before Oslo.")
    assert TEA not in ask(store, TEA, at=dt.date(2026, 2, 1))


# --- consolidation ----------------------------------------------------------------------------------------


def test_older_evidence_never_closes_what_was_stated_by_hand_and_newer_does(store):
    change(store, memory_id=OSLO_ID, text="User lives in Bergen.")
    told(store, "Rome", at=PAST)
    decide(store)
    assert "User lives in Bergen." in active(store) and "User lives in Rome." not in active(store)
    told(store, "Paris", at=dt.datetime.now(dt.UTC) + AHEAD, run_id="latest")
    decide(store)
    assert "User lives in Paris." in active(store) and "User lives in Bergen." not in active(store)


def test_a_pinned_memory_is_kept_whatever_is_newer_and_the_decision_says_so(store):
    change(store, memory_id=OSLO_ID, pin=True)
    told(store, "Rome", at=dt.datetime.now(dt.UTC) + AHEAD)
    decide(store)
    assert {OSLO, "User lives in Rome."} <= set(active(store))
    kept = decisions(store)["ignore", OSLO_ID]
    assert (kept["decider"], kept["outcome"], kept["reason"]) == ("pinned", "applied", "it is pinned by hand")
    change(store, memory_id=OSLO_ID, unpin=True)
    decide(store)
    assert OSLO not in active(store)


def test_a_pinned_memory_is_not_united_with_a_repeat(store):
    change(store, memory_id=OSLO_ID, pin=True)
    told(store, "Oslo", at=PAST)
    decide(store)
    standing = [row["record_id"] for row in rows(store, "active").values() if row["semantic_text"] == OSLO]
    assert sorted(standing) == sorted([OSLO_ID, digest("moved Oslo", OSLO)])
    assert decide(store)["status"] == "unchanged"


def test_an_audit_reports_a_pinned_memory_and_does_not_close_it(store):
    told(store, "Rome", at=PAST)
    change(store, memory_id=OSLO_ID, pin=True)
    summary = audit.run(audit.AuditConfig(store=store.uri, apply=True, kinds=("contradiction",)))
    assert (summary["found"]["contradiction"], summary["num_closed"]) == (1, 0)
    assert OSLO in active(store)


def test_what_took_an_edited_memory_s_place_and_is_gone_brings_back_what_the_person_said(store):
    told(store, "Rome", at=PAST, run_id="r1")
    decide(store)
    rome = digest("moved Rome", "User lives in Rome.")
    change(store, memory_id=rome, text="User lives in Bergen.")
    told(store, "Paris", at=dt.datetime.now(dt.UTC) + AHEAD, run_id="r2")
    decide(store)
    assert set(active(store)) >= {"User lives in Paris."} and "User lives in Bergen." not in active(store)
    stores.commit(store, "r3", closed=["moved Paris", "moved Rome"])
    decide(store)
    assert "User lives in Bergen." in active(store)
    assert "User lives in Rome." not in active(store)


# --- a segment that is encoded again ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [{"text": "User lives in Bergen."}, {"pin": True}, {"close": True}],
    ids=["corrected", "pinned", "closed"],
)
def test_an_edit_survives_when_its_segment_is_encoded_again_in_the_same_words(store, asked):
    change(store, memory_id=OSLO_ID, **asked)
    before = rows(store, f"record_id = '{OSLO_ID}'")
    stores.commit(store, "again", HOME, closed=["home"])
    assert rows(store, f"record_id = '{OSLO_ID}'") == before
    assert {
        row["run_id"] for row in store.rows("segments", ["run_id"], "segment_id = 'home'").to_pylist()
    } == {"again"}


def test_what_a_new_encoding_says_in_other_words_gives_way_to_what_was_stated_by_hand(store):
    change(store, memory_id=OSLO_ID, text="User lives in Bergen.")
    again = segment("home", "I live in Oslo", user="me", session="s1", records=["User is living in Oslo."])
    stores.commit(store, "again", again, closed=["home"])
    decide(store)
    assert {text for text in active(store) if "lives" in text or "living" in text} == {
        "User lives in Bergen."
    }


def test_an_unpinned_memory_is_the_encoder_s_again(store):
    change(store, memory_id=OSLO_ID, pin=True)
    change(store, memory_id=OSLO_ID, unpin=True)
    assert rows(store)[OSLO_ID, 3]["encoder"] == "encoder-1"
    again = segment("home", "I live in Oslo", user="me", session="s1", records=["User is living in Oslo."])
    stores.commit(store, "again", again, closed=["home"])
    assert OSLO not in active(store)


# --- forgetting -------------------------------------------------------------------------------------------


def test_forgetting_a_user_erases_what_was_written_by_hand_and_who_wrote_it(store, tmp_path):
    lines = [
        {"memory_id": OSLO_ID, "text": "User lives in Bergenhus quarter.", "reason": "by telephone call"},
        {"user_id": "me", "text": "User sings in a large choir.", "author": "the-user-me"},
        {"memory_id": TEA_ID, "close": True, "valid_to": "2026-02-01"},
    ]
    change(store, file=written(tmp_path, *lines))
    change(store, memory_id=next(iter(active(store).values()))["record_id"], pin=True)
    summary = forget.run(forget.ForgetConfig(store=store.uri, user_id="me"))
    assert summary["is_clean"]
    assert {row["user_id"] for row in rows(store).values()} == {"bob"}
    left = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    words = (b"Bergenhus", b"choir", b"telephone", b"the-user-me")
    assert not [path for path in left if any(word in path.read_bytes() for word in words)]
    with pytest.raises(JobError, match="is on the list of who is forgotten"):
        change(store, user_id="me", text="User is back.")


def test_forgetting_something_else_opens_no_memory_that_was_closed_by_hand(store):
    change(store, memory_id=OSLO_ID, close=True, valid_to="2026-03-01")
    forget.run(forget.ForgetConfig(store=store.uri, session_id="s2", user_id="me"))
    assert active(store).keys() == {"User has a cat."}
    assert not rows(store)[OSLO_ID, 2]["active"]


# --- many edits, and bad ones -----------------------------------------------------------------------------


def test_a_bad_line_costs_that_line_and_is_named_with_field_and_remedy(store, tmp_path, capsys):
    lines = [
        {"memory_id": OSLO_ID, "text": "User lives in Bergen."},
        "{broken",
        {"memory_id": "none", "pin": True},
        {"memory_id": TEA_ID, "pinned": True},
        {"user_id": "me", "text": "User has a boat.", "type": "fad"},
        {"memory_id": TEA_ID, "pin": True, "author": "other"},
    ]
    path = written(tmp_path, *lines)
    summary = change(store, file=path, max_rejected_fraction=0.9)
    assert (summary["status"], summary["num_edits"], summary["num_rejections"]) == ("done", 6, 4)
    assert (summary["num_corrected"], summary["num_pinned"]) == (1, 1)
    assert decisions(store)["pin", TEA_ID]["model"] == "other"
    bad = {line.partition(": ")[0]: line.partition(": ")[2] for line in summary["rejected"]}
    assert bad["edits.jsonl:2"].startswith("is no JSON")
    assert bad["edits.jsonl:3"].startswith("memory_id='none': no memory of this store; jobs.query and")
    assert bad["edits.jsonl:4"].startswith("pinned: no such key; known keys: memory_id, user_id, text")
    assert bad["edits.jsonl:5"].startswith("type='fad': Input should be 'fact'")
    assert "[edit] edits.jsonl:3: memory_id='none'" in capsys.readouterr().err
    assert len(store.runs()) == 2, "all lines are one run"


def test_too_many_bad_lines_publish_nothing(store, tmp_path):
    lines = [{"memory_id": OSLO_ID, "pin": True}, {"memory_id": "x", "pin": True}]
    with pytest.raises(
        JobError, match=r"1 of 2 edits cannot be done; nothing was published(.|\n)*jsonl:2: mem"
    ):
        change(store, file=written(tmp_path, *lines), max_rejected_fraction=0.4)
    assert store.run()["run_id"] == "run1"


def test_two_edits_of_one_memory_in_a_file_are_two_revisions(store, tmp_path):
    lines = [{"memory_id": OSLO_ID, "text": f"User lives in {place}."} for place in ("Bergen", "Rome")]
    change(store, file=written(tmp_path, *lines))
    own = rows(store, f"record_id = '{OSLO_ID}'")
    assert [own[OSLO_ID, number]["active"] for number in (1, 2, 3)] == [False, False, True]
    assert own[OSLO_ID, 2]["vector"] == pytest.approx(vector("User lives in Bergen."))
    assert own[OSLO_ID, 3]["semantic_text"] == "User lives in Rome."


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"memory_id": "x", "pin": True, "author": " "}, "author: not given; say who edits"),
        ({"memory_id": "x", "pin": True, "reason": None}, "reason: not given; say why"),
        ({"memory_id": "x", "user_id": "me", "text": "x"}, "both are given"),
        ({"text": "x"}, "neither is given"),
        ({"memory_id": "x"}, "nothing to do"),
        ({"memory_id": "x", "text": " "}, "text: empty"),
        ({"memory_id": "x", "pin": True, "unpin": True}, "give one of the two"),
        ({"memory_id": "x", "close": True, "text": "x"}, "goes with valid_to alone"),
        ({"user_id": "me"}, "give text too"),
        ({"user_id": "me", "text": "x", "close": True}, "name it with memory_id"),
        ({"memory_id": "x", "valid_from": "2026-02-01", "valid_to": "2026-01-01"}, "lies before valid_from"),
        ({"file": "edits.jsonl", "pin": True}, "give it without pin"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_edits_that_cannot_work_are_wrong_usage(asked, problem):
    with pytest.raises(ValueError, match=problem):
        edit.EditConfig(**{"store": "s"} | WHO | asked)


def test_edits_are_given_by_options(capsys):
    argv = ["--store", "s", "--memory-id", "m", "--close", "--valid-to", "2026-03-01", "--author", "a"]
    config = parse_config(edit.EditConfig, "A job.", [*argv, "--reason", "moved"])
    assert (config.close, config.valid_to, config.edit().memory_id) == (True, dt.date(2026, 3, 1), "m")
    with pytest.raises(SystemExit):
        parse_config(edit.EditConfig, "A job.", argv)
    assert "reason: not given; say why" in capsys.readouterr().err


def test_what_cannot_be_changed_is_refused_with_the_remedy(store):
    with pytest.raises(UsageError, match="no such file; check the path"):
        change(store, file="none.jsonl")
    with pytest.raises(JobError, match="is to come; give it without close"):
        change(store, memory_id=OSLO_ID, close=True, valid_to="2999-01-01")
    change(store, memory_id=OSLO_ID, close=True)
    with pytest.raises(JobError, match=r"was closed by run .* add it anew with user_id and text"):
        change(store, memory_id=OSLO_ID, text="User lives in Rome.")
