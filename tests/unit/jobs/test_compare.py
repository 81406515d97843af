"""The job that compares two stores, or two runs of one."""

import json

import pytest

from cluster.store.store import Store
from jobs import compare
from jobs.common.cli import JobError, UsageError, parse_config
from jobs.common.measuring import CURVE
from jobs.common.questions import Question
from tests.unit.cluster.report.reading import pages_in, problems
from tests.unit.cluster.store.stores import commit, segment

HOSTILE = "<script>alert(1)</script> User sings."


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two stores of one conversation, the second by another encoder and with a second run."""
    folder, made = tmp_path_factory.mktemp("stores"), []
    for name, oslo in (("one", "User lives in Oslo."), ("two", "User lives in Oslo now.")):
        store = Store(str(folder / name), must_exist=False)
        home = segment("home", "I live in Oslo", user="ann", session="s1", records=[oslo, HOSTILE])
        cat = segment("cat", "I have a cat", user="bob", session="b1", records=["User has a cat."])
        spent = json.dumps({"prompt_tokens": 100, "output_tokens": 10, "cost": 0.5})
        commit(store, "run1", home, cat, summary=spent)
        made.append(store)
    commit(made[1], "run2", segment("dog", "A dog", user="bob", session="b2", records=["User has a dog."]))
    return made


def look(stores, **settings):
    given = {"store": stores[0].uri, "other": stores[1].uri} | settings
    return compare.run(compare.CompareConfig(**{name: one for name, one in given.items() if one is not None}))


def test_two_stores_are_counted_beside_each_other(stores, capsys):
    summary = look(stores)
    counts = {name: summary[f"num_{name}"] for name in ("same", "changed", "only_first", "only_second")}
    assert counts == {"same": 2, "changed": 1, "only_first": 0, "only_second": 1}
    assert summary["of_user"]["bob"] == {"same": 1, "changed": 0, "only_first": 0, "only_second": 1}
    first, second = summary["first"], summary["second"]
    assert (first["num_memories"], second["num_memories"]) == (3, 4)
    assert (first["run_id"], second["run_id"]) == ("run1", "run2")
    assert (first["own"]["prompt_tokens"], first["own"]["cost"]) == (100, 0.5)
    assert (second["own"]["prompt_tokens"], second["until"]["prompt_tokens"]) == (0, 100)
    shown = capsys.readouterr()
    assert "the same in both" in shown.err and "bob: 1 same, 1 only in second" in shown.err
    assert "Oslo" not in shown.err, "nobody's memories are shown unasked"
    json.dumps(summary)


def test_two_runs_of_one_store_are_compared(stores):
    summary = look(stores, store=stores[1].uri, other=None, run="run1", with_run="run2")
    assert (summary["num_same"], summary["num_only_second"], summary["num_changed"]) == (3, 1, 0)
    assert (summary["first"]["job"], summary["second"]["until"]["num_runs"]) == ("backfill", 2)


def test_the_memories_of_a_named_user_are_shown_side_by_side(stores, capsys):
    summary = look(stores, user_id=("ann",))
    assert (summary["num_users"], summary["first"]["num_memories"]) == (1, 2)
    assert {pair["kind"] for pair in summary["memories"]} == {"same", "changed"}
    shown = capsys.readouterr().err
    assert "- User lives in Oslo." in shown and "+ User lives in Oslo now." in shown


def test_a_page_is_written_that_asks_for_nothing_and_shows_hostile_text_as_text(stores, tmp_path):
    summary = look(stores, output=str(tmp_path / "out"), user_id=("ann", "bob"), with_run="run1")
    pages = pages_in(tmp_path / "out")
    assert list(pages) == summary["pages"] == ["compare.html"] and problems(pages) == []
    assert "User lives in Oslo now." in pages["compare.html"] and "<script>alert" not in pages["compare.html"]
    look(stores, output=str(tmp_path / "counts"))
    assert "Oslo" not in pages_in(tmp_path / "counts")["compare.html"]


def test_measures_of_retrieval_stand_beside_each_other(stores, monkeypatch, tmp_path, capsys):
    asked = []
    key = ("s1", 0)
    question = Question("q", "ann", "plain", "Where?", "Oslo", frozenset([key]), frozenset(["s1"]))
    recalls = [*(f"evidence_turn_recall_at_{k}" for k in CURVE), "evidence_all_recall_at_5"]
    measures = dict.fromkeys(recalls, 0.5)
    measures |= {"session_recall_at_10": 1.0, "mrr": 0.25, "stale_rate": None, "evidence_coverage": 1.0}

    def score(store, view, questions):
        asked.append((store.uri, view.run_id, questions))
        row = {"question_id": "q", "question_type": "plain"}
        return [row | {name: measures for name in compare.LISTS}]

    monkeypatch.setattr(compare, "read_questions", lambda path: [question])
    monkeypatch.setattr(compare, "score_view", score)
    summary = look(stores, questions="q.jsonl", output=str(tmp_path))
    assert [one[:2] for one in asked] == [(stores[0].uri, "run1"), (stores[1].uri, "run2")]
    assert summary["retrieval"]["second"]["search"]["mrr"] == 0.25
    assert "search: mrr" in capsys.readouterr().err
    assert "search: mrr" in pages_in(tmp_path)["compare.html"]


def test_what_cannot_be_compared_is_told(stores, tmp_path, capsys):
    with pytest.raises(ValueError, match="nothing to compare with"):
        compare.CompareConfig(store="a")
    with pytest.raises(JobError, match="no such store"):
        look(stores, other=str(tmp_path / "none"))
    with pytest.raises(JobError, match="--with-run none: no such run"):
        look(stores, with_run="none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--output .*: .*; name a folder to write to"):
        look(stores, output=str(tmp_path / "file"))
    config = parse_config(compare.CompareConfig, "A job.", ["--store", "a", "--with", "b", "--run", "r"])
    assert (config.other, config.run, config.with_run) == ("b", "r", None)


def test_ids_that_look_like_secrets_are_in_no_answer(tmp_path, capsys):
    """Regression: they stood in the summary, by which its counts are known."""
    keys = ["ghp_" + "aB3dE6gH9jK2" * 3, "ghp_" + "kJ9hG6eD3bA1" * 3]
    store = Store(str(tmp_path / "store"), must_exist=False)
    told = [segment(key[-4:], "Hi", user=key, session=key, records=["User sings."]) for key in keys]
    commit(store, "run1", *told)
    summary = look([store, store], user_id=keys)
    said = f"{capsys.readouterr()}{json.dumps(summary)}"
    assert not any(key in said for key in keys)
    assert set(summary["of_user"]) == {"[redacted:api_key]", "[redacted:api_key] 2"}
    assert [pair["user_id"] for pair in summary["memories"]] == ["[redacted:api_key]"] * 2
