"""How a job ends, whatever ends it: the last line of stdout is JSON, and its manifest says how it ended.

SIGTERM, which `ray job stop`, Kubernetes and machines that are taken away send, ends a job as Ctrl-C does:
it is raised where the job is, and nothing is lost. A process that goes without a word (killed, out of memory;
Ray ends a process whose cluster is gone, within a minute) cannot say so itself. For that a job with an open
manifest has a *watcher*: a small process in a session of its own, which waits for the job to go, says the
last line in its stead and closes the manifest.
"""

import datetime as dt
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]

AGAIN = "run the same command again to go on"

GONE = (
    f"the process of the job was ended from outside (killed, out of memory, or its cluster is gone); {AGAIN}"
)


class Interrupted(KeyboardInterrupt):
    """SIGTERM. Whatever ends well after Ctrl-C ends well after this."""


def raise_on_sigterm() -> None:
    """From now on SIGTERM raises Interrupted in the main thread, once: a second must not break the end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted


class Watcher:
    """The job's side of its watcher. Started when the first manifest is open, if `stdout` was given."""

    def __init__(self) -> None:
        self._stdout: int | None = None
        self._process: subprocess.Popen | None = None
        self.run_id: str | None = None
        """Of the last run that was opened."""

    def speak_on(self, stdout: int) -> None:
        """Where the last line belongs. Without this there is no watcher, as where Python calls a job."""
        self._stdout = stdout

    @property
    def is_a_process(self) -> bool:
        """Whether this process is a job; not so where Python calls one."""
        return self._stdout is not None

    def opened(self, home: str, run_id: str) -> None:
        self.run_id = run_id
        if self._stdout is not None and self._process is None:
            command = [sys.executable, "-c", "from jobs.common.ending import watch; watch()"]
            from cluster.runtime import log
            from jobs.common.metrics import metrics

            # In a session of its own: what ends the job's processes together must not end it too.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=self._stdout, cwd=ROOT, start_new_session=True
            )
            path = str(metrics.path) if metrics.path else None
            self._tell(vars(log.settings()) | {"metrics": path})
        self._tell({"opened": run_id, "home": home})

    def closed(self, run_id: str) -> None:
        self._tell({"closed": run_id})

    def done(self) -> None:
        """The job says its last line itself."""
        self._tell({"done": True})
        if self._process is not None:
            if stdin := self._process.stdin:
                stdin.close()
            self._process.wait()
        self._process, self._stdout = None, None

    def _tell(self, message: dict) -> None:
        if self._process is None:
            return
        try:
            if stdin := self._process.stdin:
                stdin.write(json.dumps(message).encode() + b"\n")
                stdin.flush()
        except BrokenPipeError:
            # Somebody ended the watcher; the job does without.
            pass


watcher = Watcher()


def watch() -> None:
    """The watcher: reads what the job tells it, and speaks only if the job goes without saying `done`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    homes: dict[str, str] = {}
    all_homes: dict[str, str] = {}
    last: dict[str, str] = {}
    how: dict[str, str | None] = {}
    for line in sys.stdin:
        message = json.loads(line)
        if "done" in message:
            return
        if "job" in message:
            how = message
        elif "opened" in message:
            homes[message["opened"]] = all_homes[message["opened"]] = message["home"]
            last = {"run_id": message["opened"]}
        else:
            homes.pop(message["closed"], None)
    _say_gone(how)
    print(json.dumps({"status": "failed", "error": GONE, **last}), flush=True)
    for run_id, home in homes.items():
        _close(home, run_id)
    if "job" in how:
        _measure(how.get("metrics"), how["job"] or "", all_homes)


def _say_gone(how: dict[str, str | None]) -> None:
    # Late: a watcher is small as long as it only waits.
    from cluster.runtime import live, log

    if sys.stderr.isatty():
        sys.stderr.write(live.SHOW_CURSOR)
    log.configure(log.LogSettings("json" if how.get("format") == "json" else "text", how.get("job") or ""))
    log.write(f"error: {GONE}")


def _close(home: str, run_id: str) -> None:
    from cluster.store.files import Files
    from jobs.common.manifest import get_run, put_run
    from schemas.manifest import RunStatus

    runs = Files(home, "runs")
    if manifest := get_run(runs, run_id):
        put_run(runs, manifest.ended(RunStatus.INTERRUPTED, error=GONE))


def _measure(path: str | None, job: str, homes: dict[str, str]) -> None:
    """Tell the metrics of a job that could not, from the manifests of its runs."""
    from jobs.common.telemetry import is_configured

    if path is None and not is_configured():
        return
    from cluster.store.files import Files
    from jobs.common.manifest import get_run
    from jobs.common.metrics import of_job, of_runs, tell
    from schemas.manifest import RunStatus

    found = [get_run(Files(home, "runs"), run_id) for run_id, home in homes.items()]
    samples = of_job(job, RunStatus.INTERRUPTED, dt.datetime.now(dt.UTC))
    tell(Path(path) if path else None, [*samples, *of_runs(one for one in found if one)])
