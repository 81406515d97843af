"""Thirty nights of a store, which the jobs themselves have run, with what went wrong and was mended.

The encoder is behind an endpoint on loopback that writes down what it is told, and counts what it is paid;
the embedder hashes words. There is no Ray and no model, and days pass as `Clock` says. A crash needs a
process that can be killed:

    python -m tests.unit.cluster.report.month FOLDER DAY BASE_URL
"""

import contextlib
import datetime as dt
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.archive import ARCHIVE_SCHEMA
from tests import endpoint as served
from tests.e2e.operations.stores import ANN

ROOT = Path(__file__).parents[4]

BOB, CLEO, DAN = "bob-the-sailor", "cleo-of-porto", "dan"

# --- what is said ---------------------------------------------------------------------------------------

NUM_NIGHTS = 30
QUIET = (3, 5, 7, 11, 12, 15, 18, 19, 21, 23, 25, 26, 28)
"""Nights before which nobody said anything."""
MOVED, FORGOTTEN, KILLED, CAPPED, IMPORTED, REEMBEDDED = 4, 6, 9, 14, 17, 24
"""Days on which something happens. What was imported is taken out on the same day."""
WENT_ON, PAID_REST = 10, 15
"""The nights after the one that was killed and after the one that was capped, which go on with them."""

TOPICS = (
    *(
        "glaciers",
        "volcanoes",
        "lighthouses",
        "bees",
        "comets",
        "tides",
        "ferns",
        "canals",
        "owls",
        "bridges",
    ),
    *("spices", "sundials", "kites", "violins", "windmills", "deserts", "whales", "clocks", "maps", "coral"),
    *(
        "orchards",
        "rainbows",
        "caves",
        "ferries",
        "gardens",
        "moss",
        "harbours",
        "stamps",
        "telescopes",
        "pots",
    ),
)

SPECIAL = {
    1: [(ANN, "I live in Lyon."), (BOB, "I have a boat called Petrel."), (CLEO, "I am allergic to walnuts.")],
    2: [(DAN, "I play the cello."), (BOB, "I am a sailor.")],
    MOVED: [(ANN, "I live in Oslo now.")],
    KILLED: [(CLEO, "I work at the harbour."), (DAN, "I have a red tent.")],
    WENT_ON: [(ANN, "I have a cat called Miso.")],
    CAPPED: [(DAN, "I have a blue bicycle."), (CLEO, "I take the ferry to work."), (ANN, "I play chess.")],
    22: [(ANN, "I am a nurse.")],
    29: [(CLEO, "I live in Porto.")],
}
SPAM = tuple(f"User should buy miracle pills, offer number {number}." for number in range(1, 41))
"""Memories of the file that somebody imports."""


def said_on(day: int) -> list[tuple[str, str]]:
    """(user, what they say) of the day before a night."""
    if day in QUIET:
        return []
    daily = ((CLEO, DAN)[day % 2], f"I read about {TOPICS[day - 1]}.")
    return [*SPECIAL.get(day, ()), daily]


def remembered(messages: list[dict]) -> str:
    """What the encoder makes of a prompt: each sentence of the user as it stands, of the user."""
    current = messages[-1]["content"].partition("<CURRENT>")[2]
    records = []
    for index, role, text in served.TURN.findall(current):
        if role != "user":
            continue
        text = re.sub(
            r"^I (am|have|\w+)", lambda found: f"User {THIRD.get(found[1], found[1])}", text.strip()
        )
        records.append(
            {"evidence_turns": [int(index)], "memory_type": "fact", "semantic_text": text, "entities": []}
        )
    return json.dumps({"records": records})


THIRD = {"am": "is", "have": "has", "live": "lives", "play": "plays", "work": "works", "take": "takes"}
"""Verbs as they are said of somebody else, where that is another form."""


# --- stand-ins ------------------------------------------------------------------------------------------


