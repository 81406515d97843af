"""What a job writes: answers and its summary on stdout, progress on stderr."""

import atexit
import os
import sys
import typing

from cluster.runtime import hide_secrets, hide_variables, live, log
from cluster.runtime.shown import harmless

_own_stdout: typing.TextIO | None = None


def reserve_stdout() -> int:
    """From now on only `show` writes to stdout; its file descriptor. What others print there (Ray, native
    code, daemons that outlive the job) goes to stderr: the summary must be the last line, and a pipe must
    end with the job."""
    global _own_stdout
    sys.stdout.flush()
    _own_stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding)
    os.dup2(2, 1)
    # Registered first, so it comes last.
    atexit.register(_say_no_more)
    return _own_stdout.fileno()


def _say_no_more() -> None:
    """Where vLLM was loaded in this process, triton tells of hundreds of objects that it leaves behind when
    Python is gone: nothing that whoever reads the end of a job could use."""
    if "triton" in sys.modules:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _answers() -> typing.TextIO:
    return _own_stdout or sys.stdout


def show(text: str) -> None:
    """One or more lines of what the user asked for, on stdout."""
    live.pause()
    # What somebody said in a chat, with its URLs, was redacted when it was stored.
    print(harmless(hide_variables(text)), file=_answers(), flush=True)


def show_no_more() -> None:
    """The reader (`| head`) has seen enough; Python must not complain again when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _answers().fileno())


def say(message: str) -> None:
    """One line of progress on stderr."""
    log.write(harmless(hide_secrets(message)))


def refuse(message: str) -> typing.NoReturn:
    """End with exit code 2, wrong usage, and no summary."""
    say(f"error: {message}")
    sys.exit(2)
