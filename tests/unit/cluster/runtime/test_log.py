"""Lines of progress, for people and for what collects logs."""

import datetime as dt
import json

import pytest

from cluster.runtime import Progress, log


@pytest.fixture
def as_json():
    log.configure(log.LogSettings("json", "backfill"))
    yield
    log.configure(log.LogSettings())


def written(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_for_people_is_as_it_was(capsys):
    log.write("[encode] 3 of 10 segments", done=3, total=10)
    assert capsys.readouterr().err == "[encode] 3 of 10 segments\n"


def test_a_line_as_json_has_time_level_job_stage_and_message(as_json, capsys):
    log.write("[publish] 0.51 s")
    (line,) = written(capsys)
    assert dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(line.pop("time")) < dt.timedelta(minutes=1)
    assert line == {"level": "info", "job": "backfill", "stage": "publish", "message": "0.51 s"}


def test_progress_as_json_has_its_counts_as_numbers(as_json, capsys):
    progress = Progress("encode", "segments", total=4, every_s=0)
    progress.advance(1)
    (line,) = written(capsys)
    assert (line["stage"], line["done"], line["total"]) == ("encode", 1, 4)
    assert line["rate"] > 0 and line["message"].startswith("1 of 4 segments, ")


@pytest.mark.parametrize("message", ["error: it failed\nin two lines", "Traceback (most recent call last)"])
def test_an_error_as_json_is_one_line_with_its_level(as_json, capsys, message):
    log.write(message)
    (line,) = written(capsys)
    assert line["level"] == "error" and line["message"] == message.removeprefix("error: ")
    assert "stage" not in line


def test_what_a_store_says_is_json_too(as_json, capsys):
    log.say("lease: waiting")
    assert json.loads(capsys.readouterr().out)["message"] == "lease: waiting"