@dataclass
class Clock:
    """In the place of the modules `datetime` and `time` where a run asks how late it is: a second lasts as
    long as `SPEED` of them."""

    day: int = 1
    hour: int = 2
    SPEED = 200

    def set(self, day: int, hour: int = 2) -> None:
        self.day, self.hour, self._since_s = day, hour, time.monotonic()

    def monotonic(self) -> float:
        return time.monotonic() * self.SPEED

    def now(self, zone: dt.tzinfo | None = None) -> dt.datetime:
        gone = dt.timedelta(seconds=(time.monotonic() - self._since_s) * self.SPEED)
        return dt.datetime(2026, 3, self.day, self.hour, tzinfo=dt.UTC) + gone

    @property
    def datetime(self) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(dt.datetime, name, None) or getattr(dt, name)


class Words:
    """In the place of cluster.embed.embedder.Embedder: the sum of a vector for each word."""

    dim, load_s = 16, 0.0

    def __init__(self, profile: Any):
        self._model = profile.model

    def embed(self, texts: list[str]) -> np.ndarray:
        summed = np.array([sum(map(self._word, text.lower().split())) for text in texts], np.float32)
        return summed / np.linalg.norm(summed, axis=1, keepdims=True)

    embed_queries = embed

    def _word(self, word: str) -> np.ndarray:
        seed = [*self._model.encode(), *word.strip(".,").encode()]
        return np.random.default_rng(seed).standard_normal(self.dim)


EMBEDDERS = (
    "embed.embedder",
    "embed.reembed",
    "embed.turn_embedder",
    "backfill.embed_stage",
    "consolidate.stages",
)
"""Modules of `cluster` that load an embedder."""


@contextlib.contextmanager
def simulated() -> Iterator[Clock]:
    """With a clock of its own, and `Words` as the embedder."""
    clock = Clock()
    clock.set(1)
    with contextlib.ExitStack() as stack:

        def put(module: str, name: str, value: object) -> None:
            stack.enter_context(mock.patch.object(importlib.import_module(module), name, value))

        for name in EMBEDDERS:
            put(f"cluster.{name}", "Embedder", Words)
        for name in ("jobs.common.run", "schemas.manifest", "cluster.store.runs"):
            put(name, "dt", clock)
        put("jobs.common.run", "time", clock)
        # Nothing is loaded that had to go before something else is.
        put("cluster.runtime.stages", "gc", mock.Mock())
        yield clock


# --- the nights -----------------------------------------------------------------------------------------

COMPARED = (4, 11, 18, 25)
"""Nights that end with a consolidation."""
PRICES = {"prompt_price": 40.0, "output_price": 120.0}
"""Of a million tokens."""
COST = (100 * PRICES["prompt_price"] + 10 * PRICES["output_price"]) / 1e6
"""What the endpoint is paid for a request."""
NUM_WITHIN_CAP = 2
"""Requests that the cap of the night CAPPED has room for."""


def _cap(server: served.Endpoint) -> float:
    """What that many requests cost, with what the last may cost at most put aside before it is sent."""
    from cluster.models.endpoint import estimated_tokens

    first = server.requests[0]
    at_most = estimated_tokens(first["messages"]) * PRICES["prompt_price"]
    at_most += first["max_tokens"] * PRICES["output_price"]
    return round(at_most / 1e6 + (NUM_WITHIN_CAP - 0.5) * COST, 4)


@dataclass(frozen=True)
class Month:
    """Where the store lies, and what its runs said at their ends."""

    uri: str
    told: dict[str, dict]
    """`night DAY`, or the name of an operation -> summary; of the night that was killed there is none."""
    num_paid: dict[str, int]
    """The same names -> requests that the endpoint was paid for."""
    cap: float
    """Of the night CAPPED."""

    def run_id(self, name: str, part: str = "backfill") -> str:
        told = self.told[name]
        return told.get(part, told)["run_id"]


