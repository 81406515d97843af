"""The job that writes a report, and the night that ends with one."""

import numpy as np
import pytest

from jobs import nightly, report
from jobs.common import measuring
from jobs.common.cli import JobError, UsageError
from jobs.common.questions import Question
from jobs.nightly import NightlyConfig
from jobs.report import ReportConfig
from tests.e2e.operations.stores import ANN
from tests.unit.cluster.report import nights as story
from tests.unit.cluster.report.reading import Page, pages_in, problems
from tests.unit.jobs.nights import Night

JOBS = ("backfill", "consolidate", "compact")


def test_the_pages_are_written_and_named(nights, tmp_path, capsys):
    output = tmp_path / "a" / "report"
    summary = report.run(ReportConfig(store=nights.uri, output=str(output), user_id=ANN))
    assert (summary["status"], summary["output"]) == ("done", str(output))
    assert summary["pages"] == sorted(path.name for path in output.iterdir())
    assert "index.html" in summary["pages"] and len(summary["pages"]) == 2
    assert "index.html" in capsys.readouterr().err


def test_without_a_user_no_page_of_one_is_written(nights, tmp_path):
    summary = report.run(ReportConfig(store=nights.uri, output=str(tmp_path)))
    assert summary["pages"] == ["index.html"] == [path.name for path in tmp_path.iterdir()]


# --- with known questions ---------------------------------------------------------------------------------

ASKED = Question("q", ANN, "plain", "Where?", "Oslo", frozenset([("s1", 0)]), frozenset(["s1"]))


@pytest.fixture
def measured(monkeypatch) -> tuple[list[str], set[str]]:
    """Runs whose views are asked, and those of them that have nothing of the user; else half is found."""
    looked: list[str] = []
    empty: set[str] = set()

    def score(store, view, questions):
        looked.append(view.run_id)
        if view.run_id in empty:
            raise JobError("has no row of the users")
        assert questions == [ASKED, ASKED]
        values = dict.fromkeys(measuring.measure(ASKED, Nothing()), 0.5) | {"mrr": 0.25, "stale_rate": None}
        row = {"question_id": "q", "question_type": "plain"}
        return [row | dict.fromkeys(measuring.LISTS, values) for _ in questions]

    monkeypatch.setattr(measuring, "score_view", score)
    for job in (report, nightly):
        monkeypatch.setattr(job, "read_questions", lambda path, **_: [ASKED])
    return looked, empty


class Nothing:
    """A ranking that finds nothing."""

    def turns(self, wanted):
        return np.full(len(wanted), np.inf)

    sessions = turns


def test_with_questions_the_search_is_measured_now_and_before_the_last_night(nights, tmp_path, measured):
    looked, _ = measured
    config = ReportConfig(store=nights.uri, output=str(tmp_path), questions=("a.jsonl", "b.jsonl"))
    summary = report.run(config)
    assert looked == [story.LAST, story.EMBEDDED]
    assert [summary["quality"][name]["run_id"] for name in ("now", "before")] == looked
    assert summary["quality"]["now"]["num_questions"] == 2
    assert (
        summary["quality"]["now"]["measures"] | {"recall@5": 0.5, "MRR": 0.25}
        == (summary["quality"]["now"]["measures"])
    )
    pages = pages_in(tmp_path)
    assert problems(pages) == []
    text = Page(pages["index.html"]).text
    assert "2 questions whose answers are known" in text and "before the last night, 2 questions" in text
    assert "MRR 0.25 0.25" in text and "Where?" not in text and "Oslo" not in text


def test_a_view_that_has_nothing_of_the_users_is_left_out_before_the_night_and_told_now(
    nights, tmp_path, measured, capsys
):
    _, empty = measured
    empty.add(story.EMBEDDED)
    config = ReportConfig(store=nights.uri, output=str(tmp_path), questions=("a.jsonl", "b.jsonl"))
    assert report.run(config)["quality"]["before"] is None
    assert "before the last night: has no row" in capsys.readouterr().err
    empty.add(story.LAST)
    with pytest.raises(JobError, match="has no row of the users"):
        report.run(config)


