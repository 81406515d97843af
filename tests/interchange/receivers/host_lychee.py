"""LycheeMem as a host: its store keeps sessions, and its server searches the memories that were made of them.

    host_lychee.py keep FOLDER      what FOLDER/said.json tells, as FOLDER/sessions.db
    host_lychee.py search FOLDER    asks its server what FOLDER/questions.json asks

The server is configured as everywhere, by the environment. It needs an endpoint for its models.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path


def keep(folder: Path) -> dict:
    from src.memory.working.sqlite_session_store import SQLiteSessionStore

    store = SQLiteSessionStore(str(folder / "sessions.db"))
    for session in json.loads((folder / "said.json").read_text("utf-8")):
        for turn in session["turns"]:
            store.append_turn(session["session_id"], turn["role"], turn["content"])
        # It knows no time but now.
        connection = store._get_conn()
        when = (session["said_at"], session["session_id"])
        connection.execute("UPDATE turns SET created_at = ? WHERE session_id = ?", when)
        connection.commit()
    found = store.list_sessions()
    store.close()
    return {"sessions": {session["session_id"]: session["turn_count"] for session in found}}


def search(folder: Path) -> dict:
    # Its counter of tokens fetches a table, which one of its packages has too.
    tables = Path(importlib.util.find_spec("litellm").origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ |= {"TIKTOKEN_CACHE_DIR": str(tables), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    os.chdir(folder)  # where it keeps what has no setting here: skills and pictures
    from fastapi.testclient import TestClient
    from src.api.server import create_app
    from src.core.config import settings
    from src.core.factory import create_pipeline
    from src.embedder.litellm_embedder import LiteLLMEmbedder
    from src.llm.litellm_llm import LiteLLMLLM

    there = {"api_key": settings.llm_api_key, "api_base": settings.llm_api_base}
    llm = LiteLLMLLM(settings.llm_model, **there)
    embedder = LiteLLMEmbedder(settings.embedding_model, **there)
    client = TestClient(create_app(create_pipeline(llm, embedder, settings=settings)))

    def ask(method: str, path: str, **more) -> dict:
        answer = client.request(method, path, **more)
        answer.raise_for_status()
        return answer.json()

    found = {}
    for question in json.loads((folder / "questions.json").read_text("utf-8")):
        asked = {"query": question, "top_k": 3}
        results = ask("POST", "/memory/search", json=asked)["semantic_results"]
        found[question] = [
            {"kind": hit["source"], "text": hit["semantic_text"], "said": hit["episodic_context"]}
            for result in results
            for hit in result["provenance"]
        ]
    graph = ask("GET", "/memory/graph")
    episodes = {node["id"]: node["properties"] for node in graph["nodes"] if node["node_kind"] == "episode"}
    store = client.app.state.pipeline.wm_manager.session_store
    after = {}
    for session in ask("GET", "/sessions")["sessions"]:
        store.set_last_consolidated_turn_index(session["session_id"], session["turn_count"])
        wanted = {"session_id": session["session_id"], "background": False}
        after[session["session_id"]] = ask("POST", "/memory/consolidate", json=wanted)["skipped_reason"]
    return {
        "health": ask("GET", "/health")["status"],
        "records": [
            {
                "text": node["properties"]["semantic_text"],
                "said": [
                    episodes[edge["target"]]["content"]
                    for edge in graph["edges"]
                    if edge["source"] == node["id"] and edge["relation"] == "grounded_in_turn"
                ],
            }
            for node in graph["nodes"]
            if node["node_kind"] == "record"
        ],
        "found": found,
        "consolidated": after,
    }


if __name__ == "__main__":
    command, folder = sys.argv[1:]
    print(json.dumps({"keep": keep, "search": search}[command](Path(folder).absolute())))
