"""Nightly: encodes what is new in an archive, updates older memories, and can compact the store and report.

    python -m jobs.nightly --archive DIR --store URI
    python -m jobs.nightly --archive DIR --store URI --keep-runs 30     # keep only the newest 30 views
    python -m jobs.nightly --archive DIR --store URI --report DIR       # and write what jobs.report writes
    python -m jobs.nightly --archive DIR --store URI --config FILE.toml
    ray job submit --working-dir . -- python -m jobs.nightly --archive s3://... --store s3://...

Runs jobs.backfill, then jobs.consolidate, then jobs.compact if views are to be dropped, in one process. The
first of them that fails, or is stopped by its cap on costs, ends the night; --report reports that too. After
a crash or a failure, run the same command again: finished work is not repeated. Its settings are those of a
backfill, and [consolidation] in the config file.
"""

import time
from collections.abc import Callable, Iterator
from typing import Self

from pydantic import Field, model_validator

from cluster.runtime import hide_secrets
from jobs.backfill import BackfillConfig, consolidation_of
from jobs.backfill import run as backfill
from jobs.common.cli import FAILURES, JobError, UsageError, held, main, say
from jobs.common.measuring import quality_of
from jobs.common.questions import Question, QuestionFiles, read_questions
from jobs.common.run import absolute
from jobs.compact import CompactConfig
from jobs.compact import run as compact
from jobs.consolidate import ConsolidateConfig
from jobs.consolidate import run as consolidate


class NightlyConfig(BackfillConfig):
    """Settings of a night."""

    consolidate: bool = True
    """Compare the new memories with the older ones, as jobs.consolidate does."""
    keep_runs: int = Field(30, ge=0)
    """How many of the newest views are kept, as in jobs.compact. With 0 all."""
    keep_months: int | None = Field(None, ge=0)
    """For how many months before these the last view of the month is kept too. Not given: 12, or none if
    keep_runs is given."""
    report: str | None = None
    """At the end, also of a failed night, write the pages of jobs.report to this folder or object-store
    URI."""
    report_questions: QuestionFiles = ()
    """Files with questions and their evidence, for the quality that the report shows."""

    @model_validator(mode="after")
    def _check_report(self) -> Self:
        if self.report_questions and self.report is None:
            raise ValueError("report_questions: they are for the report; give report too")
        return self


def run(config: NightlyConfig) -> dict:
    """Run the night's jobs and return their summaries in one. Safe to repeat at any time."""
    started_s = time.monotonic()
    # A decider that does not exist is wrong usage, found before anything is paid for.
    update = consolidation_of(config, ConsolidateConfig)
    assert isinstance(update, ConsolidateConfig)
    questions = [
        one for path in config.report_questions for one in read_questions(path, option="--report-questions")
    ]
    parts: dict[str, dict] = {}
    failure = {}
    for name, part in parts_of(config, update):
        try:
            parts[name] = part()
        except JobError as error:
            if isinstance(error, UsageError) and not parts:
                raise
            say(f"error: {error}")
            failure = {"failed": name, "error": hide_secrets(str(error)), **held(error)}
            break
        if parts[name]["status"] in FAILURES:
            failure = {"failed": name}
            break
        if parts[name]["status"] == "stopped":
            break
    report = {"report": reported(config, questions)} if config.report and not config.dry_run else {}
    statuses = {part["status"] for part in parts.values()}
    if "stopped" in statuses:
        statuses = {"stopped"}
    return {
        "status": "failed" if failure else statuses.pop() if len(statuses) == 1 else "done",
        **failure,
        "store": config.store,
        **parts,
        **report,
        "seconds": round(time.monotonic() - started_s, 2),
    }


def parts_of(config: NightlyConfig, update: ConsolidateConfig) -> Iterator[tuple[str, Callable[[], dict]]]:
    """Name and call of each job of the night, in their order; asked for one by one, as the store grows."""
    # What nobody has set stays so: a variable that is named must be there, one that is the default need not.
    own = {
        name: getattr(config, name) for name in config.model_fields_set & BackfillConfig.model_fields.keys()
    }
    yield "backfill", lambda: backfill(BackfillConfig(**own | {"consolidate": False}))
    if config.dry_run or not has_memories(config.store):
        return
    if config.consolidate:
        yield "consolidate", lambda: consolidate(update)
    if has_expiring(config):
        kept = CompactConfig(
            store=config.store,
            keep_runs=config.keep_runs,
            keep_months=months_of(config),
            lease_wait=config.lease_wait,
            storage=config.storage,
        )
        yield "compact", lambda: compact(kept)


def reported(config: NightlyConfig, questions: list[Question]) -> str | None:
    """Write the report, with what the search finds of the questions; where it is. None where it cannot be
    written, which is told and fails no night."""
    from cluster.report.pages import write_report

    assert config.report is not None, "it is asked for"
    store, quality = absolute(config.store), None
    try:
        if questions:
            quality = quality_of(store, questions)
    except Exception as error:
        say(f"[report] quality: not measured: {error}")
    try:
        pages = write_report(store, absolute(config.report), quality=quality)
    except Exception as error:
        say(f"[report] {config.report}: not written: {error}")
        return None
    say(f"[report] {config.report}: {', '.join(pages)}")
    return config.report


def has_memories(uri: str) -> bool:
    """Whether a run has ended in the store; of an empty archive none has."""
    from cluster.store.store import Store

    return Store(absolute(uri), must_exist=False).run() is not None


def has_expiring(config: NightlyConfig) -> bool:
    """Whether the store has views that are to go."""
    from cluster.store.maintenance import expiring
    from cluster.store.store import Store

    views = Store(absolute(config.store)).openable() if config.keep_runs else []
    return bool(expiring(views, config.keep_runs, months_of(config)))


def months_of(config: NightlyConfig) -> int:
    if config.keep_months is not None:
        return config.keep_months
    return 0 if "keep_runs" in config.model_fields_set else 12


if __name__ == "__main__":
    main(NightlyConfig, run, __doc__)
