"""All runs of a store, however they ended, in nights, and what they cost."""

import dataclasses
import datetime as dt
import json

import pytest

from cluster.report.runs import GONE, RunEntry, nights_of, runs_of, spending
from cluster.store.files import Files
from cluster.store.lease import Lease
from jobs.common.cli import JobConfig, JobError
from jobs.common.run import Run
from tests.unit.cluster.report import nights as story
from tests.unit.cluster.store.stores import commit, segment


def by_id(entries):
    return {entry.run_id: entry for entry in entries}


def test_every_run_is_there_in_the_order_in_which_they_happened(nights):
    assert [entry.run_id for entry in runs_of(nights)] == list(story.ALL)


def test_a_run_has_the_status_and_the_reason_that_its_manifest_tells(nights):
    found = by_id(runs_of(nights))
    told = {name: found[name].status for name in story.ALL}
    assert told == dict.fromkeys(story.ALL, "done") | {
        story.FAILURE: "failed",
        story.CAPPED: "stopped",
        story.UNCHANGED: "unchanged",
        story.DRY: "dry_run",
        story.KILLED: "interrupted",
    }
    reasons = {name: entry.reason for name, entry in found.items() if entry.reason}
    assert reasons == {
        story.FAILURE: story.FAILED,
        story.CAPPED: "max_cost=0.5: reached; a higher cap goes on",
        story.KILLED: GONE,
    }


def test_a_published_run_has_the_counts_of_its_manifest_and_the_fingerprints_of_its_row(nights):
    entry = by_id(runs_of(nights))[story.LAST]
    assert (entry.counts["num_segments_encoded"], entry.stage_count("num_refused")) == (1, 2)
    assert (entry.encoder, entry.embedder, entry.is_published, entry.has_view) == (
        "encoder-1",
        "embedder-2",
        True,
        True,
    )
    assert "encoder" not in entry.counts and "max_cost" not in entry.counts


def test_a_published_run_without_a_manifest_has_the_counts_of_its_row(own_nights):
    Files(own_nights.uri, "runs").delete([f"{story.BACK}.json"])
    entry = by_id(runs_of(own_nights))[story.BACK]
    assert (entry.status, entry.counts["to"], entry.stages) == ("done", story.DECIDED, {})


def test_a_rollback_says_of_the_runs_that_it_took_out_that_they_are_undone(nights):
    assert {entry.run_id: entry.undone_by for entry in runs_of(nights) if entry.undone_by} == {
        story.IMPORTED: story.BACK
    }


def test_a_rollback_that_is_undone_takes_nothing_out(store):
    for name, job, to in (
        ("a", "backfill", None),
        ("b", "backfill", None),
        ("back", "rollback", "a"),
        ("forth", "rollback", "b"),
        ("c", "backfill", None),
    ):
        commit(store, name, segment(name, name), job=job, summary=json.dumps({"to": to} if to else {}))
        undone = {entry.run_id: entry.undone_by for entry in runs_of(store) if entry.undone_by}
        assert undone == {"back": {"b": "back"}, "forth": {"back": "forth"}, "c": {"back": "forth"}}.get(
            name, {}
        )


def test_since_leaves_out_what_began_before_that_day(nights):
    assert [entry.run_id for entry in runs_of(nights, dt.date(2026, 3, 9))] == [
        *(story.EMBEDDED, story.DRY, story.KILLED, story.LAST, story.COMPACTED)
    ]


def test_an_open_manifest_is_a_run_that_goes_on_while_somebody_has_the_lease(own_nights):
    newest = story.run_id(12)
    story.manifest(own_nights, newest, "backfill", "running")
    with Lease(own_nights.uri, "jobs.backfill"):
        found = by_id(runs_of(own_nights))
        assert (found[newest].status, found[newest].finished_at) == ("running", None)
        assert found[story.KILLED].status == "interrupted", "one that began before it cannot run beside it"
    assert by_id(runs_of(own_nights))[newest].status == "interrupted"


def test_a_run_that_ended_behind_its_commit_is_done(own_nights):
    story.manifest(own_nights, story.LAST, "backfill", "interrupted", error=GONE)
    entry = by_id(runs_of(own_nights))[story.LAST]
    assert (entry.status, entry.reason) == ("done", None)


class Settings(JobConfig):
    store: str


def test_the_manifest_of_a_real_run_is_read(own_nights):
    with (
        pytest.raises(JobError),
        Run("backfill", Settings(store=own_nights.uri), encoder="e", embedder="v") as this,
    ):
        this.counts["num_sessions"] = 3
        with this.stage("cut"):
            pass
        raise JobError("max_cost: too little\nmore of it")
    entry = runs_of(own_nights)[-1]
    assert (entry.run_id, entry.job, entry.status) == (this.run_id, "backfill", "failed")
    assert entry.reason == "max_cost: too little" and entry.counts["num_sessions"] == 3
    assert entry.stages.keys() == {"cut"} and entry.started_at == this.started_at
    assert entry.started_at < entry.finished_at <= dt.datetime.now(dt.UTC)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"status": "done"}',
        b'{"status": "done", "started_at": "soon"}',
        b'{"format_version": 9}',
    ],
)
def test_a_file_that_is_no_manifest_is_no_run(own_nights, content):
    Files(own_nights.uri, "runs").put("20260312T020000-abcdef.json", content)
    assert [entry.run_id for entry in runs_of(own_nights)] == list(story.ALL)


