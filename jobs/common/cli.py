"""What every `python -m jobs.NAME` shares: how it starts, its summary and its exit code.

A job is a frozen pydantic config, a `run(config) -> dict` and two lines of main:

    if __name__ == "__main__":
        main(IngestConfig, run, __doc__)

jobs.common.options makes options of the config's fields, jobs.common.job_config reads them and the TOML file
that `--config` names, jobs.common.streams writes.
stderr carries progress, the last line of stdout is the summary as JSON, also where the job fails or is ended
by Ctrl-C or SIGTERM.
Exit codes: 0 done; 1 failed, ended by Ctrl-C or SIGTERM, nothing found, or not well; 2 wrong usage; 3 another
job writes where this one would. A process that was killed has the code that its killer gives it (137 after
kill -9); see jobs.common.ending for its last line.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable

from cluster.runtime import hide_secrets, live, log
from cluster.runtime.entry_points import EntryPointError
from jobs.common.ending import AGAIN, Interrupted, raise_on_sigterm, watcher
from jobs.common.job_config import JobConfig, LocalFolder, module_name, parse, parse_config
from jobs.common.metrics import metrics
from jobs.common.options import Others
from jobs.common.streams import refuse, reserve_stdout, say, show, show_no_more
from schemas.manifest import RunStatus

__all__ = [
    "FAILURES",
    "HeldError",
    "JobConfig",
    "JobError",
    "LocalFolder",
    "UsageError",
    "held",
    "main",
    "parse_config",
    "say",
    "show",
]


class JobError(Exception):
    """A failure the user can act on. The message names the field, the value and the remedy."""


class HeldError(JobError):
    """Another job writes where this one would, and did not end in time. Exit code 3."""


class UsageError(JobError):
    """Wrong usage: an option or a config value that cannot work. Exit code 2."""


def main(
    config_class: type[JobConfig],
    run: Callable[..., dict],
    doc: str,
    argv: list[str] | None = None,
    command: str | None = None,
    others: Others | None = None,
) -> None:
    """Parse, run, print the summary as the last line of stdout, exit. `command` and `others` are for jobs
    with several commands, see jobs.common.commands."""
    started_s = time.monotonic()
    config, shared = parse(config_class, doc, sys.argv[1:] if argv is None else argv, command, others)
    job = _job_name(config_class, command)
    log.configure(log.LogSettings(shared.log_format, job))
    metrics.begin(shared.metrics)
    stdout = reserve_stdout()
    raise_on_sigterm()
    if shared.log_format == "text":
        live.begin()
    watcher.run_id = None
    if stdout is not None:
        watcher.speak_on(stdout)
    try:
        try:
            summary = _run(run, config, doc)
        finally:
            watcher.done()
        metrics.end(job, summary.get("status", RunStatus.DONE), since(started_s))
        show(json.dumps(summary, default=str))
    except (UsageError, EntryPointError) as error:
        metrics.end(job, RunStatus.FAILED, since(started_s))
        refuse(str(error))
    except BrokenPipeError:
        show_no_more()
        sys.exit(1)
    failed = 3 if summary.get("is_held") else 1
    sys.exit(failed if summary.get("status") in FAILURES else 0)


def since(started_s: float) -> float:
    """Seconds since then."""
    return round(time.monotonic() - started_s, 2)


FAILURES = (RunStatus.FAILED, RunStatus.NOTHING_FOUND, "unhealthy")
"""Statuses of a summary after which the exit code is 1, or 3 where it says `is_held`."""


def _run(run: Callable[..., dict], config: JobConfig, doc: str) -> dict:
    """The summary, also of a job that fails."""
    # Here, before anything is read: processes that the job starts, such as its watcher, inherit it.
    os.environ.update(config.storage.environment())
    try:
        try:
            return run(config)
        finally:
            # Here, so that what is said of its end stands below.
            live.end()
    except (UsageError, EntryPointError, BrokenPipeError):
        raise
    except KeyboardInterrupt as caught:
        by = " by SIGTERM" if isinstance(caught, Interrupted) else ""
        error: Exception = JobError(f"interrupted{by}; {AGAIN}")
    except Exception as caught:
        error = caught
        if not isinstance(error, JobError):
            say(traceback.format_exc().rstrip())
            job = doc.strip().split("\n")[0]
            say(f"error: unexpected failure in: {job}")
    say(f"error: {error}")
    return {
        "status": "failed",
        "error": hide_secrets(str(error)),
        **held(error),
        **({"run_id": watcher.run_id} if watcher.run_id else {}),
    }


def held(error: Exception) -> dict[str, bool]:
    """What a summary says, beside the error, of a job that met another one."""
    return {"is_held": True} if isinstance(error, HeldError) else {}


def _job_name(config_class: type, command: str | None) -> str:
    """As manifests name it: `backfill`, `distill encoder`."""
    return (command or module_name(config_class)).removeprefix("jobs.")
