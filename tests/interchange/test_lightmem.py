"""LightMem with its own store, on a real Qdrant: our consolidation of it, and an evolvable model in it."""

import json
import os
import subprocess
import sys

import pytest

from cluster.evolvable.embedder import EvolvableEmbedder
from tests.interchange.environments import python_of
from tests.lightmem import QUESTION, ROOT
from tests.tiny import save_tiny_model

pytestmark = pytest.mark.interchange

CLONE = os.environ.get("SLOWWAVE_LIGHTMEM")


@pytest.fixture
def lightmem():
    """What `python -m tests.lightmem CLONE ...` prints; it exits with 1 when something is wrong."""
    if not CLONE or not python_of("lightmem").exists():
        pytest.skip("needs a clone in SLOWWAVE_LIGHTMEM, and what `make test-interchange` installs")

    def run(*options):
        command = [sys.executable, "-m", "tests.lightmem", CLONE, *map(str, options)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run


def test_lightmem_s_search_finds_the_updated_memory_first_once_its_store_has_been_consolidated(lightmem):
    """The default encoder extracts; jobs.import, jobs.consolidate and jobs.export are run on its entries."""
    result = lightmem("--loop")
    assert result["before"] == ["User has a cat.", "User lives in Oslo.", "User lives in Rome."]
    assert any("Oslo" in found for found in result["found_before"])
    assert result["after"] == ["User has a cat.", "User lives in Rome."]
    assert result["found"][0].endswith(" User lives in Rome.")
    assert not any("Oslo" in found for found in result["found"])


def test_lightmem_s_search_has_the_order_of_an_evolvable_reranker_also_when_it_is_opened_again(
    lightmem, tmp_path
):
    model = save_tiny_model(tmp_path)
    result = lightmem("--scripted", "--evolvable", model)
    assert result["said"][-1] == "User lives in Rome." and len(result["said"]) == 3
    expected = EvolvableEmbedder.load(model).rerank(QUESTION, result["said"])
    for name in ("found_before", "found"):
        assert [one.split(" ", 2)[2] for one in result[name]] == expected
