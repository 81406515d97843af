"""The job that writes a report, and the night that ends with one."""

import pytest

from jobs import nightly, report
from jobs.common.cli import JobError, UsageError
from jobs.nightly import NightlyConfig
from jobs.report import ReportConfig
from tests.e2e.operations.stores import ANN
from tests.unit.jobs.test_nightly import Night

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
