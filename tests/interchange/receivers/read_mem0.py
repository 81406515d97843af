"""mem0: its Memory on a Qdrant in a folder, which gets the records as payloads, and the history as it is.

Its own migration script sends such a file to mem0's hosted service; a local store has no reader of it.
"""

import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

folder = Path(sys.argv[1])
os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": tempfile.mkdtemp(), "OPENAI_API_KEY": "none"}

from mem0 import Memory  # noqa: E402

vectors = json.loads((folder / "vectors.json").read_text())
records = json.loads((folder / "memories.json").read_text())["records"]
PAYLOAD = ("hash", "created_at", "updated_at", "user_id", "role")
qdrant = {"collection_name": "mem0", "embedding_model_dims": 4, "path": tempfile.mkdtemp(), "on_disk": True}
memory = Memory.from_config(
    {
        "vector_store": {"provider": "qdrant", "config": qdrant},
        "history_db_path": str(folder / "history.db"),
    }
)


class Scripted:
    """In the place of an embedder: the vectors of the texts that were sent."""

    def embed(self, text, action=None):
        return vectors[text]


memory.embedding_model = Scripted()
for record in records:
    payload = {name: record[name] for name in PAYLOAD if name in record} | record["metadata"]
    memory.vector_store.insert(
        [vectors[record["memory"]]], [payload | {"data": record["memory"]}], [record["id"]]
    )
users = sorted({record["user_id"] for record in records})
listed = [item for user in users for item in memory.get_all(filters={"user_id": user}, top_k=100)["results"]]
query = records[0]
hits = memory.search(query["memory"], filters={"user_id": query["user_id"]}, top_k=1)["results"]
history = {item["id"]: memory.history(item["id"]) for item in listed}
memory.update(query["id"], data=query["memory"])
last = memory.history(query["id"])[-1]["event"]
print(
    json.dumps(
        {
            "version": version("mem0ai"),
            "memories": listed,
            "first": hits[0]["id"],
            "history": history,
            "last": last,
        }
    )
)
