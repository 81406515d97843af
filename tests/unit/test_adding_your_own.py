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
from schemas.profiles.embedder import EmbedderProfile
from tests.adding import DECIDER, install
from tests.unit.cluster.store import stores

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


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with a memory."""
    row, profile = stores.run_row, EmbedderProfile(name="s", model="owner/s", model_hash="0" * 16)
    made = {"embedder": profile.fingerprint, "embedder_profile": profile.model_dump_json()}
    monkeypatch.setattr(stores, "run_row", lambda run_id: row(run_id) | made)
    store = Store(str(tmp_path / "store"), must_exist=False)
    stores.commit(store, "run1", stores.segment("tea", "I drink tea", records=["User drinks tea."]))
    return store.uri


def run(site, job, *words, code=0):
    """`python -m jobs.JOB WORDS` where the distribution is installed; what it printed."""
    return python(site, "-m", f"jobs.{job}", *words, code=code)


def python(site, *words, code=0):
    paths = {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    command = [sys.executable, *map(str, words)]
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
        ("audit", "--decider", "newest"),
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


IMPORT = """
import importlib, json, sys
import numpy as np
from cluster.embed import embedder
from cluster.models.resolve import resolve_embedder
from schemas.profiles.embedder import EmbedderProfile

class Scripted:
    dim = 4
    def __init__(self, profile): pass
    def embed(self, texts): return np.full((len(texts), 4), 0.5, np.float32)

job, profile = importlib.import_module("jobs.import.__main__"), EmbedderProfile(name="s", model="owner/s")
embedder.Embedder = Scripted
job.choose_embedder = lambda name, store: resolve_embedder(profile)
job.choose_encoder = lambda name, store: profile.model_copy(update={"model_hash": "0" * 16})
store, *inputs = sys.argv[1:]
for name, path in zip(inputs[::2], inputs[1::2]):
    job.run(job.ImportConfig(format=name, input=path, store=store, max_rejected_fraction=1))
"""
"""Imports FORMAT PATH ... into a store by an embedder that loads no model."""


def test_the_exchange_format_and_the_decider_run_on_a_store(site, tmp_path):
    store, notes, lines = tmp_path / "store", tmp_path / "notes.txt", tmp_path / "flat.jsonl"
    notes.write_text("ann: User likes tea.\nann: \n")
    rows = [
        {
            "user_id": "ann",
            "semantic_text": f"User's flat is in {town}.",
            "entities": ["flat"],
            "session_time": day,
        }
        for town, day in (("Oslo", "2024-05-01"), ("Bergen", "2024-06-01"))
    ]
    lines.write_text("".join(json.dumps(row | {"entities": ["flat"]}) + "\n" for row in rows))
    python(site, "-c", IMPORT, store, "notes", notes, "jsonl", lines)
    found = Store(str(store))
    assert found.rows("records", ["semantic_text"]).num_rows == 3
    (rejection,) = found.rows("rejections", ["source", "detail"]).to_pylist()
    assert rejection["source"] == "notes.txt:2"

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


BROKEN = {
    "slowwave.deciders": {"rules": "mine:Decider", "bad": "mine:nothing", "odd": "mine:VALUE"},
    "slowwave.ingest_formats": {"messages": "mine:VALUE", "bad": "nowhere:FORMAT", "odd": "mine:VALUE"},
    "slowwave.exchange_formats": {"mem0": "mine:VALUE", "bad": "nowhere:FORMAT", "odd": "mine:VALUE"},
}
PLACES = {
    "consolidate": ("--decider", "--store", "{store}", "--local"),
    "nightly": ("--consolidation.decider", "--archive", "{input}", "--store", "{output}", "--local"),
    "ingest": ("--format", "--input", "{input}", "--archive", "{output}", "--user-id", "me"),
    "export": ("--to", "--store", "{store}", "--output", "{output}"),
    "import": ("--from", "--input", "{input}", "--store", "{output}"),
}


@pytest.mark.parametrize(
    ("job", "name", "said"),
    [
        ("consolidate", "rules", "the name is Slowwave's own"),
        ("consolidate", "bad", "mine:nothing cannot be imported (AttributeError"),
        ("nightly", "odd", "mine:VALUE is 3; expected a class without required arguments that has decide"),
        ("ingest", "odd", "mine:VALUE is 3; expected a jobs.ingest.format.Format"),
        ("ingest", "auto", "in mine 1.2: "),
        ("export", "mem0", "the name is Slowwave's own"),
        ("import", "odd", "ExchangeFormat with read"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_wrong_usage_in_one_line(tmp_path, store, job, name, said):
    """Whatever else there is to do, it is not begun."""
    install(site := tmp_path / "site", BROKEN, {"mine.py": f"VALUE = 3\n{DECIDER}"})
    (tmp_path / "input.jsonl").write_text('{"semantic_text": "User likes tea."}\n')
    option, *words = PLACES[job]
    places = {"store": store, "input": tmp_path / "input.jsonl", "output": tmp_path / "output"}
    words = [word.format(**places) for word in words]
    done = run(site, job, option, name, *words, code=2)
    lines = [line for line in done.stderr.splitlines() if "entry point" in line]
    assert len(lines) == 1 and "slowwave." in lines[0] and "in mine 1.2" in lines[0] and said in lines[0]
    assert "Traceback" not in done.stderr and not (tmp_path / "output").exists()
    assert done.stdout == "", "no summary after wrong usage"


def test_nobody_else_is_concerned_by_one_that_cannot_be_used(tmp_path):
    install(tmp_path, BROKEN, {"mine.py": f"VALUE = 3\n{DECIDER}"})
    assert "bad" in run(tmp_path, "consolidate", "--help").stdout
