"""Jobs with several commands: `python -m jobs.JOB COMMAND ...`, each with options of its own.

    if __name__ == "__main__":
        COMMANDS.main()

`jobs.JOB --help` lists the commands, `jobs.JOB COMMAND --help` shows one. An option or a key of a config file
that only another command has is refused, and the message names that command.
"""

import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.common import cli
from jobs.common.cli import JobConfig
from jobs.common.options import Parser


@dataclass(frozen=True)
class Loaded:
    """What a command is made of."""

    config: type[JobConfig]
    run: Callable[..., dict]
    doc: str


@dataclass(frozen=True)
class Command:
    """One command of a job."""

    help: str
    """What it does, in one line."""
    load: Callable[[], Loaded]
    """Imports it: the others of the job are not loaded with it."""


@dataclass(frozen=True)
class Commands:
    """The commands of one job."""

    job: str
    """`jobs.JOB`"""
    doc: str
    commands: Mapping[str, Command]
    alias: str | None = None
    """A setting that names the command too, as an option (`--task NAME`) or in the config file."""
    default: str | None = None
    """The command where nothing names one."""

    def main(self, argv: list[str] | None = None) -> None:
        """Run the command that the arguments name, see `cli.main`."""
        name, rest = self.choose(sys.argv[1:] if argv is None else argv)
        loaded = self.commands[name].load()
        cli.main(loaded.config, loaded.run, loaded.doc, rest, f"{self.job} {name}", self.of_others(name))

    def of_others(self, name: str) -> Callable[[], dict[str, type[JobConfig]]]:
        """Loads the config classes of the commands but this one."""
        return lambda: {
            f"{self.job} {other}": command.load().config
            for other, command in self.commands.items()
            if other != name
        }

    def choose(self, argv: list[str]) -> tuple[str, list[str]]:
        """Name of a command, and what of the arguments is left for it. Exits 2 where they name none."""
        parser = Parser(prog=f"python -m {self.job}", description=self.doc)
        listed = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
        for name, command in self.commands.items():
            listed.add_parser(name, help=command.help, add_help=False)
        if argv and not argv[0].startswith("-"):
            return parser.parse_known_args(argv[:1])[0].command, argv[1:]
        named = self._by_alias(argv)
        if named is None and not {"-h", "--help"} & set(argv):
            named = self.default
        # What is no command of this job is refused in the same words, however it was named.
        return parser.parse_known_args([named] if named else argv[:1])[0].command, argv

    def _by_alias(self, argv: list[str]) -> str | None:
        """The command that the option, or else the config file, names."""
        if self.alias is None:
            return None
        parser = Parser(add_help=False)
        parser.add_argument(f"--{self.alias}", dest="command")
        parser.add_argument("--config")
        given = parser.parse_known_args(argv)[0]
        if given.command or not given.config:
            return given.command
        try:
            named = tomllib.loads(Path(given.config).read_text(encoding="utf-8")).get(self.alias)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            # Whoever reads the whole file says what is wrong with it.
            return None
        return named if isinstance(named, str) else None


def commands_of(
    job: str,
    verb: str,
    doc: str,
    help: Mapping[str, str],
    configs: Mapping[str, type[JobConfig]],
    run: Callable[..., dict],
    default: str | None = None,
) -> Commands:
    """The commands of a job that does one thing for several tasks, each with a config class whose `task` is
    its name. The help of each has the last paragraph of the job's own."""
    shared = doc.strip().rpartition("\n\n")[2]

    def command(name: str) -> Command:
        said = f"{verb} {name}: {help[name]}.\n\n{shared}\n"
        return Command(help[name], lambda: Loaded(configs[name], run, said))

    return Commands(job, doc, {name: command(name) for name in help}, "task", default)
