"""LightMem's own code on our models, to be tried on a clone of github.com/zjunlp/LightMem.

    python -m tests.lightmem CLONE                    # the default encoder extracts; rules decide
    python -m tests.lightmem CLONE --loop             # its store out, consolidated by our jobs, and in again
    python -m tests.lightmem CLONE --evolvable FOLDER # an evolvable model embeds and reranks
    ... --scripted                                    # each without a language model: extraction is scripted

Two conversations go through LightMem's `add_memory`, which calls `meta_text_extract` of jobs.common.lightmem.
The last line of stdout is JSON: what is remembered, and what its `retrieve` finds. Exits with 1, and says why
on stderr, when something is not remembered, or an outdated memory is still there.

Without an option, LightMem's `construct_update_queue_all_entries` and `offline_update_all_entries` update,
with `_call_update_llm` of jobs.common.lightmem. LightMem's packages need not be installed: vectors are
MiniLM's, and a store in memory stands in for Qdrant. The two options take LightMem's own store in a real
Qdrant, which `python -m tests.interchange.environments lightmem` installs.
"""

import argparse
import contextlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]

CONVERSATIONS = (("01", "I live in Oslo. I have a cat."), ("20", "I live in Rome."))
"""Day of May 2024, and what the user says."""

QUESTION = "Where does the user live?"
OUTDATED, UPDATED, OTHER = "Oslo", "Rome", "cat"
"""Words of what was said: the memory of the first must give way to that of the second."""


class Entries:
    """LightMem's vector store, in memory."""

    def __init__(self):
        self.rows = {}

    def exists(self, entry_id):
        return entry_id in self.rows

    def insert(self, vectors, payloads, ids):
        for entry_id, vector, payload in zip(ids, vectors, payloads, strict=True):
            self.rows[entry_id] = {"id": entry_id, "vector": vector, "payload": payload}

    def get_all(self, with_vectors=True):
        return list(self.rows.values())

    def search(self, query_vector, limit, filters=None, exclude_ids=None, return_full=False):
        until = filters["float_time_stamp"]["lte"] if filters else float("inf")
        found = [
            {"id": row["id"], "score": sum(a * b for a, b in zip(query_vector, row["vector"], strict=True))}
            | ({"payload": row["payload"]} if return_full else {})
            for row in self.rows.values()
            if row["payload"]["float_time_stamp"] <= until
        ]
        return sorted(found, key=lambda hit: -hit["score"])[:limit]

    def update(self, vector_id, vector, payload):
        self.rows[vector_id] = {"id": vector_id, "vector": vector, "payload": payload}

    def delete(self, vector_id):
        del self.rows[vector_id]


class Scripted:
    """Stands in for the engine: a record for each sentence of the user's, as an encoder would write it."""

    def __init__(self, encoder, device_map):
        from transformers import AutoTokenizer

        from cluster.models.sources import tokenizer_folder

        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(encoder))

    def generate(self, requests):
        from cluster.models.asking import Answer

        return [Answer(third_person(self.tokenizer.decode(r.prompt)), True, 10, 5) for r in requests]


def third_person(prompt: str) -> str:
    said = re.findall(r"\[(\d+)\] user: (.*)", prompt.rsplit("<CURRENT_TURNS>", 1)[-1])
    records = [
        {
            "memory_type": "fact",
            "semantic_text": sentence.strip().replace("I live", "User lives").replace("I have", "User has"),
            "evidence_turns": [int(index)],
        }
        for index, text in said
        for sentence in re.findall(r"[^.]+\.", text.replace("<|im_end|>", ""))
    ]
    return json.dumps({"records": records})


# --- LightMem -------------------------------------------------------------------------------------------


def host(clone: Path, *, scripted: bool, **settings: Any) -> Any:
    """The clone's LightMemory with our memory manager and MiniLM; `settings` go into its configuration."""
    import jobs.common.lightmem
    from cluster.models.sources import embedder_folder
    from jobs.common.run import load_profile
    from schemas.profiles.embedder import EmbedderProfile

    sys.path.insert(0, str(clone / "src"))
    if not importlib.util.find_spec("qdrant_client"):
        # LightMem imports it although another store is used here.
        sys.modules |= {"qdrant_client": mock.MagicMock(), "qdrant_client.models": mock.MagicMock()}
    from lightmem.memory.lightmem import LightMemory

    jobs.common.lightmem.register()
    if scripted:
        jobs.common.lightmem._load = Scripted
    embedder = embedder_folder(load_profile("embedders", "minilm", EmbedderProfile))
    return LightMemory.from_config(
        {
            "memory_manager": {
                "model_name": jobs.common.lightmem.MODEL_NAME,
                "configs": {"decider": "rules", "device_map": "auto", "gen_kwargs": {"temperature": 0.2}},
            },
            "text_embedder": {
                "model_name": "huggingface",
                "configs": {"model": str(embedder), "embedding_dims": 384, "model_kwargs": {}},
            },
            "index_strategy": "embedding",
            "retrieve_strategy": None,
            "update": "offline",
            **settings,
        }
    )


def with_qdrant(name: str, folder: Path, **configs: Any) -> dict:
    """Settings of a LightMemory whose store is a real Qdrant in a folder; `name`: LightMem's retriever."""
    from tests.interchange.environments import packages_of

    if not importlib.util.find_spec("qdrant_client"):
        # Behind our own packages, which it shares.
        sys.path.append(str(packages_of("lightmem")))
    place = {"collection_name": "lightmem", "path": str(folder / "qdrant"), "on_disk": True}
    retriever = {"model_name": name, "configs": place | configs}
    return {"retrieve_strategy": "embedding", "embedding_retriever": retriever}


