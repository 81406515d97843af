"""A distribution that is made of the examples of CONTRIBUTING.md, installed and run beside this project."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from cluster.store.store import Store
from tests.adding import install

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
SECTION = re.search(r"^## Adding your own\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The examples of the page, installed."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    (metadata,) = [block for language, block in blocks if not language]
    # Each begins with the path that it is to have.
    sources = {re.match(r"# (\S+\.py):", block)[1]: block for language, block in blocks if language}
    assert sources.keys() == {"mine/newest.py", "mine/diary.py", "mine/notes.py"}
    groups = tomllib.loads(metadata)["project"]["entry-points"]
    return install(tmp_path_factory.mktemp("site"), groups, sources | {"mine/__init__.py": ""})


def run(site, *words, code=0):
    """`python -m jobs.WORDS` where the distribution is installed; what it printed."""
    paths = {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", f"jobs.{words[0]}", *map(str, words[1:])]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | paths, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done


def summary(done):
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("job", "option", "name"),
    [
        ("consolidate", "--decider", "newest"),
        ("preview", "--decider", "newest"),
        ("ingest", "--format", "diary"),
        ("export", "--to", "notes"),
        ("import", "--from", "notes"),
    ],
)
def test_the_name_is_among_the_choices_that_help_shows(site, job, option, name):
    choices = re.search(rf"^  {option} {{(.*?)}}", run(site, job, "--help").stdout, re.MULTILINE)[1]
    assert name in choices.split(",")


def test_the_ingest_format_is_told_by_its_items_and_read(site, tmp_path):
    entries = [{"day": "2024-05-01", "entry": "I moved to Oslo."}, {"day": "2024-05-02", "entry": None}]
    (tmp_path / "diary.jsonl").write_text("".join(json.dumps(one) + "\n" for one in entries))
    archive = tmp_path / "archive"
    done = run(site, "ingest", "--input", tmp_path / "diary.jsonl", "--archive", archive, "--user-id", "me")
    assert (summary(done)["format"], summary(done)["num_sessions"]) == ("diary", 1)
    (row,) = ds.dataset(sorted(archive.glob("*-diary-*.parquet"))).to_table().to_pylist()
    assert (row["user_id"], row["session_id"], row["turns"][0]["content"]) == (
        "me",
        "2024-05-01",
        "I moved to Oslo.",
    )
    assert row["session_time"].date().isoformat() == "2024-05-01"


def test_the_exchange_format_and_the_decider_run_on_a_store(site, tmp_path):
    store = tmp_path / "store"
    notes = tmp_path / "notes.txt"
    notes.write_text("ann: User likes tea.\nann: \n")
    options = ("--store", store, "--embedder", "minilm", "--max-rejected-fraction", "1")
    done = summary(run(site, "import", "--from", "notes", "--input", notes, *options))
    assert (done["num_records"], done["num_rejections"]) == (1, 1)

    rows = [
        {
            "semantic_text": f"User's flat is in {town}.",
            "entities": ["flat"],
            "session_time": day,
            "session_id": day,
        }
        for town, day in (("Oslo", "2024-05-01"), ("Bergen", "2024-06-01"))
    ]
    lines = tmp_path / "flat.jsonl"
    lines.write_text("".join(json.dumps(row | {"user_id": "ann"}) + "\n" for row in rows))
    run(site, "import", "--from", "jsonl", "--input", lines, "--store", store)
    done = summary(run(site, "consolidate", "--store", store, "--decider", "newest", "--local"))
    assert (done["status"], done["num_deleted"]) == ("done", 1)
    (decision,) = Store(str(store)).rows("decisions", ["decider", "action", "reason"]).to_pylist()
    assert (decision["decider"], decision["action"]) == (done["decider"], "delete")
    assert decision["reason"].startswith("replaced by ")

    out = tmp_path / "out"
    run(site, "export", "--store", store, "--to", "notes", "--output", out)
    assert sorted((out / "notes.txt").read_text().splitlines()) == [
        "ann: User likes tea.",
        "ann: User's flat is in Bergen.",
    ]
    # Where the distribution is gone, the store says so and names the remedy.
    gone = run(tmp_path, "consolidate", "--store", store, "--local", code=1)
    assert "decider 'newest'" in summary(gone)["error"] and "--decider" in summary(gone)["error"]
