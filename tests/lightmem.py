"""LightMem's own code on our memory manager, to be tried on a clone of github.com/zjunlp/LightMem.

    python -m tests.lightmem CLONE                # the default encoder extracts; rules decide
    python -m tests.lightmem CLONE --scripted     # the same without a model: extraction is scripted

Two conversations go through LightMem's `add_memory`, `construct_update_queue_all_entries` and
`offline_update_all_entries`, which call `meta_text_extract` and `_call_update_llm` of jobs.common.lightmem.
Prints what is remembered before and after the update. LightMem's packages need not be installed: vectors are
MiniLM's, and a store in memory stands in for Qdrant.
"""

import argparse
import contextlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from unittest import mock

CONVERSATIONS = (("01", "I live in Oslo. I have a cat."), ("20", "I live in Rome."))
"""Day of May 2024, and what the user says."""


class Entries:
    """LightMem's vector store, in memory."""

    def __init__(self):
        self.rows = {}

    def exists(self, entry_id):
        return entry_id in self.rows

    def insert(self, vectors, payloads, ids):
        for entry_id, vector, payload in zip(ids, vectors, payloads, strict=True):
            self.rows[entry_id] = {"id": entry_id, "vector": vector, "payload": payload}

    def get_all(self):
        return list(self.rows.values())

    def search(self, query_vector, limit, filters):
        until = filters["float_time_stamp"]["lte"]
        found = [
            {"id": row["id"], "score": sum(a * b for a, b in zip(query_vector, row["vector"], strict=True))}
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
        from cluster.models.engine import Reply

        return [Reply(third_person(self.tokenizer.decode(r.prompt)), True, 10, 0, 5) for r in requests]


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


def run(clone: Path, scripted: bool) -> dict:
    """`before` and `after` the offline update: texts of the memories; `calls` of extraction; `failures`."""
    import jobs.common.lightmem
    from cluster.models.sources import embedder_folder
    from jobs.common.run import load_profile
    from schemas.profile import EmbedderProfile

    sys.path.insert(0, str(clone / "src"))
    if not importlib.util.find_spec("qdrant_client"):
        # LightMem imports it although another store is used here.
        sys.modules |= {"qdrant_client": mock.MagicMock(), "qdrant_client.models": mock.MagicMock()}
    from lightmem.memory.lightmem import LightMemory

    jobs.common.lightmem.register()
    if scripted:
        jobs.common.lightmem._load = Scripted
    embedder = embedder_folder(load_profile("embedders", "minilm", EmbedderProfile))
    memory = LightMemory.from_config(
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
        }
    )
    memory.embedding_retriever = Entries()
    for day, said in CONVERSATIONS:
        time = f"2024/05/{day} (Wed) 10:00"
        turns = [
            {"role": role, "content": content, "time_stamp": time}
            for role, content in (("user", said), ("assistant", "Noted."))
        ]
        memory.add_memory(turns, force_extract=True)

    def texts() -> list[str]:
        return sorted(row["payload"]["memory"] for row in memory.embedding_retriever.get_all())

    before = texts()
    memory.construct_update_queue_all_entries()
    memory.offline_update_all_entries(score_threshold=0.4)
    calls = memory.token_stats["add_memory_calls"]
    return {"before": before, "after": texts(), "calls": calls, "failures": memory.manager.failures}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clone", type=Path)
    parser.add_argument("--scripted", action="store_true")
    options = parser.parse_args()
    # LightMem prints; the last line of stdout is the result's.
    with contextlib.redirect_stdout(sys.stderr):
        result = run(options.clone, options.scripted)
    print(json.dumps(result), flush=True)
