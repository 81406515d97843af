"""The backlog of a LycheeMem server through our jobs and back, with LycheeMem's own code at both ends.

    python -m tests.interchange.environments lychee    # once: its package, in an environment of its own
    python -m tests.lycheemem

LycheeMem's store keeps two sessions. jobs.ingest, jobs.nightly with the default models, and jobs.export make
memories of them, as files of its own. Its server opens these beside its sessions, and is asked where the user
lives. It asks its models at an endpoint: one for vectors, the same as the store's, and a language model that
answers nothing, since no search needs it.

Prints what its server finds. Exits with 1 if anything of that is missing, and says what.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.endpoint import Endpoint
from tests.interchange.environments import python_of

EMBEDDER = "minilm"
"""Has no prompts, and no mean is taken off: an endpoint for that model gives the store's vectors."""

HOME, MOVE = "I live in Oslo. I have a cat.", "I moved to Rome last week."
SESSIONS = (("home", 60, HOME), ("move", 2, MOVE))
"""Session, how many days ago, and what the user says."""

QUESTION = "Where do I live?"

HOST = Path(__file__).parent / "interchange" / "receivers" / "host_lychee.py"


def run(folder: Path) -> dict:
    """What LycheeMem's store kept, and what its server finds, see host_lychee.py; `folder` is empty."""
    today = dt.datetime.now(dt.UTC)
    said = [
        {
            "session_id": session,
            "said_at": f"{today - dt.timedelta(days=days):%Y-%m-%d %H:%M:%S}",
            "turns": [{"role": "user", "content": text}, {"role": "assistant", "content": "Noted."}],
        }
        for session, days, text in SESSIONS
    ]
    (folder / "said.json").write_text(json.dumps(said), "utf-8")
    (folder / "questions.json").write_text(json.dumps([QUESTION]), "utf-8")
    kept = _host("keep", folder)
    archive, store, out = (str(folder / name) for name in ("archive", "store", "memories"))
    _job("ingest", "--input", str(folder / "sessions.db"), "--user-id", "me", "--archive", archive)
    _job("nightly", "--archive", archive, "--store", store, "--embedder", EMBEDDER, "--local")
    _job("export", "--store", store, "--to", "lychee", "--output", out)
    embedder = _embedder()
    with Endpoint(lambda messages: "{}", embed=lambda texts: embedder.embed(texts).tolist()) as endpoint:
        settings = {
            "LLM_MODEL": "openai/none",
            "LLM_API_BASE": endpoint.base_url,
            "LLM_API_KEY": "none",
            "EMBEDDING_MODEL": f"openai/{EMBEDDER}",
            "EMBEDDING_DIM": str(embedder.dim),
            "SQLITE_DB_PATH": str(folder / "sessions.db"),
            "COMPACT_MEMORY_DB_PATH": str(Path(out, "me", "compact_memory.db")),
            "COMPACT_VECTOR_DB_PATH": str(Path(out, "me", "compact_vector")),
            "EXPERIMENTAL_TRANSFORMER_RERANK": "false",  # a model of a hub
        }
        return kept | _host("search", folder, settings)


def missing(result: dict) -> list[str]:
    """What is not as it should be."""
    texts = {record["text"]: record["said"] for record in result["records"]}
    first = next(iter(result["found"][QUESTION]), {"text": "", "said": ""})
    wanted = {
        "both sessions, of two turns, in its store": result["sessions"] == {"home": 2, "move": 2},
        "a record with Rome": any("Rome" in text for text in texts),
        "a record with the cat": any("cat" in text for text in texts),
        "no record by which the user lives in Oslo": not any("lives in Oslo" in text for text in texts),
        "each record beside the user's words": bool(texts)
        and all({HOME, MOVE} & set(said) for said in texts.values()),
        f"Rome first, when asked {QUESTION!r}": "Rome" in first["text"],
        "the words behind the first hit": MOVE in first["said"],
        "nothing left to consolidate": set(result["consolidated"].values()) == {"no_new_turns"},
    }
    return [what for what, holds in wanted.items() if not holds]


def _embedder():
    from cluster.embed.embedder import Embedder
    from jobs.common.run import load_profile
    from schemas.profiles.embedder import EmbedderProfile

    return Embedder(load_profile("embedders", EMBEDDER, EmbedderProfile))


def _job(name: str, *options: str) -> None:
    print(f"$ python -m jobs.{name} {shlex.join(options)}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", f"jobs.{name}", *options], check=True, stdout=sys.stderr)


def _host(command: str, folder: Path, settings: dict[str, str] | None = None) -> dict:
    """What LycheeMem answers, in its environment."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(python_of("lychee")), str(HOST), command, str(folder)],
        check=True,
        stdout=subprocess.PIPE,
        env=environment | (settings or {}),
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave everything in this new folder")
    options = parser.parse_args()
    if not python_of("lychee").exists():
        parser.error("LycheeMem is not there: python -m tests.interchange.environments lychee")
    with contextlib.ExitStack() as stack:
        place = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place.mkdir(parents=True, exist_ok=True)
        result = run(place.absolute())
    print(json.dumps(result), flush=True)
    if lacks := missing(result):
        sys.exit("error: missing: " + "; ".join(lacks))