def night(folder: Path, day: int, base_url: str, **settings: Any) -> dict:
    """What `jobs.nightly` does and says."""
    from jobs import nightly

    given = {
        **{"archive": str(folder / "archive"), "store": str(folder / "store"), "profile": "openai"},
        **{"local": True, "consolidate": day in COMPARED, "consolidation": {"decider": "rules"}},
        "endpoint": served.table(base_url, **PRICES),
        **settings,
    }
    if day == 1:
        given["embedder"] = str(_embedder(folder, "words"))
    return nightly.run(nightly.NightlyConfig.model_validate(given))


def _embedder(folder: Path, name: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(f'name = "{name}"\nmodel = "tests/{name}"\n', "utf-8")
    return path


def _write_sessions(folder: Path, day: int) -> None:
    evening = dt.datetime(2026, 3, day, tzinfo=dt.UTC) - dt.timedelta(hours=5)
    sessions = []
    for user, text in said_on(day):
        turns = [
            {"role": "user", "content": text, "speaker": None, "time": None},
            {"role": "assistant", "content": "I will keep that in mind.", "speaker": None, "time": None},
        ]
        name = f"{user}-{evening:%m%d}-{len(sessions)}"
        session = {"user_id": user, "conversation_id": None, "session_id": name, "session_time": evening}
        sessions.append(session | {"turns": turns})
    if sessions:
        table = pa.Table.from_pylist(sessions, schema=ARCHIVE_SCHEMA)
        pq.write_table(table, folder / "archive" / f"{evening:%Y-%m-%d}.parquet")


def _killed(folder: Path, day: int, server: served.Endpoint) -> None:
    """A night in a process of its own, which is killed while the encoder answers its last question."""
    last = said_on(day)[-1][1]
    command = [sys.executable, "-m", __name__, str(folder), str(day), server.base_url]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:

        def deadly(messages: list[dict]) -> str:
            if last in messages[-1]["content"]:
                os.kill(process.pid, signal.SIGKILL)
            return remembered(messages)

        server.reply = deadly
        assert process.wait(600) == -signal.SIGKILL, "it was to be killed"
    server.reply = remembered


def make(folder: Path) -> Month:
    """The store `folder/store`, and what its runs told."""
    importing = importlib.import_module("jobs.import.__main__")
    from jobs import forget, reembed, rollback

    folder = folder.absolute()
    (folder / "archive").mkdir(parents=True)
    (folder / "spam.jsonl").write_text(
        "".join(json.dumps({"user_id": DAN, "text": text}) + "\n" for text in SPAM), "utf-8"
    )
    store, told, num_paid = str(folder / "store"), {}, {}
    with simulated() as clock, served.Endpoint(remembered) as server:

        @contextlib.contextmanager
        def told_as(name: str, day: int, hour: int) -> Iterator[None]:
            before = sum(server.paid.values())
            clock.set(day, hour)
            yield
            num_paid[name] = sum(server.paid.values()) - before

        for day in range(1, NUM_NIGHTS + 1):
            _write_sessions(folder, day)
            name = f"night {day}"
            with told_as(name, day, 2):
                if day == KILLED:
                    _killed(folder, day, server)
                else:
                    settings = {"max_cost": _cap(server)} if day == CAPPED else {}
                    told[name] = night(folder, day, server.base_url, **settings)
            if day == FORGOTTEN:
                with told_as("forget", day, 15):
                    told["forget"] = forget.run(forget.ForgetConfig(store=store, user_id=BOB))
            if day == IMPORTED:
                with told_as("import", day, 9):
                    given = importing.ImportConfig(input=str(folder / "spam.jsonl"), store=store)
                    told["import"] = importing.run(given)
                with told_as("rollback", day, 11):
                    back = rollback.RollbackConfig(store=store, to=told[name]["backfill"]["run_id"])
                    told["rollback"] = rollback.run(back)
            if day == REEMBEDDED:
                with told_as("reembed", day, 13):
                    new = str(_embedder(folder, "more-words"))
                    told["reembed"] = reembed.run(
                        reembed.ReembedConfig(store=store, embedder=new, local=True)
                    )
        return Month(store, told, num_paid, _cap(server))


if __name__ == "__main__":
    with simulated() as its_clock:
        its_clock.set(int(sys.argv[2]))
        night(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
