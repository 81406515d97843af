"""LycheeMem: its SQLite store and its vector index open each user's folder, search by word, vector, day and
tag, and write on."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from src.embedder.base import BaseEmbedder
from src.memory.semantic.sqlite_store import SQLiteSemanticStore
from src.memory.semantic.vector_index import LanceVectorIndex

folder = Path(sys.argv[1])
vectors = json.loads((folder / "vectors.json").read_text())


class Scripted(BaseEmbedder):
    def embed(self, texts):
        return [vectors[text] for text in texts]


def read(user: Path) -> dict:
    store = SQLiteSemanticStore(str(user / "compact_memory.db"))
    index = LanceVectorIndex(str(user / "compact_vector"), Scripted(), embedding_dim=4)
    ids = [row["record_id"] for row in store.export_all()["records"]]
    records = [vars(record) for record in store.get_records_by_ids(sorted(ids))]
    words = {record["semantic_text"]: record["semantic_text"].strip(".").split()[-1] for record in records}
    found = {
        text: {
            "by_word": [row["record_id"] for row in store.fulltext_search(word)],
            "by_vector": index.search(text, limit=1)[0]["record_id"],
            "by_second_vector": index.search(text, column="normalized_vector", limit=1)[0]["record_id"],
        }
        for text, word in words.items()
    }
    by_day = [row["record_id"] for row in store.search_by_time(since="2025-05-01", until="2025-05-31")]
    by_tag = [row["record_id"] for row in store.search_by_tags(tags=["home"])]
    store.upsert_records(store.get_records_by_ids(ids))
    return {
        "user": json.loads((user / "user.json").read_text())["user_id"],
        "records": records,
        "found": found,
        "by_day": by_day,
        "by_tag": by_tag,
        "num_after": store.count_records(),
    }


users = [read(path.parent) for path in sorted(folder.glob("*/compact_memory.db"))]
print(json.dumps({"version": version("lycheemem"), "users": users}))
