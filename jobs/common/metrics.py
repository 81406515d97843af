"""Metrics of a job and of its runs, as a text file that Prometheus reads through a node exporter, and to a
collector of OpenTelemetry (see jobs.common.telemetry).

Both have them once, when the job ends, however it ends; the file is written whole and renamed. They tell of
the job, as its last line does, and of each run that left a manifest. No metric has a user, a memory or a path
in it.
"""

import datetime as dt
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster.runtime import hide_secrets, log
from jobs.common.telemetry import Sample, is_configured, send
from schemas.manifest import RunManifest

TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens", "input_tokens")

HELP = {
    "slowwave_job_status": "1 for the status with which the job ended last",
    "slowwave_job_seconds": "How long the job took",
    "slowwave_job_finished_timestamp_seconds": "When the job ended",
    "slowwave_run_status": "1 for the status with which the run of a job ended",
    "slowwave_run_seconds": "How long the run took",
    "slowwave_run_finished_timestamp_seconds": "When the run ended",
    "slowwave_run_stage_seconds": "How long a stage of the run took",
    "slowwave_run_count": "What the run counted, as its summary names it",
    "slowwave_run_tokens": "Tokens of the run",
    "slowwave_run_cost": "What the run paid, in the currency of the endpoint's prices",
}
"""Metric -> what it says. All are gauges: a run's counts stand until the next one's."""


class Metrics:
    """What this process will tell, see `write`."""

    def __init__(self) -> None:
        self.path: Path | None = None
        """Of the file; none is written without it."""
        self._runs: dict[str, RunManifest] = {}

    def begin(self, path: Path | None) -> None:
        """Tell of what ends from now on."""
        self.path, self._runs = path, {}

    def ended(self, manifest: RunManifest) -> None:
        """A run has ended."""
        self._runs[manifest.run_id or ""] = manifest

    def end(self, job: str, status: str, seconds: float) -> None:
        """Tell, wherever that is asked for."""
        finished = dt.datetime.now(dt.UTC)
        tell(self.path, [*of_job(job, status, finished, seconds), *of_runs(self._runs.values())])


metrics = Metrics()


def of_job(job: str, status: str, finished: dt.datetime, seconds: float | None = None) -> Iterator[Sample]:
    """Samples of a job as a whole. `seconds`: None where nobody knows."""
    labels = {"job": job}
    yield "slowwave_job_status", labels | {"status": status}, 1
    if seconds is not None:
        yield "slowwave_job_seconds", labels, seconds
    yield "slowwave_job_finished_timestamp_seconds", labels, finished.timestamp()


def of_runs(manifests: Iterable[RunManifest]) -> Iterator[Sample]:
    """Samples of runs that have ended, the last one of each job."""
    for job, manifest in {manifest.job or "unknown": manifest for manifest in manifests}.items():
        labels = {"job": job}
        yield "slowwave_run_status", labels | {"status": manifest.status}, 1
        if manifest.seconds is not None:
            yield "slowwave_run_seconds", labels, manifest.seconds
        if manifest.finished_at is not None:
            yield "slowwave_run_finished_timestamp_seconds", labels, manifest.finished_at.timestamp()
        for stage, known in manifest.stages.items():
            if (seconds := _number(known.get("seconds"))) is not None:
                yield "slowwave_run_stage_seconds", labels | {"stage": stage}, seconds
        for name, told in manifest.summary.items():
            if (value := _number(told)) is None:
                continue
            if name == "cost":
                yield "slowwave_run_cost", labels, value
            elif name in TOKENS:
                yield "slowwave_run_tokens", labels | {"kind": name.removesuffix("_tokens")}, value
            elif name.startswith("num_"):
                yield "slowwave_run_count", labels | {"name": name}, value


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def tell(path: Path | None, samples: Sequence[Sample]) -> None:
    """Write the file, where there is to be one, and send the samples, where the environment asks for that.
    What cannot be is told, and fails no job."""
    if path is not None:
        try:
            write(path, samples)
        except OSError as error:
            log.write(hide_secrets(f"[metrics] {path}: not written: {error}"))
    if is_configured():
        try:
            send(samples, HELP)
        except Exception as error:  # of a package that sends in its own ways
            log.write(hide_secrets(f"[metrics] OpenTelemetry: not sent: {error}"))


def write(path: Path, samples: Iterable[Sample]) -> None:
    """Write the samples in the text format of Prometheus; whoever reads sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text_of(samples), "utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def text_of(samples: Iterable[Sample]) -> str:
    """The text format, version 0.0.4: the samples of each metric together, behind what it says."""
    by_name: dict[str, list[str]] = {}
    for name, labels, value in samples:
        inner = ",".join(f'{label}="{_escaped(told)}"' for label, told in labels.items())
        by_name.setdefault(name, []).append(f"{name}{{{inner}}} {value:.17g}")
    lines = []
    for name, own in by_name.items():
        lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge", *own]
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return re.sub(r'[\\"\n]', lambda char: {"\n": r"\n"}.get(char[0], "\\" + char[0]), str(text))
