"""Runs as they are read from the table `runs`."""

import dataclasses
import datetime as dt
import json

import pytest

from cluster.store.runs import FinishedRun, in_order, run_rows, view_versions
from schemas.profiles.embedder import EmbedderProfile
from schemas.store import RUNS_SCHEMA

NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)


def row(run_id: str, **columns) -> dict:
    return {
        "run_id": run_id,
        "job": "backfill",
        "started_at": NOON,
        "finished_at": NOON,
        "encoder": "encoder-1",
        "embedder": "embedder-1",
        "embedder_profile": '{"name": "e", "model": "owner/e"}',
        "versions": '{"turns": 3, "records": 4}',
        "config": '{"archive":"äöü"}',
        "summary": '{"num_turns": 2}',
        "sequence": 1,
    } | columns


def test_a_run_has_its_json_read():
    run = FinishedRun.of(row("run1"))
    assert (run.run_id, run.sequence, run.has_view) == ("run1", 1, True)
    assert run.versions == {"turns": 3, "records": 4}
    assert (run.config, run.summary) == ({"archive": "äöü"}, {"num_turns": 2})
    assert run.profile == EmbedderProfile(name="e", model="owner/e")


def test_a_run_is_written_again_as_it_was_read():
    read = row("run1")
    assert run_rows([FinishedRun.of(read)]).to_pylist() == [read]
    assert run_rows([FinishedRun.of(read)]).schema == RUNS_SCHEMA


def test_other_values_are_read_and_written_and_the_rest_stays():
    read = row("run1")
    run = FinishedRun.of(read).with_columns(versions={}, summary="{}")
    assert (run.versions, run.has_view, run.summary) == ({}, False, {})
    assert run.row == read | {"versions": "{}", "summary": "{}"}
    assert FinishedRun.of(read).has_view


@pytest.mark.parametrize("nothing", [None, "", "null"])
def test_a_run_that_says_nothing_of_itself_has_empty_settings_counts_and_no_view(nothing):
    versions = None if nothing == "null" else nothing
    run = FinishedRun.of(row("run1", config=nothing, summary=nothing, versions=versions))
    assert (run.config, run.summary, run.versions) == ({}, {}, {})


def test_a_run_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FinishedRun.of(row("run1")).job = "forget"


def test_runs_are_in_the_order_of_their_places_and_without_these_of_their_ends():
    late, early = row("late", sequence=1), row("early", sequence=2, finished_at=NOON - dt.timedelta(1))
    assert [run.run_id for run in in_order([early, late])] == ["late", "early"]
    placeless = [{name: one[name] for name in one if name != "sequence"} for one in (late, early)]
    assert [(run.run_id, run.sequence) for run in in_order(placeless)] == [("early", 1), ("late", 2)]


def test_only_views_that_are_kept_have_versions():
    runs = in_order([row("old", versions="{}"), row("new", sequence=2)])
    assert view_versions(runs, "turns") == {"new": 3}
    assert json.loads(runs[0]["versions"]) == {}
