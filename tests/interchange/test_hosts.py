"""Systems whose backlog we read, and whose own code finds the memories that it became."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interchange.environments import python_of
from tests.lycheemem import HOME, MOVE, QUESTION, missing

pytestmark = pytest.mark.interchange

ROOT = Path(__file__).parents[2]


def test_lycheemem_s_backlog_becomes_memories_that_its_server_finds():
    if not python_of("lychee").exists():
        pytest.skip("needs the environment of lychee, which `make test-interchange` makes")
    command = [sys.executable, "-m", "tests.lycheemem"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert not missing(found)
    assert "User has a cat." in [record["text"] for record in found["records"]]


GOOD = {
    "sessions": {"home": 2, "move": 2},
    "health": "ok",
    "records": [
        {"text": "User moved to Rome.", "said": [MOVE]},
        {"text": "User has a cat.", "said": [HOME]},
    ],
    "found": {QUESTION: [{"kind": "record", "text": "User moved to Rome.", "said": f"[t0][user] {MOVE}"}]},
    "consolidated": {"home": "no_new_turns", "move": "no_new_turns"},
}


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        (lambda found: found["sessions"].pop("home"), "both sessions"),
        (lambda found: found["records"].pop(0), "a record with Rome"),
        (lambda found: found["records"].pop(1), "a record with the cat"),
        (
            lambda found: found["records"].append({"text": "User lives in Oslo.", "said": [HOME]}),
            "no record by",
        ),
        (lambda found: found["records"][0]["said"].clear(), "each record beside"),
        (lambda found: found["found"][QUESTION].clear(), "Rome first"),
        (lambda found: found["consolidated"].update(move=None), "nothing left to consolidate"),
    ],
)
def test_what_lycheemem_s_server_does_not_find_is_told(change, lacks):
    assert not missing(GOOD)
    found = copy.deepcopy(GOOD)
    change(found)
    assert any(what.startswith(lacks) for what in missing(found))
