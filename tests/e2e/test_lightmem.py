"""LightMem itself, on the default encoder: its own extraction, queue and update call ours."""

import json
import os
import subprocess
import sys

import pytest

from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.engine

CLONE = os.environ.get("SLOWWAVE_LIGHTMEM")


@pytest.mark.slow
@pytest.mark.skipif(not CLONE, reason="needs a clone of LightMem in SLOWWAVE_LIGHTMEM")
def test_lightmem_remembers_and_corrects_with_the_default_encoder():
    command = [sys.executable, "-m", "tests.lightmem", CLONE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert {"User lives in Oslo.", "User has a cat.", "User lives in Rome."} <= set(found["before"])
    assert "User lives in Rome." in found["after"] and "User lives in Oslo." not in found["after"]
    assert found["calls"] == 2 and found["failures"] == []
