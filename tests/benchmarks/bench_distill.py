"""A distillation through an endpoint that fails, killed twice, beside one that is left alone.

    python -m tests.benchmarks.bench_distill --num-segments 5000
    python -m tests.benchmarks.bench_distill --num-segments 200 --ways batches

An endpoint on loopback plays teacher and judge. It answers always the same to the same prompt, as a
rule-based extractor and by a rule for grades; the tokens that it bills are counted from the texts. A share of
the HTTP requests fails (--failing), drawn by the seed, in equal parts: status 429 with Retry-After; status
500; the connection closes before anything is done; after the work, without an answer; in the middle of an
answer that says its length; in the middle of one that does not.

Two ways. `direct`: each request alone. `batches`: by OpenAI's batch API, four batches a role at least; there,
requests in a batch fail with 429 and 500 too, a creation of a batch gets lost and one comes late, a batch
expires, and three requests are in no file. `direct` asks a server that knows idempotency keys, and bills a
key once; `batches` one that bills whatever it answers.

For each way the job, `jobs.distill encoder --local`, runs `undisturbed` by kills, and into another folder
until it is `killed`, twice: by SIGKILL, when the server has received as many requests as is drawn by the
seed, and up to 50 ms more are over. Then it runs with a cap on the cost (--cap), and then to its end. The
command is the same but for the cap. Each run is a process of its own, forked from one that has the job's
imports done. Shown are:

    requests   answered: requests that the server answered, each counted once; billed: how many it billed;
               again: how often it was asked for what it had answered already
    cost, tokens     as the job's last summary says
    examples   rows of train.parquet and validation.parquet
    seconds    of all runs of the way, cpu_s of the processor in the jobs, without their imports
    per_s      answered requests by the seconds of the stages teach and judge (undisturbed)
    peak_mib   of a job's process at most, its imports included

`same` says whether answered keys, bills, tokens, cost and all rows of the set are those of the undisturbed
run, and both kills met a run. The exit code is 1 where not, or where the cap did not hold. The last line is
JSON.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROLES = ("teacher", "judge")

WAYS = ("direct", "batches")

FILES = ("train", "validation", "rejected")

CONCURRENCY = 16

SHARES = ((0.05, 0.4), (0.5, 0.7))
"""Of the requests of the undisturbed run: between these the first and the second kill fall."""

IMPORTED = (
    *("openai", "openai.resources.chat", "openai.resources.batches", "openai.resources.files", "polars"),
    *("transformers", "transformers.models.auto.tokenization_auto", "cluster.distill.examples"),
    *("cluster.distill.judge", "cluster.distill.teacher", "cluster.models.batches", "jobs.distill.__main__"),
    *("jobs.distill.leaks", "jobs.distill.segments", "jobs.distill.sets"),
)
"""What the job imports while it runs."""


# --- the job, in a process of its own -------------------------------------------------------------------


def distill(arguments: list[str], said: str) -> None:
    """The job as its command runs it; stdout and stderr go to files whose names begin with `said`."""
    from jobs.distill.__main__ import COMMANDS

    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    COMMANDS.main(arguments)


@dataclass
class Ended:
    """A run that ended, or was killed."""

    code: int
    seconds: float
    cpu_s: float
    peak_bytes: int
    summary: dict
    """Empty where it was killed."""


@dataclass(frozen=True)
class Runner:
    """Starts runs of the job. `folder` gets what they say."""

    folder: Path

    def __post_init__(self) -> None:
        self._context.set_forkserver_preload(list(IMPORTED))

    @property
    def _context(self) -> multiprocessing.context.ForkServerContext:
        return multiprocessing.get_context("forkserver")

    def run(self, arguments: list[str], is_time: Callable[[], bool] = lambda: False) -> Ended:
        """To its end, or until it is time to kill it."""
        # Files of its own: what a killed run has started may write yet.
        said = tempfile.mktemp(prefix="said-", dir=self.folder)
        process = self._context.Process(target=distill, args=(arguments, said))
        started_s, cpu_s, peak = time.monotonic(), 0.0, 0
        process.start()
        while process.exitcode is None:
            with contextlib.suppress(OSError, IndexError):
                cpu_s, peak = measured(process.pid or 0, cpu_s, peak)
            if is_time():
                process.kill()
            process.join(0.05)
        ended = Ended(process.exitcode, time.monotonic() - started_s, cpu_s, peak, {})
        if process.exitcode >= 0:
            lines = Path(f"{said}.out").read_text().splitlines()
            ended.summary = json.loads(lines[-1]) if lines else {}
            if process.exitcode:
                raise SystemExit(Path(f"{said}.err").read_text()[-3000:])
        return ended


def measured(pid: int, cpu_s: float, peak: int) -> tuple[float, int]:
    """Seconds of the processor and greatest resident memory of a process until now."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return max(cpu_s, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")), max([peak, *(k << 10 for k in kib)])


