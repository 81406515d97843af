"""The night: which jobs run, with which settings, and what its summary says. The three jobs are scripted."""

import pytest

from jobs import nightly
from jobs.backfill import BackfillConfig
from jobs.common.cli import FAILURES, HeldError, JobError, UsageError, parse_config
from jobs.nightly import NightlyConfig
from tests.unit.jobs.nights import JOBS, Night

CONFIG = NightlyConfig(archive="a", store="s", keep_runs=3)


@pytest.fixture
def night(monkeypatch):
    night = Night()
    for name in JOBS:
        monkeypatch.setattr(nightly, name, night.job(name))
    monkeypatch.setattr(nightly, "has_memories", lambda uri: night.has_memories)
    monkeypatch.setattr(nightly, "has_expiring", lambda config: night.has_expiring)
    return night


def test_a_night_is_a_backfill_a_consolidation_and_a_compaction_in_this_order(night):
    summary = nightly.run(CONFIG)
    assert list(night.given) == [name for name in summary if name in JOBS] == list(JOBS)
    assert summary["status"] == "done" and summary["store"] == "s"
    assert {name: summary[name]["run_id"] for name in JOBS} == {name: f"run of {name}" for name in JOBS}


def test_a_store_is_compacted_where_views_are_to_go(night):
    summary = nightly.run(NightlyConfig(archive="a", store="s", keep_runs=2, keep_months=1))
    assert "compact" in summary
    assert (night.given["compact"].keep_runs, night.given["compact"].keep_months) == (2, 1)
    night.has_expiring = False
    assert "compact" not in nightly.run(CONFIG)


def test_by_default_thirty_views_stay_and_a_year_of_months_and_what_is_named_alone(night):
    for options, kept in (({}, (30, 12)), ({"keep_runs": 5}, (5, 0)), ({"keep_months": 3}, (30, 3))):
        nightly.run(NightlyConfig(archive="a", store="s", **options))
        assert (night.given["compact"].keep_runs, night.given["compact"].keep_months) == kept


def test_consolidation_can_be_left_out(night):
    assert "consolidate" not in nightly.run(NightlyConfig(archive="a", store="s", consolidate=False))


def test_each_job_gets_its_settings_from_one_file_which_a_backfill_reads_too(night, tmp_path):
    path = tmp_path / "night.toml"
    path.write_text(
        "archive = 'a'\nstore = 's'\nmask_contacts = true\n[encoder_pool]\nbatch_size = 5\n"
        "[consolidation]\ndecider = 'rules'\ntop_k = 4\n[cluster]\nnum_cpus = 3\n"
    )
    options = ["--config", str(path)]
    nightly.run(parse_config(NightlyConfig, "A night.", [*options, "--keep-runs", "9"]))
    backfill, update, compact = (night.given[name] for name in JOBS)
    assert backfill == parse_config(BackfillConfig, "A job.", options)
    assert (update.decider, update.top_k, update.store, update.cluster.num_cpus) == ("rules", 4, "s", 3)
    assert (compact.store, compact.keep_runs) == ("s", 9)


def test_the_object_store_is_set_once_for_the_whole_night(night, capsys):
    """Regression: [consolidation.storage] was taken, and the night ended with a TypeError."""
    given = ["--archive", "a", "--store", "s"]
    nightly.run(parse_config(NightlyConfig, "A night.", [*given, "--storage.max-outage-s", "9"]))
    assert [night.given[name].storage.max_outage_s for name in JOBS] == [9, 9, 9]
    with pytest.raises(SystemExit):
        parse_config(NightlyConfig, "A night.", [*given, "--consolidation.storage.max-outage-s", "9"])
    assert "unrecognized arguments: --consolidation.storage" in capsys.readouterr().err


def test_what_nobody_has_set_is_the_backfill_s_default_and_nothing_that_was_named(night):
    """Regression: a night without SLOWWAVE_FORGET_KEY was refused, as if the variable had been named."""
    nightly.run(parse_config(NightlyConfig, "A night.", ["--archive", "a", "--store", "s"]))
    assert night.given["backfill"].model_fields_set == {"archive", "store", "consolidate"}


@pytest.mark.parametrize("failing", JOBS)
def test_the_first_job_that_fails_ends_the_night_which_tells_what_was_done_before(night, failing, capsys):
    night.does[failing] = JobError("cluster=gone: start it, s3://user:hunter2@bucket")
    summary = nightly.run(CONFIG)
    before = JOBS[: JOBS.index(failing)]
    assert [name for name in summary if name in JOBS] == list(before)
    assert list(night.given) == [*before, failing]
    assert summary["status"] in FAILURES and summary["failed"] == failing
    assert "cluster=gone" in summary["error"] and "hunter2" not in f"{summary}{capsys.readouterr().err}"


