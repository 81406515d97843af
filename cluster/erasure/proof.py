"""The search that follows a forgetting: every row of every version, deleted ones included, and every byte.

Columns may be compressed, so that their text does not stand in the bytes of their file: rows are read through
Lance, and every data file must belong to a version that was read. Bytes are searched for a sample of the
erased texts and ids. What another user's row says too is no trace.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.erasure.rules import Subject
from cluster.files import everything
from cluster.store import Store
from schemas.store import TABLE_KEYS

MAX_NEEDLES = 100
"""Texts whose bytes are searched for, evenly sampled; as rows, all texts are."""

NEEDLE_CHARS = 40
MIN_NEEDLE_CHARS = 8
"""Shorter ones stand in any large file by chance."""


@dataclass(frozen=True)
class Traces:
    """What must be found nowhere."""

    subject: Subject
    texts: frozenset[str]
    """Every erased text."""
    ids: tuple[str, ...]
    """Ids of erased rows, and of the user or session."""

    def needles(self) -> list[str]:
        """Strings to search bytes for."""
        texts, ids = (
            [text for text in sorted(items) if len(text) >= MIN_NEEDLE_CHARS]
            for items in (self.texts, self.ids)
        )
        chosen = [text[:NEEDLE_CHARS] for text in _sample(texts)] + _sample(ids)
        own = [self.subject.id] if len(self.subject.id) >= MIN_NEEDLE_CHARS else []
        return list(dict.fromkeys([*chosen, *own]))


def search(store: Store, traces: Traces, skip: tuple[str, ...] = ()) -> dict:
    """Search all of a store, but for files whose path begins with one of `skip`. Returns counts and `found`.

    `found` names tables and files, never texts; nothing is left when it is empty.
    """
    result = {
        "num_versions": 0,
        "num_rows": 0,
        "num_files": 0,
        "num_bytes": 0,
        "num_texts": len(traces.texts),
    }
    found: list[str] = []
    needles, elsewhere, known_files = traces.needles(), set(), set()
    for name in (*TABLE_KEYS, "runs"):
        seen: set[tuple] = set()
        table = store.head(name)
        for version in sorted(item["version"] for item in table.list_versions()):
            table.checkout(version)
            dataset = table.to_lance()
            result["num_versions"] += 1
            known_files |= {f"{name}.lance/_indices/{item['uuid']}" for item in dataset.list_indices()}
            for fragment in dataset.get_fragments():
                files = tuple(file.path for file in fragment.data_files())
                known_files |= {f"{name}.lance/data/{path}" for path in files}
                if files in seen:
                    continue
                seen.add(files)
                for batch in _batches(dataset, fragment):
                    result["num_rows"] += batch.num_rows
                    if _is_trace(name, batch, traces):
                        found.append(f"rows of {name}, version {version}")
                    held = _held(batch, [item for item in needles if item not in elsewhere])
                    if name == "runs" and held:
                        found.append(f"rows of runs, version {version}")
                    elsewhere |= held
    # What rows hold was judged above, row by row; bytes cannot tell whose they are.
    needles = [item for item in needles if item not in elsewhere]
    result |= {"num_needles": len(needles), "num_needles_elsewhere": len(elsewhere)}
    for path, data in everything(store.uri):
        if path.startswith(skip):
            continue
        result["num_files"] += 1
        result["num_bytes"] += len(data)
        part = "/".join(path.split("/")[:3])
        if "/data/" in path and path not in known_files:
            found.append(f"{path}: a data file that no version has")
        if "/_indices/" in path and part not in known_files:
            found.append(f"{path}: an index that no version has")
        if _stand_in(needles, data) or (
            path.endswith(".parquet") and _held(pq.read_table(pa.BufferReader(data)), needles)
        ):
            found.append(f"{path}: erased text or ids")
    return result | {"found": sorted(set(found)), "is_clean": not found}


def _sample(items: list[str]) -> list[str]:
    return items[:: max(1, -(-len(items) // MAX_NEEDLES))]


def _batches(dataset, fragment) -> Iterator[pa.RecordBatch]:
    columns = [name for name in dataset.schema.names if name not in ("vector", "latents")]
    # Rows that are only marked as deleted come with a null row id.
    scanner = dataset.scanner(
        columns=columns, fragments=[fragment], include_deleted_rows=True, with_row_id=True
    )
    return scanner.to_batches()


def _is_trace(name: str, batch: pa.RecordBatch, traces: Traces) -> bool:
    """Whether a batch has a row of what was erased."""
    subject = traces.subject
    if "user_id" not in batch.schema.names:
        return False
    own = pc.equal(batch.column("user_id"), subject.user_id)
    rows = batch.filter(pc.fill_null(own, False))
    # A latent memory may have read what was erased, whatever it was.
    if subject.kind == "user" or name == "states" or not rows.num_rows:
        return rows.num_rows > 0
    key = TABLE_KEYS[name][0]
    if pc.any(pc.is_in(rows.column(key), pa.array(traces.ids))).as_py():
        return True
    if "evidence" in rows.schema.names:
        places = [
            (item["session_id"], item["turn_index"])
            for row in rows.column("evidence").to_pylist()
            for item in row
        ]
        if any(subject.has_turn(*place) for place in places):
            return True
    return subject.kind == "session" and (
        "session_id" in rows.schema.names
        and pc.any(pc.equal(rows.column("session_id"), subject.session_id)).as_py() is True
    )


def _held(table: pa.Table | pa.RecordBatch, needles: list[str]) -> set[str]:
    """Needles that stand in a string of the table, nested ones included."""
    if not needles:
        return set()
    held, any_of_them = set(), "|".join(map(re.escape, needles))
    for column in table.columns:
        for strings in _strings(column):
            # One pass for all needles; which ones it was is asked of the few strings that hold any.
            hits = strings.filter(pc.fill_null(pc.match_substring_regex(strings, any_of_them), False))
            held |= {needle for needle in needles for text in hits.to_pylist() if needle in text}
    return held


def _strings(column) -> Iterator[pa.Array]:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            for chunk in column.chunks:
                yield from _strings(chunk)
            return
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield column
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _strings(child)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _strings(column.flatten())


def _stand_in(needles: list[str], data: bytes) -> bool:
    """Whether one of them stands in these bytes, as it is or as JSON writes it."""
    if not needles:
        return False
    forms = dict.fromkeys([*needles, *(json.dumps(needle)[1:-1] for needle in needles)])
    # One pass for all of them, where a search for each takes a hundred.
    found = pc.match_substring_regex(pa.array([data], pa.large_binary()), "|".join(map(re.escape, forms)))
    return found[0].as_py()
