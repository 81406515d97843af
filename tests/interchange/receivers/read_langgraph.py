"""LangGraph and LangMem: SqliteStore opens the database; LangMem's manager and search tool read it."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from langchain_core.language_models import FakeListChatModel
from langgraph.store.sqlite import SqliteStore
from langmem import create_memory_store_manager, create_search_memory_tool

path = Path(sys.argv[1]) / "store.db"
with SqliteStore.from_conn_string(str(path)) as store:
    store.setup()
    namespaces = store.list_namespaces(prefix=("memories",))
    items = [item.dict() for namespace in namespaces for item in store.search(namespace, limit=100)]
    model = FakeListChatModel(responses=[""])
    manager = create_memory_store_manager(model, store=store)
    managed, tool = {}, {}
    for _, user in namespaces:
        config = {"configurable": {"langgraph_user_id": user}}
        managed[user] = [item.value.content for item in manager.search(config=config, limit=100)]
        search = create_search_memory_tool(("memories", "{langgraph_user_id}"), store=store)
        tool[user] = json.loads(search.invoke({"query": "", "limit": 100}, config=config))
    first = items[0]
    store.put(tuple(first["namespace"]), first["key"], first["value"] | {"kind": "Memory"})
    kept = store.get(tuple(first["namespace"]), first["key"]).value == first["value"]
versions = {name: version(name) for name in ("langgraph-checkpoint-sqlite", "langmem")}
print(
    json.dumps(
        {"version": versions, "items": items, "managed": managed, "tool": tool, "kept": kept}, default=str
    )
)
