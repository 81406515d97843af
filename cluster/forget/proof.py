"""The search that follows a forgetting: every row of every version, deleted ones included, and every byte.

Columns may be compressed, so that their text does not stand in the bytes of their file: rows are read through
Lance, and every data file must belong to a version that was read. Bytes are searched for a sample of the
erased texts and ids. What another user's row says too is no trace.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.forget import leftovers
from cluster.forget.rules import Subject
from cluster.forget.words import Vocabulary, words
from cluster.store.files import Files, everything
from cluster.store.sql import quote
from cluster.store.writer import Writer
from schemas.record import extra_of
from schemas.store import TABLE_KEYS

MAX_NEEDLES = 100
"""Texts whose bytes are searched for, evenly sampled; as rows, all texts are."""

NEEDLE_CHARS = 40
MIN_NEEDLE_BYTES = 8
"""Shorter ones stand in any large file by chance."""


@dataclass(frozen=True)
class Traces:
    """What must be found nowhere."""

    subject: Subject
    texts: frozenset[str]
    """Every erased text."""
    ids: tuple[str, ...]
    """Ids of erased rows, and of the user or session."""
    touched: frozenset[tuple[str, int]] = frozenset()
    """Keys of memories that stay with something taken out of them."""

    @classmethod
    def of(cls, subject: Subject, found: dict) -> "Traces":
        """Out of what the forgetting has noted."""
        touched = frozenset((record_id, revision) for record_id, revision in found["touched"])
        return cls(subject, frozenset(found["texts"]), tuple(found["ids"]), touched)

    def needles(self) -> list[str]:
        """Strings to search bytes for."""
        texts, ids = (
            [text for text in sorted(items) if _is_needle(text)] for items in (self.texts, self.ids)
        )
        chosen = [text[:NEEDLE_CHARS] for text in _sample(texts)] + _sample(ids)
        own = [self.subject.id] if _is_needle(self.subject.id) else []
        return list(dict.fromkeys([*chosen, *own]))


def search(
    store: Writer, traces: Traces, skip: tuple[str, ...] = (), known: Mapping[str, str] | None = None
) -> dict:
    """Search all of a store, but for files whose path begins with one of `skip`. Returns counts and `found`.

    `found` names tables and files, never texts; nothing is left when it is empty, but for what `not_searched`
    says could not be looked at. `traces` are the files that hold some, with their sha256; those of an earlier
    search are `known`, and count as long as they are unchanged.
    """
    known = known or {}
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
    elsewhere |= _of_others(store, needles, traces.subject)
    # What rows hold was judged above, row by row; bytes cannot tell whose they are.
    needles = [item for item in needles if item not in elsewhere]
    result |= {"num_needles": len(needles), "num_needles_elsewhere": len(elsewhere)}
    found += _words_left(store, traces)
    beyond, in_files = leftovers.look(store.uri), {}
    found += beyond.left
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
        digest = hashlib.sha256(data).hexdigest() if path in known else ""
        if known.get(path) == digest != "" or _stand_in(needles, data) or _stand_in_rows(needles, path, data):
            found.append(f"{path}: erased text or ids")
            in_files[path] = hashlib.sha256(data).hexdigest()
        elif any(needle in path for needle in needles):
            found.append("a file whose name has an erased id")
    return result | {
        "found": sorted(set(found)),
        "is_clean": not found,
        "not_searched": beyond.not_searched,
        "traces": in_files,
    }


def _is_needle(text: str) -> bool:
    return len(text.encode("utf-8", "replace")) >= MIN_NEEDLE_BYTES


def _words_left(store: Writer, traces: Traces) -> Iterator[str]:
    """Views in which a memory that stays uses a word that only erased texts account for."""
    if not traces.touched:
        return
    erased = Vocabulary(word for text in traces.texts for word in words(text))
    mine = f"user_id = {quote(traces.subject.user_id)}"
    for run in store.openable():
        said = store.rows("turns", ["content"], mine, run["run_id"]).column("content").to_pylist()
        columns = ["record_id", "revision", "semantic_text", "extra"]
        records = store.rows("records", columns, mine, run["run_id"]).to_pylist()
        touched = [row for row in records if (row["record_id"], row["revision"]) in traces.touched]
        said += [row["semantic_text"] for row in records if row not in touched]
        accounted = Vocabulary(word for text in said for word in words(text))
        told = [[row["semantic_text"], *extra_of(row["extra"]).values()] for row in touched]
        own = {word for texts in told for text in texts for word in words(text)}
        if any(word in erased and word not in accounted for word in own):
            yield f"rows of records, as of run {run['run_id']}"


def _of_others(store: Writer, needles: list[str], subject: Subject) -> set[str]:
    """Needles that stand in other users' rows of files: ids may be parts of longer ones, or be the same."""
    held = set()
    for files in (Files(store.uri, "staging"), Files(store.uri, "runs")):
        for path in files.paths():
            table = readable(files, path)
            if table is not None and "user_id" in table.column_names:
                users = table.column("user_id").to_pylist()
                others = pa.array([user not in (subject.user_id, None) for user in users], pa.bool_())
                held |= _held(table.filter(others), needles)
    return held


def readable(files: Files, path: str) -> pa.Table | None:
    """A Parquet file; None if it is another or a damaged file, which must not stop an erasure."""
    if not path.endswith(".parquet"):
        return None
    try:
        return files.get_table(path)
    except (OSError, pa.ArrowException):
        return None


def _stand_in_rows(needles: list[str], path: str, data: bytes) -> bool:
    """Whether one stands in a Parquet file, whose columns are compressed."""
    if not path.endswith(".parquet"):
        return False
    try:
        return bool(_held(pq.read_table(pa.BufferReader(data)), needles))
    except (OSError, pa.ArrowException):
        return False


def _sample(items: list[str]) -> list[str]:
    return items[:: max(1, -(-len(items) // MAX_NEEDLES))]


def _batches(dataset: Any, fragment: Any) -> Iterator[pa.RecordBatch]:
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


def _strings(column: pa.Array | pa.ChunkedArray) -> Iterator[pa.Array]:
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
    elif pa.types.is_map(kind):
        for child in (column.keys, column.items):
            yield from _strings(child)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _strings(column.flatten())


def _stand_in(needles: list[str], data: bytes) -> bool:
    """Whether one of them stands in these bytes, as it is, or as JSON or Python writes it."""
    if not needles:
        return False
    forms = dict.fromkeys(
        form
        for needle in needles
        for form in (
            needle,
            *(
                written[1:-1]
                for written in (json.dumps(needle), json.dumps(needle, ensure_ascii=False), repr(needle))
            ),
        )
    )
    # One pass for all of them, where a search for each takes a hundred.
    found = pc.match_substring_regex(pa.array([data], pa.large_binary()), "|".join(map(re.escape, forms)))
    return found[0].as_py()