def test_without_questions_no_model_is_asked_and_no_quality_shown(nights, tmp_path, measured):
    summary = report.run(ReportConfig(store=nights.uri, output=str(tmp_path)))
    assert "quality" not in summary and measured[0] == []
    assert 'id="quality"' not in pages_in(tmp_path)["index.html"]


def test_a_store_that_is_not_there_and_a_folder_that_cannot_be_written_are_told(nights, tmp_path):
    with pytest.raises(JobError, match="no such store"):
        report.run(ReportConfig(store=str(tmp_path / "none"), output=str(tmp_path / "out")))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--output .*file: .*; name a folder to write to"):
        report.run(ReportConfig(store=nights.uri, output=str(tmp_path / "file")))


# --- at the end of a night --------------------------------------------------------------------------------


@pytest.fixture
def simulated(monkeypatch):
    """A night whose three jobs do nothing to the store."""
    night = Night()
    for name in JOBS:
        monkeypatch.setattr(nightly, name, night.job(name))
    monkeypatch.setattr(nightly, "has_memories", lambda uri: True)
    return night


@pytest.mark.parametrize("failing", [None, "backfill", "consolidate"])
def test_a_night_ends_with_its_report_also_where_it_failed(nights, simulated, tmp_path, failing):
    if failing:
        simulated.does[failing] = JobError("no space left")
    output = tmp_path / "report"
    summary = nightly.run(NightlyConfig(archive="a", store=nights.uri, report=str(output)))
    assert summary["status"] == ("failed" if failing else "done") and summary["report"] == str(output)
    assert [path.name for path in output.iterdir()] == ["index.html"]


@pytest.mark.parametrize("is_measured", [True, False])
def test_a_night_s_report_shows_quality_or_is_written_without_where_that_fails(
    nights, simulated, measured, tmp_path, is_measured
):
    measured[1].update(() if is_measured else {story.LAST})
    given = {"archive": "a", "store": nights.uri, "report": str(tmp_path)}
    summary = nightly.run(NightlyConfig(**given, report_questions=["a.jsonl", "b.jsonl"]))
    assert (summary["status"], summary["report"]) == ("done", str(tmp_path))
    assert ('id="quality"' in pages_in(tmp_path)["index.html"]) == is_measured


@pytest.mark.parametrize("content", [None, "", "[{}]", "no json"])
def test_questions_of_a_night_that_cannot_be_read_are_refused_before_anything_is_done(
    nights, simulated, tmp_path, content
):
    """Regression: that was told at the end of the night, as a report without quality."""
    path = tmp_path / "questions.json"
    if content is not None:
        path.write_text(content)
    given = {"archive": "a", "store": nights.uri, "report": str(tmp_path / "report")}
    with pytest.raises(UsageError, match=r"^--report-questions .*questions\.json"):
        nightly.run(NightlyConfig(**given, report_questions=[str(path)]))
    assert simulated.given == {} and not (tmp_path / "report").exists()


def test_a_report_that_cannot_be_written_is_told_and_fails_no_night(nights, simulated, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    summary = nightly.run(NightlyConfig(archive="a", store=nights.uri, report=str(tmp_path / "file")))
    assert (summary["status"], summary["report"]) == ("done", None)
    assert "not written" in capsys.readouterr().err


def test_no_report_is_written_unless_asked_for_nor_of_a_dry_run(nights, simulated, tmp_path):
    assert "report" not in nightly.run(NightlyConfig(archive="a", store=nights.uri))
    simulated.does["backfill"] = "dry_run"
    config = NightlyConfig(archive="a", store=nights.uri, report=str(tmp_path / "out"), dry_run=True)
    assert "report" not in nightly.run(config) and list(tmp_path.iterdir()) == []
