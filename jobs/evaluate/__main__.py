"""Evaluate: what encoders, memories, deciders and answers are worth, on data with known answers.

    python -m jobs.evaluate encoder --archive DIR --profiles default default:base --report DIR
    python -m jobs.evaluate retrieval --store URI --questions FILE --report DIR
    python -m jobs.evaluate memories --store URI --gold DIR/_gold --report DIR
    python -m jobs.evaluate decider --data DIR --deciders rules default --report DIR
    python -m jobs.evaluate decider --pairs FILE --report DIR
    python -m jobs.evaluate qa --store URI --questions FILE --profiles default --report DIR

Every command writes report.json, report.md and a picture into the report folder; `COMMAND --help` teaches it.
"""

import importlib
import sys

from jobs.common.cli import Parser, main

COMMANDS = {
    "encoder": "what several encoder profiles make of the same conversations: a leaderboard",
    "retrieval": "how well questions find their evidence among raw turns, records, and both",
    "memories": "what of a store's records people would have written down, and what is missing",
    "decider": "how well deciders decide decisions that are known",
    "qa": "what models answer to questions about users, with retrieval off and on",
}


def command(argv: list[str]) -> str:
    """The command's name, the first argument. Exits 2 where there is none."""
    parser = Parser(prog="python -m jobs.evaluate", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help in COMMANDS.items():
        commands.add_parser(name, help=help, add_help=False)
    return parser.parse_known_args(argv[:1])[0].command


if __name__ == "__main__":
    name = command(sys.argv[1:])
    module = importlib.import_module(f"jobs.evaluate.{name}")
    main(module.Config, module.run, module.__doc__ or "", sys.argv[2:], f"jobs.evaluate {name}")
