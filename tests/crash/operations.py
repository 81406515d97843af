"""What is killed in the crash matrix: operations of a writer on a prepared store, each by its name.

Every one first recovers what a killed one has left, as every job does.
"""

import itertools
import json

import lance  # noqa: F401  (the server that forks has all of it imported)
import pyarrow as pa
from lancedb.index import FTS

from cluster.forget import erase as forgetting
from cluster.forget.rules import Subject
from cluster.store import maintenance
from cluster.store.files import Files
from cluster.store.store import Store
from schemas.store import table_schemas
from tests.e2e.operations.stores import ANN, LYON, MOON, OSLO, TEA, ops_row, read
from tests.unit.cluster.store.stores import DIM, SCHEMAS, commit, memory, rejection, run_row, segment

OP = "op"
"""Id of the run that an operation makes."""

LYON_AGAIN = segment(
    "lyon2",
    "I live in Lyon with my parrot",
    "How nice",
    session="s1-of-ann",
    user=ANN,
    records=["User lives in Lyon with a parrot."],
)


def stage(uri: str, run_id: str, *parts) -> dict:
    """Staged files of these rows: the arguments of a commit."""
    files, inserts, replaces = Files(uri, "staging"), {}, {}
    for (number, part), (name, schema) in itertools.product(enumerate(parts), SCHEMAS.items()):
        if rows := part.get(name):
            path = f"tables/{name}/{run_id}-{number}.parquet"
            files.put_rows(path, rows, pa.schema([field for field in schema if field.name in rows[0]]))
            (replaces if name == "states" else inserts).setdefault(name, []).append(path)
    return {"inserts": inserts, "replaces": replaces}


def three_runs(uri: str) -> None:
    """A store with some history."""
    store = Store(uri, must_exist=False)
    commit(store, "run1", LYON, MOON, rejection("a.parquet:1"), memory(ANN, 1))
    commit(store, "run2", TEA, OSLO)
    commit(store, "run3", segment("moon2", "And the stars", user="bob", session="s2"))
    Files(uri, "staging").delete(Files(uri, "staging").paths())


def reembedded(uri: str) -> dict:
    """Staged rows of a new generation, with vectors of another length."""
    store, files, staged = Store(uri), Files(uri, "staging"), {}
    for name in ("turns", "records"):
        rows = [row | {"vector": [0.6, 0.8], "embedder": "embedder-2"} for row in read(store, name)]
        files.put_rows(path := f"reembed/{name}.parquet", rows, table_schemas(2)[name])
        staged[name] = [path]
    return staged


def prepare(name: str, uri: str) -> None:
    """The store, and what is staged, before an operation."""
    if name == "first":
        stage(uri, OP, LYON, MOON, rejection("a.parquet:1"), memory(ANN, 1))
        return
    three_runs(uri)
    if name == "nightly":
        stage(uri, OP, LYON_AGAIN, rejection("a.parquet:1"), rejection("b.parquet:2"), memory(ANN, 2))
    elif name == "reembed":
        reembedded(uri)
    elif name == "migrate":
        as_version_2(uri)


def as_version_2(uri: str) -> None:
    """The store as the release before heads would have left it."""
    store = Store(uri)
    rows = [run.row for run in store.runs()]
    for table, column in (("turns", "content"), ("records", "semantic_text")):
        changed = store.head(table)
        if table == "records":
            changed.drop_columns(["extra"])
        changed.create_index(column, config=FTS(), replace=True)
        changed.tags.update(rows[-1]["run_id"], changed.version)
        rows[-1]["versions"] = json.dumps(json.loads(rows[-1]["versions"]) | {table: changed.version})
    runs = store.head("runs")
    old = runs.schema.remove(runs.schema.get_field_index("sequence"))
    rows = [{key: value for key, value in row.items() if key != "sequence"} for row in rows]
    runs.to_lance().insert(pa.Table.from_pylist(rows, schema=old), mode="overwrite")
    heads = Files(uri, "heads")
    heads.delete(heads.paths())


def is_done(store: Store) -> bool:
    return any(row["run_id"] == OP for row in store.runs())


def staged_paths(uri: str, folder: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in Files(uri, "staging").paths(folder):
        name = path.split("/")[1].removesuffix(".parquet")
        found.setdefault(name, []).append(path)
    return found


def committed(uri: str, closed=()) -> None:
    store = Store(uri, must_exist=False)
    store.recover(forgetting.OPERATIONS)
    if is_done(store):
        return
    inserts = staged_paths(uri, "tables")
    replaces = {"states": inserts.pop("states", [])}
    store.commit(run_row(OP), DIM, inserts=inserts, replaces=replaces, closed_segments=list(closed))


def maintained(uri: str, work) -> None:
    store = Store(uri)
    store.recover(forgetting.OPERATIONS)
    if not is_done(store):
        work(store)


OPERATIONS = {
    "first": committed,
    "nightly": lambda uri: committed(uri, closed=["lyon"]),
    "rollback": lambda uri: maintained(
        uri, lambda store: maintenance.rollback(store, ops_row(OP, "rollback"), "run1")
    ),
    "forget": lambda uri: maintained(
        uri, lambda store: forgetting.forget(store, ops_row(OP, "forget"), Subject(ANN, "s1-of-ann"))
    ),
    "reembed": lambda uri: maintained(
        uri,
        lambda store: maintenance.reembed(store, ops_row(OP, "reembed"), 2, staged_paths(uri, "reembed")),
    ),
    "compact": lambda uri: maintained(
        uri, lambda store: maintenance.compact(store, ops_row(OP, "compact"), 2)
    ),
    "migrate": lambda uri: maintained(uri, lambda store: None),
}
