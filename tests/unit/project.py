"""The project's own files and pages, as tests read them."""

import argparse
import re
import runpy
import sys
import typing
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

from jobs.common import cli, options
from jobs.common.commands import Commands
from jobs.distill.__main__ import COMMANDS as DISTILL
from jobs.evaluate.__main__ import COMMANDS as EVALUATE
from jobs.train.__main__ import COMMANDS as TRAIN

ROOT = Path(__file__).parents[2]


HEAVY = {
    *("ray", "torch", "vllm", "transformers", "lancedb", "sentence_transformers", "peft", "outlines"),
    *("polars", "huggingface_hub"),
}


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of every fenced block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def jobs_there_are() -> list[str]:
    """`jobs.NAME` of everything that can be run."""
    found = []
    for path in sorted((ROOT / "jobs").rglob("*.py")):
        if 'if __name__ == "__main__":' in path.read_text("utf-8").splitlines():
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__main__" else parts))
    return found


COMMANDS: dict[str, Commands] = {one.job: one for one in (DISTILL, EVALUATE, TRAIN)}
"""Jobs with several commands."""


def all_jobs() -> list[tuple[str, str | None]]:
    """(job, command) of everything that has options."""
    return [
        (name, command)
        for name in jobs_there_are()
        for command in (COMMANDS[name].commands if name in COMMANDS else [None])
    ]


SHARED = {"--help", "--config", "--log-format", "--metrics"}
"""Options of every job, which stand in the section of what all jobs share."""


class Job(typing.NamedTuple):
    """What a job hands to jobs.common.cli.main."""

    config: type[BaseModel]
    parser: argparse.ArgumentParser

    def options(self) -> set[str]:
        """Of its plain settings, without the `--no-` of a switch and what stands for another name."""
        names = {action.dest for action in self.parser._actions if "." not in action.dest}
        return {f"--{name.replace('_', '-')}" for name in names} - SHARED

    def tables(self) -> set[str]:
        """Settings that are tables."""
        kinds = {
            name: options.option_kind(field.annotation) for name, field in self.config.model_fields.items()
        }
        return {name for name, kind in kinds.items() if kind is None or isinstance(kind, type)}


class Parser(Exception):
    """Raised where a job would parse its options; has its parser."""


@cache
def job_of(name: str, command: str | None = None) -> Job:
    """A job as `python -m NAME COMMAND` starts it, stopped before it reads an option."""
    found = []

    def main(config_class, run, doc, argv=None, command=None, others=None):
        found.append((config_class, doc, command))

    def parse_args(parser, *_):
        raise Parser(parser)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # A job that another test has imported is run a second time, which is no news.
        warnings.simplefilter("ignore", RuntimeWarning)
        patch.setattr(cli, "main", main)
        patch.setattr(sys, "argv", [name, *([command] if command else [])])
        runpy.run_module(name, run_name="__main__")
        [(config_class, doc, command)] = found
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        with pytest.raises(Parser) as caught:
            cli.parse_config(config_class, doc, [], command)
    return Job(config_class, caught.value.args[0])