def test_a_job_that_says_itself_that_it_failed_ends_the_night_with_its_summary(night):
    night.does["consolidate"] = "failed"
    summary = nightly.run(CONFIG)
    assert (summary["status"], summary["failed"], summary["consolidate"]["status"]) == (
        "failed",
        "consolidate",
        "failed",
    )
    assert "compact" not in night.given


@pytest.mark.parametrize("stopping", ["backfill", "consolidate"])
def test_a_cap_on_costs_ends_the_night_which_can_be_gone_on_with(night, stopping):
    night.does[stopping] = "stopped"
    assert nightly.run(CONFIG)["status"] == "stopped"
    assert list(night.given) == list(JOBS[: JOBS.index(stopping) + 1])


def test_one_endpoint_serves_the_whole_night(night):
    asked = {"model": "m", "prompt_price": 1.0}
    decides = {"decider": "model", "decider_profile": "openai", "max_cost": 2.0}
    night_by_endpoint = {"archive": "a", "store": "s", "profile": "openai", "consolidation": decides}
    nightly.run(NightlyConfig.model_validate(night_by_endpoint | {"endpoint": asked, "max_cost": 5.0}))
    backfill, update = night.given["backfill"], night.given["consolidate"]
    assert [job.endpoint.model_dump(exclude_unset=True) for job in (backfill, update)] == [asked, asked]
    assert (backfill.max_cost, update.max_cost) == (5.0, 2.0)
    with pytest.raises(UsageError, match="model='': profile 'openai'"):
        nightly.run(NightlyConfig.model_validate(night_by_endpoint))


def test_questions_without_a_report_are_wrong_usage(capsys):
    with pytest.raises(SystemExit):
        parse_config(
            NightlyConfig, "A night.", ["--archive", "a", "--store", "s", "--report-questions", "q.jsonl"]
        )
    assert capsys.readouterr().err == "error: report_questions: they are for the report; give report too\n"


def test_a_night_in_which_nothing_was_to_be_done_is_unchanged(night):
    night.does |= {"backfill": "unchanged", "consolidate": "unchanged"}
    night.has_expiring = False
    config = NightlyConfig(archive="a", store="s")
    assert nightly.run(config)["status"] == "unchanged"
    # As after a night that was killed between the two.
    night.does["consolidate"] = "done"
    assert nightly.run(config)["status"] == "done"


def test_a_dry_run_only_counts_what_the_backfill_would_cost(night):
    night.does["backfill"] = "dry_run"
    assert nightly.run(CONFIG.model_copy(update={"dry_run": True}))["status"] == "dry_run"
    assert list(night.given) == ["backfill"]


def test_an_empty_archive_leaves_nothing_to_consolidate(night):
    night.does["backfill"], night.has_memories = "unchanged", False
    assert nightly.run(CONFIG)["status"] == "unchanged"
    assert list(night.given) == ["backfill"]


def test_wrong_usage_is_found_before_anything_is_paid_for(night):
    config = NightlyConfig(
        archive="a", store="s", consolidation={"decider": "model", "decider_profile": "none"}
    )
    with pytest.raises(UsageError, match="decider 'none'"):
        nightly.run(config)
    assert night.given == {}
    night.does["backfill"] = UsageError("--archive a: no such folder")
    with pytest.raises(UsageError, match="no such folder"):
        nightly.run(CONFIG)


@pytest.mark.parametrize("failing", JOBS)
def test_a_night_that_meets_another_says_that_the_store_is_held(night, failing):
    night.does[failing] = HeldError("store s is being written by jobs.forget; wait for it to end")
    summary = nightly.run(CONFIG)
    assert (summary["status"], summary["failed"], summary["is_held"]) == ("failed", failing, True)


def test_every_job_of_a_night_waits_for_the_store_as_the_night_is_told(night):
    nightly.run(CONFIG.model_copy(update={"lease_wait": 7.0}))
    assert {night.given[name].lease_wait for name in ("consolidate", "compact")} == {7.0}
    nightly.run(NightlyConfig(archive="a", store="s", lease_wait=7.0))
    assert night.given["backfill"].lease_wait == 7.0


def test_what_is_interrupted_is_not_gone_on_with(night):
    night.does["backfill"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        nightly.run(CONFIG)
    assert list(night.given) == ["backfill"]
