"""The pages: commands on them can be typed, links lead somewhere, every job, option and table is named.

No command is run but the first two of the front page, as far as they need no model. Options of jobs go
through the job's own parser, those of benchmarks are looked up in the source.
"""

import argparse
import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.backfill import BackfillConfig
from jobs.common.options import option_kind
from jobs.distill.config import EncoderSetConfig
from schemas.profiles.decider import DeciderProfile
from schemas.profiles.embedder import EmbedderProfile
from schemas.profiles.encoder import EncoderProfile
from schemas.store import RUNS_SCHEMA, table_schemas
from tests.unit.project import COMMANDS, ROOT, SHARED, Job, all_jobs, blocks, job_of, jobs_there_are

HIDDEN = {"data", "store", "build"}
"""Folders that .gitignore names: what commands of the pages leave behind."""

PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if path.relative_to(ROOT).parts[0] not in HIDDEN
    and not any(part[0] == "." for part in path.relative_to(ROOT).parts)
)
FRONT, JOBS = ROOT / "README.md", ROOT / "jobs" / "README.md"
STORE = ROOT / "cluster" / "store" / "README.md"

MAX_FRONT_WORDS = 1200


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- what the pages say ---------------------------------------------------------------------------------


def spans(text: str) -> Iterator[str]:
    """Every piece of inline code, on one line."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for match in re.finditer(r"`([^`]+)`", prose):
        yield " ".join(match[1].split())


def commands(text: str) -> Iterator[str]:
    """Every `python -m ...` and `make ...` of a page, without comments and what it is piped into. `jobs.NAME`
    stands for any job."""
    lines = [line for _, block in blocks(text) for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *spans(text)]:
        line = re.sub(r"(^|\s)#\s.*", "", line)
        if found := re.search(r"python -m [a-z_.]+(?= |$).*", line):
            yield re.split(r" (?:\||&&|;) ", found[0])[0].strip()
        elif found := re.match(r"(?:\$ )?(make [a-z].*)", line.strip()):
            yield found[1].strip()


def shown() -> list[tuple[str, str]]:
    """(page, command) of all pages, each once."""
    return sorted({(name_of(page), one) for page in PAGES for one in commands(page.read_text("utf-8"))})


def named_modules(text: str) -> set[str]:
    """What stands as `jobs.NAME` or `tests.benchmarks.NAME` in a text, also in front of arguments."""
    return set(re.findall(r"(?<![\w./-])((?:jobs|tests)(?:\.[a-z]\w*)+)(?![\w/]|\.\w)", text))


# --- what there is --------------------------------------------------------------------------------------


@cache
def options_of_source(module: str) -> set[str]:
    """Options that a module without a config class adds to its parser."""
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8"))
    return {
        argument.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }


MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))


# --- commands -------------------------------------------------------------------------------------------


def wrong_choices(job: Job, given: argparse.Namespace) -> list[str]:
    """Options of a few fixed values that are given another."""
    wrong = []
    for name, value in vars(given).items():
        field = job.config.model_fields.get(name)
        choices = option_kind(field.annotation) if field and isinstance(value, str) else None
        if isinstance(choices, tuple):
            wrong += [f"{name}={one}" for one in value.split("|") if one not in choices]
    return wrong


@pytest.mark.parametrize(("page", "command"), shown(), ids=lambda value: value)
def test_a_command_on_a_page_can_be_typed(page, command):
    words = shlex.split(re.sub(r"(?<=\s)(?:\.\.\.|\[[^]]*\])(?=\s|$)", "", command))
    if words[0] == "make":
        for word in words[1:]:
            name, _, value = word.partition("=")
            known = re.search(rf"\b{name}\b", MAKEFILE) if value else name in TARGETS
            assert known, f"{page}: {command!r}: make has no {name!r}"
        return
    module, arguments = words[2], words[3:]
    if module not in jobs_there_are():
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{page}: {command!r}: no such module"
        unknown = {word for word in arguments if word.startswith("--")} - options_of_source(module)
        assert not unknown, f"{page}: {command!r}: {module} has no {sorted(unknown)}"
        return
    name = None
    try:
        if module in COMMANDS:
            name, arguments = COMMANDS[module].choose(arguments)
        job = job_of(module, name)
        given = job.parser.parse_args(arguments)
    except SystemExit:
        pytest.fail(f"{page}: {command!r}: {module} does not take these options")
    assert not wrong_choices(job, given), f"{page}: {command!r}"
    path = str(given.config or "")
    assert not path.startswith("jobs/") or (ROOT / path).is_file(), f"{page}: {command!r}: no such file"


def test_the_pages_show_commands_of_jobs_and_of_make():
    found = [command for _, command in shown()]
    assert sum(command.startswith("python -m jobs.") for command in found) > 50
    assert sum(command.startswith("make ") for command in found) > 10


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_module_or_an_option_in_the_text_of_a_page_is_there(page):
    text = page.read_text("utf-8")
    for module in named_modules(text):
        place = ROOT / module.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), f"{name_of(page)}: no module {module}"
    known = {flag for job in all_jobs() for flag in job_of(*job).parser._option_string_actions}
    for bench in (ROOT / "tests" / "benchmarks").glob("bench_*.py"):
        known |= options_of_source(f"tests.benchmarks.{bench.stem}")
    alone = {span.split()[0] for span in spans(text) if span.startswith("--")}
    assert not alone - known, f"{name_of(page)}: no job has {sorted(alone - known)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_config_file_on_a_page_is_read(page, monkeypatch):
    for name in ("HF_TOKEN", "BACKUP_KEY_ID", "BACKUP_SECRET"):
        monkeypatch.setenv(name, "a token")
    for language, block in blocks(page.read_text("utf-8")):
        if language != "toml":
            continue
        settings, problems = tomllib.loads(block), []
        needed = {
            BackfillConfig: {"archive": "a", "store": "s"},
            EncoderSetConfig: {"archive": "a", "output": "o"},
        }
        for kind in (BackfillConfig, EncoderSetConfig, EncoderProfile, EmbedderProfile, DeciderProfile):
            places = needed.get(kind, {})
            try:
                kind.model_validate(settings | places)
                break
            except ValidationError as error:
                problems.append(str(error))
        else:
            pytest.fail(f"{name_of(page)}: nothing reads\n{block}\n" + "\n".join(problems))


def test_the_transcript_on_the_front_page_has_the_commands_that_make_shows_and_runs():
    """All of them, in their order, and what make shows is what it runs."""
    asked = ["make", "--dry-run", "--no-print-directory", "DATA=data", "backfill"]
    recipe = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    printed = re.findall(r"echo '\$ (python -m jobs\.[^']*)'", recipe)
    assert re.findall(r"\.venv/bin/(python -m jobs\..*)", recipe) == printed
    (transcript,) = [
        block for _, block in blocks(FRONT.read_text("utf-8")) if block.startswith("$ make backfill\n")
    ]
    assert re.findall(r"^\$ (python .*)", transcript, re.MULTILINE) == printed
    assert [command.split()[2] for command in printed] == [
        "jobs.sample",
        "jobs.nightly",
        "jobs.query",
        "jobs.query",
    ]


def test_the_transcript_on_the_front_page_is_what_the_sample_and_its_cut_print(tmp_path):
    """Of what no model has a part in. Three dots stand for anything."""
    sample = ["jobs.sample", "--archive", "data/sample"]
    cut = ["jobs.backfill", "--archive", "data/sample", "--store", "data/store", "--dry-run", "--local"]
    printed = []
    for command in (sample, cut):
        run = [sys.executable, "-m", *command]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        printed += (done.stderr + done.stdout).splitlines()
    front = FRONT.read_text("utf-8")
    [wrote, was_cut] = re.findall(r"^(?:wrote|\[cut\]) .*", front, re.MULTILINE)
    [num_sessions] = re.findall(r'"num_sessions": (\d+)', front)
    for shown in (wrote, was_cut, f'{{..."num_sessions": {num_sessions}, ...}}'):
        pattern = ".*".join(map(re.escape, shown.split("...")))
        assert [line for line in printed if re.fullmatch(pattern, line)], f"nobody prints {shown!r}"


# --- what must be named ---------------------------------------------------------------------------------


def section_of(text: str, title: str) -> str:
    """What stands under a heading of the third level."""
    found = re.search(rf"^### `{re.escape(title)}`\n(.*?)(?=^###? |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{name_of(JOBS)}: has no section {title}"
    return found[1]


@pytest.mark.parametrize("name", jobs_there_are())
def test_every_job_is_on_the_front_page_and_has_a_section(name):
    assert f"| `{name}` |" in FRONT.read_text("utf-8")
    assert f"python -m {name} " in section_of(JOBS.read_text("utf-8"), name)


def test_the_options_of_every_job_stand_in_the_section_of_what_all_share():
    section = re.search(r"^## What all jobs share\n(.*?)^## ", JOBS.read_text("utf-8"), re.M | re.S)[1]
    assert not {option for option in SHARED if f"`{option}" not in section}


@pytest.mark.parametrize(("name", "command"), all_jobs())
def test_every_option_and_table_of_a_job_stands_in_its_section(name, command):
    section, job = section_of(JOBS.read_text("utf-8"), name), job_of(name, command)
    if name == "jobs.evaluate":
        [section_row] = [line for line in section.splitlines() if line.startswith(f"| `{command}` |")]
        assert {"--report"} <= job.options() and "`--report`" in section
        section, options = section + section_row, job.options() - {"--report"}
        missing = {option for option in options if f"`{shown_as(option)}`" not in section_row}
    else:
        missing = {option for option in job.options() if f"`{shown_as(option)}`" not in section}
    assert not missing, f"{name_of(JOBS)}: {name} {command or ''} does not name {sorted(missing)}"
    # Every job has the tables that are told of once for all.
    told = section + JOBS.read_text("utf-8").partition("## What all jobs share")[2].partition("\n## ")[0]
    assert not {table for table in job.tables() if f"`[{table}]`" not in told}


@pytest.mark.parametrize(("name", "command"), all_jobs())
def test_every_table_of_a_job_is_among_the_tables_of_a_config_file(name, command):
    """With a page or a module where its settings are told, or with these themselves."""
    section = re.search(r"^## Tables of a config file\n(.*?)^## ", JOBS.read_text("utf-8"), re.M | re.S)[1]
    assert not {table for table in job_of(name, command).tables() if f"`[{table}]`" not in section}


def shown_as(option: str) -> str:
    """`as_json` is given as `--json`."""
    return option.replace("--as-json", "--json")


@pytest.mark.parametrize("name", [*table_schemas(1), "runs"])
def test_every_table_of_the_store_is_described_with_all_its_columns(name):
    text = STORE.read_text("utf-8")
    assert f"| `{name}` |" in text
    described = re.search(rf"^- `{name}`: (.*?)(?=^- |^$)", text, re.MULTILINE | re.DOTALL)[1]
    shared = re.search(r"^`records`, `turns` and `segments` have (.*?)^$", text, re.MULTILINE | re.DOTALL)[1]
    columns = (RUNS_SCHEMA if name == "runs" else table_schemas(1)[name]).names
    told = described + (shared if name in ("records", "turns", "segments") else "")
    assert not {column for column in columns if f"`{column}`" not in told}


def test_every_target_of_make_is_named():
    named = {word for _, command in shown() if command.startswith("make ") for word in command.split()}
    assert not TARGETS - named - {"sample"}


# --- links and length -----------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Headings of a page as links name them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{name_of(page)}: {target}: no such file"
        assert not anchor or anchor in anchors(place), f"{name_of(page)}: {target}: no such heading"


def test_every_page_is_reached_from_the_front_page():
    seen, left = set(), [FRONT]
    while left:
        page = left.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
        left += [(page.parent / link).resolve() for link in links if "://" not in link]
    assert not {name_of(page) for page in PAGES} - {name_of(page) for page in seen}


def test_the_front_page_can_be_read_in_five_minutes():
    assert len(FRONT.read_text("utf-8").split()) <= MAX_FRONT_WORDS