# --- the server -----------------------------------------------------------------------------------------


def tokens(messages: list[dict], text: str) -> tuple[int, int]:
    """What is billed."""
    return sum(len(message["content"]) for message in messages) // 4, len(text) // 4 + 1


def server(way: str, options: argparse.Namespace):
    from tests import endpoint as served
    from tests.e2e.judges import grades_or_records

    faults = served.Faults(num_lost_creates=1, num_late_creates=1, num_expired=1, num_missing=3)
    return served.Endpoint(
        grades_or_records,
        latency_s=options.latency_s if way == "direct" else 0.0,
        knows_keys=way == "direct",
        faults=faults,
        num_looks=4,
        network=served.Network(options.failing, options.seed, most=2 if way == "direct" else 1),
        usage=tokens,
    )


def write_config(path: Path, base_url: str, way: str, num_segments: int) -> Path:
    from tests.e2e.conftest import ENCODER

    lines = [f'profile = "{ENCODER}"', "max_empty_fraction = 0.9", 'teacher = "openai"', 'judge = "openai"']
    for role in ROLES:
        lines += [f"[{role}_endpoint]", f'base_url = "{base_url}"', f'model = "{role}-1"']
        lines += [f"concurrency = {CONCURRENCY}", "prompt_price = 1.0", "output_price = 2.0"]
        lines += ["max_retries = 8"]
        if way == "batches":
            lines += ["batch = true", "batch_poll_s = 0.5", f"batch_max_requests = {num_segments // 4}"]
    path.write_text("\n".join(lines))
    return path


# --- both runs of a way ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What two runs of the same work have in common."""

    answered: str
    """Hash of the keys that were answered."""
    bills: tuple[int, ...]
    """How often each key was billed: the different numbers."""
    cost: float
    tokens: tuple[int, ...]
    left: int
    data_hash: str
    rows: str
    """Hash of all rows of the set, the rejected ones included."""


def outcome(summary: dict, output: Path, paid: dict[str, int]) -> Outcome:
    import pyarrow.parquet as pq

    rows = [pq.read_table(output / f"{name}.parquet").to_pylist() for name in FILES]
    counts = (f"{role}_{kind}_tokens" for role in ROLES for kind in ("prompt", "output"))
    return Outcome(
        answered=digest(sorted(paid)),
        bills=tuple(sorted(set(paid.values()))),
        cost=summary["cost"],
        tokens=tuple(summary[name] for name in counts),
        left=summary["num_left"],
        data_hash=summary["data_hash"],
        rows=digest(rows),
    )


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:16]