def tell(memory: Any) -> None:
    """Both conversations."""
    for day, said in CONVERSATIONS:
        time = f"2024/05/{day} (Wed) 10:00"
        turns = [
            {"role": role, "content": content, "time_stamp": time}
            for role, content in (("user", said), ("assistant", "Noted."))
        ]
        memory.add_memory(turns, force_extract=True)


def texts_of(memory: Any) -> list[str]:
    """What it remembers."""
    return sorted(entry["payload"]["memory"] for entry in memory.embedding_retriever.get_all())


# --- what is tried --------------------------------------------------------------------------------------


def update(clone: Path, scripted: bool) -> dict:
    """`before` and `after` the offline update: texts of the memories; `calls` of extraction; `failures`."""
    memory = host(clone, scripted=scripted)
    memory.embedding_retriever = Entries()
    tell(memory)
    before = texts_of(memory)
    memory.construct_update_queue_all_entries()
    memory.offline_update_all_entries(score_threshold=0.4)
    calls = memory.token_stats["add_memory_calls"]
    return {"before": before, "after": texts_of(memory), "calls": calls, "failures": memory.manager.failures}


def loop(clone: Path, scripted: bool, folder: Path) -> dict:
    """LightMem's store through ours and back: texts `before` and `after`, what its search `found_before` and
    has `found`."""
    memory = host(clone, scripted=scripted, **with_qdrant("qdrant", folder, embedding_model_dims=384))
    tell(memory)
    result = {"before": texts_of(memory), "found_before": memory.retrieve(QUESTION)}

    entries, store, export = folder / "entries.jsonl", folder / "store", folder / "export"
    points = memory.embedding_retriever.get_all()
    entries.write_text("".join(f"{json.dumps(point)}\n" for point in points), "utf-8")
    # A store searches, and an export is searched, with the vectors of one embedder.
    job("import", "--from", "lightmem", "--input", entries, "--user-id", "me", "--embedder", "minilm", store)
    job("consolidate", "--local", store)
    job("export", "--to", "lightmem", "--output", export, store)
    points = [json.loads(line) for line in (export / "me.jsonl").read_text("utf-8").splitlines()]
    memory.embedding_retriever.reset()
    columns = [[point[key] for point in points] for key in ("vector", "payload", "id")]
    memory.embedding_retriever.insert(*columns)
    return result | {"after": texts_of(memory), "found": memory.retrieve(QUESTION)}


def job(name: str, *options: object) -> None:
    """Run a job on the store that is named last. CalledProcessError when it fails."""
    *options, store = map(str, options)
    command = [sys.executable, "-m", f"jobs.{name}", "--store", store, *options]
    subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)


def evolvable(clone: Path, scripted: bool, folder: Path, model: Path) -> dict:
    """An evolvable model in LightMem: texts `before` and `after` its collection was opened again, what its
    search `found_before` and `found` then, and the texts as they were `said`, in order."""
    import jobs.common.lightmem_evolvable as adapter

    name, configs = adapter.MODEL_NAME, {"model": str(model)}
    settings = with_qdrant(name, folder, **configs)
    settings["text_embedder"] = {"model_name": name, "configs": configs}
    sys.path.insert(0, str(clone / "src"))
    adapter.register()
    memory = host(clone, scripted=scripted, **settings)
    tell(memory)
    before = {"before": texts_of(memory), "found_before": memory.retrieve(QUESTION)}
    memory.embedding_retriever.client.close()
    memory = host(clone, scripted=scripted, **settings)
    payloads = [entry["payload"] for entry in memory.embedding_retriever.get_all()]
    said = [one["memory"] for one in sorted(payloads, key=lambda one: one[adapter.POSITION])]
    return before | {"after": sorted(said), "said": said, "found": memory.retrieve(QUESTION)}


# --- what must hold -------------------------------------------------------------------------------------


def problems(result: dict, *, is_updated: bool = True) -> list[str]:
    """What is not as it must be; `is_updated`: the outdated memory has to be gone."""
    after = (UPDATED, OTHER) if is_updated else (OUTDATED, UPDATED, OTHER)
    found = [
        *_missing("remembered", result["before"], (OUTDATED, UPDATED, OTHER)),
        *_missing("left in the end", result["after"], after),
    ]
    if is_updated and _missing("", result["after"], (OUTDATED,)) == []:
        found.append(f"what is outdated is still there: {result['after']}")
    if result.get("failures"):
        found.append(f"the memory manager failed: {result['failures']}")
    if "found" in result:
        found += _missing("found at first", result["found_before"], (OUTDATED, UPDATED))
        found += _missing("found first in the end", result["found"][:1], (UPDATED,) if is_updated else ())
        if is_updated and _missing("", result["found"], (OUTDATED,)) == []:
            found.append(f"what is outdated is still found: {result['found']}")
        if not is_updated and result["found"] != result["found_before"]:
            found.append(f"opened again, it finds {result['found']}, before {result['found_before']}")
    return found


def _missing(where: str, texts: list[str], words: Iterable[str]) -> list[str]:
    return [f"nothing of {word!r} is {where}: {texts}" for word in words if not any(word in t for t in texts)]


def main() -> int:
    """Exit code of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clone", type=Path)
    parser.add_argument("--scripted", action="store_true")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--loop", action="store_true")
    what.add_argument("--evolvable", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    # LightMem prints; the last line of stdout is the result's.
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        if options.loop:
            result = loop(options.clone, options.scripted, Path(folder))
        elif options.evolvable:
            result = evolvable(options.clone, options.scripted, Path(folder), options.evolvable)
        else:
            result = update(options.clone, options.scripted)
    print(json.dumps(result), flush=True)
    wrong = problems(result, is_updated=not options.evolvable)
    for problem in wrong:
        print(f"[lightmem] {problem}", file=sys.stderr, flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
