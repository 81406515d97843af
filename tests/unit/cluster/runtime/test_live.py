"""Progress on a terminal: bars in their place; lines everywhere else."""

import io
import json
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console

from cluster.runtime import Progress, live
from cluster.runtime.log import write
from tests.unit.jobs.common.endings import JOB, ROOT


@pytest.fixture
def terminal():
    """A terminal of 120 columns, as text."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120, _environ={"TERM": "xterm"})
    live.begin(console)
    yield console.file
    live.end()


def test_on_a_terminal_a_stage_is_a_bar_and_other_lines_stand_above_it(terminal, capsys):
    first, second = Progress("encode", "segments", 10), Progress("decide", "targets")
    first.advance(10, "1 rejected")
    second.advance(0)
    second.printed_s -= 1
    second.advance(4)
    write("[commit] done [/] of <all>")
    live.end()
    shown = terminal.getvalue()
    assert "10 of 10 segments" in shown and "1 rejected" in shown and "4 targets" in shown
    assert "[encode]" not in shown and capsys.readouterr().err == ""
    last = shown.rindex("[commit] done [/] of <all>")
    assert shown.rindex("encode") > last and shown.rindex("decide") > last
    assert shown.rindex(live.SHOW_CURSOR) > shown.rindex("\x1b[?25l")


def test_bars_move_as_often_as_one_can_see_also_where_lines_come_seldom(terminal):
    progress = Progress("encode", "segments", 100, every_s=1000)
    progress.advance(3)
    progress.printed_s -= 1 / live.PER_S
    progress.advance(3)
    progress.advance(3)
    live.end()
    shown = terminal.getvalue()
    assert "6 of 100" in shown and "9 of 100" not in shown


def test_what_is_asked_for_stands_below_the_bars_and_counting_goes_on_with_new_ones(terminal):
    progress = Progress("retrieve", "questions", 4)
    progress.printed_s -= 1
    progress.advance(1)
    live.pause()
    before = terminal.getvalue()
    assert before.rindex(live.SHOW_CURSOR) > before.rindex("1 of 4 questions")
    progress.advance(3)
    live.end()
    assert "4 of 4 questions" in terminal.getvalue()[len(before) :]


@pytest.mark.parametrize("more", [{"force_terminal": False}, {"_environ": {"TERM": "dumb"}}])
def test_what_is_no_terminal_or_cannot_move_its_cursor_has_lines(more, capsys):
    console = Console(file=io.StringIO(), **{"force_terminal": True} | more)
    live.begin(console)
    assert live.view() is None
    Progress("encode", "segments", 10).advance(10)
    live.end()
    err = capsys.readouterr().err
    assert err.startswith("[encode] 10 of 10 segments") and "\x1b" not in err + console.file.getvalue()


COUNTING = """from cluster.runtime import Progress
        rows = Progress("count", "rows", 3)
        rows.advance(3)
        print("said meanwhile")
        %s"""


@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_job_shows_bars_on_its_terminal_and_leaves_the_cursor_however_it_ends(tmp_path, end):
    ours, its = pty.openpty()
    command = [sys.executable, "-c", JOB % (COUNTING % end), "--store", str(tmp_path / "store")]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=its, start_new_session=True
    ) as job:
        os.close(its)
        shown = read_all(ours)
        assert job.stdout is not None
        summary = json.loads(job.stdout.read().splitlines()[-1])
    assert summary["status"] == ("done" if end == "pass" else "failed")
    assert "3 of 3 rows" in shown and "said meanwhile" in shown
    assert shown.rindex(live.SHOW_CURSOR) > shown.rindex("\x1b[?25l")


def read_all(terminal: int) -> str:
    """What is written to a terminal until nobody has it any more."""
    found = b""
    try:
        while part := os.read(terminal, 1 << 16):
            found += part
    except OSError:  # so Linux says that it has ended
        pass
    os.close(terminal)
    return found.decode()