def measure(way: str, options: argparse.Namespace, folder: Path, archive: Path, runner: Runner) -> list[dict]:
    drawn = random.Random(f"{options.seed} {way}")
    rows, first, num_received, cap = [], None, 0, 0.0
    for name in ("undisturbed", "killed"):
        output = folder / f"{way}-{name}"
        with server(way, options) as served:
            config = write_config(folder / f"{way}.toml", served.base_url, way, options.num_segments)
            command = ["encoder", "--archive", str(archive), "--output", str(output)]
            command += ["--config", str(config), "--local"]
            runs, capped = [], {}
            if name == "killed":
                for least, most in SHARES:
                    at = int(drawn.uniform(least, most) * num_received)
                    moment = Moment(
                        lambda at=at, served=served: served.num_received >= at, drawn.uniform(0, 0.05)
                    )
                    runs.append(runner.run(command, moment))
                    tell(f"{way}: killed after {served.num_received:,} requests", runs[-1])
                if options.cap:
                    runs.append(runner.run([*command, "--max-cost", str(cap)]))
                    capped = runs[-1].summary
                    tell(f"{way}: a cap of {cap}", runs[-1])
            runs.append(runner.run(command))
            tell(f"{way}: {name}", runs[-1])
            summary = runs[-1].summary
            found = outcome(summary, output, dict(served.paid))
            num_received, cap = served.num_received, round(options.cap * summary["cost"], 6)
            stages = [summary["stages"][stage]["seconds"] for stage in ("teach", "judge")]
            rows.append(
                {
                    "way": way,
                    "run": name,
                    "segments": summary["num_segments_asked"],
                    "answered": len(served.paid),
                    "billed": sum(served.paid.values()),
                    "again": served.num_repeated,
                    "failed": dict(sorted(served.happened.items())),
                    "kills": sum(run.code == -9 for run in runs),
                    "cost": summary["cost"],
                    "tokens": sum(found.tokens),
                    "examples": summary["num_train"] + summary["num_validation"],
                    "seconds": round(sum(run.seconds for run in runs), 1),
                    "cpu_s": round(sum(run.cpu_s for run in runs), 1),
                    "per_s": round(len(served.paid) / sum(stages), 1) if name == "undisturbed" else None,
                    "peak_mib": max(run.peak_bytes for run in runs) >> 20,
                }
            )
            if name == "killed":
                rows[-1] |= {"same": found == first and rows[-1]["kills"] == len(SHARES)}
                if found != first:
                    print(f"{way}: {first}\n{found}", file=sys.stderr)
            if capped:
                holds = capped["status"] == "stopped" and capped["cost"] <= cap
                rows[-1] |= {"cap": cap, "cost_at_cap": capped["cost"], "cap_holds": holds}
            first = found
    return rows


class Moment:
    """True when it has happened and a while is over."""

    def __init__(self, happened: Callable[[], bool], while_s: float):
        self._happened, self._while_s = happened, while_s
        self._since_s: float | None = None

    def __call__(self) -> bool:
        if self._since_s is None and self._happened():
            self._since_s = time.monotonic()
        return self._since_s is not None and time.monotonic() >= self._since_s + self._while_s


def tell(what: str, run: Ended) -> None:
    counts = {name: run.summary[name] for name in run.summary if name.startswith(("num_teach", "num_judge"))}
    print(f"{what}: {run.seconds:.0f} s, {run.cpu_s:.0f} s of CPU {counts}", file=sys.stderr, flush=True)


def main(options: argparse.Namespace) -> None:
    from tests.e2e.archives import write_unlike

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        archive = write_unlike(folder / "archive", options.num_segments)
        runner = Runner(folder)
        rows = [row for way in options.ways for row in measure(way, options, folder, archive, runner)]
    names = list(dict.fromkeys(name for row in rows for name in row if name != "failed"))
    widths = [max(len(name), *(len(str(row.get(name, ""))) for row in rows)) for name in names]
    for line in [dict(zip(names, names, strict=True)), *rows]:
        print(
            "  ".join(str(line.get(name, "")).rjust(width) for name, width in zip(names, widths, strict=True))
        )
    print(json.dumps(rows))
    sys.exit(not all(row.get("same", True) and row.get("cap_holds", True) for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-segments", type=int, default=5_000)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--failing", type=float, default=0.06, help="share of the requests that fail")
    parser.add_argument(
        "--latency-s", type=float, default=0.02, help="of an answer that is asked for directly"
    )
    parser.add_argument("--cap", type=float, default=0.9, help="part of the cost; 0: no such run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="where archive and sets are put")
    main(parser.parse_args())
