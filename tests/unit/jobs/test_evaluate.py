"""What the commands of jobs.evaluate make of answers: leaderboards, decisions, prompts."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.report.pages import Measured, of_measures
from jobs.common import measuring
from jobs.common.cli import UsageError, parse_config
from jobs.common.questions import Question
from jobs.evaluate import decider, encoder, memories, qa, retrieval
from jobs.evaluate.report import write_report
from jobs.evaluate.variants import load_variants
from schemas.profiles.encoder import EncoderProfile
from schemas.training import TRAINING_SCHEMA
from tests.unit.cluster.report.reading import Page, problems

PERFECT = dict.fromkeys(encoder.SCORES, 5.0)


def row(failure="", scores=None, states=True, **more):
    return {
        "user_id": "u",
        "session_id": "s",
        "failure": failure,
        "scores": scores,
        "states_something": states,
        "num_records": 1 if scores else 0,
        "num_statements": 2 * states,
        "num_statements_held": 1 if scores else 0,
        "schema_ok": failure != "cut_answer",
        "complete": failure != "cut_answer",
        "cited": [],
        "user_turns": [],
    } | more


def test_the_composite_counts_failures_and_leaves_out_what_is_rightly_silent():
    rows = [
        row(scores=PERFECT, cited=[0], user_turns=[0, 2]),
        row(failure="cut_answer"),
        row(states=False),
        row(failure="missed"),
    ]
    measured = {"rows": rows, "latencies_s": [1.0, 3.0], "segments_per_s": 2.0}
    board = encoder.board(measured, {("u", "s"): {0, 2, 9}})
    assert board["composite"] == pytest.approx(5 / 3)
    assert board["atomicity"] == 5  # a conditional mean: failures do not enter it
    assert (board["failure_rate"], board["schema_ok"], board["silent"]) == (0.5, 0.75, 1.0)
    assert board["evidence"] == 0.5  # turn 9 is no user's turn that was measured
    assert board["statements"] == pytest.approx(1 / 6)
    assert board["p50_s"] == 2.0
    assert encoder.failures(rows) == {"cut_answer": 1, "missed": 1}

    details = {"p": {"failures": encoder.failures(rows), "by_source": {"locomo": board}}}
    whole, part = encoder.rows_of([{"profile": "p", **board}], details)
    assert (whole["profile"], whole["failures"]) == ("p", "cut_answer 1, missed 1")
    assert (part["profile"], part.keys()) == ("p, locomo", whole.keys())


def test_variants_of_a_profile():
    found = load_variants("encoders", ["default", "default:base"], EncoderProfile)
    assert list(found) == ["default", "default:base"]
    assert found["default:base"].adapter is None
    with pytest.raises(UsageError, match="once"):
        load_variants("encoders", ["default", "default"], EncoderProfile)
    with pytest.raises(UsageError, match="nowhere"):
        load_variants("encoders", ["nowhere:base"], EncoderProfile)
    with pytest.raises(UsageError, match=r"openai:merged: profile 'openai' has no adapter"):
        load_variants("encoders", ["openai:merged"], EncoderProfile)


def test_the_adapter_s_mode_is_part_of_the_variant():
    modes = {
        name: load_variants("encoders", [f"encoder_v0:{name}"], EncoderProfile)[f"encoder_v0:{name}"]
        for name in ("merged", "per_request", "base")
    }
    assert [modes[name].adapter_mode for name in ("merged", "per_request")] == ["merged", "per_request"]
    assert (modes["per_request"].adapter, modes["base"].adapter) == ("fuhao23/encoder_v0", None)


# --- retrieval ------------------------------------------------------------------------------------------


class Found:
    """A ranking that finds turn N of session "s" at rank N."""

    def turns(self, wanted):
        return np.array([float(turn) for _, turn in wanted])

    def sessions(self, wanted):
        return np.zeros(len(wanted))


def asked(kind, *turns, **more):
    evidence = frozenset(("s", turn) for turn in turns)
    return Question("q", "u", kind, "?", "!", evidence, frozenset({"s"}), **more)


def test_the_first_hit_and_all_evidence_among_five_are_measured():
    near, far = measuring.measure(asked("x", 0, 4), Found()), measuring.measure(asked("x", 0, 5), Found())
    assert [row["evidence_turn_recall_at_1"] for row in (near, far)] == [0.5, 0.5]
    assert [row["evidence_all_recall_at_5"] for row in (near, far)] == [1.0, 0.0]
    assert measuring.measure(asked("x"), Found())["evidence_all_recall_at_5"] is None


def test_every_type_of_question_has_its_own_rows():
    rows = [
        {"question_id": kind, "question_type": kind}
        | {name: measuring.measure(asked(kind, turn), Found()) for name in measuring.LISTS}
        for kind, turn in [("before", 0), ("first", 9)]
    ]
    table = retrieval.table(measuring.summarise(rows))
    shown = {(row["questions"], row["recall@1"], row["all@5"]) for row in table if row["hits"] == "search"}
    assert shown == {("all (2)", 0.5, 0.5), ("before (1)", 1.0, 1.0), ("first (1)", 0.0, 0.0)}


def shown(charts) -> Page:
    """Charts, as a page has them."""
    page = Measured("<b>Title", tuple(charts), "All", ({"x": "<i>", "y": 1.0},), notes="a <i> b")
    html = of_measures(page, None)
    assert problems({"report.html": html}) == [] and "<i>" not in html and "<b>" not in html
    return Page(html)


def test_every_command_shows_its_measures_as_charts_that_name_what_they_show():
    rows = [
        {"question_id": kind, "question_type": kind}
        | {name: measuring.measure(asked(kind, *turns), Found()) for name in measuring.LISTS}
        for kind, turns in [("before", [0]), ("without evidence", [])]
    ]
    unknown = dict.fromkeys((*encoder.SCORES, "composite", "p50_s", "p95_s"))
    told = [
        (retrieval.charts(measuring.summarise(rows)), ["without evidence (1)", *measuring.LISTS]),
        (encoder.charts([unknown | {"profile": "p"}]), ["p", "atomicity", "p50_s"]),
        (decider.charts([dict.fromkeys(decider.MEASURES, 0.0) | {"decider": "rules"}]), ["rules"]),
        (memories.charts([dict.fromkeys(memories.MEASURES, 1.0) | {"language": "en"}]), ["en"]),
        (qa.charts([dict.fromkeys(qa.MEASURES) | {"profile": "p", "retrieval": "on"}]), ["p, retrieval on"]),
    ]
    for charts, names in told:
        text = shown(charts).text
        assert all(name in text for name in names)


def test_a_report_has_page_and_table_also_where_only_some_models_are_paid(tmp_path):
    """Regression: a value that only some rows had, as `cost`, ended the command behind all its work."""
    config = memories.Config(gold="g", memories="m", report=str(tmp_path))
    boards = [{"profile": "paid", "cost": 0.5}, {"profile": "own", "extra": 1}]
    write_report(tmp_path, config, {"boards": boards}, "Title", boards, "  x  what it is", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
    assert "| own | – | 1 |" in (tmp_path / "report.md").read_text()
    page = Page((tmp_path / "report.html").read_text())
    assert "paid 0.500 – own – 1" in page.text and "x what it is" in page.text


def test_questions_may_stand_in_several_files():
    needed = ["--store", "s", "--report", "r", "--questions"]
    assert parse_config(retrieval.Config, "", [*needed, "a", "b"]).questions == ["a", "b"]
    assert retrieval.Config(store="s", report="r", questions="a").questions == ["a"]


# --- deciders -------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    def example(number, target, sources, action, text=""):
        newer = "\n".join(f"{index}. {source}" for index, source in enumerate(sources, 1))
        answer = {"action": action, "updated_text": text, "confidence": 0.9}
        return {
            "task": "decider",
            "source_id": f"d{number}",
            "user_id": "u",
            "session_id": None,
            "messages": [
                {"role": "system", "content": "Decide. (2020-01-01) is no memory of this."},
                {"role": "user", "content": f"<STORED>\n{target}\n</STORED>\n<NEWER>\n{newer}\n</NEWER>"},
            ],
            "completion": json.dumps(answer),
            "num_turns": 0,
            "label": action,
            "origin": "test",
        }

    rows = [
        example(1, "(2024-01-02) User lives in Oslo.", ["(2024-03-02) User lives in Rome now."], "delete"),
        example(2, "(date unknown) User has a cat.", ["(2024-03-02) User likes tea."], "ignore"),
        example(
            3,
            "(2024-01-02) User has a cat.",
            ["(2024-02-01) User likes tea.", "(2024-03-02) The cat is called Mimi."],
            "update",
            "User has a cat called Mimi.",
        ),
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=TRAINING_SCHEMA), tmp_path / "validation.parquet")
    return tmp_path


def test_questions_are_read_back_from_the_prompts(data):
    examples = decider.read_examples(decider.Config(data=str(data), report="x"))
    question = examples[2]["question"]
    assert question.target.text == "User has a cat."
    assert [source.memory.text for source in question.sources] == [
        "User likes tea.",
        "The cat is called Mimi.",
    ]
    assert [source.memory.session_time for source in question.sources] == ["2024-02-01", "2024-03-02"]
    assert examples[1]["question"].target.session_time == ""
    assert [example["label"] for example in examples] == ["delete", "ignore", "update"]


def test_accuracy_stability_and_invention(data):
    from schemas.decision import Decision

    examples = decider.read_examples(decider.Config(data=str(data), report="x"))
    made = [
        Decision(action="update", updated_text="User lives in Paris."),
        None,
        Decision(action="update", updated_text="User has a cat called Mimi."),
    ]
    board = decider.board(examples, made)
    assert (board["accuracy"], board["delete"], board["update"]) == (pytest.approx(1 / 3), 0, 1)
    assert (board["stability"], board["invention_rate"]) == (pytest.approx(2 / 3), 0.5)
    assert (board["text_exact"], board["text_f1"]) == (1, 1)
    assert decider.count_pairs(examples, made)["ignore"] == {"unreadable": 1}


def test_a_folder_without_decisions_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no validation"):
        decider.read_examples(decider.Config(data=str(tmp_path), report="x"))


# --- answers --------------------------------------------------------------------------------------------


def test_prompts_give_up_facts_until_they_fit():
    question = Question("q", "u", "x", "Where do I live?", "Oslo", frozenset(), frozenset())
    hit = {
        "record_id": "r",
        "user_id": "u",
        "session_id": "s",
        "session_time": None,
        "semantic_text": "Fact.",
    }
    facts = [[qa.fact_of(hit | {"record_id": str(number)}) for number in range(5)]]
    (candidates,) = qa.prompts_of([question], facts)
    assert [messages[-1]["content"].count("Fact.") for messages in candidates] == [5, 2, 1, 0]
    ((closed,),) = qa.prompts_of([question], None)
    assert closed == candidates[-1]


def test_answers_are_scored_and_cuts_counted():
    question = Question("q", "u", "x", "?", "the Rome flat", frozenset(), frozenset())
    replies = [{"text": " Rome flat!", "complete": True}, {"text": "a flat in Rome and", "complete": False}]
    rows = qa.assess([question, question], replies, [1.0, None])
    board = qa.board(rows)
    assert (board["exact"], board["judged"], board["unanswered"]) == (0.5, 1.0, 0.5)
    assert board["f1"] == pytest.approx((1 + 4 / 6) / 2)


def test_types_of_questions_are_told_apart_by_profile_and_retrieval():
    measures = dict(zip(qa.MEASURES, (1.0, 0.5, None, 0.0), strict=True))
    answers = [
        {"profile": profile, "retrieval": retrieval, "question_type": kind, "answer": "a"} | measures
        for profile, retrieval, kind in [
            ("p", "on", "z"),
            ("p", "off", "z"),
            ("p", "on", "a"),
            ("p", "on", "z"),
        ]
    ]
    answers[-1] = answers[-1] | {"exact": 0.0, "judged": 1.0}
    found = qa.by_type(answers)
    assert list(found) == ["p, retrieval off", "p, retrieval on"]
    assert list(found["p, retrieval on"]) == ["a", "z"]
    assert found["p, retrieval on"]["a"] == {"questions": 1} | measures
    two = {"questions": 2, "exact": 0.5, "f1": 0.5, "judged": 1.0, "unanswered": 0.0}
    assert found["p, retrieval on"]["z"] == two


# --- memories -------------------------------------------------------------------------------------------


def gold(memory_id, text, *, status="current", **more):
    return {
        "memory_id": memory_id,
        "user_id": "u",
        "session_id": "s",
        "semantic_text": text,
        "keys": [[text.split()[-1].strip(".")]],
        "entities": [],
        "evidence_turns": [0],
        "temporal": {"t_valid_from": "2026-01-01"},
        "status": status,
        "is_must": True,
    } | more


def record(record_id, text, **more):
    return {
        "record_id": record_id,
        "revision": 1,
        "user_id": "u",
        "semantic_text": text,
        "entities": [],
        "temporal": {"t_valid_from": "2026-01-01", "t_valid_to": ""},
        "evidence": [{"session_id": "s", "turn_index": 0}],
        "active": True,
    } | more


def test_a_memory_lasts_where_an_active_record_of_its_user_says_the_same():
    memory, other = gold("m", "User lives in Rome."), gold("n", "User has a cat.", user_id="v")
    said = record("r", "User lives in Rome.")
    for rows, share in [
        ([said], 0.5),
        ([said | {"active": False}], 0.0),
        ([said | {"user_id": "v"}], 0.0),
        ([record("r", "User does not live in Rome.")], 0.0),
        ([record("r", "User's home is Rome.", evidence=[{"session_id": "x", "turn_index": 9}])], 0.5),
    ]:
        assert memories.measure(rows, [memory, other])["current_active"] == share, rows


def test_an_outdated_memory_is_active_where_a_record_that_rests_on_its_turns_has_no_end():
    memory = gold("m", "User lives in Rome.", status="superseded")
    said = record("r", "User lives in Rome.")
    elsewhere = [{"session_id": "x", "turn_index": 9}]
    ended = {"t_valid_from": "", "t_valid_to": "2026-02-01"}
    for rows, share in [
        ([said], 1.0),
        ([said | {"temporal": ended}], 0.0),
        ([said | {"evidence": elsewhere}], 0),
    ]:
        found = memories.measure(rows, [memory])
        assert (found["outdated_active"], found["current_active"]) == (share, None), rows
