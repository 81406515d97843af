"""What the page says of ids of submissions, typed into a shell in which `ray` only notes them."""

import re
import subprocess

import pytest

from tests.unit.project import ROOT, blocks

(SHOWN,) = (
    block
    for _, block in blocks((ROOT / "cluster" / "deploy" / "README.md").read_text("utf-8"))
    if "--submission-id" in block
)
NOTED = 'ray() { num=$((num + 1)); echo "$4 $*"; test "$num" -ge "$done_at"; }\n'


@pytest.mark.parametrize(("done_at", "num_tries"), [(1, 1), (2, 2), (9, 3)])
def test_each_try_of_a_night_has_an_id_of_its_own_until_one_has_done(done_at, num_tries):
    script = f"num=0 done_at={done_at}\n{NOTED}{SHOWN}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    ids, given = zip(*(line.split(" ", 1) for line in done.stdout.splitlines()), strict=True)
    found = [re.fullmatch(r"nightly-(\d{4}-\d\d-\d\d)-(\d)", one) for one in ids]
    assert [int(one[2]) for one in found] == list(range(1, num_tries + 1))
    # But for the id the command is the same.
    assert len({one.split(" -- ")[1] for one in given}) == 1 and "python -m jobs.nightly" in given[0]
