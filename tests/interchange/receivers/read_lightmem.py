"""LightMem: its Qdrant retriever takes the points of a user's file, gives them back and finds them.

Its memory needs models; what stores and searches does not. SLOWWAVE_LIGHTMEM names a clone.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from bare import bare

source = Path(os.environ["SLOWWAVE_LIGHTMEM"]) / "src" / "lightmem"
bare("lightmem", "factory", "factory.retriever", "factory.retriever.embeddingretriever", root=source)

from lightmem.configs.retriever.embeddingretriever.qdrant import QdrantConfig  # noqa: E402
from lightmem.factory.retriever.embeddingretriever.qdrant import Qdrant  # noqa: E402

found = {}
for file in sorted(Path(sys.argv[1]).glob("*.jsonl")):
    points = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    place = {
        "collection_name": "lightmem",
        "embedding_model_dims": 4,
        "path": tempfile.mkdtemp(),
        "on_disk": True,
    }
    retriever = Qdrant(QdrantConfig(**place))
    retriever.insert(*([point[name] for point in points] for name in ("vector", "payload", "id")))
    first = points[0]
    until = {"float_time_stamp": {"lte": first["payload"]["float_time_stamp"]}}
    found[file.stem] = {
        "points": [
            {"id": point["id"], "payload": point["payload"], "vector": point["vector"]}
            for point in retriever.get_all()
        ],
        "first": retriever.search(first["vector"], limit=1)[0]["id"],
        "until": [hit["id"] for hit in retriever.search(first["vector"], limit=9, filters=until)],
    }
print(json.dumps({"users": found}))
