"""What a backfill says when it ends without memories."""

from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from jobs.backfill import BackfillConfig, check_plan, check_rejected, run
from jobs.common.cli import JobError, UsageError
from jobs.common.plan import Plan
from schemas.archive import ARCHIVE_SCHEMA


def rejection(number: int, detail: str) -> dict:
    return {"rejection_id": str(number), "reason": "invalid_session", "detail": detail}


def test_a_failure_shows_the_first_three_reasons_that_differ(tmp_path):
    config = SimpleNamespace(max_rejected_fraction=0.05, store=str(tmp_path))
    this = SimpleNamespace(run_id="run", finish=lambda status: None)
    details = ["user_id=None: name the user with --user-id", "user_id=None: name the user with --user-id"]
    details += ["turns=[]", "turns[0].role=None", "turns='hi'"]
    rows = [rejection(number, detail) for number, detail in enumerate(details)]
    with pytest.raises(JobError) as error:
        check_rejected(config, this, "sessions", 5, 5, rows)
    _, *shown = str(error.value).split("\n  ")
    assert shown == [f"invalid_session: {detail}" for detail in (details[0], *details[2:4])]


def test_a_store_that_cannot_lie_there_is_refused_before_anything_is_made_or_paid(tmp_path):
    pq.write_table(ARCHIVE_SCHEMA.empty_table(), tmp_path / "a.parquet")
    config = BackfillConfig(archive=str(tmp_path), store=str(tmp_path / "night?1"))
    with pytest.raises(UsageError, match=r"^--store '.*night\?1': has the character '\?', .*; name another"):
        run(config)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_an_archive_without_sessions_is_reported_as_empty(capsys):
    config = SimpleNamespace(archive="archive", max_rejected_fraction=0.05, max_input_tokens=None)
    check_plan(config, Plan(), None)
    assert "archive: the archive is empty, no file of it has a session" in capsys.readouterr().err
