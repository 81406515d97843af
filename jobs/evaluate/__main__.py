"""Evaluate: measures encoders, retrieval, memories, deciders and answers on data with known answers.

    python -m jobs.evaluate encoder --archive DIR --profiles default default:base --report DIR
    python -m jobs.evaluate retrieval --store URI --questions FILE --report DIR
    python -m jobs.evaluate memories --store URI --gold DIR/_gold --report DIR
    python -m jobs.evaluate decider --data DIR --deciders rules default --report DIR
    python -m jobs.evaluate decider --pairs FILE --report DIR
    python -m jobs.evaluate qa --store URI --questions FILE --profiles default --report DIR

Every command writes report.json, report.md and report.html, a page with charts, into the report folder;
`COMMAND --help` has its options and measures.
"""

import functools
import importlib

from jobs.common.commands import Command, Commands, Loaded

HELP = {
    "encoder": "what several encoder profiles make of the same conversations: a leaderboard",
    "retrieval": "how well questions find their evidence among raw turns, records, and both",
    "memories": "what of a store's records people would have written down, and what is missing",
    "decider": "how well deciders decide decisions that are known",
    "qa": "what models answer to questions about users, with retrieval off and on",
}


def load(name: str) -> Loaded:
    """The module of a command."""
    module = importlib.import_module(f"jobs.evaluate.{name}")
    return Loaded(module.Config, module.run, module.__doc__ or "")


COMMANDS = Commands(
    "jobs.evaluate",
    __doc__,
    {name: Command(help, functools.partial(load, name)) for name, help in HELP.items()},
)


if __name__ == "__main__":
    COMMANDS.main()