def test_a_manifest_of_an_earlier_release_is_read(own_nights):
    written = {"run_id": story.CAPPED, "status": "failed", "job": "backfill", "seconds": 3, "num_records": 5}
    written |= {"started_at": "2026-03-04 02:00:00+00:00", "error": "why", "encoder": {"name": "e"}}
    Files(own_nights.uri, "runs").put_json(f"{story.CAPPED}.json", written)
    entry = by_id(runs_of(own_nights))[story.CAPPED]
    assert (entry.status, entry.reason, entry.counts["num_records"]) == ("failed", "why", 5)
    assert entry.finished_at == dt.datetime(2026, 3, 4, 2, 0, 3, tzinfo=dt.UTC)


def test_a_published_run_whose_manifest_is_broken_has_what_its_row_tells(own_nights):
    Files(own_nights.uri, "runs").put(f"{story.BACK}.json", b'{"status": [], "started_at": 3}')
    assert by_id(runs_of(own_nights))[story.BACK].counts["to"] == story.DECIDED


def test_a_clock_that_goes_back_does_not_change_the_order_of_published_runs(store):
    for name, hour in (("late", 9), ("early", 3)):
        commit(store, name, segment(name, name), started_at=f"2026-03-01T0{hour}:00:00+00:00")
    story.manifest(store, "20260301T060000-000000", "backfill", "failed")
    assert [entry.run_id for entry in runs_of(store)] == ["20260301T060000-000000", "late", "early"]


# --- nights ---------------------------------------------------------------------------------------------


def test_a_night_is_a_backfill_with_what_goes_on_from_it_and_other_jobs_stand_by_themselves(nights):
    found = [[entry.run_id for entry in night.runs] for night in nights_of(runs_of(nights))]
    assert [story.PAID, story.DECIDED] in found and [story.LAST, story.COMPACTED] in found
    assert [story.IMPORTED] in found and [story.DRY] in found
    assert [name for group in found for name in group] == list(story.ALL)


def test_a_consolidation_of_the_next_day_is_no_part_of_the_night(own_nights):
    entries = by_id(runs_of(own_nights))
    begun = entries[story.UNCHANGED].ended_at + dt.timedelta(hours=13)
    later = dataclasses.replace(entries[story.DECIDED], started_at=begun)
    assert len(nights_of([entries[story.UNCHANGED], later])) == 2


def test_a_night_is_as_good_as_the_worst_of_its_runs(nights):
    told = {night.label: night.status for night in nights_of(runs_of(nights))}
    assert told["2026-03-03"] == "failed" and told["2026-03-04"] == "stopped"
    assert told["2026-03-06"] == "unchanged" and told["2026-03-11"] == "done"
    assert told["2026-03-08 forget"] == "done"


# --- costs ----------------------------------------------------------------------------------------------


def test_what_a_stopped_run_paid_is_counted_once(nights):
    """The run that goes on from it repeats it in its own sum."""
    spent = spending(runs_of(nights))
    assert (spent[story.CAPPED].cost, spent[story.PAID].cost) == (0.5, 0.3)
    assert (spent[story.CAPPED].tokens, spent[story.PAID].tokens) == (550, 1000)
    assert spent[story.FIRST].cost is None


def entry_of(name, *, cost, tokens=0, published=False, job="backfill"):
    begun = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    counts = {"prompt_tokens": tokens}
    status = "done" if published else "stopped"
    return RunEntry(
        name, job, status, begun, begun, 1.0, None, counts, {}, cost, published, False, paying=job
    )


def test_stopped_runs_one_after_the_other_count_what_came_to_it_until_one_is_published():
    runs = [
        entry_of("a", cost=1.0, tokens=10),
        entry_of("b", cost=1.5, tokens=15),
        entry_of("other", cost=4.0, job="consolidate"),
        entry_of("c", cost=2.0, tokens=3, published=True),
        entry_of("d", cost=0.7, tokens=7),
    ]
    found = spending(runs)
    assert {name: spent.cost for name, spent in found.items()} == {
        **{"a": 1.0, "b": 0.5, "other": 4.0, "c": 0.5, "d": 0.7}
    }
    assert {name: spent.tokens for name, spent in found.items()} == {
        **{"a": 10, "b": 5, "other": 0, "c": 3, "d": 7}
    }


def test_a_forgetting_deletes_the_paid_answers_so_that_the_sum_begins_anew():
    runs = [entry_of("a", cost=1.0), entry_of("f", cost=None, job="forget"), entry_of("b", cost=0.4)]
    assert spending(runs)["b"].cost == 0.4


def test_what_an_endpoint_was_paid_is_told_of_each_run_in_tokens_too():
    """Regression: a run that went on from a stopped one counted the tokens of its answers once more."""
    runs = [
        dataclasses.replace(
            entry, counts=entry.counts | {"paid_prompt_tokens": paid, "paid_output_tokens": 0}
        )
        for entry, paid in (
            (entry_of("stopped", cost=1.0, tokens=10), 10),
            (entry_of("done", cost=1.5, tokens=15, published=True), 15),
            (entry_of("next", cost=0.2, tokens=2, published=True), 2),
        )
    ]
    found = spending(runs)
    assert {name: (spent.cost, spent.tokens) for name, spent in found.items()} == {
        **{"stopped": (1.0, 10), "done": (0.5, 5), "next": (0.2, 2)}
    }
